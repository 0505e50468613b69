//! Handshakes: how many a second, how long each takes, what they cost the server.
//!
//! Either as fast as the server answers, so many on their way at a time; or each at its time,
//! whatever the server does, and its latency from there. Every round has connections of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use latency_report::percentiles;
use serde::Serialize;

use crate::crew::Crew;
use crate::driver::{Dial, Driver, Settings};
use crate::filling::Filling;
use crate::link::Role;
use crate::phase::Phase;
use crate::proc::{Process, kernel_release};
use crate::publish::Packing;
use crate::record::Subscription;
use crate::report::{Bounds, Verdict, failures, generator_bounds, latency_text};
use crate::returners::Returners;
use crate::scenario::{ScenarioError, require_descriptors};
use crate::schedule::{Arrival, Lane, Schedule};
use crate::summary::{Spread, merged};
use crate::target::Target;
use crate::tls::TlsHandshakes;

/// How many connect, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectStorm {
    /// Connections of each round.
    pub(crate) connections: u32,
    /// Of how many users, in turn.
    pub(crate) users: u32,
    /// Handshakes a second and how they arrive; `None`: as fast as the server answers.
    pub(crate) pace: Option<(f64, Arrival)>,
    /// Rounds.
    pub(crate) repeat: u32,
    /// How long the last may take, where they have a pace.
    pub(crate) patience: Duration,
    /// When the generator itself is the bottleneck, where they have a pace.
    pub(crate) bounds: Bounds,
}

/// The handshakes of one round.
#[derive(Debug, Serialize)]
pub(crate) struct Handshakes {
    verdict: Verdict,
    reasons: Vec<String>,
    connections: u64,
    /// From the first to the last.
    seconds: f64,
    /// Each, from its intended dial; without a pace, from its dial. Empty where it would not
    /// stand.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    handshake_ns: BTreeMap<&'static str, u64>,
    /// How late they were dialled.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    dial_slip_ns: BTreeMap<&'static str, u64>,
    tls: TlsHandshakes,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_cpu_ns_per_handshake: Option<f64>,
    /// All of `handshake_ns`.
    #[serde(skip)]
    histogram: Histogram<u64>,
}

/// All rounds of one command.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectReport {
    schema: &'static str,
    /// What was run, to run it again.
    command: String,
    /// The kernel's release.
    kernel: Option<String>,
    rounds: Vec<Handshakes>,
    /// Over the rounds.
    per_second: Option<Spread>,
    /// Handshakes a second for which one core's CPU time would do, over the rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_core_second: Option<Spread>,
}

/// Runs all rounds and hands each to `report` as it ends.
pub(crate) fn run(
    target: &Target,
    settings: &Settings,
    storm: ConnectStorm,
    server: Option<Process>,
    mut report: impl FnMut(Handshakes),
) -> Result<(), ScenarioError> {
    require_descriptors(storm.connections as usize)?;
    // Minted before the clock runs.
    let paths: Vec<_> = (0..storm.connections)
        .map(|index| target.subscriber_path(index % storm.users))
        .collect();
    for _ in 0..storm.repeat {
        report(match storm.pace {
            Some(pace) => paced(settings.alone(), storm, pace, paths.clone(), server)?,
            None => unpaced(settings, storm, &paths, server)?,
        });
        std::thread::sleep(REST);
    }
    Ok(())
}

/// Until the server has done with the connections of a round.
const REST: Duration = Duration::from_millis(500);

fn unpaced(
    settings: &Settings,
    storm: ConnectStorm,
    paths: &[String],
    server: Option<Process>,
) -> Result<Handshakes, ScenarioError> {
    let subscription = |index| Subscription {
        user: index % storm.users,
        group: 0,
    };
    let dial = |(index, path): (usize, &String)| Dial {
        path: path.clone(),
        role: Role::Subscriber(index),
    };
    let dials: Vec<_> = paths.iter().enumerate().map(dial).collect();
    let subscriptions: Vec<_> = (0..storm.connections).map(subscription).collect();
    let mut crew = Crew::new(settings, &subscriptions, 1)?;
    let before_ns = server.map(|process| process.cpu_ns()).transpose()?;
    let connected = crew.connect(dials)?;
    let after_ns = server.map(|process| process.cpu_ns()).transpose()?;
    let cpu_ns = after_ns.zip(before_ns);
    let (connections, histogram) = (connected.handshake_ns.len(), connected.handshake_ns);
    Ok(Handshakes {
        verdict: Verdict::Clean,
        reasons: Vec::new(),
        connections,
        seconds: connected.seconds,
        handshake_ns: percentiles(&histogram),
        dial_slip_ns: BTreeMap::new(),
        tls: connected.tls_handshakes,
        server_cpu_ns_per_handshake: cpu_ns
            .and_then(|(after_ns, before_ns)| after_ns.checked_sub(before_ns))
            .map(|cpu_ns| cpu_ns as f64 / connections as f64),
        histogram,
    })
}

fn paced(
    settings: Settings,
    storm: ConnectStorm,
    (rate, arrival): (f64, Arrival),
    paths: Vec<String>,
    server: Option<Process>,
) -> Result<Handshakes, ScenarioError> {
    let duration = Duration::from_secs_f64(f64::from(storm.connections) / rate);
    let lane = Lane::new(0..1, rate, duration, arrival);
    let greets = settings.greets;
    let returners = Returners::connecting(paths, Schedule::new(vec![lane]), greets);
    let phase = Phase {
        run: 0,
        form: Filling::Letters(0).into(),
        packing: Packing::Single,
        schedule: Schedule::new(Vec::new()),
        start_ns: None,
        drain: duration + storm.patience,
        returners: Some(returners),
        storm: None,
        laggards: None,
        until: None,
        bell: None,
    };
    let mut driver = Driver::new(settings, Vec::new(), 0)?;
    let mut outcome = driver.run(phase, server)?;
    let mut reasons = failures(&outcome);
    let returned = outcome.returned.take();
    let (histogram, seconds, slip_ns) = returned.map_or_else(
        || (outcome.slip_ns.clone(), 0.0, outcome.slip_ns.clone()),
        |it| (it.caught_up_ns, it.seconds, it.slip_ns),
    );
    outcome.slip_ns = slip_ns;
    let mut verdict = Verdict::Failed;
    if reasons.is_empty() {
        reasons = generator_bounds(&outcome, storm.bounds);
        verdict = if reasons.is_empty() {
            Verdict::Clean
        } else {
            Verdict::GeneratorBound
        };
    }
    let stands = verdict == Verdict::Clean;
    let connections = histogram.len();
    Ok(Handshakes {
        verdict,
        reasons,
        connections,
        seconds,
        handshake_ns: if stands {
            percentiles(&histogram)
        } else {
            BTreeMap::new()
        },
        dial_slip_ns: percentiles(&outcome.slip_ns),
        tls: driver.tls_handshakes(),
        server_cpu_ns_per_handshake: outcome
            .server_cpu_ns
            .map(|cpu_ns| cpu_ns as f64 / connections.max(1) as f64),
        histogram,
    })
}

impl Handshakes {
    /// The report for people: a line, and one for each reason.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut line = format!(
            "connect-storm {} conns: {:.0} handshakes/s{}",
            self.connections,
            self.per_second(),
            self.tls.text()
        );
        line.push_str(&latency_text(&self.handshake_ns));
        if let (Some(cpu_ns), Some(per_core)) =
            (self.server_cpu_ns_per_handshake, self.per_core_second())
        {
            let cpu_us = cpu_ns / 1e3;
            let _ = write!(
                line,
                "  server {cpu_us:.1} µs CPU/handshake ({per_core:.0} handshakes/s/core)"
            );
        }
        let label = self.verdict.label();
        let reasons = self.reasons.iter();
        let reasons = reasons.map(|reason| format!("  {label}: {reason}"));
        std::iter::once(line).chain(reasons).collect()
    }

    fn per_second(&self) -> f64 {
        self.connections as f64 / self.seconds.max(1e-9)
    }

    fn per_core_second(&self) -> Option<f64> {
        let cpu_ns = self.server_cpu_ns_per_handshake?;
        (cpu_ns > 0.0).then(|| 1e9 / cpu_ns)
    }
}

impl ConnectReport {
    /// Sums up `rounds`.
    pub(crate) fn new(command: String, rounds: Vec<Handshakes>) -> Self {
        let per_core = rounds.iter().filter_map(Handshakes::per_core_second);
        Self {
            schema: "loadgen/connect-storm/1",
            command,
            kernel: kernel_release(),
            per_second: Spread::new(rounds.iter().map(Handshakes::per_second).collect()),
            per_core_second: Spread::new(per_core.collect()),
            rounds,
        }
    }

    /// The worst of the rounds.
    pub(crate) fn verdict(&self) -> Verdict {
        let verdicts = self.rounds.iter().map(|round| round.verdict);
        verdicts.max().unwrap_or(Verdict::Clean)
    }

    /// The report for people, over the rounds; nothing where there was one.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.rounds.len() < 2 {
            return Vec::new();
        }
        let spreads = [
            (&self.per_second, "handshakes/s"),
            (&self.per_core_second, "handshakes/s/core"),
        ];
        let line = |(spread, what): (&Option<Spread>, &str)| {
            let spread = spread.as_ref()?.text(1.0);
            Some(format!("{what} {spread}, median (min–max)"))
        };
        spreads.into_iter().filter_map(line).collect()
    }

    /// The latencies of all rounds together.
    pub(crate) fn merged_latencies(&self) -> Vec<(&'static str, Histogram<u64>)> {
        let histograms = self.rounds.iter().map(|round| &round.histogram);
        vec![("handshakes", merged(histograms))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::histogram;

    fn round(cpu_ns: Option<f64>) -> Handshakes {
        Handshakes {
            verdict: Verdict::Clean,
            reasons: Vec::new(),
            connections: 2000,
            seconds: 0.5,
            handshake_ns: percentiles(&histogram(2000)),
            dial_slip_ns: BTreeMap::new(),
            tls: TlsHandshakes::default(),
            server_cpu_ns_per_handshake: cpu_ns,
            histogram: histogram(2000),
        }
    }

    #[test]
    fn round_is_one_line_and_rounds_are_compared() {
        assert_eq!(
            round(Some(50_000.0)).lines(),
            [
                "connect-storm 2000 conns: 4000 handshakes/s  p50 5.001  p90 5.001  p99 5.001  \
                 max 5.001 ms  server 50.0 µs CPU/handshake (20000 handshakes/s/core)"
            ]
        );
        let report = ConnectReport::new(String::new(), vec![round(None), round(None)]);
        let line = "handshakes/s 4000.000 (4000.000–4000.000), median (min–max)";
        assert_eq!(report.lines(), [line]);
        assert_eq!(report.merged_latencies()[0].1.len(), 4000);
    }

    #[test]
    fn worst_round_is_the_verdict() {
        let bound = Handshakes {
            verdict: Verdict::GeneratorBound,
            reasons: vec!["x".to_owned()],
            ..round(None)
        };
        assert_eq!(bound.lines()[1], "  generator-bound: x");
        let report = ConnectReport::new(String::new(), vec![round(None), bound]);
        assert_eq!(report.verdict(), Verdict::GeneratorBound);
    }
}
