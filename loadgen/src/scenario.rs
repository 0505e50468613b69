//! What is asked for: loads and the users in them. And the plain runs of it: connect, measure the
//! envelope, warm up, then one phase for each repeat on the same connections.

use std::ops::Range;
use std::time::Duration;

use crate::crew::Crew;
use crate::driver::{Connected, DriverError, Settings};
use crate::filling::Filling;
use crate::idle::{IdleReport, MemoryReport};
use crate::payload::Identity;
use crate::phase::PhaseOutcome;
use crate::proc::Process;
use crate::protocol::Protocol;
use crate::publish::Packing;
use crate::record::Subscription;
use crate::report::{Bounds, RunReport};
use crate::schedule::{Arrival, Lane, Schedule};
use crate::session::{Session, subscriber_dials};
use crate::target::Target;
use crate::upgrade::Extension;

/// Why a scenario has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    /// More connections than file descriptors.
    #[error("{needed} descriptors are needed, and the hard limit is {limit} (ulimit -Hn)")]
    Descriptors {
        /// One for each connection, and some.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The generator's own trouble, or the server's with connecting.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The envelope alone is larger.
    #[error("{wanted} cannot be had: an event without filling takes {least}")]
    TooSmall {
        /// As asked for.
        wanted: Size,
        /// The smallest possible.
        least: usize,
    },
    /// The first event did not come back.
    #[error("the server did not deliver the first event{0}")]
    NotDelivered(String),
    /// The first half of a scenario failed, and the second would show nothing.
    #[error("nothing could be prepared: {0}")]
    NotPrepared(String),
    /// A file in `/proc` of the watched server.
    #[error("/proc of the server: {0}")]
    Proc(#[from] std::io::Error),
}

/// How large the events are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Bytes of the text that is published; filled with one letter.
    Event(usize),
    /// As the mixture has it.
    Mixed,
    /// Bytes of a plain frame to a subscriber, header included; filled with one letter.
    Frame(usize),
    /// Bytes of the text to a subscriber before it is deflated or framed; filled with text.
    Payload(usize),
}

impl std::fmt::Display for Size {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Event(bytes) => write!(out, "events of {bytes} bytes"),
            Self::Mixed => write!(out, "a mixture of sizes"),
            Self::Frame(bytes) => write!(out, "frames of {bytes} bytes"),
            Self::Payload(bytes) => write!(out, "payloads of {bytes} bytes"),
        }
    }
}

/// Users who are measured together.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// The users' numbers; not empty.
    pub(crate) users: Range<u32>,
    /// Subscribers of each user.
    pub(crate) connections_per_user: u32,
    /// Events a second, of all users together.
    pub(crate) events_per_second: f64,
}

/// A load of events.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Who gets how much. The users of all groups count on from 0.
    pub(crate) groups: Vec<Group>,
    /// Of each measured phase.
    pub(crate) duration: Duration,
    /// Of the phase before them, which is checked and not measured.
    pub(crate) warmup: Duration,
    /// Of each event.
    pub(crate) size: Size,
    /// Of each event.
    pub(crate) identity: Identity,
    /// How the events of the first group arrive; those of the others are spread.
    pub(crate) arrival: Arrival,
    /// How events become messages.
    pub(crate) packing: Packing,
    /// What the subscribers offer.
    pub(crate) extension: Extension,
    /// Measured phases.
    pub(crate) repeat: u32,
    /// Publisher connections, where the target leaves their number open.
    pub(crate) publishers: u32,
    /// How long to wait for what is under way at the end of a phase.
    pub(crate) drain: Duration,
    /// When the generator itself is the bottleneck.
    pub(crate) bounds: Bounds,
}

/// Connections that only stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// How many.
    pub(crate) connections: u32,
    /// Of how many users, in turn.
    pub(crate) users: u32,
    /// How long they stay before the server is measured again.
    pub(crate) hold: Duration,
}

/// Runs `load` against `target` and hands each measured phase to `report` as it ends.
pub(crate) fn run_load(
    target: &Target,
    settings: &Settings,
    load: &Load,
    server: Option<Process>,
    mut report: impl FnMut(RunReport),
) -> Result<Connected, ScenarioError> {
    let mut session = Session::open(target, settings, load, server, 0)?;
    let warmup = session.measure(load.warmup)?;
    for index in 0..load.repeat {
        session.observe()?;
        let mut measured = session.measure(load.duration)?;
        if index == 0 {
            measured.add_warmup(&warmup);
        }
        report(measured);
    }
    Ok(session.connected)
}

/// Opens `idle.connections` and measures the server before, after, and while they stay.
pub(crate) fn run_idle(
    target: &Target,
    settings: &Settings,
    idle: Idle,
    server: Option<Process>,
) -> Result<IdleReport, ScenarioError> {
    let user = |index| Subscription {
        user: index % idle.users,
        group: 0,
    };
    let subscriptions: Vec<_> = (0..idle.connections).map(user).collect();
    // A viewer each, and nobody who publishes; the tokens are minted before the clock runs.
    let dials = subscriber_dials(target, &subscriptions);
    require_descriptors(dials.len())?;
    let mut crew = Crew::new(settings, &subscriptions, 1)?;
    let rss_before = server.map(|process| process.rss_bytes()).transpose()?;
    let connected = crew.connect(dials)?;
    crew.hold(SETTLE)?;
    let cpu_before = server.map(|process| process.cpu_ns()).transpose()?;
    crew.hold(idle.hold)?;
    let cpu_after = server.map(|process| process.cpu_ns()).transpose()?;
    let rss_after = server.map(|process| process.rss_bytes()).transpose()?;
    let memory = rss_before
        .zip(rss_after)
        .map(|(before, after)| MemoryReport { before, after });
    let cpu_ns = cpu_before
        .zip(cpu_after)
        // Threads that have ended take their time with them.
        .and_then(|(before, after)| after.checked_sub(before));
    Ok(IdleReport::new(
        idle,
        &connected,
        memory,
        cpu_ns,
        crew.closed(),
    ))
}

impl Group {
    /// Subscribers of all its users.
    pub(crate) fn connections(&self) -> u32 {
        self.users.len() as u32 * self.connections_per_user
    }
}

impl Load {
    /// Users of all groups.
    pub(crate) fn users(&self) -> u32 {
        self.groups
            .iter()
            .map(|group| group.users.len() as u32)
            .sum()
    }

    /// Subscriber connections of all groups.
    pub(crate) fn subscribers(&self) -> usize {
        let connections = self.groups.iter().map(Group::connections);
        connections.map(|connections| connections as usize).sum()
    }

    /// Path and query of each subscriber.
    pub(crate) fn subscriber_paths(&self, target: &Target) -> Vec<String> {
        let subscriptions = self.subscriptions().into_iter();
        subscriptions
            .map(|subscription| target.subscriber_path(subscription.user))
            .collect()
    }

    pub(crate) fn subscriptions(&self) -> Vec<Subscription> {
        let mut subscriptions = Vec::new();
        for (group, members) in self.groups.iter().enumerate() {
            for user in members.users.clone() {
                let one = Subscription { user, group };
                subscriptions.extend(vec![one; members.connections_per_user as usize]);
            }
        }
        subscriptions
    }

    /// What is sent when in `duration` of it.
    pub(crate) fn schedule(&self, duration: Duration) -> Schedule {
        let lane = |(index, group): (usize, &Group)| {
            let (users, rate) = (group.users.clone(), group.events_per_second);
            let arrival = match self.arrival {
                Arrival::Even if self.groups.len() > 1 => Arrival::Spread,
                arrival if index == 0 => arrival,
                _ => Arrival::Spread,
            };
            let lane = Lane::new(users, rate, duration, arrival);
            lane.in_batches(self.packing.events_max().into())
        };
        Schedule::new(self.groups.iter().enumerate().map(lane).collect())
    }

    /// Events that one user of the first group gets in half of the whole run.
    pub(crate) fn events_until_middle(&self) -> u64 {
        let group = &self.groups[0];
        let seconds =
            self.warmup.as_secs_f64() + self.duration.as_secs_f64() * f64::from(self.repeat);
        (group.events_per_second * seconds / group.users.len() as f64 / 2.0) as u64
    }
}

/// Until the server has finished what follows the last handshake.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// Descriptors for everything that is no connection.
const DESCRIPTORS_SPARE: u64 = 32;

impl Size {
    /// What fills an event whose text takes `empty` bytes without filling.
    pub(crate) fn filling(
        self,
        protocol: &Protocol,
        empty: usize,
    ) -> Result<Filling, ScenarioError> {
        let (around, wanted, kind) = match self {
            Self::Event(bytes) => (0, bytes, Filling::Letters(0)),
            Self::Mixed => return Ok(Filling::Mixed),
            Self::Frame(bytes) => (protocol.around_bytes(bytes), bytes, Filling::Letters(0)),
            Self::Payload(bytes) => (0, bytes, Filling::Text(0)),
        };
        let bytes = wanted.checked_sub(around + empty);
        bytes
            .map(|bytes| kind.of_bytes(bytes))
            .ok_or(ScenarioError::TooSmall {
                wanted: self,
                least: around + empty,
            })
    }
}

/// What is known of why a phase brought nothing, to follow a sentence.
pub(crate) fn why_not(outcome: &PhaseOutcome) -> String {
    let mut reasons: Vec<_> = outcome
        .aborted
        .iter()
        .chain(&outcome.closed)
        .cloned()
        .collect();
    reasons.extend(
        outcome
            .nacks
            .keys()
            .map(|code| format!("refused with {code}")),
    );
    if reasons.is_empty() {
        String::new()
    } else {
        format!(": {}", reasons.join(", "))
    }
}

/// Raises the limit of file descriptors so that `connections` may be open.
pub(crate) fn require_descriptors(connections: usize) -> Result<(), ScenarioError> {
    let needed = connections as u64 + DESCRIPTORS_SPARE;
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    if limit < needed {
        return Err(ScenarioError::Descriptors { needed, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_makes_up_the_size() {
        let events = Protocol::Events;
        let check = |size: Size, empty, expected: Option<Filling>| {
            assert_eq!(size.filling(&events, empty).ok(), expected, "{size}");
        };
        check(Size::Frame(415), 200, Some(Filling::Letters(211)));
        check(Size::Frame(204), 200, Some(Filling::Letters(0)));
        check(Size::Frame(203), 200, None);
        check(Size::Event(300), 200, Some(Filling::Letters(100)));
        check(Size::Payload(2048), 200, Some(Filling::Text(1848)));
        check(Size::Payload(199), 200, None);
        let nats = Size::Frame(415).filling(&Protocol::Nats, 200).ok();
        assert_eq!(nats, Some(Filling::Letters(211 - 21)));
    }

    fn load(groups: Vec<Group>) -> Load {
        Load {
            groups,
            duration: Duration::from_secs(10),
            warmup: Duration::from_secs(2),
            size: Size::Frame(415),
            identity: Identity::None,
            arrival: Arrival::Even,
            packing: Packing::Single,
            extension: Extension::None,
            repeat: 3,
            publishers: 1,
            drain: Duration::from_secs(1),
            bounds: Bounds {
                slip: Duration::from_millis(1),
                busy: 0.95,
            },
        }
    }

    #[test]
    fn groups_become_subscriptions_and_lanes() {
        let quiet = Group {
            name: "quiet",
            users: 0..2,
            connections_per_user: 1,
            events_per_second: 4.0,
        };
        let hot = Group {
            name: "hot",
            users: 2..3,
            connections_per_user: 3,
            events_per_second: 1.0,
        };
        let load = load(vec![quiet, hot]);
        let users: Vec<_> = load
            .subscriptions()
            .iter()
            .map(|one| (one.user, one.group))
            .collect();
        assert_eq!(users, [(0, 0), (1, 0), (2, 1), (2, 1), (2, 1)]);
        let schedule = load.schedule(load.duration);
        let events: Vec<_> = (0..4).map(|user| schedule.events_of(user)).collect();
        assert_eq!(events, [20, 20, 10, 0]);
        assert_eq!(load.events_until_middle(), 32);
        assert_eq!(load.users(), 3);
    }
}
