//! What a viewer receives, in either dialect: events (they have a seq) and the server's messages.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::position::OWN;

/// Any message of the server's.
#[derive(Deserialize)]
pub(crate) struct Envelope<'a> {
    /// `event_type` in keen, `type` in observatory.
    #[serde(alias = "event_type", rename = "type")]
    pub(crate) name: String,
    /// Only events have one.
    pub(crate) seq: Option<u64>,
    pub(crate) stream: Option<String>,
    pub(crate) session_id: Option<String>,
    /// ISO 8601 text in keen, milliseconds in observatory.
    #[serde(default)]
    pub(crate) timestamp: Value,
    /// Set on events that a `replay` request brought again.
    #[serde(default)]
    pub(crate) replay: bool,
    #[serde(borrow)]
    pub(crate) data: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// `None` where the text is not such a message.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The stream of an event.
    pub(crate) fn stream(&self) -> &str {
        self.stream.as_deref().unwrap_or(OWN)
    }

    /// The fields of `data` that a viewer acts on; absent ones are empty.
    pub(crate) fn notice(&self) -> Notice {
        self.data
            .and_then(|data| serde_json::from_str(data.get()).ok())
            .unwrap_or_default()
    }
}

/// `data` of the server's own messages: each has some of these.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Notice {
    pub(crate) at: BTreeMap<String, u64>,
    pub(crate) code: Option<String>,
    /// Of an `error`: `retryAfter` in milliseconds, for one.
    pub(crate) details: Value,
    pub(crate) epoch: Option<String>,
    pub(crate) id: Option<Value>,
    pub(crate) message: Option<String>,
    pub(crate) reconnect_after: Option<u64>,
    pub(crate) resume: Vec<Row>,
    pub(crate) seq: Option<u64>,
    pub(crate) stream: Option<String>,
    pub(crate) streams: BTreeMap<String, u64>,
    /// Resume rows of streams that a fresh token brought.
    pub(crate) added: Vec<Row>,
}

/// What became of one stream's cursor.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) stream: String,
    pub(crate) outcome: String,
    pub(crate) to: Option<u64>,
    pub(crate) missing: Option<Range>,
    pub(crate) lost: Option<Range>,
}

/// Seqs, both ends included.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}
