//! All runs of one command: how they spread, and the JSON that holds them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use latency_report::percentiles::SHOWN;
use latency_report::{latency_histogram, percentiles};
use serde::{Deserialize, Serialize};

use crate::cpus::Placement;
use crate::driver::Connected;
use crate::environment::Environment;
use crate::payload::Identity;
use crate::report::{ACKNOWLEDGEMENT_METRIC, CPU_EVENT_METRIC, CPU_METRIC, RunReport, Verdict};
use crate::scenario::Load;
use crate::slo::{Slo, Term};
use crate::soak::Growth;
use crate::tls::TlsHandshakes;
use crate::upgrade::Extension;

/// The middle and the ends of one number over repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// The middle.
    pub(crate) median: f64,
    min: f64,
    max: f64,
    /// All of them, rising.
    pub(crate) values: Vec<f64>,
}

/// What one term of `--slo` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Objective {
    /// As it was given.
    pub(crate) term: String,
    /// The worst of the runs, or why there is none.
    pub(crate) measured: String,
    /// Whether that is as asked.
    pub(crate) is_met: bool,
}

/// What was asked of the server, and of the generator. Summaries in which it differs are not of
/// the same thing.
#[derive(Debug, Serialize)]
struct LoadReport {
    duration_seconds: f64,
    warmup_seconds: f64,
    size: String,
    /// How the events of the first group arrive.
    arrival: String,
    /// Events of a full message.
    batch: u32,
    is_compressed: bool,
    has_event_ids: bool,
    publishers: u32,
    groups: Vec<LoadGroup>,
}

#[derive(Debug, Serialize)]
struct LoadGroup {
    name: String,
    users: usize,
    connections: u32,
    events_per_second: f64,
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
            values,
        })
    }

    /// The median with its ends, in `unit`s.
    pub(crate) fn text(&self, unit: f64) -> String {
        let Self {
            median, min, max, ..
        } = self;
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
    /// The worst of the runs; `missed` where they are clean and an objective is not met.
    pub(crate) verdict: Verdict,
    /// What was asked with `--slo`.
    objectives: Vec<Objective>,
    environment: Environment,
    /// Who ran where, where the server is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
    /// How the server's memory grew, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) growth: Option<Growth>,
    load: LoadReport,
    handshakes: HandshakeReport,
    /// One after the other.
    pub(crate) runs: Vec<RunReport>,
    /// Over the runs, for the numbers that all of them have.
    spread: BTreeMap<String, Spread>,
}

impl Summary {
    /// Sums up `runs` of `load`.
    pub(crate) fn new(
        asked: Asked<'_>,
        load: &Load,
        connected: &Connected,
        environment: Environment,
        mut runs: Vec<RunReport>,
    ) -> Self {
        for (at, run) in runs.iter_mut().enumerate() {
            run.intervals.iter_mut().for_each(|row| row.run = at + 1);
        }
        let objectives = objectives(asked.slo, &runs);
        let Asked {
            command,
            scenario,
            target,
            ..
        } = asked;
        Self {
            schema: SCHEMA,
            command,
            scenario,
            target,
            verdict: verdict(&runs, &objectives),
            objectives,
            environment,
            placement: None,
            growth: None,
            load: LoadReport::new(load),
            handshakes: HandshakeReport::new(connected),
            spread: spread(&runs),
            runs,
        }
    }

    /// A line for each objective.
    pub(crate) fn objective_lines(&self) -> Vec<String> {
        let line = |one: &Objective| {
            let sign = if one.is_met { '✓' } else { '✗' };
            format!("  {sign} {}: {}", one.term, one.measured)
        };
        self.objectives.iter().map(line).collect()
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

/// What a command was asked to do.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The command line.
    pub(crate) command: String,
    /// `fanout`, `users`, `mixed`, `soak` or `ingest`.
    pub(crate) scenario: &'static str,
    /// The kind of server.
    pub(crate) target: &'static str,
    /// What the results are to be.
    pub(crate) slo: Option<&'a Slo>,
}

impl LoadReport {
    fn new(load: &Load) -> Self {
        let groups = load.groups.iter().map(|group| LoadGroup {
            name: group.name.to_owned(),
            users: group.users.len(),
            connections: group.connections(),
            events_per_second: group.events_per_second,
        });
        Self {
            duration_seconds: load.duration.as_secs_f64(),
            warmup_seconds: load.warmup.as_secs_f64(),
            size: load.size.to_string(),
            arrival: load.arrival.to_string(),
            batch: load.packing.events_max(),
            is_compressed: load.extension == Extension::Deflate,
            has_event_ids: load.identity == Identity::EventId,
            publishers: load.publishers,
            groups: groups.collect(),
        }
    }
}

/// The worst of `runs`; where they are clean, whether the objectives are met.
fn verdict(runs: &[RunReport], objectives: &[Objective]) -> Verdict {
    let asked = if objectives.iter().all(|one| one.is_met) {
        Verdict::Clean
    } else {
        Verdict::Missed
    };
    runs.iter().map(|run| run.verdict).fold(asked, Verdict::max)
}

/// What each term of `slo` finds in `runs`.
fn objectives(slo: Option<&Slo>, runs: &[RunReport]) -> Vec<Objective> {
    let terms = slo.map_or(&[][..], |slo| slo.terms.as_slice());
    terms.iter().map(|term| objective(term, runs)).collect()
}

fn objective(term: &Term, runs: &[RunReport]) -> Objective {
    let values: Option<Vec<_>> = runs.iter().map(|run| run.measured(term)).collect();
    let worst = values.and_then(|values| term.worst(values.into_iter()));
    let none = || "not measured, or by too few samples".to_owned();
    Objective {
        term: term.text.clone(),
        measured: worst.map_or_else(none, |value| term.metric.format(value)),
        is_met: worst.is_some_and(|value| term.is_met_by(value)),
    }
}

/// What this version writes and reads.
pub(crate) const SCHEMA: &str = "loadgen/load/2";

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
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::phase::PhaseOutcome;
    use crate::report::tests::{histogram, load, outcome};
    use std::net::SocketAddr;

    fn spread(median: f64, min: f64, max: f64, values: &[f64]) -> Spread {
        let values = values.to_vec();
        Spread {
            median,
            min,
            max,
            values,
        }
    }

    #[test]
    fn spread_is_the_middle_and_the_ends() {
        let of = |values: &[f64]| Spread::new(values.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[2.0]), Some(spread(2.0, 2.0, 2.0, &[2.0])));
        let odd = Some(spread(3.0, 1.0, 9.0, &[1.0, 3.0, 9.0]));
        assert_eq!(of(&[3.0, 1.0, 9.0]), odd);
        assert_eq!(of(&[4.0, 1.0]), Some(spread(2.5, 1.0, 4.0, &[1.0, 4.0])));
    }

    pub(crate) fn summary(runs: Vec<RunReport>, slo: Option<&Slo>) -> Summary {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let environment = Environment::look(address, true, None);
        let asked = Asked {
            command: "loadgen fanout".to_owned(),
            scenario: "fanout",
            target: "topic",
            slo,
        };
        Summary::new(asked, &load(), &connected(), environment, runs)
    }

    fn check_slo(terms: &str, verdict: Verdict, lines: &[&str]) {
        let slo: Slo = terms.parse().unwrap();
        let runs = vec![RunReport::new(&load(), outcome())];
        let summary = summary(runs, Some(&slo));
        assert_eq!(summary.objective_lines(), lines, "{terms}");
        assert_eq!(summary.verdict, verdict, "{terms}");
    }

    #[test]
    fn objectives_are_met_or_missed_and_what_is_not_measured_is_missed() {
        let met = [
            "  ✓ p99<6ms: 5.001 ms",
            "  ✓ lost==0: 0",
            "  ✓ cpu<=5us: 5.000 µs",
        ];
        check_slo("p99<6ms,lost==0,cpu<=5us", Verdict::Clean, &met);
        let missed = ["  ✗ all:p99<5ms: 5.001 ms", "  ✓ rss<4MiB: 3.0 MiB"];
        check_slo("all:p99<5ms,rss<4MiB", Verdict::Missed, &missed);
        for term in ["p99.9<1s", "hot:p50<1s"] {
            let line = format!("  ✗ {term}: not measured, or by too few samples");
            check_slo(term, Verdict::Missed, &[&line]);
        }
    }

    #[test]
    fn failed_run_stays_failed_whatever_is_asked() {
        let mut lossy = outcome();
        lossy.groups[0].violations.lost = 1;
        let runs = vec![RunReport::new(&load(), lossy)];
        let slo = "lost==0".parse().unwrap();
        assert_eq!(summary(runs, Some(&slo)).verdict, Verdict::Failed);
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
        let summary = summary(runs, None);
        assert_eq!(summary.verdict, Verdict::Clean);
        assert_eq!(
            summary.spread[CPU_METRIC],
            spread(7500.0, 5000.0, 10_000.0, &[5000.0, 10_000.0])
        );
        assert_eq!(summary.merged_latencies()[0].1.len(), 4000);
        let lines = summary.spread_lines();
        assert_eq!(lines[0], "2 runs, median (min–max):");
        assert_eq!(lines[2], "  server 7.500 (5.000–10.000) µs CPU/delivery");
    }
}
