//! Deterministic simulation: several hubs, clients of every kind and a bad network under a virtual
//! clock, all from one seed. What everybody saw is compared with what a naive model allows.
//!
//! `SIGHTLINE_SIM_SEED=n` replays one seed, `SIGHTLINE_SIM_SEEDS=n` runs that many,
//! `SIGHTLINE_SIM_STEPS=n` makes each run longer or shorter.

mod acts;
mod check;
mod core;
mod dice;
mod edges;
mod events;
mod log;
mod network;
mod post;
#[cfg(feature = "failpoints")]
mod power;
mod publisher;
mod reader;
mod scenario;
mod verify;
mod viewer;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use edges::Edges;
use world::World;

const SEEDS: u64 = 256;
const STEPS: usize = 150;

/// What must happen in some run, or the runs say less than they seem to: closes by their reason,
/// refusals of events by their code, and what the simulated cores count.
const EDGES: [&str; 35] = [
    "DRAINING",
    "DUPLICATE_FIELD",
    "FORBIDDEN_AUDIENCE",
    "INVALID_FIELD",
    "INVALID_JSON",
    "NO_AUDIENCE",
    "OVERLOADED",
    "RATE_LIMITED",
    "RESERVED_TYPE",
    "STORAGE_FULL",
    "body not done",
    "duplicates",
    "frames deflated",
    "frames discarded",
    "gave_way",
    "going_away",
    "lag",
    "log fails",
    "log full",
    "mailbox full",
    "messages dropped",
    "no_sign_of_life",
    "nobody gave way",
    "normal",
    "not_allowed",
    "process stopped",
    "publisher stalled",
    "replayed",
    "resumed from memory",
    "resumed from the log",
    "slow_consumer",
    "state loaded",
    "state written",
    "token_expired",
    "token_revoked",
];

#[test]
fn every_viewer_sees_what_it_should_and_nothing_else() {
    let steps = number("SIGHTLINE_SIM_STEPS").map_or(STEPS, |steps| steps as usize);
    let (first, count) = match number("SIGHTLINE_SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("SIGHTLINE_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let mut edges = Edges::default();
    for seed in first..first + count {
        let run = || {
            let mut world = World::new(seed, steps);
            world.run().map(|()| world.edges())
        };
        let error = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(seen)) => {
                edges.add(&seen);
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => "it panicked, see above".to_owned(),
        };
        panic!(
            "seed {seed}: {error}\nreplay: SIGHTLINE_SIM_SEED={seed} SIGHTLINE_SIM_STEPS={steps} cargo test --test sim"
        );
    }
    let missed: Vec<&str> = EDGES
        .into_iter()
        .filter(|name| edges.of(name) == 0)
        .collect();
    assert!(
        count < SEEDS || missed.is_empty(),
        "no run came to {missed:?}"
    );
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}
