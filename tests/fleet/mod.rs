//! A fleet of agents at work, and what its trees must be in the end.
//!
//! `scenario` tells what 200 agents publish, `fold` works out their trees in the plainest way: all
//! events sorted, then applied one after the other. Neither shares code with the gateway. Both
//! the tests of `src/agents` and those of the real binary take this in, by its path.

#![allow(clippy::unwrap_used, missing_docs)]
// Each of those who take it in uses a part.
#![allow(dead_code, unused_imports)]

mod fold;
mod scenario;

pub use fold::{normal, stats, trees};
pub use scenario::{AGENTS, PHASES, ROOT, events};
