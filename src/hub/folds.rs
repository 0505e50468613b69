//! What the streams of this core have led to: of each that somebody needs it of, a state that every
//! event moves on when it gets its number.
//!
//! A state is needed when an event comes that moves it on: in a user's stream an agent's or a
//! conversation's, in a project's each; or when a viewer wants to see it, or follows the stream
//! (`silence`).
//! Of a stream with a past it is loaded first (`loading`): from the latest snapshot in the event log
//! and the events after it. Meanwhile an `agent_spawned` of that user waits, since the path that is
//! added to it depends on all before, and what follows it in the stream waits behind it; nothing else
//! does: it comes in from the log, or after it. What is not needed for long is let go of (`keeping`): a
//! state is nothing but what the log says. Source: contract section 8.

mod keeping;
mod loading;

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use compact_str::CompactString;

use crate::agents::conversations::is_of_conversations;
use crate::agents::enrich::{enrich, is_enriched};
use crate::agents::{Applied, Folded, StateOptions, StreamState, is_agents};
use crate::event::{Event, Known, KnownType, Parser, Seq, Stream, StreamKind};
use crate::limits::{HELD_PER_STATE_BYTES_MAX, STATE_HELD_BYTES_MAX};

use super::mail::Submission;
use super::reads::Kept;
use super::route::Waiting;
use super::streams::StreamSlot;
use super::{Hub, Now};

use keeping::{Upkeep, Written};
use loading::Loading;

/// The states of one core.
#[derive(Debug)]
pub(super) struct Folds {
    folds: HashMap<StreamSlot, Fold, ahash::RandomState>,
    options: StateOptions,
    // Those that are loaded at present, in turns, and those that will be.
    loading: VecDeque<StreamSlot>,
    queued: VecDeque<StreamSlot>,
    // Likewise; nobody waits for them.
    unhurried: BTreeSet<StreamSlot>,
    // Those that the log could not give, and when they are queued again, in milliseconds of the
    // monotonic clock.
    failed: VecDeque<(u64, StreamSlot)>,
    // Bytes of submissions that wait for all of them.
    held_bytes: usize,
    // States that have become live in this turn, and live states that events have touched.
    arrived: Vec<StreamSlot>,
    touched: Vec<StreamSlot>,
    // What there is in all of them.
    entries: usize,
    upkeep: Upkeep,
}

/// The state of one stream, or what there is of it.
#[derive(Debug)]
struct Fold {
    stage: Stage,
    // How many need it to stay.
    holders: usize,
    // Whether it was of use since `keeping` last looked.
    is_recent: bool,
    // Whether it is among those that were touched.
    is_touched: bool,
    // What was in it when that was last counted.
    entries: usize,
    written: Written,
}

#[derive(Debug)]
enum Stage {
    Live(Box<StreamState>),
    Loading(Box<Loading>),
}

/// What an event asks of its stream's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// That it is live: something is added to the event.
    Live,
    Nothing,
    /// That there is one.
    State,
}

impl Folds {
    /// None yet.
    pub fn new(options: StateOptions, seed: u64) -> Self {
        Self {
            folds: HashMap::with_hasher(ahash::RandomState::with_seeds(seed, 41, 43, 47)),
            options,
            loading: VecDeque::new(),
            queued: VecDeque::new(),
            unhurried: BTreeSet::new(),
            failed: VecDeque::new(),
            held_bytes: 0,
            arrived: Vec::new(),
            touched: Vec::new(),
            entries: 0,
            upkeep: Upkeep::default(),
        }
    }

    /// The state of a stream, where it is live.
    pub fn live(&self, slot: StreamSlot) -> Option<&StreamState> {
        match &self.folds.get(&slot)?.stage {
            Stage::Live(state) => Some(state),
            Stage::Loading(_) => None,
        }
    }

    /// The same for change, by those who look at what has changed.
    pub fn live_mut(&mut self, slot: StreamSlot) -> Option<&mut StreamState> {
        let fold = self.folds.get_mut(&slot)?;
        fold.is_recent = true;
        match &mut fold.stage {
            Stage::Live(state) => Some(state),
            Stage::Loading(_) => None,
        }
    }

    /// The states that have become live in this turn, some of them again: nothing that was taken before
    /// from one of the same stream holds any more. Told once, like `touched`.
    pub fn arrived(&self) -> &[StreamSlot] {
        &self.arrived
    }

    /// The live states that events have touched since the turn before was over.
    pub fn touched(&self) -> &[StreamSlot] {
        &self.touched
    }

    /// The turn is over: nothing in it is news any more.
    pub fn end_turn(&mut self) {
        self.arrived.clear();
        for slot in self.touched.drain(..) {
            if let Some(fold) = self.folds.get_mut(&slot) {
                fold.is_touched = false;
            }
        }
    }

    /// How many there are, live or not.
    pub fn len(&self) -> usize {
        self.folds.len()
    }

    /// How much there is in all of them: agents and conversations.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Whether a submission waits for a state.
    pub fn holds_submissions(&self) -> bool {
        self.held_bytes > 0
    }

    /// Whether further submissions may wait for states.
    pub fn has_room(&self) -> bool {
        self.held_bytes < STATE_HELD_BYTES_MAX
    }

    /// Whether one more may wait for the state of this stream.
    pub fn has_room_for(&self, slot: StreamSlot) -> bool {
        let loading = self.loading(slot);
        loading.is_none_or(|loading| loading.held_bytes() < HELD_PER_STATE_BYTES_MAX)
    }

    fn loading(&self, slot: StreamSlot) -> Option<&Loading> {
        match &self.folds.get(&slot)?.stage {
            Stage::Live(_) => None,
            Stage::Loading(loading) => Some(loading),
        }
    }

    fn loading_mut(&mut self, slot: StreamSlot) -> Option<&mut Loading> {
        match &mut self.folds.get_mut(&slot)?.stage {
            Stage::Live(_) => None,
            Stage::Loading(loading) => Some(loading),
        }
    }
}

impl Fold {
    fn new(stage: Stage) -> Self {
        Self {
            stage,
            holders: 0,
            is_recent: true,
            is_touched: false,
            entries: 0,
            written: Written::default(),
        }
    }
}

impl Hub {
    /// What the events of a stream that this core owns have led to, where that is known.
    pub fn state(&self, stream: &Stream) -> Option<&StreamState> {
        let slot = self.streams.find(stream.kind, &stream.id)?;
        self.folds.live(slot)
    }

    /// Makes sure that the state of an owned stream is there, or on its way: somebody waits for it.
    /// Returns whether it is live.
    pub(super) fn need_fold(&mut self, slot: StreamSlot) -> bool {
        let is_live = self.want_fold(slot);
        if self.folds.unhurried.remove(&slot) {
            self.folds.queued.push_back(slot);
        }
        is_live
    }

    /// The same where nobody waits: it is loaded when few others are.
    fn want_fold(&mut self, slot: StreamSlot) -> bool {
        if let Some(fold) = self.folds.folds.get_mut(&slot) {
            fold.is_recent = true;
            return matches!(fold.stage, Stage::Live(_));
        }
        let is_owned = self.streams.is_owned(slot);
        let Some(state) = self.streams.state_mut(slot).filter(|_| is_owned) else {
            return false;
        };
        state.is_folded = true;
        let (kind, given) = (state.name.kind, state.given);
        let fresh = StreamState::new(kind, &self.folds.options);
        let is_live = given == Seq(0);
        let stage = match is_live {
            true => Stage::Live(Box::new(fresh)),
            false => {
                self.folds.unhurried.insert(slot);
                let kept = self.kept_up_to_given(given);
                Stage::Loading(Box::new(Loading::new(fresh, given, kept)))
            }
        };
        self.folds.folds.insert(slot, Fold::new(stage));
        self.folds.upkeep.note_begun(slot);
        if is_live {
            self.folds.arrived.push(slot);
        }
        is_live
    }

    /// What the log must have taken in before it has all of an owned stream up to `given`, its last seq.
    pub(super) fn kept_up_to_given(&self, given: Seq) -> Kept {
        // A stream that begins at a level has nothing in this process that the log does not keep.
        let through = match given.is_level() {
            true => self.forgotten_through,
            false => self.appended(),
        };
        Some((self.options.core, through))
    }

    /// Somebody needs the state of an owned stream to stay, until `release_fold`. Returns whether it is
    /// live.
    pub(super) fn hold_fold(&mut self, slot: StreamSlot) -> bool {
        let is_live = self.need_fold(slot);
        if let Some(fold) = self.folds.folds.get_mut(&slot) {
            fold.holders += 1;
        }
        is_live
    }

    /// One of those who needed it does not any more.
    pub(super) fn release_fold(&mut self, slot: StreamSlot) {
        if let Some(fold) = self.folds.folds.get_mut(&slot) {
            debug_assert!(
                fold.holders > 0,
                "a state is released as often as it is held"
            );
            fold.holders = fold.holders.saturating_sub(1);
            self.folds.upkeep.note_free();
        }
    }

    /// Keeps a submission that has to wait for the state of its stream, and what follows it; returns
    /// every other.
    pub(super) fn hold_submission(
        &mut self,
        from: usize,
        submission: Submission,
    ) -> Option<Submission> {
        let need = self.need_of(&submission);
        if need == Need::Nothing && !self.folds.holds_submissions() {
            return Some(submission);
        }
        let audience = submission.event.audience(submission.kind);
        let id: CompactString = audience.unwrap_or_default().into();
        let slot = match need {
            Need::Nothing => match self.streams.find(submission.kind, &id) {
                Some(slot) => slot,
                None => return Some(submission),
            },
            Need::Live | Need::State => self.streams.find_or_insert(submission.kind, &id),
        };
        let is_live = match need {
            Need::Live => self.need_fold(slot),
            Need::Nothing => false,
            Need::State => self.want_fold(slot),
        };
        let Some(loading) = self.folds.loading_mut(slot).filter(|_| !is_live) else {
            return Some(submission);
        };
        if need != Need::Live && !loading.holds_submissions() {
            return Some(submission);
        }
        let bytes = loading.hold(Waiting { from, submission });
        self.folds.held_bytes += bytes;
        None
    }

    // An event that nothing is added to asks for a state only while there is room for one: the log has
    // it all the same, for whoever wants to see it. Else states would come and go with each event
    // where more streams are busy than a core keeps states of.
    fn need_of(&self, submission: &Submission) -> Need {
        let has_room = self.folds.len() < self.bounds.states_max
            && self.folds.entries < self.bounds.state_entries_max;
        match Need::of(submission.kind, &submission.event) {
            Need::State if !has_room => Need::Nothing,
            need => need,
        }
    }

    /// An event gets its number: the state of its stream moves on where it is there, and the user's copy
    /// gets what the contract adds to it.
    pub(super) fn fold_numbered(
        &mut self,
        slot: StreamSlot,
        (seq, received_ms): (Seq, i64),
        event: &mut Event,
    ) {
        let Some(state) = self.streams.state(slot) else {
            return;
        };
        let kind = state.name.kind;
        if !state.is_folded {
            return enrich_alone(&mut self.parser, kind, event, &self.folds.options.phases);
        }
        // With the record that is about to be made.
        let through = self.appended() + 1;
        let Folds { folds, options, .. } = &mut self.folds;
        let Some(fold) = folds.get_mut(&slot) else {
            return;
        };
        match &mut fold.stage {
            Stage::Loading(loading) => {
                enrich_alone(&mut self.parser, kind, event, &options.phases);
                let kept = Some((self.options.core, through));
                loading.note_numbered(seq, received_ms, event, kept);
            }
            Stage::Live(state) => {
                let folded = Folded {
                    seq,
                    received_ms,
                    event,
                };
                let moved = move_on(&mut self.parser, state, folded, &options.phases);
                fold.written.note_event(event);
                if moved.is_touched && !std::mem::replace(&mut fold.is_touched, true) {
                    self.folds.touched.push(slot);
                }
                if let Some(data) = moved.data {
                    event.data = data;
                }
                self.count_applied(moved.applied);
                self.count_fold(slot);
                if let Some(root) = moved.spawned_in {
                    self.trees.note_spawn(slot, root);
                }
            }
        }
    }

    /// Goes on with what is loaded, and with what is to be written down.
    pub(super) fn advance_folds(&mut self, now: Now) {
        self.advance_loading(now);
        self.write_due_snapshot();
    }

    /// Whether a turn would do something for the states.
    pub(super) fn can_advance_folds(&self) -> bool {
        self.can_load() || self.can_write_snapshot() || self.can_let_go()
    }

    fn count_applied(&self, applied: Applied) {
        let counters = &self.stats.counters;
        let Applied {
            cycles_refused,
            nodes_refused,
            trees_evicted,
        } = applied;
        counters.agent_cycles_refused.add(cycles_refused.into());
        counters.agent_nodes_refused.add(nodes_refused.into());
        counters.agent_trees_evicted.add(trees_evicted.into());
    }
}

impl Need {
    fn of(kind: StreamKind, event: &Event) -> Self {
        if kind == StreamKind::Project {
            // Whatever is done there is counted: from the first event on, so that who asks for the
            // counts waits for no more of the past to be read than for any state.
            return Self::State;
        }
        match KnownType::find(&event.event_type) {
            Some(KnownType::AgentSpawned) => Self::Live,
            Some(known_type) if is_agents(known_type) || is_of_conversations(known_type) => {
                Self::State
            }
            _ => Self::Nothing,
        }
    }
}

/// What came of an event.
#[derive(Default)]
struct Moved {
    // Whether the state reads events of this type.
    is_touched: bool,
    applied: Applied,
    // The event's `data` with what was added to it.
    data: Option<Bytes>,
    // The root of the tree in which it announced an agent.
    spawned_in: Option<CompactString>,
}

/// Moves a state on by an event of its stream that gets its number.
fn move_on(
    parser: &mut Parser,
    state: &mut StreamState,
    folded: Folded<'_>,
    phases: &[String],
) -> Moved {
    let event = folded.event;
    let moved = with_known(parser, state, event, |state, known| {
        let applied = state.apply(folded, Some(known));
        let path = match known {
            Known::AgentSpawned(spawned) => state.spawn_path(spawned, event.session.as_deref()),
            _ => Vec::new(),
        };
        let data = state
            .forest()
            .and_then(|_| enrich(known, event, &path, phases));
        Moved {
            is_touched: true,
            applied,
            data,
            spawned_in: path.first().map(|root| (*root).into()),
        }
    });
    moved.unwrap_or_else(|| Moved {
        applied: state.apply(folded, None),
        ..Moved::default()
    })
}

/// The same by one that was numbered before.
fn apply(parser: &mut Parser, state: &mut StreamState, folded: Folded<'_>) {
    let applied = with_known(parser, state, folded.event, |state, known| {
        state.apply(folded, Some(known))
    });
    if applied.is_none() {
        state.apply(folded, None);
    }
}

// Shows what an event holds to a state that reads events of its type; `None` to any other.
fn with_known<R>(
    parser: &mut Parser,
    state: &mut StreamState,
    event: &Event,
    take: impl FnOnce(&mut StreamState, &Known<'_>) -> R,
) -> Option<R> {
    let known_type = KnownType::find(&event.event_type)?;
    if !state.reads(known_type) {
        return None;
    }
    parser.with_known(known_type, &event.data, |known| take(state, known))
}

/// Adds to a user's copy of an event what the stream's state has no part in.
fn enrich_alone(parser: &mut Parser, kind: StreamKind, event: &mut Event, phases: &[String]) {
    let known_type = KnownType::find(&event.event_type).filter(|known| is_enriched(*known));
    let Some(known_type) = known_type.filter(|_| kind == StreamKind::User) else {
        return;
    };
    let path: [&str; 0] = [];
    let add = |known: &Known<'_>| enrich(known, event, &path, phases);
    if let Some(data) = parser.with_known(known_type, &event.data, add).flatten() {
        event.data = data;
    }
}

#[cfg(test)]
mod tests;
