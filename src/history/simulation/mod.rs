//! The log against a model of it, on a storage that fails, all from one seed.
//!
//! Whatever happens: what was acknowledged as durable is there after each opening, exactly once and
//! as it was; no seq is given twice; what a viewer is told about its cursor is true.
//!
//! `SIGHTLINE_SIM_SEED=n` replays one seed, `SIGHTLINE_SIM_SEEDS=n` runs that many.

mod judge;
mod model;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

const SEEDS: u64 = 256;
const STEPS: usize = 120;

/// What must happen in some run, or the runs say less than they seem to.
const EDGES: [&str; 17] = [
    "acked",
    "chore failed",
    "clean close",
    "cut",
    "decisions carried",
    "died while opening",
    "erasing",
    "files lost",
    "floor on a full disk",
    "hole stated",
    "kill",
    "lost stated",
    "no room to open",
    "power cut",
    "retention",
    "shaken",
    "write failed",
];

#[test]
fn nothing_acknowledged_is_lost_and_no_seq_is_given_twice() {
    let (first, count) = match number("SIGHTLINE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SIGHTLINE_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let mut edges = BTreeMap::<&str, u64>::new();
    for seed in first..first + count {
        let mut world = World::new(seed);
        let run = AssertUnwindSafe(|| (0..STEPS).try_for_each(|_| world.step()));
        let outcome = catch_unwind(run).unwrap_or_else(|_| Err("it panicked, see above".into()));
        if let Err(error) = outcome {
            panic!("seed {seed}: {error}\nreplay it with SIGHTLINE_SIM_SEED={seed}");
        }
        for (edge, times) in world.edges() {
            *edges.entry(edge).or_default() += times;
        }
    }
    if count >= SEEDS {
        let missed: Vec<_> = EDGES
            .iter()
            .filter(|edge| !edges.contains_key(*edge))
            .collect();
        assert!(missed.is_empty(), "never happened: {missed:?}; {edges:?}");
    }
    eprintln!("{edges:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}
