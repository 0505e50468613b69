//! What measuring costs: what a core records for an event that arrives, for one that is fanned out
//! and for one write, what it pays once a second to show it all, and, away from the cores, what the
//! page costs that tells it. `clock` is one read of the clock, of which a write pays one and a turn
//! with a fan-out one.
//!
//! An event pays `an event in`, its share of the turn's `a turn's fan-outs`, and for each delivery
//! `a write` with its clock; `nothing recorded` is the same loop without.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use sightline::counters::{CoreStats, Stage, Stages};
use sightline::engine::Clock;
use sightline::ops::Process;
use sightline::ops::stats::{self, Detail};

/// Times as a busy core sees them: most of some ten microseconds, a few of milliseconds.
struct Times(u64);

impl Times {
    fn next(&mut self) -> u64 {
        // Source: Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        let spread = self.0 >> 33;
        5_000 + spread % 60_000 + u64::from(spread.is_multiple_of(100)) * (spread % 8_000_000)
    }
}

fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("stages");
    let (mut stages, mut times) = (Stages::default(), Times(1));
    group.bench_function("nothing recorded", |b| b.iter(|| black_box(times.next())));
    group.bench_function("an event in", |b| {
        b.iter(|| {
            let ns = times.next();
            stages.record(Stage::Parsed, ns, 1);
            stages.record(Stage::Routed, ns, 1);
            stages.record(Stage::Numbered, ns, 1);
        });
    });
    group.bench_function("a turn's fan-outs, 16 batches of one moment", |b| {
        b.iter(|| {
            let ns = times.next();
            for _ in 0..16 {
                stages.handle_fanned_out(black_box(ns), 1);
            }
            stages.handle_queued(2 * ns);
        });
    });
    group.bench_function("a write", |b| {
        b.iter(|| {
            let ns = times.next();
            stages.record(Stage::Total, ns, 1);
            stages.record(Stage::Written, ns, 1);
        });
    });
    let clock = Clock::start();
    group.bench_function("clock", |b| b.iter(|| clock.monotonic_ns()));
    group.finish();
}

/// A core's histograms with times in all stages.
fn filled() -> (Stages, Arc<CoreStats>) {
    let (mut stages, mut times) = (Stages::default(), Times(7));
    for _ in 0..1_000_000 {
        for stage in Stage::ALL {
            stages.record(stage, times.next(), 1);
        }
    }
    let stats = Arc::new(CoreStats::default());
    stages.publish(1_000, &stats);
    (stages, stats)
}

fn show(c: &mut Criterion) {
    let mut group = c.benchmark_group("stages");
    let (mut stages, stats) = filled();
    let mut now_ms = 2_000;
    group.bench_function("publish, once a second", |b| {
        b.iter(|| {
            stages.record(Stage::Total, 5_000, 1);
            stages.publish(now_ms, &stats);
            now_ms += 1_000;
        });
    });
    for cores in [1, 2, 16] {
        let cores: Vec<_> = (0..cores).map(|_| filled().1).collect();
        for (name, detail) in [
            ("numbers", Detail::Numbers),
            ("histograms", Detail::Histograms),
        ] {
            let id = format!("the page's {name}, {} cores", cores.len());
            group.bench_function(id, |b| {
                b.iter(|| stats::render(&cores, &Process::default(), detail));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, record, show);
criterion_main!(benches);
