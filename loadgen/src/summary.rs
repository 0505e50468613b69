//! All runs of one command: how they spread, and the JSON that holds them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use latency_report::percentiles::SHOWN;
use latency_report::{latency_histogram, percentiles};
use serde::Serialize;

use crate::cpus::Placement;
use crate::driver::Connected;
use crate::proc::kernel_release;
use crate::report::{ACKNOWLEDGEMENT_METRIC, CPU_EVENT_METRIC, CPU_METRIC, RunReport, Verdict};
use crate::scenario::Load;
use crate::soak::Growth;
use crate::tls::TlsHandshakes;

/// The middle and the ends of one number over repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// The spread of `values`; `None` where there is none.
    pub(crate) fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self {
            median: f64::midpoint(low, high),
            min,
            max,
        })
    }

    /// The median with its ends, in `unit`s.
    pub(crate) fn text(&self, unit: f64) -> String {
        let Self { median, min, max } = self;
        format!("{:.3} ({:.3}–{:.3})", median / unit, min / unit, max / unit)
    }
}

/// All runs of one command.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    schema: &'static str,
    /// What was run, to run it again.
    pub(crate) command: String,
    /// The name of its command.
    pub(crate) scenario: &'static str,
    /// The kind of server.
    pub(crate) target: &'static str,
    /// The kernel's release.
    pub(crate) kernel: Option<String>,
    /// Who ran where, where the server is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
    /// How the server's memory grew, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) growth: Option<Growth>,
    warmup_seconds: f64,
    duration_seconds: f64,
    handshakes: HandshakeReport,
    runs: Vec<RunReport>,
    /// Over the runs, for the numbers that all of them have.
    spread: BTreeMap<String, Spread>,
}

impl Summary {
    /// Sums up `runs` of `load`.
    pub(crate) fn new(
        command: String,
        scenario: &'static str,
        target: &'static str,
        load: &Load,
        connected: &Connected,
        runs: Vec<RunReport>,
    ) -> Self {
        Self {
            schema: "loadgen/load/1",
            command,
            scenario,
            target,
            kernel: kernel_release(),
            placement: None,
            growth: None,
            warmup_seconds: load.warmup.as_secs_f64(),
            duration_seconds: load.duration.as_secs_f64(),
            handshakes: HandshakeReport::new(connected),
            spread: spread(&runs),
            runs,
        }
    }

    /// The worst of the runs.
    pub(crate) fn verdict(&self) -> Verdict {
        self.runs
            .iter()
            .map(|run| run.verdict)
            .max()
            .unwrap_or(Verdict::Clean)
    }

    /// The server's memory at the end of each run; nothing where it was not watched.
    pub(crate) fn rss_bytes(&self) -> Vec<u64> {
        self.runs.iter().filter_map(RunReport::rss_bytes).collect()
    }

    /// The middle and the ends over the repeats; nothing where there was one run.
    pub(crate) fn spread_lines(&self) -> Vec<String> {
        if self.runs.len() < 2 {
            return Vec::new();
        }
        let mut lines = vec![format!("{} runs, median (min–max):", self.runs.len())];
        let groups = &self.runs[0].groups;
        let delivered = groups
            .iter()
            .map(|group| (group.name, format!("{}.latency_ns", group.name)));
        let acknowledged = groups
            .is_empty()
            .then(|| ("acknowledged", ACKNOWLEDGEMENT_METRIC.to_owned()));
        for (label, metric) in delivered.chain(acknowledged) {
            let mut line = format!("  {label}");
            for (name, _) in SHOWN {
                if let Some(spread) = self.spread.get(&format!("{metric}.{name}")) {
                    let _ = write!(line, "  {name} {}", spread.text(1e6));
                }
            }
            if line.contains("max") {
                lines.push(line + " ms");
            }
        }
        if let Some(cpu_ns) = self.spread.get(CPU_METRIC) {
            lines.push(format!("  server {} µs CPU/delivery", cpu_ns.text(1e3)));
        } else if let Some(cpu_ns) = self.spread.get(CPU_EVENT_METRIC) {
            lines.push(format!("  server {} µs CPU/event", cpu_ns.text(1e3)));
        }
        lines
    }

    /// The latencies of all runs together, by group; of a load without subscribers, those of the
    /// acknowledgements.
    pub(crate) fn merged_latencies(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let Some(first) = self.runs.first() else {
            return Vec::new();
        };
        if first.groups.is_empty() {
            let all = self.runs.iter().map(|run| &run.acknowledgements.histogram);
            return vec![("acknowledged", merged(all))];
        }
        let of_group = |index: usize| {
            self.runs
                .iter()
                .map(move |run| &run.groups[index].histogram)
        };
        let groups = first.groups.iter().enumerate();
        groups
            .map(|(index, group)| (group.name, merged(of_group(index))))
            .collect()
    }
}

/// How fast connections were opened.
#[derive(Debug, Serialize)]
pub(crate) struct HandshakeReport {
    /// All connections, publishers included.
    pub(crate) connections: u64,
    /// From the first dial to the last open connection.
    pub(crate) per_second: f64,
    /// Of each, from its dial to its being open.
    pub(crate) handshake_ns: BTreeMap<&'static str, u64>,
    /// How many of them were TLS.
    pub(crate) tls: TlsHandshakes,
}

impl HandshakeReport {
    /// Sums up `connected`.
    pub(crate) fn new(connected: &Connected) -> Self {
        let connections = connected.handshake_ns.len();
        Self {
            connections,
            per_second: connections as f64 / connected.seconds,
            handshake_ns: percentiles(&connected.handshake_ns),
            tls: connected.tls_handshakes,
        }
    }
}

/// All of `histograms` in one.
pub(crate) fn merged<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut merged = latency_histogram();
    for histogram in histograms {
        merged += histogram;
    }
    merged
}

fn spread(runs: &[RunReport]) -> BTreeMap<String, Spread> {
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.iter().flat_map(RunReport::metrics) {
        values.entry(name).or_default().push(value);
    }
    values.retain(|_, values| values.len() == runs.len());
    values
        .into_iter()
        .filter_map(|(name, values)| Some((name, Spread::new(values)?)))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::phase::PhaseOutcome;
    use crate::report::tests::{histogram, load, outcome};

    #[test]
    fn spread_is_the_middle_and_the_ends() {
        let spread = |values: &[f64]| Spread::new(values.to_vec());
        assert_eq!(spread(&[]), None);
        assert_eq!(
            spread(&[2.0]),
            Some(Spread {
                median: 2.0,
                min: 2.0,
                max: 2.0
            })
        );
        assert_eq!(
            spread(&[3.0, 1.0, 9.0]),
            Some(Spread {
                median: 3.0,
                min: 1.0,
                max: 9.0
            })
        );
        assert_eq!(
            spread(&[4.0, 1.0]),
            Some(Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            })
        );
    }

    pub(crate) fn connected() -> Connected {
        Connected {
            seconds: 0.5,
            handshake_ns: histogram(2000),
            tls_handshakes: TlsHandshakes::default(),
        }
    }

    #[test]
    fn summary_takes_the_worst_verdict_and_the_spread() {
        let slower = PhaseOutcome {
            server_cpu_ns: Some(20_000_000),
            ..outcome()
        };
        let runs = vec![
            RunReport::new(&load(), outcome()),
            RunReport::new(&load(), slower),
        ];
        let (command, load, connected) = (String::new(), load(), connected());
        let summary = Summary::new(command, "fanout", "topic", &load, &connected, runs);
        assert_eq!(summary.verdict(), Verdict::Clean);
        assert_eq!(
            summary.spread[CPU_METRIC],
            Spread {
                median: 7500.0,
                min: 5000.0,
                max: 10_000.0
            }
        );
        assert_eq!(summary.merged_latencies()[0].1.len(), 4000);
        let lines = summary.spread_lines();
        assert_eq!(lines[0], "2 runs, median (min–max):");
        assert_eq!(lines[2], "  server 7.500 (5.000–10.000) µs CPU/delivery");
    }
}
