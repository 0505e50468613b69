//! What operators ask: metrics, statistics, health. Renders numbers; it knows neither sockets nor the system, whose figures come in as a [`Process`].

pub mod health;
pub mod metrics;
pub mod pages;
pub mod stats;

use serde::Serialize;

/// What to answer to one HTTP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Answer {
    fn json(status: u16, value: &impl Serialize) -> Self {
        let body =
            serde_json::to_string(value).expect("our types have text keys and finite numbers");
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }

    fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.to_owned(),
        }
    }
}

/// What the system says of this process; None where it does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Of this program, for instance `0.1.0`.
    pub version: &'static str,
    /// Milliseconds since the Unix epoch at which it started.
    pub started_ms: i64,
    /// Milliseconds since the Unix epoch now.
    pub now_ms: i64,
    /// Bytes of memory in RAM.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub descriptors_open: Option<u64>,
    /// Descriptors that it may open.
    pub descriptors_max: Option<u64>,
    /// Milliseconds of CPU time used, in user and system mode.
    pub cpu_ms: Option<u64>,
}
