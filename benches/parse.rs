//! What one event costs between the socket and its owner core: reading it, cutting it out of a
//! body, writing its time. The yardstick is serde_json picking the same fields and a raw `data`.
//!
//! `known` says what a shape costs: the same event of a type that nobody knows, and of one whose
//! shape is checked on the way; and its data shown once more to whoever keeps state from events.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use serde_json::value::RawValue;
use sightline::event::{Body, BodyKind, KnownType, Parser, Step, time};
use sightline::limits::READ_BYTES_PER_TURN;

/// A tool's event whose `data` is filled up so that the whole is about `length` bytes.
fn event(length: usize) -> String {
    let mut lines = String::new();
    loop {
        let text = format!(
            r#"{{"event_type":"tool_execution","user_id":"user-4711","project_id":42,"session_id":"0f8e3c1a-7b52-4c6e-9a51-2f6d7c1b8e90","timestamp":"2026-11-22T10:00:00.250Z","event_id":"01JD9Z","data":{{"tool_name":"Bash","duration_ms":1250,"success":true,"output":"{lines}","message":{{"type":"assistant","parts":[1,2.5,null]}}}}}}"#
        );
        if text.len() >= length {
            return text;
        }
        lines.push_str("ok \\\"é\\\" 12\\n");
    }
}

#[derive(Deserialize)]
struct Fields<'t> {
    event_type: &'t str,
    user_id: &'t str,
    project_id: u64,
    session_id: &'t str,
    timestamp: &'t str,
    #[serde(borrow)]
    data: &'t RawValue,
}

fn one_event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("event");
    for length in [415, 4_096] {
        let text = Bytes::from(event(length));
        group.throughput(Throughput::Bytes(text.len() as u64));
        let mut parser = Parser::new();
        group.bench_function(BenchmarkId::new("parse", length), |bencher| {
            bencher.iter(|| parser.parse(black_box(&text), 0));
        });
        group.bench_function(BenchmarkId::new("serde_json", length), |bencher| {
            bencher.iter(|| {
                let fields: Fields<'_> = serde_json::from_slice(black_box(&text)).ok()?;
                let ids = (fields.event_type, fields.user_id, fields.session_id);
                Some((
                    ids,
                    fields.project_id,
                    fields.timestamp,
                    fields.data.get().len(),
                ))
            });
        });
    }
    group.finish();
}

fn known(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("known");
    for (known, data) in KNOWN {
        let event_type = known.as_str();
        let unknown = format!("x{}", &event_type[1..]);
        for (name, event_type) in [("unknown", unknown.as_str()), ("checked", event_type)] {
            let text = format!(
                r#"{{"event_type":"{event_type}","user_id":"user-4711","session_id":"0f8e3c1a","data":{data}}}"#
            );
            let (text, mut parser) = (Bytes::from(text), Parser::new());
            group.bench_function(BenchmarkId::new(name, known.as_str()), |bencher| {
                bencher.iter(|| parser.parse(black_box(&text), 0));
            });
        }
        let mut parser = Parser::new();
        group.bench_function(BenchmarkId::new("shown", known.as_str()), |bencher| {
            bencher.iter(|| {
                parser.with_known(known, black_box(data.as_bytes()), |known| {
                    black_box(known);
                })
            });
        });
    }
    group.finish();
}

/// A type of few fields, and the one of most.
const KNOWN: [(KnownType, &str); 2] = [
    (
        KnownType::PhaseTransition,
        r#"{"from_phase":"EXPLORE","to_phase":"PLAN","confidence":0.8,"key_findings":["a","b"]}"#,
    ),
    (
        KnownType::GitOperation,
        r#"{"operation_type":"commit","branch":"feat/types","commit_hash":"8de4aaf99015e260","commit_message":"event: what a known type holds","files_changed":["src/event/known.rs","src/event/parse.rs"],"lines_added":410,"lines_deleted":38,"merge_conflicts":false,"success":true,"duration_ms":12,"author":"ada","repository":"sightline"}"#,
    ),
];

fn one_body(criterion: &mut Criterion) {
    let events = vec![event(415); 100];
    let bodies = [
        ("array", BodyKind::Json, format!("[{}]", events.join(","))),
        ("lines", BodyKind::Ndjson, events.join("\n")),
    ];
    let mut group = criterion.benchmark_group("body_of_100");
    for (name, kind, text) in bodies {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let (bytes, mut parser) = (Bytes::from(text), Parser::new());
        group.bench_function(name, |bencher| {
            bencher.iter(|| count(Body::new(bytes.clone(), kind), &mut parser));
        });
    }
    group.finish();
}

fn count(mut body: Body, parser: &mut Parser) -> usize {
    let (mut events, mut budget) = (0, READ_BYTES_PER_TURN);
    loop {
        match body.next(parser, 0, &mut budget) {
            Step::Event(_, event) => events += usize::from(event.is_ok()),
            Step::Working => budget = READ_BYTES_PER_TURN,
            Step::Done => return events,
        }
    }
}

fn times(criterion: &mut Criterion) {
    let mut out = Vec::with_capacity(24);
    criterion.bench_function("time/write", |bencher| {
        bencher.iter(|| {
            out.clear();
            time::write_rfc3339_ms(&mut out, black_box(1_795_341_600_250));
            out.len()
        });
    });
    criterion.bench_function("time/parse", |bencher| {
        bencher.iter(|| time::parse_rfc3339_ms(black_box("2026-11-22T10:00:00.250Z")));
    });
}

criterion_group!(benches, one_event, known, one_body, times);
criterion_main!(benches);
