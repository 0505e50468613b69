//! All rounds of one command: how long the viewers took, and what the live load noticed.

use hdrhistogram::Histogram;
use latency_report::percentiles;
use serde::Serialize;

use crate::proc::kernel_release;
use crate::report::{RunReport, Verdict};
use crate::returned::ReturnedReport;
use crate::summary::{Spread, merged};

/// One return of all viewers.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    /// The live load before it.
    pub(crate) quiet: RunReport,
    /// The live load meanwhile, and the viewers themselves, where they have no load of their own.
    pub(crate) beside: RunReport,
    /// The load of the viewers who come back, where they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) viewers: Option<RunReport>,
}

/// All rounds of one command.
#[derive(Debug, Serialize)]
pub(crate) struct CatchUpReport {
    schema: &'static str,
    /// What was run, to run it again.
    command: String,
    /// The kernel's release.
    kernel: Option<String>,
    rounds: Vec<Round>,
    /// Until the last viewer had all, over the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<Spread>,
    /// Of the live load, all rounds together.
    #[serde(skip_serializing_if = "Option::is_none")]
    live_p99: Option<Comparison>,
}

/// One percentile of the live load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Comparison {
    quiet_ns: u64,
    beside_ns: u64,
    /// The second by the first.
    ratio: f64,
}

impl Round {
    /// The report for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.quiet.lines("quiet");
        lines.extend(self.beside.lines("beside"));
        let viewers = self.viewers.as_ref();
        lines.extend(viewers.into_iter().flat_map(|run| run.lines("viewers")));
        lines
    }

    fn verdict(&self) -> Verdict {
        let live = self.quiet.verdict.max(self.beside.verdict);
        let viewers = self.viewers.as_ref().map(|run| run.verdict);
        viewers.map_or(live, |viewers| live.max(viewers))
    }

    fn returned(&self) -> Option<&ReturnedReport> {
        self.viewers
            .as_ref()
            .unwrap_or(&self.beside)
            .returned
            .as_ref()
    }
}

impl CatchUpReport {
    /// Sums up `rounds` as JSON of this schema.
    pub(crate) fn new(schema: &'static str, command: String, rounds: Vec<Round>) -> Self {
        let seconds = |round: &Round| round.returned()?.seconds;
        let mut report = Self {
            schema,
            command,
            kernel: kernel_release(),
            seconds: Spread::new(rounds.iter().filter_map(seconds).collect()),
            rounds,
            live_p99: None,
        };
        if report.verdict() == Verdict::Clean {
            report.live_p99 = Comparison::new(&report.live(QUIET), &report.live(BESIDE));
        }
        report
    }

    /// The worst of the rounds.
    pub(crate) fn verdict(&self) -> Verdict {
        let verdicts = self.rounds.iter().map(Round::verdict);
        verdicts.max().unwrap_or(Verdict::Clean)
    }

    /// The report for people, over the rounds.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(seconds) = self.seconds.as_ref().filter(|_| self.rounds.len() > 1) {
            lines.push(format!(
                "all after {} s, median (min–max)",
                seconds.text(1.0)
            ));
        }
        match self.live_p99 {
            Some(Comparison {
                quiet_ns,
                beside_ns,
                ratio,
            }) => {
                let (quiet, beside) = (quiet_ns as f64 / 1e6, beside_ns as f64 / 1e6);
                lines.push(format!(
                    "live p99 {quiet:.3} ms quiet, {beside:.3} ms beside: ratio {ratio:.2}"
                ));
            }
            None if self.verdict() == Verdict::Clean => {
                lines.push("live p99: too few deliveries for a ratio".to_owned());
            }
            None => {}
        }
        lines
    }

    /// The latencies of all rounds together: of the live load, and of the viewers' return.
    pub(crate) fn merged_latencies(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let returned = self.rounds.iter().filter_map(Round::returned);
        vec![
            ("quiet", self.live(QUIET)),
            ("beside", self.live(BESIDE)),
            (
                "returned",
                merged(returned.map(|returned| &returned.histogram)),
            ),
        ]
    }

    fn live(&self, part: fn(&Round) -> &RunReport) -> Histogram<u64> {
        let groups = self.rounds.iter().flat_map(|round| &part(round).groups);
        merged(groups.map(|group| &group.histogram))
    }
}

const QUIET: fn(&Round) -> &RunReport = |round| &round.quiet;
const BESIDE: fn(&Round) -> &RunReport = |round| &round.beside;

impl Comparison {
    /// `None` where too few samples carry it.
    fn new(quiet: &Histogram<u64>, beside: &Histogram<u64>) -> Option<Self> {
        let p99 = |histogram| percentiles(histogram).remove("p99");
        let (quiet_ns, beside_ns) = (p99(quiet)?, p99(beside)?);
        Some(Self {
            quiet_ns,
            beside_ns,
            ratio: beside_ns as f64 / quiet_ns as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::phase::PhaseOutcome;
    use crate::report::tests::{load, outcome};
    use crate::returned::tests::returned;
    use latency_report::latency_histogram;

    fn round(beside: PhaseOutcome) -> Round {
        Round {
            quiet: RunReport::new(&load(), outcome()),
            beside: RunReport::new(&load(), beside),
            viewers: None,
        }
    }

    /// Of deliveries that took twice as long.
    fn beside(count: u64) -> PhaseOutcome {
        let mut beside = outcome();
        beside.returned = Some(returned());
        beside.groups[0].latency_ns = latency_histogram();
        beside.groups[0]
            .latency_ns
            .saturating_record_n(10_000_000, count);
        beside
    }

    #[test]
    fn live_load_is_compared_over_all_rounds() {
        let rounds = vec![round(beside(500)), round(beside(500))];
        let report = CatchUpReport::new("x", String::new(), rounds);
        assert_eq!(report.verdict(), Verdict::Clean);
        let ratio = report.live_p99.unwrap().ratio;
        assert!((ratio - 2.0).abs() < 0.01, "{ratio}");
        assert_eq!(
            report.lines(),
            [
                "all after 0.500 (0.500–0.500) s, median (min–max)",
                "live p99 5.001 ms quiet, 10.002 ms beside: ratio 2.00"
            ]
        );
        let counts: Vec<_> = report
            .merged_latencies()
            .iter()
            .map(|(name, histogram)| (*name, histogram.len()))
            .collect();
        assert_eq!(
            counts,
            [("quiet", 4000), ("beside", 1000), ("returned", 2000)]
        );
    }

    #[test]
    fn nothing_is_compared_that_does_not_stand() {
        let few = CatchUpReport::new("x", String::new(), vec![round(beside(999))]);
        assert_eq!(few.lines(), ["live p99: too few deliveries for a ratio"]);
        let mut lossy = beside(1000);
        lossy.returned.as_mut().unwrap().record.violations.lost = 1;
        let failed = CatchUpReport::new("x", String::new(), vec![round(lossy)]);
        assert_eq!(failed.verdict(), Verdict::Failed);
        assert_eq!((failed.seconds, failed.live_p99), (None, None));
        let lines = failed.rounds[0].lines();
        let reason = "  FAILED: what the returning viewers got is not what they had missed";
        assert_eq!(lines.last().map(String::as_str), Some(reason));
    }

    #[test]
    fn server_time_is_shared_by_all_that_was_delivered() {
        let report = RunReport::new(&load(), beside(1000));
        assert_eq!(report.metrics()[crate::report::CPU_METRIC], 2500.0);
    }
}
