//! The streams that one core knows: those that it owns and numbers, and those of other cores that
//! its viewers follow. Subscribers are found by this index, never by a scan.
//!
//! Owned streams without any subscriber are remembered one by one up to a bound; past it the
//! longest silent are forgotten, and the floor rises to the level above what they were given, so
//! that no seq is ever given twice: an unknown stream starts above the floor.

use std::collections::VecDeque;

use compact_str::CompactString;

use crate::event::{Event, Partition, Seq, Stream, StreamKind};

use super::frames::{BatchBuilder, VARIANTS, Variant, Variants};
use super::keyed::{Key, Keyed};
use super::names::Names;
use super::subscriptions::Wanted;

/// Names a stream on this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamSlot(Key);

/// All streams of one core.
#[derive(Debug)]
pub struct Streams {
    states: Keyed<StreamState>,
    by_name: [Names; 2],
    core: usize,
    partition: Partition,
    floor: Seq,
    // Owned streams in the order in which they were last looked at by `forget_idle`.
    remembered: VecDeque<StreamSlot>,
    // How many of them came since.
    added: usize,
    idle_max: usize,
}

/// One stream on this core.
#[derive(Debug)]
pub struct StreamState {
    /// Its name.
    pub name: Stream,
    /// On the owner core the last seq handed to delivery; elsewhere the last seq received.
    pub head: Seq,
    /// On the owner core the last seq given: ahead of `head` while events wait to be kept.
    pub given: Seq,
    /// Who follows it: nothing while nobody does.
    pub live: Option<Box<Live>>,
    /// Whether there is a state of what its events have led to, or will be: then it is not forgotten.
    pub is_folded: bool,
    owner: usize,
    // Whether it was numbered since `forget_idle` last looked.
    recent: bool,
}

/// What a stream that somebody follows has beside its number.
#[derive(Debug, Default)]
pub struct Live {
    /// The subscribers on this core, by what they take.
    pub attached: [Vec<Attached>; VARIANTS],
    /// Viewers whose pending operation needs this stream, each as often as it waits, and those that
    /// catch up with it.
    pub waiters: Vec<Key>,
    /// Frames of this turn, not yet fanned out.
    pub pending: Option<Box<Pending>>,
    /// Whether the stream is on the list of those to fan out.
    pub touched: bool,
    // Most streams have nothing to do with other cores.
    abroad: Option<Box<Abroad>>,
}

/// What a stream has to do with other cores.
#[derive(Debug, Default)]
struct Abroad {
    // On the owner core: those that follow it.
    interests: Vec<Interest>,
    // Elsewhere: this core's interest with the owner.
    remote: Remote,
}

/// What a stream has gained in one turn.
#[derive(Debug, Default)]
pub struct Pending {
    /// The frames of its events.
    pub frames: BatchBuilder,
    /// The events.
    pub events: Vec<(Seq, Event)>,
}

/// One subscriber.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The viewer.
    pub viewer: Key,
    /// It takes what any of these matches; `None`: everything.
    pub filters: Wanted,
}

/// Another core that follows a stream of this one.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// Which core.
    pub core: usize,
    /// The interest that frames are sent under.
    pub generation: u32,
    /// The encodings that it takes.
    pub variants: Variants,
}

/// This core's interest in a stream of another core.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remote {
    /// The present interest, and the variants that the latest word of it named.
    pub asked: Option<(u32, Variants)>,
    /// The same as far as it was answered: frames of this generation count.
    pub answered: Option<(u32, Variants)>,
    /// The log keeps all that was received once it keeps so many records of the owner core.
    pub through: u64,
    /// A seq for which fewer of them do, and how many.
    pub base: (Seq, u64),
}

// Every user's stream has one; see `Viewer`.
const _: () = assert!(size_of::<Live>() <= 160);

impl Live {
    /// On the owner core: the other cores that follow it.
    pub fn interests(&self) -> &[Interest] {
        self.abroad.as_ref().map_or(&[], |abroad| &abroad.interests)
    }

    /// See `interests`.
    pub fn interests_mut(&mut self) -> &mut Vec<Interest> {
        &mut self.abroad.get_or_insert_default().interests
    }

    /// On other cores: the interest with the owner.
    pub fn remote(&self) -> Remote {
        let abroad = self.abroad.as_ref();
        abroad.map(|abroad| abroad.remote).unwrap_or_default()
    }

    /// See `remote`.
    pub fn remote_mut(&mut self) -> &mut Remote {
        &mut self.abroad.get_or_insert_default().remote
    }

    /// One waits once more.
    pub fn add_waiter(&mut self, viewer: Key) {
        if self.waiters.is_empty() {
            // Most streams have one.
            self.waiters.reserve_exact(1);
        }
        self.waiters.push(viewer);
    }

    /// The encodings that somebody here or on another core takes.
    pub fn variants(&self) -> Variants {
        let remote = self
            .interests()
            .iter()
            .fold(Variants::default(), |all, interest| {
                all.union(interest.variants)
            });
        self.local_variants().union(remote)
    }

    /// The encodings that subscribers on this core take.
    pub fn local_variants(&self) -> Variants {
        let taken = |variant: &Variant| !self.attached[variant.index()].is_empty();
        Variant::all()
            .filter(taken)
            .fold(Variants::default(), Variants::with)
    }

    fn is_needed(&self) -> bool {
        !self.waiters.is_empty()
            || !self.interests().is_empty()
            || self.attached.iter().any(|list| !list.is_empty())
    }

    fn is_followed_here(&self) -> bool {
        !self.waiters.is_empty() || self.attached.iter().any(|list| !list.is_empty())
    }
}

impl StreamState {
    /// The core that numbers it.
    pub fn owner(&self) -> usize {
        self.owner
    }

    /// The live part, made where there was none.
    pub fn live_mut(&mut self) -> &mut Live {
        self.live.get_or_insert_default()
    }

    /// The last seq that was fanned out: all up to it is queued where it is wanted.
    pub fn fanned_out(&self) -> Seq {
        let pending = self.live.as_ref().and_then(|live| live.pending.as_ref());
        let first = pending.and_then(|pending| pending.frames.first_seq());
        first.map_or(self.head, |seq| Seq(seq.0 - 1))
    }
}

impl Streams {
    /// None yet, on core `core`, which numbers all above `start`; remembers at most `idle_max` owned
    /// streams.
    pub fn new(core: usize, partition: Partition, start: Seq, idle_max: usize, seed: u64) -> Self {
        let names = |salt| Names::new(ahash::RandomState::with_seeds(seed, salt, 5, 7));
        Self {
            states: Keyed::default(),
            by_name: [names(0), names(1)],
            core,
            partition,
            floor: start,
            remembered: VecDeque::new(),
            added: 0,
            idle_max,
        }
    }

    /// Remembers at most `idle_max` owned streams from now on.
    pub fn set_idle_max(&mut self, idle_max: usize) {
        self.idle_max = idle_max;
    }

    /// The stream, where this core knows it.
    pub fn find(&self, kind: StreamKind, id: &str) -> Option<StreamSlot> {
        let name_of = |key| name_of(&self.states, key);
        let key = self.by_name[kind as usize].find(id, name_of);
        key.map(StreamSlot)
    }

    /// The stream, made known where it was not.
    pub fn find_or_insert(&mut self, kind: StreamKind, id: &CompactString) -> StreamSlot {
        if let Some(slot) = self.find(kind, id) {
            return slot;
        }
        let owner = self.partition.core_of(kind, id);
        let is_owned = owner == self.core;
        let name = Stream {
            kind,
            id: id.clone(),
        };
        let head = if is_owned { self.floor } else { Seq(0) };
        let key = self.states.insert(StreamState {
            name,
            head,
            given: head,
            live: None,
            is_folded: false,
            owner,
            recent: true,
        });
        self.by_name[kind as usize].insert(key, |key| name_of(&self.states, key));
        let slot = StreamSlot(key);
        if is_owned {
            self.remembered.push_back(slot);
            self.added += 1;
        }
        slot
    }

    /// Whether this core numbers the stream.
    pub fn is_owned(&self, slot: StreamSlot) -> bool {
        self.states
            .find(slot.0)
            .is_some_and(|state| state.owner == self.core)
    }

    /// The state of a stream that is still known.
    pub fn state(&self, slot: StreamSlot) -> Option<&StreamState> {
        self.states.find(slot.0)
    }

    /// See `state`.
    pub fn state_mut(&mut self, slot: StreamSlot) -> Option<&mut StreamState> {
        self.states.find_mut(slot.0)
    }

    /// Gives the stream's next number; returns it behind the one before. Only for owned streams.
    pub fn next_seq(&mut self, slot: StreamSlot) -> Option<(Seq, Seq)> {
        let state = self.states.find_mut(slot.0)?;
        debug_assert_eq!(
            state.owner, self.core,
            "only the owner core numbers a stream"
        );
        let previous = state.given;
        state.given = previous.next();
        state.recent = true;
        Some((previous, state.given))
    }

    /// What the stream has gained in this turn, where nobody follows it any more.
    pub fn take_unwanted(&mut self, slot: StreamSlot) -> Option<Box<Pending>> {
        let live = self.states.find_mut(slot.0)?.live.as_mut()?;
        if live.is_needed() {
            return None;
        }
        live.pending.take()
    }

    /// Lets go of what nobody follows any more. Returns the project, its owner and the interest to
    /// give back, where the stream belongs to another core.
    pub fn release(&mut self, slot: StreamSlot) -> Option<(CompactString, usize, u32)> {
        let state = self.states.find_mut(slot.0)?;
        let live = state.live.as_ref()?;
        if state.owner == self.core {
            if !live.is_needed() {
                state.live = None;
            }
            return None;
        }
        if live.is_followed_here() {
            return None;
        }
        let asked = live.remote().asked;
        let state = self.states.remove(slot.0)?;
        self.by_name[state.name.kind as usize].remove(slot.0, &state.name.id);
        asked.map(|(generation, _)| (state.name.id, state.owner, generation))
    }

    /// How many streams this core numbers and remembers.
    pub fn owned_len(&self) -> usize {
        self.remembered.len()
    }

    /// How many streams of other cores are followed here.
    pub fn interests_len(&self) -> usize {
        self.states.len() - self.remembered.len()
    }

    /// Forgets owned streams that nobody follows, down to the bound. Names that were found before
    /// may be stale after. Looks at two of the remembered for each one added, so that the work is
    /// spread and the bound holds: whoever was numbered since the last look stays for another round.
    pub fn forget_idle(&mut self) {
        for _ in 0..2 * std::mem::take(&mut self.added) {
            if self.remembered.len() <= self.idle_max {
                return;
            }
            let Some(slot) = self.remembered.pop_front() else {
                return;
            };
            let Some(state) = self.states.find_mut(slot.0) else {
                continue;
            };
            let is_last_resort = self.remembered.len() >= self.idle_max.saturating_mul(2);
            let is_recent = std::mem::take(&mut state.recent) && !is_last_resort;
            let is_needed = state.live.is_some() || state.is_folded;
            if is_needed || state.given != state.head || is_recent {
                self.remembered.push_back(slot);
                continue;
            }
            // A level, so that a cursor at it stands for no event.
            self.floor = self.floor.max(state.given.level_above());
            if let Some(state) = self.states.remove(slot.0) {
                self.by_name[state.name.kind as usize].remove(slot.0, &state.name.id);
            }
        }
    }
}

fn name_of(states: &Keyed<StreamState>, key: Key) -> Option<&str> {
    states.find(key).map(|state| state.name.id.as_str())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;

    /// The name of some stream.
    pub fn slot() -> StreamSlot {
        streams(10).find_or_insert(StreamKind::User, &"a".into())
    }

    /// The names of some streams.
    pub fn slots(count: usize) -> Vec<StreamSlot> {
        let mut streams = streams(count);
        let ids = (0..count).map(|id| CompactString::from(id.to_string()));
        ids.map(|id| streams.find_or_insert(StreamKind::User, &id))
            .collect()
    }

    fn streams(idle_max: usize) -> Streams {
        Streams::new(0, Partition::new(1, 1), Seq(0), idle_max, 1)
    }

    #[test]
    fn a_forgotten_stream_never_gets_a_seq_twice() {
        let mut streams = streams(4);
        let mut given = HashMap::<usize, Seq>::new();
        for round in 0..2_000 {
            let id = round * 7 % 23;
            let slot =
                streams.find_or_insert(StreamKind::User, &CompactString::from(id.to_string()));
            let (previous, seq) = streams.next_seq(slot).expect("just inserted");
            streams.state_mut(slot).expect("just inserted").head = seq;
            let before = given.insert(id, seq);
            assert!(before.is_none_or(|before| before == previous || previous.is_level()));
            assert!(before.is_none_or(|before| before < seq));
            streams.forget_idle();
            assert!(streams.states.len() <= 9, "{}", streams.states.len());
        }
    }

    #[test]
    fn a_stream_whose_events_wait_is_not_forgotten() {
        let mut streams = streams(0);
        let slot = streams.find_or_insert(StreamKind::User, &"a".into());
        let (_, seq) = streams.next_seq(slot).expect("just inserted");
        for id in 0..10 {
            streams.find_or_insert(StreamKind::User, &CompactString::from(id.to_string()));
            streams.forget_idle();
        }
        streams.state_mut(slot).expect("it is known").head = seq;
        for id in 0..10 {
            streams.find_or_insert(StreamKind::User, &CompactString::from(id.to_string()));
            streams.forget_idle();
        }
        assert!(streams.state(slot).is_none());
    }

    #[test]
    fn a_followed_stream_is_not_forgotten() {
        let mut streams = streams(1);
        let slot = streams.find_or_insert(StreamKind::User, &"a".into());
        streams
            .state_mut(slot)
            .expect("known")
            .live_mut()
            .waiters
            .push(Key::from_u64(1));
        for id in 0..10 {
            streams.find_or_insert(StreamKind::User, &CompactString::from(id.to_string()));
            streams.forget_idle();
        }
        assert_eq!(streams.find(StreamKind::User, "a"), Some(slot));
        assert!(streams.states.len() < 10);
    }

    #[test]
    fn a_user_and_a_project_of_one_name_are_two_streams() {
        let mut streams = streams(10);
        let user = streams.find_or_insert(StreamKind::User, &"7".into());
        let project = streams.find_or_insert(StreamKind::Project, &"7".into());
        assert_ne!(user, project);
    }
}
