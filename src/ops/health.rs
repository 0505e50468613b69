//! `/health`: the checks of the observatory document, over the last half to whole minute.
//!
//! - `memory_usage`: more than 1 GiB in RAM, a warning.
//! - `error_rate`: more than 5 % is unhealthy. The document divides errors by messages sent; here
//!   it is what failed by *our* fault (events refused because we could not take them, connections
//!   that ended with our own error) over everything that could have: events received and
//!   connections ended. A producer's bad events, a stranger's bad token or a viewer that does not read say
//!   nothing about this node's health, and must not make a supervisor restart it.
//! - `latency`: p99 from the read of an event to the end of its write above 100 ms, a warning.
//! - `connections`: there are none, for information.
//!
//! As in the document a check is listed when it has something to say.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Answer, Process};
use crate::counters::{CoreStats, Stage, StageSnapshot};

/// Which codes are our own fault, as indices of the enums that the families are indexed by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of refused events: overloaded, storage full.
    pub rejections: &'static [usize],
    /// Of closes: internal error.
    pub closes: &'static [usize],
}

/// Remembers earlier readings, so that the report is about now. One thread owns it and reads every
/// few seconds; whoever is asked shows the latest [`Report`].
#[derive(Debug)]
pub struct Health {
    faults: Faults,
    base: Reading,
    recent: Reading,
    recent_ms: u64,
}

impl Health {
    /// Without any history: what the first reports say is about the time since the start.
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            base: Reading::default(),
            recent: Reading::default(),
            recent_ms: 0,
        }
    }

    /// Reads the counters at `now_ms`, monotonic milliseconds since the start, and judges.
    pub fn handle_reading<'a>(
        &mut self,
        cores: impl Iterator<Item = &'a CoreStats> + Clone,
        process: &Process,
        now_ms: u64,
    ) -> Report {
        let reading = Reading::of(cores, &self.faults);
        let checks: Vec<Check> = [
            check_memory(process.resident_bytes),
            check_errors(&reading, &self.base),
            check_latency(&reading, &self.base),
            check_connections(&reading),
        ]
        .into_iter()
        .flatten()
        .collect();
        let status = checks.iter().map(|check| check.status.effect()).max();
        if now_ms.saturating_sub(self.recent_ms) >= WINDOW_MS {
            self.base = std::mem::replace(&mut self.recent, reading);
            self.recent_ms = now_ms;
        }
        Report {
            status: status.unwrap_or(Status::Healthy),
            checks,
            timestamp: process.now_ms,
        }
    }
}

/// What `/health` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst of the checks.
    pub status: Status,
    /// Those that have something to say.
    pub checks: Vec<Check>,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
}

impl Report {
    /// 503 only where this node should get no more work.
    pub fn render(&self) -> Answer {
        let status = if self.status == Status::Unhealthy {
            503
        } else {
            200
        };
        Answer::json(status, self)
    }
}

/// How the node is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Healthy,
    /// Somebody should look.
    Warning,
    /// It fails its users.
    Unhealthy,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How grave it is.
    pub status: Severity,
    /// One line with the number.
    pub message: String,
}

/// How grave a check's remark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Makes the node unhealthy.
    Critical,
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warning,
}

impl Severity {
    fn effect(self) -> Status {
        match self {
            Self::Critical => Status::Unhealthy,
            Self::Info => Status::Healthy,
            Self::Warning => Status::Warning,
        }
    }
}

/// What the checks are made from; counts since the start.
#[derive(Clone, Debug)]
struct Reading {
    attempts: u64,
    failures: u64,
    connections: u64,
    latency_ns: Histogram<u64>,
}

impl Default for Reading {
    fn default() -> Self {
        let latency_ns = StageSnapshot::default().histogram(Stage::Total).clone();
        Self {
            attempts: 0,
            failures: 0,
            connections: 0,
            latency_ns,
        }
    }
}

impl Reading {
    fn of<'a>(cores: impl Iterator<Item = &'a CoreStats> + Clone, faults: &Faults) -> Self {
        let mut reading = Self::default();
        for counters in cores.clone().map(|core| &core.counters) {
            let refused = faults
                .rejections
                .iter()
                .map(|code| counters.events_refused.at(*code).value());
            let closed = faults
                .closes
                .iter()
                .map(|reason| counters.closes.at(*reason).value());
            reading.failures += refused.chain(closed).sum::<u64>();
            reading.attempts += counters.events_received.value() + counters.closes.total();
            reading.connections += counters.connections.value();
        }
        reading.latency_ns = StageSnapshot::of(cores).histogram(Stage::Total).clone();
        reading
    }

    /// The latencies recorded since `base`.
    fn latency_since(&self, base: &Self) -> Histogram<u64> {
        let mut recent = self.latency_ns.clone();
        // Counts only grow, so there is always enough to take off; if not, all of it is the answer.
        match recent.subtract(&base.latency_ns) {
            Ok(()) => recent,
            Err(_) => self.latency_ns.clone(),
        }
    }
}

fn check_memory(resident_bytes: Option<u64>) -> Option<Check> {
    let bytes = resident_bytes.filter(|bytes| *bytes > MEMORY_BYTES_WARNING)?;
    Some(Check {
        name: "memory_usage",
        status: Severity::Warning,
        message: format!("High memory usage: {:.2}MB", bytes as f64 / 1_048_576.0),
    })
}

fn check_errors(reading: &Reading, base: &Reading) -> Option<Check> {
    let attempts = reading.attempts.saturating_sub(base.attempts);
    let failures = reading.failures.saturating_sub(base.failures);
    let rate = failures as f64 / attempts as f64;
    (attempts >= SAMPLES_MIN && rate > ERROR_RATE_UNHEALTHY).then(|| Check {
        name: "error_rate",
        status: Severity::Critical,
        message: format!("High error rate: {:.2}%", rate * 100.0),
    })
}

fn check_latency(reading: &Reading, base: &Reading) -> Option<Check> {
    let recent = reading.latency_since(base);
    let p99_ms = recent.value_at_quantile(0.99) as f64 / 1e6;
    (recent.len() >= SAMPLES_MIN && p99_ms > LATENCY_MS_WARNING).then(|| Check {
        name: "latency",
        status: Severity::Warning,
        message: format!("High p99 latency: {p99_ms:.2}ms"),
    })
}

fn check_connections(reading: &Reading) -> Option<Check> {
    (reading.connections == 0).then(|| Check {
        name: "connections",
        status: Severity::Info,
        message: "No active connections".to_owned(),
    })
}

const MEMORY_BYTES_WARNING: u64 = 1 << 30;
const ERROR_RATE_UNHEALTHY: f64 = 0.05;
const LATENCY_MS_WARNING: f64 = 100.0;
/// Fewer than this say nothing: one failure of three is no rate.
const SAMPLES_MIN: u64 = 20;
/// Milliseconds between the readings that a report is measured against: it covers the time since
/// the last but one.
const WINDOW_MS: u64 = 30_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::counters::Stages;

    const FAULTS: Faults = Faults {
        rejections: &[4],
        closes: &[2],
    };

    fn report(health: &mut Health, core: &CoreStats, now_ms: u64) -> Report {
        health.handle_reading(std::iter::once(core), &Process::default(), now_ms)
    }

    fn names(report: &Report) -> Vec<&'static str> {
        report.checks.iter().map(|check| check.name).collect()
    }

    fn busy_core() -> CoreStats {
        let core = CoreStats::default();
        core.counters.connections.set(1);
        core.counters.events_received.add(1_000);
        core
    }

    #[test]
    fn an_idle_node_is_healthy_and_says_that_nobody_is_there() {
        let mut health = Health::new(FAULTS);
        let report = report(&mut health, &CoreStats::default(), 0);
        assert_eq!(
            report.render().body,
            r#"{"status":"healthy","checks":[{"name":"connections","status":"info","message":"No active connections"}],"timestamp":0}"#
        );
        assert_eq!(report.render().status, 200);
    }

    #[test]
    fn memory_over_a_gibibyte_is_a_warning() {
        let check = |bytes, expected| {
            let process = Process {
                resident_bytes: Some(bytes),
                ..Process::default()
            };
            let core = busy_core();
            let report = Health::new(FAULTS).handle_reading(std::iter::once(&core), &process, 0);
            assert_eq!(report.status, expected);
            assert_eq!(report.render().status, 200);
        };
        check(1 << 30, Status::Healthy);
        check((1 << 30) + 1, Status::Warning);
    }

    #[test]
    fn failures_of_ours_over_five_percent_are_unhealthy() {
        let check = |overloaded, internal, expected| {
            let core = busy_core();
            core.counters.events_refused.at(4).add(overloaded);
            core.counters.closes.at(2).add(internal);
            let report = report(&mut Health::new(FAULTS), &core, 0);
            assert_eq!(report.status, expected, "{overloaded} {internal}");
            let is_listed = names(&report).contains(&"error_rate");
            assert_eq!(is_listed, expected == Status::Unhealthy);
            assert_eq!(report.render().status == 503, is_listed);
        };
        check(50, 0, Status::Healthy);
        check(51, 0, Status::Unhealthy);
        check(20, 60, Status::Unhealthy);
    }

    #[test]
    fn failures_of_others_are_not_ours() {
        let core = busy_core();
        core.counters.events_refused.at(1).add(1_000);
        core.counters.closes.at(0).add(1_000);
        assert_eq!(
            report(&mut Health::new(FAULTS), &core, 0).status,
            Status::Healthy
        );
    }

    #[test]
    fn a_few_failures_are_no_rate() {
        let core = CoreStats::default();
        core.counters.events_received.add(3);
        core.counters.events_refused.at(4).add(3);
        assert_eq!(
            report(&mut Health::new(FAULTS), &core, 0).status,
            Status::Healthy
        );
    }

    #[test]
    fn what_is_over_is_forgotten_within_a_minute() {
        let (mut health, core, mut stages) = (Health::new(FAULTS), busy_core(), Stages::default());
        core.counters.events_refused.at(4).add(500);
        stages.record(Stage::Total, 150_000_000, 100);
        stages.publish(1_000, &core);
        let first = report(&mut health, &core, 1_000);
        assert_eq!(names(&first), ["error_rate", "latency"]);
        assert_eq!(first.checks[1].message, "High p99 latency: 150.08ms");

        for now_ms in [30_000, 60_000] {
            core.counters.events_received.add(1_000);
            stages.record(Stage::Total, 1_000_000, 100);
            stages.publish(now_ms, &core);
            assert_eq!(report(&mut health, &core, now_ms).status, Status::Unhealthy);
        }
        let last = report(&mut health, &core, 90_000);
        assert_eq!(last.status, Status::Healthy, "{last:?}");
    }
}
