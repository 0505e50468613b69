//! What states cost: how many are kept at one time, and what is written down of them.
//!
//! A snapshot is a record of the log like any other, behind the events that it is made of. A user's is
//! written when about as many bytes of events came as it takes itself, so that a load, for which a spawn
//! waits, never reads much more than twice the state, and the log grows by at most as much again. For a
//! project's nobody waits but who asks for it, and each event of a project moves one on: it is written
//! a fourth as often. One is made in a turn, at a cost of some microseconds for a hundred agents.
//! States beyond the bounds are let go of, the longest idle first.

use std::collections::VecDeque;

use compact_str::CompactString;

use crate::event::{Event, StreamKind};
use crate::hub::Hub;
use crate::hub::streams::StreamSlot;
use crate::limits::STATE_REREAD_BYTES;

use super::{Fold, Stage};

/// What is to be done for the states of one core.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    // All states, in the order in which they were last looked at by `let_go_of_folds`.
    order: VecDeque<StreamSlot>,
    // How many of them that may look at yet: some for each that came or became free, and one for each
    // entry more.
    looks: usize,
    // States to be written down.
    due: VecDeque<StreamSlot>,
    // Users whose events the log is asked to take out: what knows of them is not written down.
    erasing: Vec<CompactString>,
}

/// What the log has of a state.
#[derive(Debug, Default)]
pub(super) struct Written {
    // Of the latest snapshot.
    snapshot_bytes: usize,
    // Of the events after it.
    bytes_since: usize,
    // Whether it is among those to be written down.
    is_listed: bool,
}

impl Upkeep {
    /// There is one more.
    pub fn note_begun(&mut self, slot: StreamSlot) {
        self.order.push_back(slot);
        self.note_free();
    }

    /// One may be let go of that could not before.
    pub fn note_free(&mut self) {
        self.looks += LOOKS_PER_STATE;
    }
}

impl Written {
    /// A snapshot of so many bytes, and nothing after it.
    pub fn of_snapshot(bytes: usize) -> Self {
        Self {
            snapshot_bytes: bytes,
            ..Self::default()
        }
    }

    /// An event of the stream.
    pub fn note_event(&mut self, event: &Event) {
        self.bytes_since += event.data.len() + EVENT_BYTES_BESIDE;
    }

    fn is_due(&self, kind: StreamKind, bytes_min: usize) -> bool {
        let share = match kind {
            StreamKind::Project => 4,
            StreamKind::User => 1,
        };
        self.bytes_since >= (share * self.snapshot_bytes).max(bytes_min)
    }
}

impl Hub {
    /// Takes note of how much a live state has become.
    pub(super) fn count_fold(&mut self, slot: StreamSlot) {
        let bytes_min = self.bounds.snapshot_bytes_min;
        let folds = &mut self.folds;
        let Some(fold) = folds.folds.get_mut(&slot) else {
            return;
        };
        let Stage::Live(state) = &fold.stage else {
            return;
        };
        fold.is_recent = true;
        let before = std::mem::replace(&mut fold.entries, state.entries_len());
        folds.entries = folds.entries + fold.entries - before;
        folds.upkeep.looks += fold.entries.saturating_sub(before);
        if fold.written.is_due(state.kind(), bytes_min) && !fold.written.is_listed {
            fold.written.is_listed = true;
            folds.upkeep.due.push_back(slot);
        }
    }

    /// Writes one state down, if one is to be.
    pub(super) fn write_due_snapshot(&mut self) {
        while self.can_write_snapshot()
            && let Some(slot) = self.folds.upkeep.due.pop_front()
        {
            if self.write_snapshot(slot) {
                return;
            }
        }
    }

    /// Whether a state is to be written down, and the log takes it.
    pub(super) fn can_write_snapshot(&self) -> bool {
        !self.folds.upkeep.due.is_empty() && self.takes_snapshots()
    }

    fn takes_snapshots(&self) -> bool {
        self.folds.upkeep.erasing.is_empty() && self.ledger.has_room()
    }

    // Returns whether there was such a state.
    fn write_snapshot(&mut self, slot: StreamSlot) -> bool {
        let Some(Fold {
            stage: Stage::Live(state),
            written,
            ..
        }) = self.folds.folds.get_mut(&slot)
        else {
            return false;
        };
        let Some(stream) = self.streams.state(slot) else {
            return false;
        };
        let payload = state.snapshot();
        *written = Written::of_snapshot(payload.len());
        self.ledger
            .append_snapshot(&stream.name, state.at(), &payload);
        self.stats.counters.state_snapshots.add(1);
        true
    }

    /// Whether there are too many states, and some were not looked at.
    pub(super) fn can_let_go(&self) -> bool {
        let is_over = self.folds.folds.len() > self.bounds.states_max
            || self.folds.entries > self.bounds.state_entries_max;
        is_over && self.folds.upkeep.looks > 0
    }

    /// Lets go of states that nobody needs, down to the bounds. Looks at each once at most: whoever was of
    /// use since the last look stays for another round, and what became live in this turn for one more.
    pub(in crate::hub) fn let_go_of_folds(&mut self) {
        for _ in 0..self.folds.upkeep.order.len() {
            if !self.can_let_go() {
                break;
            }
            self.folds.upkeep.looks -= 1;
            let Some(slot) = self.folds.upkeep.order.pop_front() else {
                break;
            };
            let Some(fold) = self.folds.folds.get_mut(&slot) else {
                continue;
            };
            let is_free = fold.holders == 0 && matches!(fold.stage, Stage::Live(_));
            if std::mem::take(&mut fold.is_recent) || !is_free {
                self.folds.upkeep.order.push_back(slot);
                continue;
            }
            // A short tail is soon read again.
            if fold.written.bytes_since > STATE_REREAD_BYTES && self.takes_snapshots() {
                self.write_snapshot(slot);
            }
            self.remove_fold(slot);
        }
        if !self.can_let_go() {
            self.folds.upkeep.looks = 0;
        }
    }

    fn remove_fold(&mut self, slot: StreamSlot) -> Option<Fold> {
        let fold = self.folds.folds.remove(&slot)?;
        self.folds.entries -= fold.entries;
        if let Some(state) = self.streams.state_mut(slot) {
            state.is_folded = false;
        }
        Some(fold)
    }

    /// The log is about to be asked to take this user's events out: until `resume_snapshots` nothing is
    /// written down that may know of them.
    pub(in crate::hub) fn pause_snapshots(&mut self, user: CompactString) {
        self.folds.upkeep.erasing.push(user);
    }

    /// The log has nothing of the user any more, nor has any state.
    pub(in crate::hub) fn resume_snapshots(&mut self, user: &str) {
        let erasing = &mut self.folds.upkeep.erasing;
        if let Some(at) = erasing.iter().position(|other| other == user) {
            erasing.swap_remove(at);
        }
    }

    /// Makes all states that may know of a user anew from what the log has: the user's own, and those of
    /// projects.
    pub(in crate::hub) fn forget_user_in_folds(&mut self, user: &str) {
        let is_concerned = |slot: &StreamSlot| {
            let stream = self.streams.state(*slot).map(|state| &state.name);
            stream.is_none_or(|stream| stream.kind == StreamKind::Project || stream.id == user)
        };
        let slots = self.folds.folds.keys().copied();
        let mut concerned: Vec<StreamSlot> = slots.filter(is_concerned).collect();
        concerned.sort_unstable();
        let order = &mut self.folds.upkeep.order;
        order.retain(|slot| concerned.binary_search(slot).is_err());
        for slot in concerned {
            self.begin_fold_again(slot);
        }
    }

    // Forgets a state, and loads it where somebody needs it.
    fn begin_fold_again(&mut self, slot: StreamSlot) {
        self.reads.forget_fold(slot);
        self.folds.loading.retain(|other| *other != slot);
        self.folds.queued.retain(|other| *other != slot);
        self.folds.unhurried.remove(&slot);
        self.folds.failed.retain(|(_, other)| *other != slot);
        let Some(fold) = self.remove_fold(slot) else {
            return;
        };
        let held = match fold.stage {
            Stage::Live(_) => VecDeque::new(),
            Stage::Loading(mut loading) => loading.take_held(),
        };
        if fold.holders == 0 && held.is_empty() {
            return;
        }
        self.need_fold(slot);
        if let Some(again) = self.folds.folds.get_mut(&slot) {
            again.holders = fold.holders;
        }
        // They count as before. A stream with events is never live at once.
        if let Some(loading) = self.folds.loading_mut(slot) {
            for waiting in held {
                loading.hold(waiting);
            }
        }
    }
}

/// How many states `let_go_of_folds` looks at for each that came or became free.
const LOOKS_PER_STATE: usize = 2;

/// Roughly what an event's record has beside its data.
const EVENT_BYTES_BESIDE: usize = 128;
