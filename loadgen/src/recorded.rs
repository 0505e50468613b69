//! A `summary.json` as it is read again: what pages and comparisons are made of.

use std::collections::BTreeMap;
use std::path::Path;

use latency_report::Encoded;
use serde::Deserialize;
use serde_json::Value;

use crate::cpus::Placement;
use crate::environment::Environment;
use crate::interval_row::IntervalRow;
use crate::report::Verdict;
use crate::summary::{Objective, SCHEMA, Spread};

/// One command's results.
#[derive(Debug, Deserialize)]
pub(crate) struct Recorded {
    pub(crate) command: String,
    pub(crate) scenario: String,
    pub(crate) target: String,
    pub(crate) verdict: Verdict,
    pub(crate) environment: Environment,
    pub(crate) placement: Option<Placement>,
    /// What was asked of the server; whoever compares compares all of it.
    pub(crate) load: Value,
    pub(crate) runs: Vec<Run>,
    pub(crate) spread: BTreeMap<String, Spread>,
    #[serde(default)]
    pub(crate) objectives: Vec<Objective>,
}

/// One measured phase.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) verdict: Verdict,
    pub(crate) reasons: Vec<String>,
    pub(crate) groups: Vec<Group>,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) intervals: Vec<IntervalRow>,
    pub(crate) generator_busy: f64,
}

/// The deliveries of one group.
#[derive(Debug, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) foreign: u64,
    pub(crate) malformed: u64,
    pub(crate) histogram: Option<Encoded>,
}

/// The acknowledgements of all publishers.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledgements {
    pub(crate) histogram: Option<Encoded>,
}

/// Why a file is no summary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordedError {
    /// It is no JSON, or lacks something.
    #[error("no summary of loadgen: {0}")]
    Json(#[from] serde_json::Error),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// An earlier or a later version wrote it, or another command.
    #[error("its schema is `{0}`, and only `{SCHEMA}` is understood")]
    Schema(String),
}

impl Recorded {
    /// Reads the file `path`, or the `summary.json` in the folder `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, RecordedError> {
        let path = if path.is_dir() {
            path.join("summary.json")
        } else {
            path.to_owned()
        };
        Self::parse(&std::fs::read(path)?)
    }

    /// Reads the text of a `summary.json`.
    /// Errors: `Json`, `Schema`.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, RecordedError> {
        #[derive(Deserialize)]
        struct Named {
            schema: String,
        }
        let Named { schema } = serde_json::from_slice(text)?;
        if schema != SCHEMA {
            return Err(RecordedError::Schema(schema));
        }
        Ok(serde_json::from_slice(text)?)
    }
}
