//! Viewers that read slowly or not at all, beside others of the same streams: what the others
//! notice, and what becomes of the slow ones.
//!
//! Each round measures the others alone, lets the slow ones connect, and measures the others again.
//! At the end of it the slow ones read what there is for them.

use crate::catch_up::Round;
use crate::driver::Settings;
use crate::proc::Process;
use crate::report::RunReport;
use crate::scenario::{Load, ScenarioError};
use crate::session::Session;
use crate::target::Target;

/// Who is slow, beside whom.
#[derive(Debug, Clone)]
pub(crate) struct SlowConsumer {
    /// The load of all who read.
    pub(crate) live: Load,
    /// Viewers that are slow, of its users in turn.
    pub(crate) slow: u32,
    /// How much each of them reads.
    pub(crate) bytes_per_second: u64,
}

/// Measures a round for each repeat of the live load and hands it to `report` as it ends.
pub(crate) fn run(
    target: &Target,
    settings: &Settings,
    slow: &SlowConsumer,
    server: Option<Process>,
    mut report: impl FnMut(Round),
) -> Result<(), ScenarioError> {
    let live = &slow.live;
    let mut session = Session::open(target, settings, live, server, slow.slow as usize)?;
    let warmup = session.measure(live.warmup)?;
    for index in 0..live.repeat {
        let mut quiet = session.measure(live.duration)?;
        if index == 0 {
            quiet.add_warmup(&warmup);
        }
        let beside = session.run_beside_laggards(target, slow.slow, slow.bytes_per_second)?;
        report(Round {
            quiet,
            beside: RunReport::new(live, beside),
            viewers: None,
        });
        session.settle()?;
    }
    Ok(())
}
