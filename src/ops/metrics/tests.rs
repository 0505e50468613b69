#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::counters::Stages;

/// One family of samples as a strict reader of the format sees it.
#[derive(Debug, Default)]
struct Parsed {
    kind: String,
    /// By name and labels as written.
    samples: BTreeMap<String, f64>,
}

/// Reads an exposition, insisting on what the format asks for: HELP, TYPE, then all samples of the
/// family together, none twice; names, labels and numbers well formed; a final line feed.
fn parse(text: &str) -> BTreeMap<String, Parsed> {
    let mut families: BTreeMap<String, Parsed> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !help.contains('\\'), "{line}");
            let type_line = lines.next().unwrap();
            let kind = type_line.strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(
                ["counter", "gauge", "histogram"].contains(&kind),
                "{type_line}"
            );
            assert!(is_name(name), "{name}");
            let family = Parsed {
                kind: kind.to_owned(),
                ..Parsed::default()
            };
            assert!(
                families.insert(name.to_owned(), family).is_none(),
                "{name} is there twice"
            );
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = families.get_mut(&current).unwrap();
        let suffix = name.strip_prefix(current.as_str()).expect(line);
        let suffixes: &[&str] = if family.kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        assert!(suffixes.contains(&suffix), "{line}");
        check_labels(&series[name.len()..]);
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(
            family.samples.insert(series.to_owned(), value).is_none(),
            "{line} is there twice"
        );
    }
    families
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(is_letter) && text.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

fn check_labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let labels = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .expect(text);
    let mut keys = HashSet::new();
    for label in labels.split(',') {
        let (key, value) = label.split_once('=').expect(text);
        assert!(is_name(key) && keys.insert(key), "{text}");
        let value = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .expect(text);
        assert!(!value.contains(['"', '\\', '\n']), "{text}");
    }
}

const VOCABULARY: Vocabulary = Vocabulary {
    rejections: &["INVALID_JSON", "NO_AUDIENCE"],
    known_types: &["completion"],
    refusals: &["TOKEN_MISSING"],
    closes: &["normal", "slow"],
    viewer_errors: &[],
};

fn cores() -> Vec<Arc<CoreStats>> {
    (0..2).map(|_| Arc::new(CoreStats::default())).collect()
}

fn rendered(cores: &[Arc<CoreStats>]) -> BTreeMap<String, Parsed> {
    let process = Process {
        version: "1.2.3",
        started_ms: 1_500,
        resident_bytes: Some(7),
        ..Process::default()
    };
    parse(&render(cores, &VOCABULARY, &process).body)
}

fn sample(families: &BTreeMap<String, Parsed>, series: &str) -> Option<f64> {
    let mut found = families
        .values()
        .filter_map(|family| family.samples.get(series));
    found.next().copied()
}

#[test]
fn every_metric_is_there_from_the_start() {
    let families = rendered(&cores());
    for metric in Counters::METRICS {
        let family = &families[metric.name];
        assert_eq!(
            family.kind == "counter",
            metric.kind == Kind::Counter,
            "{}",
            metric.name
        );
        let expected = metric
            .label
            .map_or(1, |label| label.names(&VOCABULARY).len());
        assert_eq!(family.samples.len(), expected, "{}", metric.name);
    }
    let check = |series, expected| assert_eq!(sample(&families, series), expected, "{series}");
    check("sightline_build_info{version=\"1.2.3\"}", Some(1.0));
    check("process_start_time_seconds", Some(1.5));
    check("process_resident_memory_bytes", Some(7.0));
    check("process_open_fds", None);
}

#[test]
fn numbers_of_all_cores_are_added_up_by_label() {
    let cores = cores();
    cores[0].counters.events_refused.at(1).add(2);
    cores[1].counters.events_refused.at(1).add(3);
    cores[1].counters.events_refused.at(7).add(4);
    cores[0].counters.viewers.set(5);
    let families = rendered(&cores);
    let check =
        |series, expected| assert_eq!(sample(&families, series), Some(expected), "{series}");
    check("sightline_events_refused_total{code=\"INVALID_JSON\"}", 0.0);
    check("sightline_events_refused_total{code=\"NO_AUDIENCE\"}", 5.0);
    check("sightline_events_refused_total{code=\"other\"}", 4.0);
    check("sightline_viewers", 5.0);
    check("sightline_http_responses_total{class=\"2xx\"}", 0.0);
}

#[test]
fn histograms_are_cumulative_and_end_with_all() {
    let cores = cores();
    for (core, ns) in cores.iter().zip([10_000, 3_000_000]) {
        let mut stages = Stages::default();
        stages.record(Stage::Total, ns, 5);
        stages.record(Stage::Total, 30_000_000_000, 1);
        stages.publish(1_000, core);
    }
    let families = rendered(&cores);
    let name = "sightline_stage_duration_seconds";
    let bucket = |stage: &str, le: &str| {
        sample(
            &families,
            &format!("{name}_bucket{{stage=\"{stage}\",le=\"{le}\"}}"),
        )
        .unwrap()
    };
    for stage in Stage::ALL.map(Stage::name) {
        let counts: Vec<f64> = EDGES_NS
            .map(|edge| bucket(stage, &seconds(edge).to_string()))
            .to_vec();
        assert!(counts.is_sorted(), "{stage} {counts:?}");
        let count = sample(&families, &format!("{name}_count{{stage=\"{stage}\"}}")).unwrap();
        assert_eq!(bucket(stage, "+Inf"), count);
        assert!(counts[EDGES_NS.len() - 1] <= count);
    }
    assert_eq!(
        bucket("total", "0.00001"),
        5.0,
        "an edge belongs to its bucket"
    );
    assert_eq!(bucket("total", "0.0025"), 5.0);
    assert_eq!(bucket("total", "0.005"), 10.0);
    assert_eq!(bucket("total", "10"), 10.0);
    assert_eq!(bucket("total", "+Inf"), 12.0);
    let sum = sample(&families, &format!("{name}_sum{{stage=\"total\"}}")).unwrap();
    assert!((sum - 60.01505).abs() < 1e-9, "{sum}");
    assert_eq!(bucket("parsed", "+Inf"), 0.0);
}
