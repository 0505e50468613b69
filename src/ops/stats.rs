//! `/v1/stats`: the numbers that a person looks at, per core and for the node, and where the time
//! of events goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use latency_report::Encoded;
use serde::Serialize;

use super::{Answer, Process};
use crate::counters::{Cell, CoreStats, Counters, Stage, StageSnapshot};

/// How much of the stages is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Percentiles, and each core's histograms whole: `?histograms=1`.
    Histograms,
    /// Percentiles.
    Numbers,
}

/// One JSON object: `version`, `uptimeMs`, `total`, `cores` (in order), `log`, `stagesUs`; each core
/// has `stagesUs` too. Times of stages are microseconds; a stage without times has a count of 0 and
/// no more. With [`Detail::Histograms`] each core has `histograms` besides: by stage, where there are
/// times, in nanoseconds, as [`Encoded`]. Takes a quarter of a millisecond a core, two with
/// them.
pub fn render(cores: &[Arc<CoreStats>], process: &Process, detail: Detail) -> Answer {
    let counters: Vec<&Counters> = cores.iter().map(|core| &*core.counters).collect();
    let stages = StageSnapshot::of(cores.iter().map(Arc::as_ref));
    Answer::json(
        200,
        &Stats {
            version: process.version,
            uptime_ms: process.now_ms.saturating_sub(process.started_ms),
            total: Numbers::of(&counters),
            cores: cores.iter().map(|core| Core::of(core, detail)).collect(),
            log: Log::of(&counters),
            stages_us: percentiles(&stages),
        },
    )
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    version: &'static str,
    uptime_ms: i64,
    total: Numbers,
    cores: Vec<Core>,
    log: Log,
    stages_us: BTreeMap<&'static str, Percentiles>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Core {
    #[serde(flatten)]
    numbers: Numbers,
    stages_us: BTreeMap<&'static str, Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    histograms: Option<BTreeMap<&'static str, Encoded>>,
}

impl Core {
    fn of(core: &CoreStats, detail: Detail) -> Self {
        let stages = core.stages.load();
        Self {
            numbers: Numbers::of(&[&*core.counters]),
            stages_us: percentiles(&stages),
            histograms: (detail == Detail::Histograms).then(|| encoded(&stages)),
        }
    }
}

fn percentiles(stages: &StageSnapshot) -> BTreeMap<&'static str, Percentiles> {
    let named = |stage: Stage| (stage.name(), Percentiles::of(stages, stage));
    Stage::ALL.map(named).into()
}

// A count beyond what the encoding holds (2^63) would leave its stage out.
fn encoded(stages: &StageSnapshot) -> BTreeMap<&'static str, Encoded> {
    let all = Stage::ALL.into_iter();
    let with_times = all.filter(|stage| !stages.histogram(*stage).is_empty());
    with_times
        .filter_map(|stage| Some((stage.name(), Encoded::new(stages.histogram(stage)).ok()?)))
        .collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Numbers {
    connections: Connections,
    events: Events,
    deliveries: Deliveries,
    outbox_bytes: u64,
    subscriptions: u64,
    streams: u64,
    interests: u64,
    ingest_bytes_in_flight: u64,
    missed: Missed,
    traffic: Traffic,
    mail: Mail,
    turns: u64,
    panics: u64,
}

#[derive(Serialize)]
struct Connections {
    open: u64,
    viewers: u64,
    publishers: u64,
    accepted: u64,
    adopted: u64,
}

#[derive(Serialize)]
struct Events {
    received: u64,
    accepted: u64,
    duplicates: u64,
    refused: u64,
}

/// Frames into outboxes and out of them.
#[derive(Serialize)]
struct Deliveries {
    queued: u64,
    written: u64,
    discarded: u64,
}

/// What viewers had missed, and the memory that it came from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Missed {
    catch_ups: u64,
    events_replayed: u64,
    ring_bytes: u64,
    ring_hits: u64,
    ring_misses: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Traffic {
    bytes_read: u64,
    bytes_written: u64,
    writes: u64,
    writes_blocked: u64,
}

#[derive(Serialize)]
struct Mail {
    sent: u64,
    received: u64,
    full: u64,
    wakes: u64,
}

/// The event log, which is the node's and no core's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    records: u64,
    records_kept: u64,
    bytes_unkept: u64,
    bytes_queued: u64,
    bytes_written: u64,
    commits: u64,
    syncs: u64,
    failures: u64,
    is_refusing: bool,
    segments: u64,
    bytes: u64,
    // When the earliest event that is held arrived, since the Unix epoch.
    earliest_s: Option<u64>,
    damaged: u64,
    reads: u64,
    reads_failed: u64,
    events_read: u64,
    events_erased: u64,
    panics: u64,
    duplicates: DuplicatesWindow,
}

/// By which duplicates are recognised.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DuplicatesWindow {
    ids: u64,
    span_ms: u64,
}

impl Log {
    fn of(cores: &[&Counters]) -> Self {
        let sum = |cell: fn(&Counters) -> &Cell| sum(cores, cell);
        let spans = cores.iter().map(|core| core.duplicates_span_ms.value());
        Self {
            records: sum(|core| &core.log_records),
            records_kept: sum(|core| &core.log_records_kept),
            bytes_unkept: sum(|core| &core.log_unkept),
            bytes_queued: sum(|core| &core.log_queued),
            bytes_written: sum(|core| &core.log_bytes_written),
            commits: sum(|core| &core.log_commits),
            syncs: sum(|core| &core.log_syncs),
            failures: sum(|core| &core.log_failures),
            is_refusing: sum(|core| &core.log_refusing) > 0,
            segments: sum(|core| &core.log_segments),
            bytes: sum(|core| &core.log_bytes),
            earliest_s: Some(sum(|core| &core.log_earliest_s)).filter(|seconds| *seconds > 0),
            damaged: sum(|core| &core.log_damaged),
            reads: cores.iter().map(|core| core.log_reads.total()).sum(),
            reads_failed: sum(|core| &core.log_reads_failed),
            events_read: sum(|core| &core.log_events_read),
            events_erased: sum(|core| &core.log_events_erased),
            panics: sum(|core| &core.log_panics),
            duplicates: DuplicatesWindow {
                ids: sum(|core| &core.duplicates_window),
                span_ms: spans.min().unwrap_or(0),
            },
        }
    }
}

fn sum(cores: &[&Counters], cell: fn(&Counters) -> &Cell) -> u64 {
    cores.iter().map(|core| cell(core).value()).sum()
}

impl Numbers {
    fn of(cores: &[&Counters]) -> Self {
        let sum = |cell: fn(&Counters) -> &Cell| sum(cores, cell);
        Self {
            connections: Connections {
                open: sum(|core| &core.connections),
                viewers: sum(|core| &core.viewers),
                publishers: sum(|core| &core.publishers),
                accepted: sum(|core| &core.connections_accepted),
                adopted: sum(|core| &core.connections_adopted),
            },
            events: Events {
                received: sum(|core| &core.events_received),
                accepted: sum(|core| &core.events_accepted),
                duplicates: sum(|core| &core.events_duplicate),
                refused: cores.iter().map(|core| core.events_refused.total()).sum(),
            },
            deliveries: Deliveries {
                queued: sum(|core| &core.frames_queued),
                written: sum(|core| &core.frames_written),
                discarded: sum(|core| &core.frames_discarded),
            },
            outbox_bytes: sum(|core| &core.outbox_bytes),
            subscriptions: sum(|core| &core.subscriptions),
            streams: sum(|core| &core.streams),
            interests: sum(|core| &core.interests),
            ingest_bytes_in_flight: sum(|core| &core.ingest_bytes_in_flight),
            missed: Missed {
                catch_ups: sum(|core| &core.catch_ups),
                events_replayed: sum(|core| &core.events_replayed),
                ring_bytes: sum(|core| &core.ring_bytes),
                ring_hits: sum(|core| &core.ring_hits),
                ring_misses: sum(|core| &core.ring_misses),
            },
            traffic: Traffic {
                bytes_read: sum(|core| &core.bytes_read),
                bytes_written: sum(|core| &core.bytes_written),
                writes: sum(|core| &core.writes),
                writes_blocked: sum(|core| &core.writes_blocked),
            },
            mail: Mail {
                sent: sum(|core| &core.mail_sent),
                received: sum(|core| &core.mail_received),
                full: sum(|core| &core.mail_full),
                wakes: sum(|core| &core.wakes_sent),
            },
            turns: sum(|core| &core.turns),
            panics: sum(|core| &core.panics),
        }
    }
}

#[derive(Serialize)]
struct Percentiles {
    count: u64,
    #[serde(flatten)]
    times: Option<Times>,
}

#[derive(Serialize)]
struct Times {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p99_9: f64,
    #[serde(rename = "p99.99")]
    p99_99: f64,
    max: f64,
}

impl Percentiles {
    fn of(stages: &StageSnapshot, stage: Stage) -> Self {
        let histogram = stages.histogram(stage);
        let count = histogram.len();
        let at = |quantile| microseconds(histogram.value_at_quantile(quantile) as f64);
        let times = (count > 0).then(|| Times {
            mean: microseconds(stages.sum_ns(stage) as f64 / count as f64),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: microseconds(histogram.max() as f64),
        });
        Self { count, times }
    }
}

/// To one decimal: the histograms know three digits of it.
fn microseconds(ns: f64) -> f64 {
    (ns / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;
    use crate::counters::Stages;

    fn rendered(cores: &[Arc<CoreStats>]) -> Value {
        let process = Process {
            version: "1.2.3",
            started_ms: 1_000,
            now_ms: 5_000,
            ..Process::default()
        };
        let answer = render(cores, &process, Detail::Histograms);
        assert_eq!(
            (answer.status, answer.content_type),
            (200, "application/json")
        );
        serde_json::from_str(&answer.body).unwrap()
    }

    #[test]
    fn cores_stand_alone_and_add_up() {
        let cores: Vec<_> = (1..=2_u64)
            .map(|n| {
                let core = CoreStats::default();
                core.counters.viewers.set(n);
                core.counters.events_refused.at(3).add(10 * n);
                core.counters.writes_blocked.add(n);
                core.counters.duplicates_window.set(n);
                core.counters.duplicates_span_ms.set(100 * n);
                Arc::new(core)
            })
            .collect();
        // The log's threads count in the first core's set.
        let first = &cores[0].counters;
        first.log_records.add(7);
        first.log_refusing.set(1);
        first.log_reads.at(1).add(2);
        let stats = rendered(&cores);
        let check = |pointer: &str, expected: Value| {
            assert_eq!(stats.pointer(pointer), Some(&expected), "{pointer}");
        };
        check("/version", json!("1.2.3"));
        check("/uptimeMs", json!(4_000));
        check("/cores/0/connections/viewers", json!(1));
        check("/cores/1/connections/viewers", json!(2));
        check("/total/connections/viewers", json!(3));
        check("/total/events/refused", json!(30));
        check("/total/traffic/writesBlocked", json!(3));
        check("/log/records", json!(7));
        check("/log/isRefusing", json!(true));
        check("/log/earliestS", Value::Null);
        check("/log/reads", json!(2));
        check("/log/duplicates", json!({"ids": 3, "spanMs": 100}));
        check("/stagesUs/parsed", json!({"count": 0}));
    }

    #[test]
    fn histograms_come_only_where_they_are_asked_for() {
        let core = [Arc::new(CoreStats::default())];
        let answer = render(&core, &Process::default(), Detail::Numbers);
        let stats: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(stats["cores"][0].get("histograms"), None);
        assert_eq!(stats["cores"][0]["stagesUs"]["total"], json!({"count": 0}));
    }

    #[test]
    fn percentiles_are_of_each_core_and_of_all() {
        let cores: Vec<_> = [1_000_000, 9_000_000]
            .map(|ns| {
                let (core, mut stages) = (CoreStats::default(), Stages::default());
                stages.record(Stage::Total, ns, 10);
                stages.publish(1_000, &core);
                Arc::new(core)
            })
            .into();
        let stats = rendered(&cores);
        for (core, ms) in stats["cores"].as_array().unwrap().iter().zip([1.0, 9.0]) {
            let of_core = &core["stagesUs"]["total"];
            assert_eq!(of_core["count"], 10);
            assert!((of_core["max"].as_f64().unwrap() / (1e3 * ms) - 1.0).abs() < 0.001);
            let histograms = core["histograms"].as_object().unwrap();
            assert_eq!(histograms.keys().collect::<Vec<_>>(), ["total"]);
            let histogram: Encoded = serde_json::from_value(histograms["total"].clone()).unwrap();
            let histogram = histogram.decode().unwrap();
            assert_eq!(
                (histogram.len(), histogram.count_at(ms as u64 * 1_000_000)),
                (10, 10)
            );
        }
        let total = &stats["stagesUs"]["total"];
        let check = |key: &str, expected: f64| {
            let value = total[key].as_f64().unwrap();
            assert!((value / expected - 1.0).abs() < 0.001, "{key}: {value}");
        };
        check("count", 20.0);
        check("mean", 5_000.0);
        check("p50", 1_000.0);
        for key in ["p90", "p99", "p99.9", "p99.99", "max"] {
            check(key, 9_000.0);
        }
    }
}
