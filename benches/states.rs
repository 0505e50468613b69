//! What it costs to write a stream's state down and to read it again, by how many agents there are:
//! a turn of the owner core writes one at most, and a viewer waits for the reading. And what it costs
//! to count an event of a project that has been busy for more than a day, and to write that down.

use std::hint::black_box;

use compact_str::{CompactString, format_compact};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sightline::agents::{Bounds, Folded, StateOptions, StreamState};
use sightline::event::{Event, KnownType, Parser, Seq, StreamKind};

fn options(nodes_max: usize) -> StateOptions {
    StateOptions {
        phases: ["EXPLORE", "PLAN"].map(String::from).into(),
        bounds: Bounds {
            nodes_max,
            finished_trees_max: 1_000,
            finished_max_ms: 86_400_000,
        },
        seed: 7,
    }
}

/// A tree in which each agent has begun eight others and has said how far it is.
fn state(nodes: usize) -> StreamState {
    let mut state = StreamState::new(StreamKind::User, &options(nodes));
    let mut parser = Parser::new();
    let session = |n: usize| format_compact!("0f8e3c1a-7b52-4c6e-9a51-{n:012}");
    let mut seq = Seq::default();
    let mut hear = |event_type: KnownType, speaker: CompactString, data: String| {
        seq = seq.next();
        let event = Event {
            event_type: event_type.as_str().into(),
            user: Some("ada".into()),
            project: None,
            session: Some(speaker),
            event_id: Some(format_compact!("{seq}")),
            timestamp_ms: 1_763_805_600_000 + seq.0 as i64,
            data: data.into(),
            message_type: None,
            tool_name: None,
        };
        let folded = Folded {
            seq,
            received_ms: event.timestamp_ms,
            event: &event,
        };
        parser.with_known(event_type, &event.data, |known| {
            state.apply(folded, Some(known))
        });
    };
    for child in 1..nodes {
        let (parent, child) = (session((child - 1) / 8), session(child));
        let spawn = format!(
            r#"{{"child_session":"{child}","purpose":"look into it","git_branch":"agent/{child}"}}"#
        );
        hear(KnownType::AgentSpawned, parent, spawn);
        let progress = r#"{"phase":"PLAN","overall_progress":42.5,"tokens_used":123456}"#;
        hear(KnownType::ProgressUpdate, child, progress.to_owned());
    }
    state
}

fn one_state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state");
    for nodes in [10, 200, 10_000] {
        let (state, options) = (state(nodes), options(nodes));
        let snapshot = state.snapshot();
        group.throughput(Throughput::Bytes(snapshot.len() as u64));
        group.bench_function(BenchmarkId::new("snapshot", nodes), |bencher| {
            bencher.iter(|| black_box(&state).snapshot());
        });
        group.bench_function(BenchmarkId::new("restore", nodes), |bencher| {
            bencher.iter(|| StreamState::restore(StreamKind::User, black_box(&snapshot), &options));
        });
    }
    group.finish();
}

/// A project in which something was done every five seconds for longer than counts are kept.
struct Project {
    state: StreamState,
    event: Event,
    seq: Seq,
}

impl Project {
    fn busy() -> Self {
        let mut project = Self {
            state: StreamState::new(StreamKind::Project, &options(1)),
            event: Event {
                event_type: TYPES[0].into(),
                user: None,
                project: Some("demo".into()),
                session: None,
                event_id: None,
                timestamp_ms: 1_763_805_600_000,
                data: "{}".into(),
                message_type: None,
                tool_name: None,
            },
            seq: Seq::default(),
        };
        (0..20_000).for_each(|_| project.hear(5_000));
        project
    }

    fn hear(&mut self, after_ms: i64) {
        self.seq = self.seq.next();
        self.event.timestamp_ms += after_ms;
        self.event.event_type = TYPES[self.seq.0 as usize % TYPES.len()].into();
        let folded = Folded {
            seq: self.seq,
            received_ms: self.event.timestamp_ms,
            event: &self.event,
        };
        self.state.apply(folded, None);
    }
}

const TYPES: [&str; 5] = [
    "file_changed",
    "build_finished",
    "test_failed",
    "deploy_begun",
    "comment_added",
];

fn one_project(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("project");
    let mut project = Project::busy();
    group.bench_function("count", |bencher| bencher.iter(|| project.hear(1)));
    let project = Project::busy();
    let snapshot = project.state.snapshot();
    group.throughput(Throughput::Bytes(snapshot.len() as u64));
    group.bench_function("snapshot", |bencher| {
        bencher.iter(|| black_box(&project.state).snapshot());
    });
    group.finish();
}

criterion_group!(benches, one_state, one_project);
criterion_main!(benches);
