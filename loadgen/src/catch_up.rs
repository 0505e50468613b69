//! Viewers that come back to what they have missed, all at once, beside a live load.
//!
//! Each viewer learns its cursor and leaves; every user's stream gets its events; then the live
//! load is measured alone, and again while all viewers come back. `backlog` is what the second
//! half has to know of the first, so that a server may be stopped and started between them.

mod backlog;
mod report;

use std::ops::Range;
use std::time::Duration;

pub(crate) use self::backlog::{Backlog, BacklogError};
pub(crate) use self::report::{CatchUpReport, Round};
use crate::driver::Settings;
use crate::phase::PhaseOutcome;
use crate::proc::Process;
use crate::report::{RunReport, failures};
use crate::returners::{Missed, Returners, user_of};
use crate::scenario::{Load, ScenarioError, Session};
use crate::schedule::{Lane, Schedule};
use crate::target::Target;

/// Who comes back to how much.
#[derive(Debug, Clone)]
pub(crate) struct CatchUp {
    /// The load beside which they do. Its users are none of theirs.
    pub(crate) live: Load,
    /// Viewers, who belong to the users in turn.
    pub(crate) viewers: usize,
    /// The users; not empty.
    pub(crate) users: Range<u32>,
    /// Events that each user's viewers miss.
    pub(crate) events: u32,
    /// Events a second while they are published, of all users together.
    pub(crate) events_per_second: f64,
    /// Over which the viewers come back.
    pub(crate) within: Duration,
    /// How long they may take.
    pub(crate) patience: Duration,
}

/// The first half: the viewers learn their cursors and leave, and their events are published.
/// Errors: a viewer was told no cursor, or an event was not acknowledged.
pub(crate) fn prepare(
    target: &Target,
    settings: Settings,
    catch_up: &CatchUp,
    server: Option<Process>,
) -> Result<Backlog, ScenarioError> {
    let (load, viewers) = (&catch_up.live, catch_up.viewers);
    let mut session = Session::open(target, settings, load, server, viewers)?;
    prepare_in(&mut session, target, catch_up)
}

/// The second half, or where `backlog` is none both: measures a round for each repeat of the live
/// load and hands it to `report` as it ends.
/// Errors: as of [`prepare`].
pub(crate) fn run(
    target: &Target,
    settings: Settings,
    catch_up: &CatchUp,
    server: Option<Process>,
    backlog: Option<Backlog>,
    mut report: impl FnMut(Round),
) -> Result<(), ScenarioError> {
    let viewers = backlog.as_ref().map_or(catch_up.viewers, Backlog::viewers);
    let mut session = Session::open(target, settings, &catch_up.live, server, viewers)?;
    let backlog = match backlog {
        Some(backlog) => backlog,
        None => prepare_in(&mut session, target, catch_up)?,
    };
    let warmup = session.measure(catch_up.live.warmup)?;
    for index in 0..catch_up.live.repeat {
        let mut quiet = session.measure(catch_up.live.duration)?;
        if index == 0 {
            quiet.add_warmup(&warmup);
        }
        let paths = backlog.paths(target);
        let returners = Returners::catching_up(paths, catch_up.within, backlog.missed());
        let schedule = catch_up.live.schedule(catch_up.patience);
        let outcome = session.run(schedule, Some(returners))?;
        let beside = RunReport::new(&catch_up.live, outcome);
        report(Round { quiet, beside });
        session.settle()?;
    }
    Ok(())
}

fn prepare_in(
    session: &mut Session<'_>,
    target: &Target,
    catch_up: &CatchUp,
) -> Result<Backlog, ScenarioError> {
    let CatchUp { users, events, .. } = catch_up;
    let paths = (0..catch_up.viewers).map(|viewer| target.subscriber_path(user_of(viewer, users)));
    let returners = Returners::greeted(paths.collect(), catch_up.within);
    let greeted = session.run(Schedule::new(Vec::new()), Some(returners))?;
    require_clean(&greeted)?;
    session.settle()?;
    let lane = Lane::counted(users.clone(), catch_up.events_per_second, *events);
    require_clean(&session.run(Schedule::new(vec![lane]), None)?)?;
    let greetings = greeted.returned.map(|returned| returned.greetings);
    let missed = Missed {
        run: session.last_run(),
        filling: session.form.filling,
        events: *events,
        users: users.clone(),
    };
    Backlog::new(missed, &greetings.unwrap_or_default())
        .ok_or_else(|| ScenarioError::NotPrepared("a viewer was told no cursor".to_owned()))
}

/// Lateness is no harm here.
fn require_clean(outcome: &PhaseOutcome) -> Result<(), ScenarioError> {
    let reasons = failures(outcome);
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(ScenarioError::NotPrepared(reasons.join(", ")))
    }
}
