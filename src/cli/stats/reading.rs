//! What `/v1/stats` says, as far as people are shown it. What is not there counts as nothing, so
//! that a gateway of another version can be looked at.

use std::collections::BTreeMap;

use latency_report::Encoded;
use serde::Deserialize;

use super::super::client::{ClientError, printable};

/// The page.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Reading {
    pub(crate) version: String,
    pub(crate) uptime_ms: u64,
    pub(crate) total: Numbers,
    pub(crate) cores: Vec<Core>,
    /// The node's, by stage.
    pub(crate) stages_us: BTreeMap<String, Percentiles>,
}

/// One core's part of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Core {
    #[serde(flatten)]
    pub(crate) numbers: Numbers,
    pub(crate) stages_us: BTreeMap<String, Percentiles>,
    /// Whole, by stage; empty where they were not asked for.
    pub(crate) histograms: BTreeMap<String, Encoded>,
}

/// What is counted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Numbers {
    pub(crate) connections: Connections,
    pub(crate) events: Events,
    pub(crate) deliveries: Deliveries,
    pub(crate) outbox_bytes: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Connections {
    pub(crate) open: u64,
    pub(crate) viewers: u64,
    pub(crate) publishers: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Events {
    pub(crate) received: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deliveries {
    pub(crate) written: u64,
}

/// A stage's distribution, in microseconds; only the count where there is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p99_9: f64,
    #[serde(rename = "p99.99")]
    pub(crate) p99_99: f64,
    pub(crate) max: f64,
}

impl Reading {
    /// Reads the page. Errors: `Refused`, of what is no such page.
    pub(crate) fn parse(page: &str) -> Result<Self, ClientError> {
        serde_json::from_str(page).map_err(|error| ClientError::Refused {
            what: printable(&format!("the gateway's page cannot be read: {error}")).into_owned(),
            advice: "check that --url is the address of a gateway",
        })
    }
}
