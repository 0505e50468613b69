//! One second of a run as a row of numbers, for the JSON, the CSV and the charts alike.

use serde::{Deserialize, Serialize};

use crate::observer::{Observed, Second, Series};
use crate::report::Verdict;
use crate::scenario::Load;

/// A row for each second and each group; of a load without subscribers, one for its
/// acknowledgements. Latencies count nanoseconds from the intended send; a percentile is there
/// only where ten samples lie beyond it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IntervalRow {
    /// Of which run, from 1.
    pub(crate) run: usize,
    /// The group, or `acknowledged`.
    pub(crate) series: String,
    /// When the second began, milliseconds since 1970.
    pub(crate) start_unix_ms: u64,
    /// How long it was.
    pub(crate) seconds: f64,
    /// Events sent, for all groups together.
    pub(crate) events: u64,
    /// Deliveries, or acknowledgements.
    pub(crate) samples: u64,
    /// Their median latency.
    pub(crate) p50_ns: Option<u64>,
    /// Its 99th percentile.
    pub(crate) p99_ns: Option<u64>,
    /// The longest.
    pub(crate) max_ns: Option<u64>,
    /// The 99th percentile from the actual send.
    pub(crate) service_p99_ns: Option<u64>,
    /// How late events were sent.
    pub(crate) slip_p99_ns: Option<u64>,
    /// How late the latest was.
    pub(crate) slip_max_ns: u64,
    /// CPU time of the server over wall time; 1 is one core.
    pub(crate) server_cpu_share: Option<f64>,
    /// Its resident memory.
    pub(crate) server_rss_bytes: Option<u64>,
}

impl IntervalRow {
    /// Tells no latency: it would say nothing about the server.
    pub(crate) fn withhold(&mut self) {
        self.p50_ns = None;
        self.p99_ns = None;
        self.max_ns = None;
        self.service_p99_ns = None;
    }

    fn new(second: &Second, start_unix_ms: u64, name: &str, series: &Series) -> Self {
        let latency = series.latency;
        Self {
            run: 1,
            series: name.to_owned(),
            start_unix_ms: start_unix_ms + second.start_ns / 1_000_000,
            seconds: second.length_ns as f64 / 1e9,
            events: second.slip.samples,
            samples: latency.samples,
            p50_ns: latency.p50,
            p99_ns: latency.p99,
            max_ns: (latency.samples > 0).then_some(latency.max),
            service_p99_ns: series.service.p99,
            slip_p99_ns: second.slip.p99,
            slip_max_ns: second.slip.max,
            server_cpu_share: second.server.and_then(|spent| spent.cpu_share),
            server_rss_bytes: second.server.map(|spent| spent.rss_bytes),
        }
    }
}

/// What a second of `load` is told by: its groups that have subscribers, or else the
/// acknowledgements.
pub(crate) fn series<'a>(load: &'a Load, second: &'a Second) -> Vec<(&'a str, &'a Series)> {
    let groups = load.groups.iter().zip(&second.groups);
    let subscribed = groups.filter(|(group, _)| group.connections() > 0);
    let named: Vec<_> = subscribed
        .map(|(group, series)| (group.name, series))
        .collect();
    if named.is_empty() {
        vec![("acknowledged", &second.acknowledged)]
    } else {
        named
    }
}

/// All rows of one run of `load`, in order of time.
pub(crate) fn interval_rows(
    load: &Load,
    observed: &Observed,
    verdict: Verdict,
) -> Vec<IntervalRow> {
    let start_unix_ms = observed.start_unix_ms;
    let of_second = |second: &Second| -> Vec<IntervalRow> {
        let series = series(load, second).into_iter();
        series
            .map(|(name, series)| IntervalRow::new(second, start_unix_ms, name, series))
            .collect()
    };
    let mut rows: Vec<_> = observed.seconds.iter().flat_map(of_second).collect();
    if verdict != Verdict::Clean {
        rows.iter_mut().for_each(IntervalRow::withhold);
    }
    rows
}
