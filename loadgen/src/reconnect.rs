//! Established viewers that are all cut off at once and come back with their cursors, beside others
//! who stay.
//!
//! Both halves are loads of their own, each with its connections, its events and its loop: the
//! viewers' loop runs on a thread beside that of the others, whose latency it is not in. Each round
//! measures the others alone, and then from shortly before the cut until the last viewer is live
//! again.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use crate::catch_up::Round;
use crate::driver::Settings;
use crate::phase::{Bell, PhaseOutcome};
use crate::proc::Process;
use crate::report::RunReport;
use crate::scenario::{Load, ScenarioError, Session};
use crate::storm::{Cut, Storm};
use crate::target::Target;

/// Who is cut off, and beside whom.
#[derive(Debug, Clone)]
pub(crate) struct Reconnect {
    /// The load of those who stay.
    pub(crate) live: Load,
    /// The load of those who are cut off. Its users are none of the others'.
    pub(crate) viewers: Load,
    /// How.
    pub(crate) cut: Cut,
    /// From a round's first event to the cut.
    pub(crate) after: Duration,
    /// Over which they are dialled again.
    pub(crate) within: Duration,
    /// How long they may take.
    pub(crate) patience: Duration,
}

/// Measures a round for each repeat of the live load and hands it to `report` as it ends.
pub(crate) fn run(
    target: &Target,
    settings: &Settings,
    reconnect: &Reconnect,
    server: Option<Process>,
    mut report: impl FnMut(Round),
) -> Result<(), ScenarioError> {
    let Reconnect { live, viewers, .. } = reconnect;
    let others = viewers.subscribers() * 2;
    let mut staying = Session::open(target, settings.clone(), live, server, others)?;
    let tracking = Settings {
        keeps_cursors: true,
        ..settings.clone()
    };
    let mut returning = Session::open(target, tracking, viewers, None, live.subscribers())?;
    let warmup = staying.measure(live.warmup)?;
    for index in 0..live.repeat {
        let mut quiet = staying.measure(live.duration)?;
        if index == 0 {
            quiet.add_warmup(&warmup);
        }
        let (beside, back) = run_round(target, reconnect, &mut staying, &mut returning)?;
        report(Round {
            quiet,
            beside: RunReport::new(live, beside),
            viewers: Some(RunReport::new(viewers, back)),
        });
        staying.settle()?;
    }
    Ok(())
}

/// What came of those who stayed, and of those who were cut off.
fn run_round(
    target: &Target,
    reconnect: &Reconnect,
    staying: &mut Session<'_>,
    returning: &mut Session<'_>,
) -> Result<(PhaseOutcome, PhaseOutcome), ScenarioError> {
    let Reconnect {
        cut,
        after,
        within,
        patience,
        ..
    } = *reconnect;
    let bell = Bell::default();
    let paths = reconnect.viewers.subscriber_paths(target);
    let storm = Storm::new(cut, paths, after, within, bell.clone());
    let longest = after + patience;
    thread::scope(|scope| {
        let schedule = reconnect.viewers.schedule(longest);
        let until = bell.clone();
        let back = scope.spawn(move || returning.run_storm(schedule, storm, until));
        let stayed = staying.run_until(reconnect.live.schedule(longest), bell);
        let back = back.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((stayed?, back?))
    })
}
