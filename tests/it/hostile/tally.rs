//! What an operator sees of an attack: by how much counters have grown since it began.

use crate::harness::{Server, eventually, sample};

/// The counters of a server at one moment.
pub struct Tally<'s> {
    server: &'s Server,
    before: String,
}

impl<'s> Tally<'s> {
    /// At this moment.
    pub fn of(server: &'s Server) -> Self {
        let before = server.page("/metrics");
        Self { server, before }
    }

    /// By how much a sample has grown by now; its name without the prefix of all.
    pub fn growth(&self, name: &str) -> u64 {
        let name = format!("sightline_{name}");
        let now = self.server.page("/metrics");
        (sample(&now, &name) - sample(&self.before, &name)) as u64
    }

    /// A sample has grown by exactly so much, or does so soon.
    pub fn assert_grew(&self, name: &str, by: u64) {
        let mut growth = 0;
        eventually(&format!("{name} has grown by {by}"), || {
            growth = self.growth(name);
            (growth >= by).then_some(())
        });
        assert_eq!(growth, by, "{name}");
    }
}

/// Requests and upgrades refused with this code.
pub fn refusals(code: &str) -> String {
    format!("refusals_total{{code=\"{code}\"}}")
}

/// Connections ended for this reason.
pub fn closes(reason: &str) -> String {
    format!("closes_total{{reason=\"{reason}\"}}")
}

/// Events refused with this code.
pub fn events_refused(code: &str) -> String {
    format!("events_refused_total{{code=\"{code}\"}}")
}

/// Messages of viewers answered with this error.
pub fn viewer_errors(code: &str) -> String {
    format!("viewer_errors_total{{code=\"{code}\"}}")
}

/// HTTP connections whose time ran out while this was waited for.
pub fn timeouts(awaited: &str) -> String {
    format!("http_timeouts_total{{awaited=\"{awaited}\"}}")
}
