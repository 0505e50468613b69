//! The loops that drive a load: one on each CPU that the generator was given.
//!
//! They share the load. The subscribers are dealt out in turn, and so are the publishers, with
//! whose users each loop sends its share of the one schedule; every event has its intended time
//! from there, on one clock. At the end of a phase what they saw becomes one outcome.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use crate::cpus;
use crate::driver::{Connected, Dial, Driver, DriverError, Settings, io_error};
use crate::link::Role;
use crate::meter::Meter;
use crate::observer::{Observer, Watch};
use crate::phase::{Phase, PhaseOutcome};
use crate::proc::Process;
use crate::record::Subscription;
use crate::schedule::Share;

/// Loops with a load in common.
pub(crate) struct Crew {
    drivers: Vec<Driver>,
    groups: usize,
    watch: Watch,
    /// Looks on at the phase to come, or the present one.
    observer: Option<Observer>,
    /// Of each; none where the one loop runs wherever this thread may.
    cpus: Vec<usize>,
}

impl Crew {
    /// As many loops as `settings` names CPUs, and one where it names none, whose subscribers will
    /// be `subscriptions`, counted in `groups` groups.
    pub(crate) fn new(
        settings: &Settings,
        subscriptions: &[Subscription],
        groups: usize,
    ) -> Result<Self, DriverError> {
        let count = settings.cpus.len().max(1);
        let driver = |index| {
            let own = dealt(subscriptions, index, count).copied().collect();
            Driver::new(settings.clone(), own, groups)
        };
        Ok(Self {
            drivers: (0..count).map(driver).collect::<Result<_, _>>()?,
            groups,
            watch: settings.watch.clone(),
            observer: None,
            cpus: settings.cpus.clone(),
        })
    }

    /// Loops.
    pub(crate) fn len(&self) -> usize {
        self.drivers.len()
    }

    /// Opens all `dials`: subscribers in the order in which they were named, then publishers.
    /// Errors: as of [`Driver::connect`].
    pub(crate) fn connect(&mut self, dials: Vec<Dial>) -> Result<Connected, DriverError> {
        let count = self.len();
        let mut parts: Vec<Vec<Dial>> = (0..count).map(|_| Vec::new()).collect();
        for Dial { path, role } in dials {
            let (part, role) = match role {
                Role::Subscriber(index) => (index % count, Role::Subscriber(index / count)),
                Role::Publisher(index) => (index % count, Role::Publisher(index / count)),
                other => (0, other),
            };
            parts[part].push(Dial { path, role });
        }
        let parts = self.each(parts, |driver, dials| driver.connect(&dials))?;
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or(DriverError::NoLoop)?;
        Ok(parts.fold(first, Connected::with))
    }

    /// Has the first loop open `dials` for the next phase alone; they are those of `guests`, in this
    /// order.
    /// Errors: as of [`Driver::connect`].
    pub(crate) fn connect_guests(
        &mut self,
        guests: Vec<Subscription>,
        dials: &[Dial],
    ) -> Result<(), DriverError> {
        self.drivers[0].connect_guests(guests, dials)
    }

    /// Connections that have ended, the first few of each loop with the reason.
    pub(crate) fn closed(&self) -> Vec<String> {
        self.drivers.iter().flat_map(Driver::closed).collect()
    }

    /// Answers what comes for `duration`.
    pub(crate) fn hold(&mut self, duration: Duration) -> Result<(), DriverError> {
        let parts = vec![(); self.len()];
        self.each(parts, |driver, ()| driver.hold(duration))?;
        Ok(())
    }

    /// The next phase is looked on, second by second; also at `server`.
    /// Errors: there is no thread to be had.
    pub(crate) fn observe(&mut self, server: Option<Process>) -> Result<(), DriverError> {
        let started = Observer::start(&self.watch, server, self.len(), self.groups);
        let (observer, lookouts) = started.map_err(io_error("thread"))?;
        for (driver, lookout) in self.drivers.iter_mut().zip(lookouts) {
            driver.observe(lookout);
        }
        self.observer = Some(observer);
        Ok(())
    }

    /// Runs one phase to its end, and watches `server`. What a phase has beside its schedule is the
    /// first loop's; one that may be cut short has but one loop.
    pub(crate) fn run(
        &mut self,
        phase: Phase,
        server: Option<Process>,
    ) -> Result<PhaseOutcome, DriverError> {
        let mut outcome = if self.len() == 1 {
            self.drivers[0].run(phase, server)?
        } else {
            self.run_shared(phase, server)?
        };
        if let Some(observer) = self.observer.take() {
            outcome.add_observed(observer.finish());
        }
        Ok(outcome)
    }

    fn run_shared(
        &mut self,
        phase: Phase,
        server: Option<Process>,
    ) -> Result<PhaseOutcome, DriverError> {
        let count = self.len();
        let watched = io_error("/proc of the server");
        let meter = Meter::begin(server).map_err(&watched)?;
        let start_ns = self.drivers[0].now_ns() + START_NS;
        let outcomes = self.each(deal(phase, count, start_ns), |driver, phase| {
            driver.run(phase, None)
        })?;
        let mut outcomes = outcomes.into_iter();
        let first = outcomes.next().ok_or(DriverError::NoLoop)?;
        let mut outcome = outcomes.fold(first, PhaseOutcome::with);
        outcome.note_server(meter.end().map_err(watched)?);
        Ok(outcome)
    }

    /// Has each loop do `work` with its part, each on its own CPU and all at the same time.
    fn each<T: Send, R: Send>(
        &mut self,
        parts: Vec<T>,
        work: impl Fn(&mut Driver, T) -> Result<R, DriverError> + Sync,
    ) -> Result<Vec<R>, DriverError> {
        let (work, cpus) = (&work, &self.cpus);
        let mut hands = self.drivers.iter_mut().zip(parts).enumerate();
        thread::scope(|scope| {
            let first = hands.next();
            let others: Vec<_> = hands
                .map(|(index, (driver, part))| {
                    scope.spawn(move || {
                        cpus::pin(cpus[index])?;
                        work(driver, part)
                    })
                })
                .collect();
            let mut done = Vec::new();
            done.extend(first.map(|(_, (driver, part))| work(driver, part)));
            let others = others.into_iter().map(thread::ScopedJoinHandle::join);
            done.extend(others.map(|end| end.unwrap_or_else(|panic| resume_unwind(panic))));
            done.into_iter().collect()
        })
    }
}

/// From the beginning of a phase of several loops to its first event.
const START_NS: u64 = 100_000_000;

fn dealt<T>(items: &[T], index: usize, count: usize) -> impl Iterator<Item = &T> {
    items.iter().skip(index).step_by(count)
}

/// `phase` as each of `count` loops has it.
fn deal(phase: Phase, count: usize, start_ns: u64) -> Vec<Phase> {
    let share = |index: usize| Share {
        index: index as u32,
        of: count as u32,
    };
    let others: Vec<_> = (1..count)
        .map(|index| Phase {
            run: phase.run,
            form: phase.form,
            packing: phase.packing,
            schedule: phase.schedule.clone().shared(share(index)),
            start_ns: Some(start_ns),
            drain: phase.drain,
            returners: None,
            storm: None,
            laggards: None,
            until: phase.until.clone(),
            bell: None,
        })
        .collect();
    let first = Phase {
        schedule: phase.schedule.clone().shared(share(0)),
        start_ns: Some(start_ns),
        ..phase
    };
    std::iter::once(first).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_dealt_out_in_turn() {
        let items = [0, 1, 2, 3, 4];
        let part = |index| dealt(&items, index, 2).copied().collect::<Vec<_>>();
        assert_eq!((part(0), part(1)), (vec![0, 2, 4], vec![1, 3]));
    }
}
