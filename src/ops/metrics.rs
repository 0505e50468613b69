//! `/metrics`: everything that is counted, as text for Prometheus.
//! Source: "Exposition formats", text format 0.0.4, of the Prometheus documentation.

use std::fmt::{Display, Write};
use std::sync::Arc;

use super::{Answer, Process};
use crate::counters::{CoreStats, Counters, Kind, Metric, Stage, StageSnapshot, Vocabulary};

/// The node's numbers: every core's taken together. Labels come from closed sets only; what a
/// family counts past its list of names shows as `other`.
pub fn render(cores: &[Arc<CoreStats>], vocabulary: &Vocabulary, process: &Process) -> Answer {
    let mut page = Exposition::default();
    page.process(process);
    for metric in Counters::METRICS {
        page.metric(metric, cores, vocabulary);
    }
    page.stages(&StageSnapshot::of(cores.iter().map(Arc::as_ref)));
    Answer {
        status: 200,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body: page.text,
    }
}

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn metric(&mut self, metric: &Metric, cores: &[Arc<CoreStats>], vocabulary: &Vocabulary) {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::GaugeMax | Kind::GaugeMin => "gauge",
        };
        self.head(metric.name, kind, metric.help);
        let value = |index| metric.merged(cores.iter().map(|core| &*core.counters), index);
        let Some(label) = metric.label else {
            return self.sample(metric.name, "", &[], value(0));
        };
        let names = label.names(vocabulary);
        for (index, name) in names.iter().enumerate() {
            self.sample(metric.name, "", &[(label.key, name)], value(index));
        }
        let places = cores
            .first()
            .map_or(0, |core| metric.cells(&core.counters).len());
        let unnamed: u64 = (names.len()..places).map(value).sum();
        if unnamed > 0 {
            self.sample(metric.name, "", &[(label.key, "other")], unnamed);
        }
    }

    fn stages(&mut self, stages: &StageSnapshot) {
        let name = "sightline_stage_duration_seconds";
        self.head(
            name,
            "histogram",
            "Time that events took from stage to stage.",
        );
        for stage in Stage::ALL {
            let label = ("stage", stage.name());
            let (below, count) = cumulative(stages, stage);
            for (edge, count) in EDGES_NS.iter().zip(below) {
                let edge = seconds(*edge).to_string();
                self.sample(name, "_bucket", &[label, ("le", &edge)], count);
            }
            self.sample(name, "_bucket", &[label, ("le", "+Inf")], count);
            self.sample(name, "_sum", &[label], seconds(stages.sum_ns(stage)));
            self.sample(name, "_count", &[label], count);
        }
    }

    /// The names that every Prometheus client library gives to these.
    fn process(&mut self, process: &Process) {
        self.head("sightline_build_info", "gauge", "The running version.");
        self.sample(
            "sightline_build_info",
            "",
            &[("version", process.version)],
            1,
        );
        let started = Some(process.started_ms as f64 / 1e3);
        self.figure(
            "process_start_time_seconds",
            "gauge",
            "Start time since the Unix epoch.",
            started,
        );
        let cpu = process.cpu_ms.map(|ms| ms as f64 / 1e3);
        self.figure(
            "process_cpu_seconds_total",
            "counter",
            "CPU time, user and system.",
            cpu,
        );
        self.figure(
            "process_resident_memory_bytes",
            "gauge",
            "Memory in RAM.",
            process.resident_bytes,
        );
        self.figure(
            "process_open_fds",
            "gauge",
            "Open descriptors.",
            process.descriptors_open,
        );
        self.figure(
            "process_max_fds",
            "gauge",
            "Descriptors allowed.",
            process.descriptors_max,
        );
    }

    fn figure(&mut self, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.head(name, kind, help);
            self.sample(name, "", &[], value);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Label values are ours and contain nothing to escape.
    fn sample(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.push(format_args!("{name}{suffix}"));
        for (index, (key, label)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            self.push(format_args!("{before}{key}=\"{label}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.push(format_args!("{after} {value}\n"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(text)
            .expect("a String takes everything");
    }
}

/// How many times were at most each edge, and how many there were. A time within a bucket of the
/// HDR histogram (0.1 % wide) that holds an edge counts as below it.
fn cumulative(stages: &StageSnapshot, stage: Stage) -> ([u64; EDGES_NS.len()], u64) {
    let histogram = stages.histogram(stage);
    let mut below = [0; EDGES_NS.len()];
    for bucket in histogram.iter_recorded() {
        let lowest_ns = histogram.lowest_equivalent(bucket.value_iterated_to());
        let first = EDGES_NS.partition_point(|edge| *edge < lowest_ns);
        for count in &mut below[first..] {
            *count += bucket.count_at_value();
        }
    }
    (below, histogram.len())
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
/// Edges of the exposed buckets: 1, 2.5 and 5 of each decade from 10 µs to 10 s.
const EDGES_NS: [u64; 19] = [
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2_500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    500 * MILLISECOND,
    1_000 * MILLISECOND,
    2_500 * MILLISECOND,
    5_000 * MILLISECOND,
    10_000 * MILLISECOND,
];

#[cfg(test)]
mod tests;
