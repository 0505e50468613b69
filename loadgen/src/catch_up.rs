//! Viewers that come back to what they have missed, all at once, beside a live load.
//!
//! Each viewer learns its cursor and leaves; every user's stream gets its events; then the live
//! load is measured alone, and again while all viewers come back. `backlog` is what the second
//! half has to know of the first, so that a server may be stopped and started between them.
//!
//! The viewers who come back have a thread and a loop of their own: a million frames that are read
//! and checked would otherwise be in the live load's latency.

mod backlog;
mod report;

use std::ops::Range;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

pub(crate) use self::backlog::{Backlog, BacklogError};
pub(crate) use self::report::{CatchUpReport, Round};
use crate::cpus::pin;
use crate::driver::{Driver, DriverError, Settings};
use crate::payload::Form;
use crate::phase::{Bell, Phase, PhaseOutcome};
use crate::proc::Process;
use crate::publish::Packing;
use crate::report::{RunReport, failures};
use crate::returners::{Missed, Returners, user_of};
use crate::scenario::{Load, ScenarioError};
use crate::schedule::{Lane, Schedule};
use crate::session::Session;
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
    settings: &Settings,
    catch_up: &CatchUp,
    server: Option<Process>,
) -> Result<Backlog, ScenarioError> {
    let (load, viewers) = (&catch_up.live, catch_up.viewers);
    let mut session = Session::open(target, &settings.alone(), load, server, viewers)?;
    prepare_in(&mut session, target, settings, catch_up)
}

/// The second half, or where `backlog` is none both: measures a round for each repeat of the live
/// load and hands it to `report` as it ends.
/// Errors: as of [`prepare`].
pub(crate) fn run(
    target: &Target,
    settings: &Settings,
    catch_up: &CatchUp,
    server: Option<Process>,
    backlog: Option<Backlog>,
    mut report: impl FnMut(Round),
) -> Result<(), ScenarioError> {
    let viewers = backlog.as_ref().map_or(catch_up.viewers, Backlog::viewers);
    let mut session = Session::open(target, &settings.alone(), &catch_up.live, server, viewers)?;
    let backlog = match backlog {
        Some(backlog) => backlog,
        None => prepare_in(&mut session, target, settings, catch_up)?,
    };
    let warmup = session.measure(catch_up.live.warmup)?;
    for index in 0..catch_up.live.repeat {
        let mut quiet = session.measure(catch_up.live.duration)?;
        if index == 0 {
            quiet.add_warmup(&warmup);
        }
        let paths = backlog.paths(target);
        let returners = Returners::catching_up(paths, catch_up.within, backlog.missed());
        let outcome = run_beside(&mut session, settings, catch_up, returners)?;
        let beside = RunReport::new(&catch_up.live, outcome);
        report(Round {
            quiet,
            beside,
            viewers: None,
        });
        session.settle()?;
    }
    Ok(())
}

/// The live load from the first dial of `returners` until the last of them has all.
fn run_beside(
    session: &mut Session<'_>,
    settings: &Settings,
    catch_up: &CatchUp,
    returners: Returners,
) -> Result<PhaseOutcome, ScenarioError> {
    let (form, patience, bell) = (session.form, catch_up.patience, Bell::default());
    thread::scope(|scope| {
        let (until, settings) = (bell.clone(), settings.clone());
        let bringing = scope.spawn(move || {
            settings.cpus.get(1).copied().map_or(Ok(()), pin)?;
            bring_back(settings, form, returners, patience, bell)
        });
        let live = session.run_until(catch_up.live.schedule(patience), until);
        let brought = bringing.join().unwrap_or_else(|panic| resume_unwind(panic));
        let mut outcome = live?;
        outcome.add_returned(brought?);
        Ok(outcome)
    })
}

/// Brings `returners` back, and rings `bell` when nothing is awaited of them, at the latest after
/// `patience`.
fn bring_back(
    settings: Settings,
    form: Form,
    returners: Returners,
    patience: Duration,
    bell: Bell,
) -> Result<PhaseOutcome, DriverError> {
    let phase = Phase {
        run: 0,
        form,
        packing: Packing::Single,
        schedule: Schedule::new(Vec::new()),
        start_ns: None,
        drain: patience,
        returners: Some(returners),
        storm: None,
        laggards: None,
        until: None,
        bell: Some(bell),
    };
    Driver::new(settings, Vec::new(), 0)?.run(phase, None)
}

fn prepare_in(
    session: &mut Session<'_>,
    target: &Target,
    settings: &Settings,
    catch_up: &CatchUp,
) -> Result<Backlog, ScenarioError> {
    let (CatchUp { users, events, .. }, form) = (catch_up, session.form);
    let paths = (0..catch_up.viewers).map(|viewer| target.subscriber_path(user_of(viewer, users)));
    let returners = Returners::greeted(paths.collect(), catch_up.within);
    let greeted = bring_back(
        settings.clone(),
        form,
        returners,
        catch_up.patience,
        Bell::default(),
    )?;
    require_clean(&greeted)?;
    session.settle()?;
    let lane = Lane::counted(users.clone(), catch_up.events_per_second, *events);
    require_clean(&session.run(Schedule::new(vec![lane]))?)?;
    let greetings = greeted.returned.map(|returned| returned.greetings);
    let missed = Missed {
        run: session.last_run(),
        filling: form.filling,
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
