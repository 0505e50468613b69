//! Bringing a state up to the present: its stream's latest snapshot, the events after it up to the
//! stream's head of when it was begun, and then those that came since, which were noted.
//!
//! A bounded number of states are loaded at one time, in turns, and a turn takes in a bounded number of
//! events. What the log cannot give is asked for again after a while, behind all others that wait by
//! then: a state never comes of a part.

use std::collections::VecDeque;

use crate::agents::{Folded, Forest, StreamState};
use crate::event::{Event, Parser, Seq, SeqRange, StoredEvent};
use crate::hub::reads::{Kept, Read, ReadFailed, ReadWhat};
use crate::hub::route::Waiting;
use crate::hub::streams::StreamSlot;
use crate::hub::{Hub, Now};
use crate::limits::{
    STATE_EVENTS_PER_TURN, STATE_READ_BYTES, STATE_READ_RETRY_MS, STATE_READ_SPACING_MS,
    STATE_TAIL_BYTES_MAX, STATE_TAIL_EVENTS_MAX, STATES_LOADING_MAX, STATES_LOADING_UNHURRIED_MAX,
};

use super::keeping::Written;
use super::{Fold, Folds, Stage, apply};

/// A state on its way.
#[derive(Debug)]
pub(super) struct Loading {
    state: Box<StreamState>,
    // Whether the log has said what the latest snapshot is.
    has_snapshot: bool,
    // The events up to `read_to` were read; `batch` has those that are not in the state.
    read_to: Seq,
    // Those up to here are to be read, when the log has taken in so much; later ones are in `tail`.
    up_to: Seq,
    kept: Kept,
    is_read: bool,
    // Whether an answer is awaited.
    is_asked: bool,
    // Whether more is to be read than the answer that is awaited says.
    is_outdated: bool,
    batch: VecDeque<StoredEvent>,
    tail: Vec<Noted>,
    tail_bytes: usize,
    // Submissions that wait, in order, and the bytes that they count for.
    held: VecDeque<Waiting>,
    held_bytes: usize,
    written: Written,
}

/// An event that was numbered meanwhile.
#[derive(Debug)]
struct Noted {
    seq: Seq,
    received_ms: i64,
    event: Event,
}

/// What is to be done for a state.
enum Next {
    Apply,
    Arrive,
    Ask(ReadWhat),
    Wait,
}

impl Loading {
    /// From nothing to the stream's head `up_to`, which the log can be asked for once it has `kept`.
    pub fn new(state: StreamState, up_to: Seq, kept: Kept) -> Self {
        Self {
            state: Box::new(state),
            has_snapshot: false,
            read_to: Seq(0),
            up_to,
            kept,
            is_read: false,
            is_asked: false,
            is_outdated: false,
            batch: VecDeque::new(),
            tail: Vec::new(),
            tail_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            written: Written::default(),
        }
    }

    /// Keeps a submission until the state is live. Returns the bytes that it counts for.
    pub fn hold(&mut self, waiting: Waiting) -> usize {
        let bytes = waiting.submission.bytes as usize;
        self.held_bytes += bytes;
        self.held.push_back(waiting);
        bytes
    }

    /// Whether one waits.
    pub fn holds_submissions(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes that those who wait count for.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Those who wait.
    pub fn take_held(&mut self) -> VecDeque<Waiting> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// An event has its number; the log has it once it has `kept`. Where there are too many, they are
    /// read with the rest.
    pub fn note_numbered(&mut self, seq: Seq, received_ms: i64, event: &Event, kept: Kept) {
        self.tail_bytes += event.heap_bytes() + size_of::<Noted>();
        if self.tail.len() >= STATE_TAIL_EVENTS_MAX || self.tail_bytes > STATE_TAIL_BYTES_MAX {
            self.tail = Vec::new();
            self.tail_bytes = 0;
            (self.up_to, self.kept) = (seq, kept);
            self.is_read = false;
            self.is_outdated = self.is_asked;
            return;
        }
        self.tail.push(Noted {
            seq,
            received_ms,
            event: event.clone(),
        });
    }

    fn next(&self) -> Next {
        if !self.batch.is_empty() {
            return Next::Apply;
        }
        if self.is_asked {
            return Next::Wait;
        }
        if !self.has_snapshot {
            return Next::Ask(ReadWhat::Snapshot { kept: self.kept });
        }
        if !self.is_read {
            return Next::Ask(ReadWhat::Events {
                after: self.read_to,
                up_to: self.up_to,
                bytes_max: STATE_READ_BYTES,
                kept: self.kept,
            });
        }
        Next::Arrive
    }

    /// The latest snapshot, as it was `restored`, with its bytes; and the last event that the log has.
    fn take_snapshot(&mut self, restored: Option<(StreamState, usize)>, last: Option<Seq>) {
        self.has_snapshot = true;
        if let Some((state, bytes)) = restored {
            self.read_to = state.at();
            self.written = Written::of_snapshot(bytes);
            *self.state = state;
        }
        let is_all = last.is_none_or(|last| last <= self.read_to);
        self.is_read = is_all && !std::mem::take(&mut self.is_outdated);
    }

    fn take_events(&mut self, events: Vec<StoredEvent>, missing: Option<SeqRange>, is_done: bool) {
        let last = events.last().map(|last| last.seq);
        let reached = missing.map(|hole| hole.to).or(last);
        self.read_to = self.read_to.max(reached.unwrap_or_default());
        self.is_read = is_done && !std::mem::take(&mut self.is_outdated);
        self.batch.extend(events);
    }

    // An event that is next in the stream.
    fn take_in(&mut self, parser: &mut Parser, at: (Seq, i64), event: &Event) {
        let (seq, received_ms) = at;
        let folded = Folded {
            seq,
            received_ms,
            event,
        };
        // What it refuses or lets go of was counted when it came.
        apply(parser, &mut self.state, folded);
        self.written.note_event(event);
    }
}

impl Hub {
    /// What the log says of a stream whose state is loaded.
    pub(in crate::hub) fn handle_fold_read(
        &mut self,
        now: Now,
        slot: StreamSlot,
        result: Result<Read, ReadFailed>,
    ) {
        let kind = self.streams.state(slot).map(|state| state.name.kind);
        let Folds { folds, options, .. } = &mut self.folds;
        let Some(Stage::Loading(loading)) = folds.get_mut(&slot).map(|fold| &mut fold.stage) else {
            return;
        };
        loading.is_asked = false;
        match result {
            Ok(Read::Snapshot { latest, last }) => {
                // What cannot be read any more is made anew from the events.
                let restored = kind.zip(latest).and_then(|(kind, (_, bytes))| {
                    let state = StreamState::restore(kind, &bytes, options)?;
                    Some((state, bytes.len()))
                });
                loading.take_snapshot(restored, last);
            }
            Ok(Read::Events {
                events,
                missing,
                is_done,
            }) => loading.take_events(events, missing, is_done),
            Ok(Read::Count { .. } | Read::Resume { .. }) | Err(ReadFailed) => {
                loading.is_outdated = false;
                self.put_off_loading(now, slot);
            }
        }
    }

    // Gives the place of a state that cannot be had at present to another one.
    fn put_off_loading(&mut self, now: Now, slot: StreamSlot) {
        self.folds.loading.retain(|other| *other != slot);
        let last = self.folds.failed.back().map(|(retry_ms, _)| *retry_ms);
        let after_last_ms = last.map_or(0, |last_ms| last_ms + STATE_READ_SPACING_MS);
        let retry_ms = after_last_ms.max(now.ms() + STATE_READ_RETRY_MS);
        self.folds.failed.push_back((retry_ms, slot));
    }

    /// When a read that failed is tried again, in milliseconds of the monotonic clock.
    pub(in crate::hub) fn fold_retry_ms(&self) -> Option<u64> {
        self.folds.failed.front().map(|(retry_ms, _)| *retry_ms)
    }

    /// How many states are loaded now, or will be as soon as there is a place.
    pub(in crate::hub) fn folds_loading_len(&self) -> usize {
        self.folds.loading.len() + self.folds.queued.len()
    }

    /// Whether a state that is loaded can go on.
    pub(super) fn can_load(&self) -> bool {
        let is_waiting = |loading: &Loading| matches!(loading.next(), Next::Wait);
        let mut loading = self.folds.loading.iter();
        let can_begin = self.folds.loading.len() < STATES_LOADING_MAX;
        (can_begin && !self.folds.queued.is_empty())
            || self.can_load_unhurried()
            || loading.any(|slot| !self.folds.loading(*slot).is_none_or(is_waiting))
    }

    fn can_load_unhurried(&self) -> bool {
        !self.folds.unhurried.is_empty() && self.folds.loading.len() < STATES_LOADING_UNHURRIED_MAX
    }

    /// Goes on with what is loaded: each in its turn, all of them with a bounded number of events.
    pub(super) fn advance_loading(&mut self, now: Now) {
        while let Some((retry_ms, slot)) = self.folds.failed.front().copied()
            && retry_ms <= now.ms()
        {
            self.folds.failed.pop_front();
            self.folds.queued.push_back(slot);
        }
        while self.folds.loading.len() < STATES_LOADING_MAX
            && let Some(slot) = self.folds.queued.pop_front()
        {
            self.folds.loading.push_back(slot);
        }
        while self.can_load_unhurried()
            && let Some(slot) = self.folds.unhurried.pop_first()
        {
            self.folds.loading.push_back(slot);
        }
        let mut events_left = STATE_EVENTS_PER_TURN;
        for _ in 0..self.folds.loading.len() {
            let Some(slot) = self.folds.loading.pop_front() else {
                return;
            };
            if !self.load_on(slot, &mut events_left) {
                self.folds.loading.push_back(slot);
            }
        }
    }

    // Returns whether the state is not loaded any more.
    fn load_on(&mut self, slot: StreamSlot, events_left: &mut usize) -> bool {
        loop {
            let Some(loading) = self.folds.loading_mut(slot) else {
                return true;
            };
            match loading.next() {
                Next::Wait => return false,
                Next::Apply if *events_left == 0 => return false,
                Next::Apply => self.apply_read(slot, events_left),
                Next::Arrive => {
                    self.finish_loading(slot);
                    return true;
                }
                Next::Ask(what) => {
                    loading.is_asked = true;
                    if let Some(state) = self.streams.state(slot) {
                        self.reads.ask_for_fold(slot, state.name.clone(), what);
                    }
                    return false;
                }
            }
        }
    }

    fn apply_read(&mut self, slot: StreamSlot, events_left: &mut usize) {
        let Some(loading) = self.folds.loading_mut(slot) else {
            return;
        };
        while *events_left > 0
            && let Some(stored) = loading.batch.pop_front()
        {
            *events_left -= 1;
            let (at, event) = ((stored.seq, stored.received_ms), &stored.event);
            loading.take_in(&mut self.parser, at, event);
        }
    }

    // Takes in what was numbered meanwhile, which is bounded; then whoever waited goes on, in order
    // and before all that came later.
    fn finish_loading(&mut self, slot: StreamSlot) {
        let Some(fold) = self.folds.folds.remove(&slot) else {
            return;
        };
        let Stage::Loading(mut loading) = fold.stage else {
            return;
        };
        for noted in std::mem::take(&mut loading.tail) {
            let at = (noted.seq, noted.received_ms);
            loading.take_in(&mut self.parser, at, &noted.event);
        }
        // Whoever shows it begins with all of it.
        loading.state.forest_mut().map(Forest::take_changes);
        self.stats.counters.state_loads.add(1);
        self.folds.held_bytes -= loading.held_bytes;
        for waiting in loading.held.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        let fold = Fold {
            stage: Stage::Live(loading.state),
            written: loading.written,
            ..fold
        };
        self.folds.folds.insert(slot, fold);
        self.folds.arrived.push(slot);
        self.folds.upkeep.note_free();
        self.count_fold(slot);
    }
}
