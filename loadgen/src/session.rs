//! The connections of a load and the phases that run on them.
//!
//! Drives a `crew`; prints nothing. The scenarios build on it.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::crew::Crew;
use crate::driver::{Connected, Dial, Settings};
use crate::filling::Filling;
use crate::laggards::Laggards;
use crate::link::Role;
use crate::payload::{self, Form, RUNS};
use crate::phase::{Bell, Phase, PhaseOutcome};
use crate::proc::Process;
use crate::protocol::Protocol;
use crate::record::Subscription;
use crate::report::RunReport;
use crate::scenario::{Load, SETTLE, ScenarioError, Size, require_descriptors, why_not};
use crate::schedule::{Lane, Schedule};
use crate::storm::Storm;
use crate::target::Target;

/// The connections of a load, and the events that make up its size.
pub(crate) struct Session<'a> {
    load: &'a Load,
    crew: Crew,
    server: Option<Process>,
    run: u32,
    /// Of each event.
    pub(crate) form: Form,
    /// How the connecting went.
    pub(crate) connected: Connected,
}

impl<'a> Session<'a> {
    /// Connects the subscribers and publishers of `load`, of which `returners` more will come, and
    /// finds the events' size.
    pub(crate) fn open(
        target: &Target,
        settings: &Settings,
        load: &'a Load,
        server: Option<Process>,
        returners: usize,
    ) -> Result<Self, ScenarioError> {
        let subscriptions = load.subscriptions();
        let mut crew = Crew::new(settings, &subscriptions, load.groups.len())?;
        // Each loop sends something.
        let publishers = load.publishers.max(crew.len() as u32);
        let dials = dials(target, &subscriptions, load.users(), publishers);
        require_descriptors(dials.len() + returners)?;
        let connected = crew.connect(dials)?;
        crew.hold(SETTLE)?;
        let run = first_run();
        let form = calibrate(&mut crew, &settings.protocol, load, run)?;
        Ok(Self {
            load,
            crew,
            server,
            run,
            form,
            connected,
        })
    }

    /// The next phase is looked on, second by second.
    pub(crate) fn observe(&mut self) -> Result<(), ScenarioError> {
        Ok(self.crew.observe(self.server)?)
    }

    /// One phase of the load.
    pub(crate) fn measure(&mut self, duration: Duration) -> Result<RunReport, ScenarioError> {
        let outcome = self.run(self.load.schedule(duration))?;
        Ok(RunReport::new(self.load, outcome))
    }

    /// One phase of `schedule`.
    pub(crate) fn run(&mut self, schedule: Schedule) -> Result<PhaseOutcome, ScenarioError> {
        self.run_phase(schedule, None)
    }

    /// One phase of `schedule`, of which nothing is sent once `until` rings.
    pub(crate) fn run_until(
        &mut self,
        schedule: Schedule,
        until: Bell,
    ) -> Result<PhaseOutcome, ScenarioError> {
        self.run_phase(schedule, Some(until))
    }

    fn run_phase(
        &mut self,
        schedule: Schedule,
        until: Option<Bell>,
    ) -> Result<PhaseOutcome, ScenarioError> {
        let phase = self.phase(schedule, until);
        Ok(self.crew.run(phase, self.server)?)
    }

    /// The next phase.
    fn phase(&mut self, schedule: Schedule, until: Option<Bell>) -> Phase {
        self.run = (self.run + 1) % RUNS;
        Phase {
            run: self.run,
            form: self.form,
            packing: self.load.packing,
            schedule,
            start_ns: None,
            drain: self.load.drain,
            returners: None,
            storm: None,
            laggards: None,
            until,
            bell: None,
        }
    }

    /// One phase of `schedule`, in which all subscribers are cut off and come back by `storm`;
    /// nothing is sent once `until` rings.
    pub(crate) fn run_storm(
        &mut self,
        schedule: Schedule,
        storm: Storm,
        until: Bell,
    ) -> Result<PhaseOutcome, ScenarioError> {
        let phase = Phase {
            storm: Some(storm),
            bell: Some(until.clone()),
            ..self.phase(schedule, Some(until))
        };
        Ok(self.crew.run(phase, self.server)?)
    }

    /// One phase of the load beside `count` more subscribers of its users, who read so slowly.
    pub(crate) fn run_beside_laggards(
        &mut self,
        target: &Target,
        count: u32,
        bytes_per_second: u64,
    ) -> Result<PhaseOutcome, ScenarioError> {
        let users = self.load.users();
        let slow: Vec<_> = (0..count)
            .map(|index| Subscription {
                user: self.load.groups[0].users.start + index % users,
                group: 0,
            })
            .collect();
        let dial = |(index, subscription): (usize, &Subscription)| Dial {
            path: target.subscriber_path(subscription.user),
            role: Role::Laggard(index),
        };
        let dials: Vec<_> = slow.iter().enumerate().map(dial).collect();
        self.crew.connect_guests(slow.clone(), &dials)?;
        self.settle()?;
        let schedule = self.load.schedule(self.load.duration);
        let phase = self.phase(schedule.clone(), None);
        let filling = self.form.filling;
        let laggards = Laggards::new(phase.run, filling, &slow, &schedule, bytes_per_second);
        let phase = Phase {
            laggards: Some(laggards),
            ..phase
        };
        Ok(self.crew.run(phase, self.server)?)
    }

    /// The number of the last phase.
    pub(crate) fn last_run(&self) -> u32 {
        self.run
    }

    /// Answers what comes until the server has finished what follows connecting or ending.
    pub(crate) fn settle(&mut self) -> Result<(), ScenarioError> {
        Ok(self.crew.hold(SETTLE)?)
    }
}

/// The form by which events will be of `load.size`. Where that is what subscribers get, one event
/// without filling is sent, whatever envelope the server puts around it.
fn calibrate(
    crew: &mut Crew,
    protocol: &Protocol,
    load: &Load,
    run: u32,
) -> Result<Form, ScenarioError> {
    let form = Form {
        filling: Filling::Letters(0),
        identity: load.identity,
    };
    let empty = match load.size {
        Size::Event(_) | Size::Mixed => payload::event_bytes(form),
        Size::Frame(_) | Size::Payload(_) => first_delivery_bytes(crew, load, run, form)?,
    };
    let filling = load.size.filling(protocol, empty)?;
    Ok(Form { filling, ..form })
}

fn first_delivery_bytes(
    crew: &mut Crew,
    load: &Load,
    run: u32,
    form: Form,
) -> Result<usize, ScenarioError> {
    let phase = Phase {
        run,
        form,
        packing: load.packing,
        schedule: Schedule::new(vec![Lane::single(load.groups[0].users.start)]),
        start_ns: None,
        drain: load.drain,
        returners: None,
        storm: None,
        laggards: None,
        until: None,
        bell: None,
    };
    let outcome = crew.run(phase, None)?;
    let Some(text) = &outcome.first_delivery else {
        return Err(ScenarioError::NotDelivered(why_not(&outcome)));
    };
    Ok(text.len() + seq_growth(text, load.events_until_middle()))
}

/// A numbering server's envelope grows with its numbers: by so many digits until the middle of
/// the run. 0 where there is no `seq`.
fn seq_growth(text: &[u8], events_until_middle: u64) -> usize {
    let envelope: Value = serde_json::from_slice(text).unwrap_or_default();
    let digits = |seq: u64| seq.to_string().len();
    envelope["seq"]
        .as_u64()
        .map_or(0, |seq| digits(seq + events_until_middle) - digits(seq))
}

pub(crate) fn subscriber_dials(target: &Target, subscriptions: &[Subscription]) -> Vec<Dial> {
    let dial = |(index, subscription): (usize, &Subscription)| Dial {
        path: target.subscriber_path(subscription.user),
        role: Role::Subscriber(index),
    };
    subscriptions.iter().enumerate().map(dial).collect()
}

/// All subscribers first: no event is published before the last of them is there.
fn dials(
    target: &Target,
    subscriptions: &[Subscription],
    users: u32,
    publishers: u32,
) -> Vec<Dial> {
    let mut dials = subscriber_dials(target, subscriptions);
    dials.extend((0..target.publishers(users, publishers)).map(|index| Dial {
        path: target.publisher_path(index),
        role: Role::Publisher(index as usize),
    }));
    dials
}

/// Different for each process, so that what an earlier one left behind is not taken for ours.
fn first_run() -> u32 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (since.as_micros() % u128::from(RUNS)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelope_grows_with_its_seq_alone() {
        assert_eq!(seq_growth(br#"{"seq":1,"data":{}}"#, 8), 0);
        assert_eq!(seq_growth(br#"{"seq":1,"data":{}}"#, 9), 1);
        assert_eq!(seq_growth(br#"{"seq":99,"data":{}}"#, 100_000), 4);
        assert_eq!(seq_growth(br#"{"data":{"seq":1}}"#, 100_000), 0);
        assert_eq!(seq_growth(b"no json", 100_000), 0);
    }
}
