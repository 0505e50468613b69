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
use crate::cpus::pin;
use crate::driver::{DriverError, Settings};
use crate::phase::Bell;
use crate::proc::Process;
use crate::report::RunReport;
use crate::scenario::{Load, ScenarioError};
use crate::schedule::Schedule;
use crate::session::Session;
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
    let mut staying = Session::open(target, &settings.alone(), live, server, others)?;
    let tracking = Settings {
        keeps_cursors: true,
        ..settings.alone()
    };
    let mut returning = Session::open(target, &tracking, viewers, None, live.subscribers())?;
    let warmup = staying.measure(live.warmup)?;
    for index in 0..live.repeat {
        let mut quiet = staying.measure(live.duration)?;
        if index == 0 {
            quiet.add_warmup(&warmup);
        }
        let (beside, back) = thread::scope(|scope| {
            let bell = Bell::default();
            let phase = reconnect.storm(target, bell.clone());
            let cpu = settings.cpus.get(1).copied();
            let returning = &mut returning;
            let back = scope.spawn(move || {
                cpu.map_or(Ok(()), pin).map_err(DriverError::from)?;
                let (schedule, storm, until) = phase;
                returning.run_storm(schedule, storm, until)
            });
            let stayed = staying.run_until(live.schedule(reconnect.longest()), bell);
            let back = back.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, ScenarioError>((stayed?, back?))
        })?;
        report(Round {
            quiet,
            beside: RunReport::new(live, beside),
            viewers: Some(RunReport::new(viewers, back)),
        });
        staying.settle()?;
    }
    Ok(())
}

impl Reconnect {
    /// What the viewers' loop does in one round.
    fn storm(&self, target: &Target, bell: Bell) -> (Schedule, Storm, Bell) {
        let paths = self.viewers.subscriber_paths(target);
        let storm = Storm::new(self.cut, paths, self.after, self.within, bell.clone());
        (self.viewers.schedule(self.longest()), storm, bell)
    }

    /// How long a round can last.
    fn longest(&self) -> Duration {
        self.after + self.patience
    }
}
