//! One run's result: the verdict, the numbers, and the lines that say them.
//!
//! A percentile appears only where at least ten samples lie beyond it, and no latency at all
//! where deliveries are missing or the generator was the bottleneck: such numbers say nothing
//! about the server.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use latency_report::percentiles::SHOWN;
use latency_report::{Encoded, percentiles, value_at};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::interval_row::{IntervalRow, interval_rows};
use crate::laggards::Lagged;
use crate::observer::Observed;
use crate::phase::PhaseOutcome;
use crate::record::{GroupRecord, Violations};
use crate::returned::{Returned, ReturnedReport};
use crate::scenario::{Group, Load};
use crate::slo::{Metric, Term};

/// Beyond these the generator calls itself the bottleneck.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The 99th percentile of the schedule slip.
    pub(crate) slip: Duration,
    /// The share of time with something to do, 0 to 1.
    pub(crate) busy: f64,
}

impl Bounds {
    /// None: of a load whose latency is not claimed.
    pub(crate) const NONE: Self = Self {
        slip: Duration::MAX,
        busy: f64::INFINITY,
    };
}

/// Whether a run's numbers stand. The worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Everything was delivered as it should be.
    Clean,
    /// So it was, but not as `--slo` asks; said of a whole command, never of a run.
    Missed,
    /// The generator could not keep its schedule.
    GeneratorBound,
    /// Deliveries, acknowledgements or connections were lost or wrong.
    Failed,
}

impl Verdict {
    /// What stands before its reasons.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Clean | Self::Missed => "",
            Self::GeneratorBound => "generator-bound",
            Self::Failed => "FAILED",
        }
    }

    /// Whether the latencies say something about the server.
    pub(crate) fn stands(self) -> bool {
        matches!(self, Self::Clean | Self::Missed)
    }
}

/// One measured phase.
#[derive(Debug, Serialize)]
pub(crate) struct RunReport {
    /// Whether it stands.
    pub(crate) verdict: Verdict,
    /// Why it does not.
    pub(crate) reasons: Vec<String>,
    /// The deliveries.
    pub(crate) groups: Vec<GroupReport>,
    /// The same over the time.
    pub(crate) intervals: Vec<IntervalRow>,
    /// Viewers that came back meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) returned: Option<ReturnedReport>,
    /// Viewers that read slowly meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    lagged: Option<Lagged>,
    /// What the publishers heard.
    pub(crate) acknowledgements: AcknowledgementReport,
    /// From the first intended time to the last delivery.
    seconds: f64,
    events_sent: u64,
    pub(crate) deliveries_per_second: f64,
    unacknowledged: u64,
    nacks: BTreeMap<String, u64>,
    other_messages: BTreeMap<String, u64>,
    closed: Vec<String>,
    /// The share of time in which the generator had something to do.
    generator_busy: f64,
    /// How late events were sent.
    schedule_slip_ns: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerReport>,
    /// All that was seen of it over the time.
    #[serde(skip)]
    pub(crate) observed: Option<Observed>,
}

/// The acknowledgements of all publishers.
#[derive(Debug, Serialize)]
pub(crate) struct AcknowledgementReport {
    publishers: usize,
    /// Events.
    acknowledged: u64,
    /// What they came in.
    messages: u64,
    /// Of each message, from its intended send; empty where it would not stand, or nothing is acknowledged.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    latency_ns: BTreeMap<&'static str, u64>,
    /// All of it.
    #[serde(serialize_with = "encode", skip_serializing_if = "Histogram::is_empty")]
    pub(crate) histogram: Histogram<u64>,
}

/// The deliveries of one group.
#[derive(Debug, Serialize)]
pub(crate) struct GroupReport {
    /// Its name.
    pub(crate) name: &'static str,
    users: usize,
    connections: u32,
    events_per_second: f64,
    /// Mean of the frames that came, headers included.
    frame_bytes: f64,
    /// Mean of their texts, inflated.
    payload_bytes: f64,
    /// How many of them came deflated.
    deflated: u64,
    expected: u64,
    delivered: u64,
    #[serde(flatten)]
    pub(crate) violations: Violations,
    /// From the intended send; empty where it would not stand.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) latency_ns: BTreeMap<&'static str, u64>,
    /// The same from the actual send.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_ns: BTreeMap<&'static str, u64>,
    /// All of the former; empty where it would not stand.
    #[serde(serialize_with = "encode", skip_serializing_if = "Histogram::is_empty")]
    pub(crate) histogram: Histogram<u64>,
}

/// What the server spent.
#[derive(Debug, Serialize)]
pub(crate) struct ServerReport {
    /// Nanoseconds.
    pub(crate) cpu_ns_per_delivery: Option<f64>,
    /// Nanoseconds.
    pub(crate) cpu_ns_per_event: Option<f64>,
    /// Events a second for which one core's CPU time would do.
    events_per_core_second: Option<f64>,
    /// CPU time over wall time; 1 is one core.
    cpu_share: f64,
    /// The same of the thread that writes the event log, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_writer_cpu_share: Option<f64>,
    /// Resident memory at the end.
    pub(crate) rss_bytes: u64,
}

impl RunReport {
    /// Judges and sums up `outcome`, a phase of `load`.
    pub(crate) fn new(load: &Load, outcome: PhaseOutcome) -> Self {
        let mut reasons = failures(&outcome);
        let mut verdict = if reasons.is_empty() {
            Verdict::Clean
        } else {
            Verdict::Failed
        };
        if verdict == Verdict::Clean {
            reasons = generator_bounds(&outcome, load.bounds);
            if !reasons.is_empty() {
                verdict = Verdict::GeneratorBound;
            }
        }
        let delivered: u64 = outcome.groups.iter().map(|group| group.delivered).sum();
        let server = server_report(&outcome, delivered);
        let acknowledgements = AcknowledgementReport::new(&outcome, verdict);
        let intervals = outcome.observed.as_ref();
        let intervals = intervals.map(|observed| interval_rows(load, observed, verdict));
        let groups = load.groups.iter().zip(outcome.groups);
        // Of users without subscribers there is nothing to say.
        let groups = groups.filter(|(group, _)| group.connections() > 0);
        Self {
            groups: groups
                .map(|(group, record)| GroupReport::new(group, record, verdict))
                .collect(),
            intervals: intervals.unwrap_or_default(),
            returned: outcome
                .returned
                .map(|returned| ReturnedReport::new(returned, verdict)),
            lagged: outcome.lagged,
            acknowledgements,
            verdict,
            reasons,
            seconds: outcome.seconds,
            events_sent: outcome.sent,
            deliveries_per_second: delivered as f64 / outcome.seconds,
            unacknowledged: outcome.unsettled,
            nacks: outcome.nacks,
            other_messages: outcome.others,
            closed: outcome.closed,
            generator_busy: outcome.busy,
            schedule_slip_ns: percentiles(&outcome.slip_ns),
            server,
            observed: outcome.observed,
        }
    }

    /// A failed warm-up fails the run that follows it.
    pub(crate) fn add_warmup(&mut self, warmup: &Self) {
        if warmup.verdict == Verdict::Failed {
            self.verdict = Verdict::Failed;
            self.reasons.extend(
                warmup
                    .reasons
                    .iter()
                    .map(|reason| format!("warm-up: {reason}")),
            );
            self.acknowledgements.withhold();
            self.groups.iter_mut().for_each(GroupReport::withhold);
            self.intervals.iter_mut().for_each(IntervalRow::withhold);
        }
    }

    /// The report for people: a line for each group, and one for each reason.
    pub(crate) fn lines(&self, scenario: &str) -> Vec<String> {
        let mut lines: Vec<_> = self
            .groups
            .iter()
            .map(|group| group.line(scenario))
            .collect();
        let has_deliveries = !lines.is_empty();
        if !has_deliveries {
            lines.push(self.publishing_line(scenario));
        }
        if let (Some(last), Some(server)) = (lines.last_mut(), &self.server) {
            let _ = write!(last, "  {}", server.text());
        }
        if let [first, ..] = lines.as_mut_slice()
            && has_deliveries
        {
            let _ = write!(first, "  {:.0} deliveries/s", self.deliveries_per_second);
        }
        lines.extend(self.returned.as_ref().map(ReturnedReport::line));
        lines.extend(self.lagged.as_ref().map(Lagged::line));
        let label = self.verdict.label();
        lines.extend(
            self.reasons
                .iter()
                .map(|reason| format!("  {label}: {reason}")),
        );
        lines
    }

    /// The line of a run that only publishes.
    fn publishing_line(&self, scenario: &str) -> String {
        let AcknowledgementReport {
            publishers,
            acknowledged,
            latency_ns,
            ..
        } = &self.acknowledgements;
        let refused: u64 = self.nacks.values().sum();
        let (sent, rate) = (self.events_sent, self.events_sent as f64 / self.seconds);
        let mut line = format!(
            "{scenario} {publishers} publishers {rate:.0} ev/s: acknowledged {acknowledged}/{sent} \
             (refused {refused})"
        );
        line.push_str(&latency_text(latency_ns));
        line
    }

    /// The server's memory at the end.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        self.server.as_ref().map(|server| server.rss_bytes)
    }

    /// What `term` asks about, the worst of all groups that it is about; `None` where that was not
    /// measured.
    pub(crate) fn measured(&self, term: &Term) -> Option<f64> {
        match term.metric {
            Metric::Cpu => {
                let server = self.server.as_ref()?;
                server.cpu_ns_per_delivery.or(server.cpu_ns_per_event)
            }
            Metric::Deliveries => Some(self.deliveries_per_second),
            Metric::Rss => self.rss_bytes().map(|bytes| bytes as f64),
            Metric::Max | Metric::Quantile(_) if self.groups.is_empty() => {
                latency_ns(&self.acknowledgements.histogram, term.metric)
            }
            _ => {
                let asked = |group: &&GroupReport| {
                    term.group.as_deref().is_none_or(|name| name == group.name)
                };
                let groups = self.groups.iter().filter(asked);
                let values: Option<Vec<_>> = groups.map(|one| one.measured(term.metric)).collect();
                term.worst(values?.into_iter())
            }
        }
    }

    /// The numbers that are compared over repeats, by name.
    pub(crate) fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        for group in &self.groups {
            for (name, value) in &group.latency_ns {
                metrics.insert(format!("{}.latency_ns.{name}", group.name), *value as f64);
            }
            for (name, value) in &group.service_ns {
                metrics.insert(format!("{}.service_ns.{name}", group.name), *value as f64);
            }
        }
        for (name, value) in &self.acknowledgements.latency_ns {
            metrics.insert(format!("{ACKNOWLEDGEMENT_METRIC}.{name}"), *value as f64);
        }
        metrics.insert(
            "deliveries_per_second".to_owned(),
            self.deliveries_per_second,
        );
        if let Some(server) = &self.server {
            metrics.insert("server.rss_bytes".to_owned(), server.rss_bytes as f64);
            let optional = [
                (CPU_METRIC, server.cpu_ns_per_delivery),
                (CPU_EVENT_METRIC, server.cpu_ns_per_event),
                ("server.log_writer_cpu_share", server.log_writer_cpu_share),
            ];
            for (name, value) in optional {
                metrics.extend(value.map(|value| (name.to_owned(), value)));
            }
        }
        metrics
    }
}

impl GroupReport {
    fn new(group: &Group, record: GroupRecord, verdict: Verdict) -> Self {
        let mean = |bytes: u64| bytes as f64 / record.delivered.max(1) as f64;
        let mut report = Self {
            name: group.name,
            users: group.users.len(),
            connections: group.connections(),
            events_per_second: group.events_per_second,
            frame_bytes: mean(record.frame_bytes),
            payload_bytes: mean(record.text_bytes),
            deflated: record.deflated,
            expected: record.expected,
            delivered: record.delivered,
            violations: record.violations,
            latency_ns: percentiles(&record.latency_ns),
            service_ns: percentiles(&record.service_ns),
            histogram: record.latency_ns,
        };
        if verdict != Verdict::Clean {
            report.withhold();
        }
        report
    }

    /// Tells no latency: it would say nothing about the server.
    fn withhold(&mut self) {
        self.latency_ns.clear();
        self.service_ns.clear();
        self.histogram.clear();
    }

    fn measured(&self, metric: Metric) -> Option<f64> {
        let violations = self.violations;
        let count = match metric {
            Metric::Duplicated => violations.duplicated,
            Metric::Foreign => violations.foreign,
            Metric::Lost => violations.lost,
            Metric::Malformed => violations.malformed,
            Metric::Reordered => violations.reordered,
            _ => return latency_ns(&self.histogram, metric),
        };
        Some(count as f64)
    }

    fn line(&self, scenario: &str) -> String {
        let mut line = format!(
            "{scenario} {} {} users {} conns {:.1} ev/s {}: delivered {}/{} ({})",
            self.name,
            self.users,
            self.connections,
            self.events_per_second,
            self.size(),
            self.delivered,
            self.expected,
            self.violations,
        );
        line.push_str(&latency_text(&self.latency_ns));
        line
    }

    fn size(&self) -> String {
        let Self {
            frame_bytes,
            payload_bytes,
            deflated,
            ..
        } = self;
        match deflated {
            0 => format!("{frame_bytes:.0} B"),
            _ => format!("{frame_bytes:.0} B for {payload_bytes:.0} ({deflated} deflated)"),
        }
    }
}

impl AcknowledgementReport {
    fn new(outcome: &PhaseOutcome, verdict: Verdict) -> Self {
        let histogram = outcome.acknowledged_ns.clone();
        let mut report = Self {
            publishers: outcome.publishers,
            acknowledged: outcome.acknowledged,
            messages: histogram.len(),
            latency_ns: percentiles(&histogram),
            histogram,
        };
        if verdict != Verdict::Clean {
            report.withhold();
        }
        report
    }

    /// Tells no latency: it would say nothing about the server.
    fn withhold(&mut self) {
        self.latency_ns.clear();
        self.histogram.clear();
    }
}

impl ServerReport {
    fn text(&self) -> String {
        let cpu = match (self.cpu_ns_per_delivery, self.events_per_core_second) {
            (Some(cpu_ns), _) => format!("{:.2} µs CPU/delivery", cpu_ns / 1e3),
            (None, events) => {
                let (events, cpu_ns) = (events.unwrap_or(0.0), self.cpu_ns_per_event);
                let cpu_us = cpu_ns.unwrap_or(0.0) / 1e3;
                format!("{cpu_us:.2} µs CPU/event ({events:.0} ev/s/core)")
            }
        };
        let share = self.cpu_share * 100.0;
        let rss = self.rss_bytes as f64 / MIB;
        let writer = self.log_writer_cpu_share.map_or_else(String::new, |share| {
            format!(" (log writer {:.1} %)", share * 100.0)
        });
        format!("server {cpu}, {share:.0} % CPU{writer}, RSS {rss:.1} MiB")
    }
}

/// The percentiles as a line's end says them; nothing where there are none.
pub(crate) fn latency_text(latency_ns: &BTreeMap<&'static str, u64>) -> String {
    let mut text = String::new();
    for (name, _) in SHOWN {
        if let Some(value) = latency_ns.get(name) {
            let _ = write!(text, "  {name} {:.3}", *value as f64 / 1e6);
        }
    }
    if !text.is_empty() {
        text.push_str(" ms");
    }
    text
}

/// The name of the CPU time of a delivery among the metrics.
pub(crate) const CPU_METRIC: &str = "server.cpu_ns_per_delivery";
/// The name of the CPU time of an event among the metrics.
pub(crate) const CPU_EVENT_METRIC: &str = "server.cpu_ns_per_event";
/// What the names of the acknowledgements' percentiles begin with.
pub(crate) const ACKNOWLEDGEMENT_METRIC: &str = "acknowledgement.latency_ns";
pub(crate) const MIB: f64 = 1024.0 * 1024.0;

/// The latency that `metric` is about; `None` where it is about none, or by too few samples.
fn latency_ns(histogram: &Histogram<u64>, metric: Metric) -> Option<f64> {
    let value = match metric {
        Metric::Max => (!histogram.is_empty()).then(|| histogram.max()),
        Metric::Quantile(quantile) => value_at(histogram, quantile),
        _ => None,
    };
    value.map(|ns| ns as f64)
}

fn encode<S: Serializer>(histogram: &Histogram<u64>, to: S) -> Result<S::Ok, S::Error> {
    let encoded = Encoded::new(histogram).map_err(S::Error::custom)?;
    encoded.serialize(to)
}

/// Everything for which a run fails.
pub(crate) fn failures(outcome: &PhaseOutcome) -> Vec<String> {
    let mut reasons: Vec<_> = outcome.aborted.iter().cloned().collect();
    if outcome
        .groups
        .iter()
        .any(|group| !group.violations.is_empty())
    {
        reasons.push("deliveries are not as they should be".to_owned());
    }
    if outcome.unsettled > 0 {
        reasons.push(format!(
            "{} events were not acknowledged",
            outcome.unsettled
        ));
    }
    reasons.extend(outcome.returned.iter().flat_map(Returned::failures));
    reasons.extend(outcome.lagged.as_ref().and_then(Lagged::failure));
    let refused = outcome.nacks.iter();
    reasons.extend(refused.map(|(code, count)| format!("{count} events refused with {code}")));
    reasons.extend(
        outcome
            .closed
            .iter()
            .map(|reason| format!("connection closed: {reason}")),
    );
    reasons
}

/// Every bound at which the generator was the bottleneck.
pub(crate) fn generator_bounds(outcome: &PhaseOutcome, bounds: Bounds) -> Vec<String> {
    let mut reasons = Vec::new();
    let slip_ns = outcome.slip_ns.value_at_quantile(0.99);
    if u128::from(slip_ns) > bounds.slip.as_nanos() {
        let (slip_ms, bound_ms) = (slip_ns as f64 / 1e6, bounds.slip.as_secs_f64() * 1e3);
        reasons.push(format!(
            "schedule slip p99 is {slip_ms:.3} ms, the bound {bound_ms:.3} ms"
        ));
    }
    if outcome.busy > bounds.busy {
        let (busy, bound) = (outcome.busy * 100.0, bounds.busy * 100.0);
        reasons.push(format!(
            "busy for {busy:.0} % of the time, the bound is {bound:.0} %"
        ));
    }
    reasons
}

fn server_report(outcome: &PhaseOutcome, delivered: u64) -> Option<ServerReport> {
    let cpu_ns = outcome.server_cpu_ns? as f64;
    let returned = outcome.returned.as_ref();
    let delivered = delivered + returned.map_or(0, |returned| returned.record.delivered);
    let each = |count: u64| (count > 0).then(|| cpu_ns / count as f64);
    let share = |cpu_ns: f64| cpu_ns / 1e9 / outcome.seconds;
    let writer_ns = outcome.log_writer_cpu_ns;
    Some(ServerReport {
        cpu_ns_per_delivery: each(delivered),
        cpu_ns_per_event: each(outcome.sent),
        events_per_core_second: each(outcome.sent).map(|cpu_ns| 1e9 / cpu_ns),
        cpu_share: share(cpu_ns),
        log_writer_cpu_share: writer_ns.map(|writer_ns| share(writer_ns as f64)),
        rss_bytes: outcome.server_rss_bytes?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::payload::Identity;
    use crate::publish::Packing;
    use crate::scenario::Size;
    use crate::schedule::Arrival;
    use crate::upgrade::Extension;
    use latency_report::latency_histogram;

    pub(crate) fn histogram(samples: u64) -> Histogram<u64> {
        let mut histogram = latency_histogram();
        histogram.saturating_record_n(5_000_000, samples);
        histogram
    }

    pub(crate) fn load() -> Load {
        let group = Group {
            name: "all",
            users: 0..1,
            connections_per_user: 2,
            events_per_second: 10.0,
        };
        Load {
            groups: vec![group],
            duration: Duration::from_secs(100),
            warmup: Duration::ZERO,
            size: Size::Frame(415),
            identity: Identity::None,
            arrival: Arrival::Even,
            packing: Packing::Single,
            extension: Extension::None,
            repeat: 1,
            publishers: 1,
            drain: Duration::from_secs(1),
            bounds: Bounds {
                slip: Duration::from_millis(1),
                busy: 0.95,
            },
        }
    }

    pub(crate) fn outcome() -> PhaseOutcome {
        let group = GroupRecord {
            expected: 2000,
            delivered: 2000,
            frame_bytes: 830_000,
            text_bytes: 4_096_000,
            deflated: 0,
            violations: Violations::default(),
            latency_ns: histogram(2000),
            service_ns: histogram(2000),
        };
        PhaseOutcome {
            groups: vec![group],
            first_delivery: None,
            sent: 1000,
            publishers: 1,
            acknowledged: 1000,
            acknowledged_ns: histogram(1000),
            unsettled: 0,
            nacks: BTreeMap::new(),
            others: BTreeMap::new(),
            slip_ns: latency_histogram(),
            seconds: 100.0,
            busy: 0.5,
            server_cpu_ns: Some(10_000_000),
            log_writer_cpu_ns: None,
            server_rss_bytes: Some(3 * 1024 * 1024),
            returned: None,
            lagged: None,
            observed: None,
            aborted: None,
            closed: Vec::new(),
        }
    }

    fn check_verdict(change: impl Fn(&mut PhaseOutcome), verdict: Verdict, line: &str) {
        let mut outcome = outcome();
        change(&mut outcome);
        let report = RunReport::new(&load(), outcome);
        let lines = report.lines("fanout");
        assert_eq!(report.verdict, verdict, "{lines:?}");
        assert_eq!(lines.last().map(String::as_str), Some(line));
        assert_eq!(
            report.groups[0].latency_ns.is_empty(),
            verdict != Verdict::Clean
        );
        assert_eq!(
            lines[0].contains("p99"),
            verdict == Verdict::Clean,
            "{lines:?}"
        );
        assert_eq!(
            report.acknowledgements.latency_ns.is_empty(),
            verdict != Verdict::Clean
        );
    }

    fn publishing() -> Load {
        let mut load = load();
        load.groups[0].connections_per_user = 0;
        load
    }

    #[test]
    fn run_that_only_publishes_tells_its_acknowledgements() {
        let mut outcome = outcome();
        outcome.groups = vec![GroupRecord::new()];
        outcome.log_writer_cpu_ns = Some(1_000_000_000);
        let report = RunReport::new(&publishing(), outcome);
        assert_eq!(
            report.lines("ingest"),
            [
                "ingest 1 publishers 10 ev/s: acknowledged 1000/1000 (refused 0)  p50 5.001  \
                 p90 5.001  p99 5.001  max 5.001 ms  server 10.00 µs CPU/event (100000 ev/s/core), \
                 0 % CPU (log writer 1.0 %), RSS 3.0 MiB"
            ]
        );
        let metrics = report.metrics();
        assert!(metrics["acknowledgement.latency_ns.p99"] > 0.0);
        assert_eq!(metrics["server.log_writer_cpu_share"], 0.01);
        assert!(!metrics.contains_key(CPU_METRIC), "{metrics:?}");
    }

    #[test]
    fn clean_run_is_one_line() {
        check_verdict(
            |_| {},
            Verdict::Clean,
            "fanout all 1 users 2 conns 10.0 ev/s 415 B: delivered 2000/2000 (lost 0 dup 0 \
             reordered 0 foreign 0 malformed 0)  p50 5.001  p90 5.001  p99 5.001  max 5.001 ms  \
             server 5.00 µs CPU/delivery, 0 % CPU, RSS 3.0 MiB  20 deliveries/s",
        );
    }

    #[test]
    fn deflated_frames_are_told_beside_what_they_say() {
        let mut outcome = outcome();
        outcome.groups[0].deflated = 2000;
        let line = RunReport::new(&load(), outcome).lines("fanout").remove(0);
        let size = " 415 B for 2048 (2000 deflated): delivered";
        assert!(line.contains(size), "{line}");
    }

    #[test]
    fn whatever_went_wrong_fails_the_run_and_withholds_the_latency() {
        let bad = "  FAILED: deliveries are not as they should be";
        let failed = Verdict::Failed;
        check_verdict(|outcome| outcome.groups[0].violations.lost = 1, failed, bad);
        check_verdict(
            |outcome| outcome.groups[0].violations.duplicated = 1,
            failed,
            bad,
        );
        check_verdict(
            |outcome| outcome.groups[0].violations.reordered = 1,
            failed,
            bad,
        );
        check_verdict(
            |outcome| outcome.groups[0].violations.foreign = 1,
            failed,
            bad,
        );
        check_verdict(
            |outcome| outcome.groups[0].violations.malformed = 1,
            failed,
            bad,
        );
        let line = "  FAILED: 3 events were not acknowledged";
        check_verdict(|outcome| outcome.unsettled = 3, failed, line);
        let nack = |outcome: &mut PhaseOutcome| {
            outcome.nacks.insert("NO_AUDIENCE".to_owned(), 2);
        };
        check_verdict(nack, failed, "  FAILED: 2 events refused with NO_AUDIENCE");
        let closed = |outcome: &mut PhaseOutcome| outcome.closed.push("subscriber 1: x".to_owned());
        check_verdict(
            closed,
            failed,
            "  FAILED: connection closed: subscriber 1: x",
        );
        let aborted = |outcome: &mut PhaseOutcome| outcome.aborted = Some("x".to_owned());
        check_verdict(aborted, failed, "  FAILED: x");
    }

    #[test]
    fn generator_that_lags_says_so() {
        let slip = |outcome: &mut PhaseOutcome| outcome.slip_ns = histogram(1);
        let line = "  generator-bound: schedule slip p99 is 5.001 ms, the bound 1.000 ms";
        check_verdict(slip, Verdict::GeneratorBound, line);
        let line = "  generator-bound: busy for 96 % of the time, the bound is 95 %";
        check_verdict(|outcome| outcome.busy = 0.96, Verdict::GeneratorBound, line);
    }

    #[test]
    fn failed_warmup_fails_the_run() {
        let mut lossy = outcome();
        lossy.groups[0].violations.lost = 1;
        let mut report = RunReport::new(&load(), outcome());
        report.add_warmup(&RunReport::new(&load(), lossy));
        assert_eq!(report.verdict, Verdict::Failed);
        assert_eq!(
            report.reasons,
            ["warm-up: deliveries are not as they should be"]
        );
        assert!(report.groups[0].latency_ns.is_empty());
        assert!(report.acknowledgements.latency_ns.is_empty());
    }
}
