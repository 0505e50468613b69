//! What becomes of a viewer's cursor in a stream that begins for it, known before the stream is
//! attached: from this core's memory where that reaches back far enough, else from the event log.
//! Source: the contract, section 5.

use crate::dialect::{Outcome, StreamName};
use crate::event::{Epoch, Seq, SeqRange};
use crate::wire::close::CloseReason;

use super::keyed::Key;
use super::reads::{Kept, LogOutcome, Read, ReadFailed, ReadWhat};
use super::streams::StreamSlot;
use super::viewer::{Viewer, Waiting};
use super::{Hub, Now};

/// What is known of a stream that begins for a viewer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub slot: StreamSlot,
    pub fate: Fate,
    /// The first event that the log has.
    pub earliest: Option<Seq>,
    // The stream's head when the log was asked.
    head: Seq,
    // Whether only `earliest` was asked for.
    is_in_memory: bool,
}

/// What becomes of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// There is none.
    Fresh,
    /// What follows `from` is sent, but for what is missing.
    Replay {
        from: Seq,
        missing: Option<SeqRange>,
        lost: Option<SeqRange>,
    },
    /// It says nothing about this stream.
    Reset { from: Seq },
}

impl Facts {
    /// Of a stream of which nothing is known yet.
    pub fn new(slot: StreamSlot) -> Self {
        Self {
            slot,
            fate: Fate::Fresh,
            earliest: None,
            head: Seq(0),
            is_in_memory: true,
        }
    }

    /// Where to begin, where something is to be sent.
    pub fn start(&self) -> Option<Seq> {
        match self.fate {
            Fate::Fresh | Fate::Reset { .. } => None,
            Fate::Replay { from, missing, .. } => {
                let hole = missing.filter(|hole| hole.from <= Seq(from.0 + 1));
                Some(hole.map_or(from, |hole| hole.to))
            }
        }
    }

    /// What the viewer is told was missing.
    pub fn missing(&self) -> Option<SeqRange> {
        match self.fate {
            Fate::Fresh | Fate::Reset { .. } => None,
            Fate::Replay { missing, .. } => missing,
        }
    }

    /// What the viewer is told of a stream that was attached at `to`.
    pub fn outcome(&self, to: Seq, earliest: Option<Seq>) -> Outcome {
        match self.fate {
            Fate::Fresh => Outcome::Fresh { to, earliest },
            Fate::Reset { from } => Outcome::Reset { from, to, earliest },
            Fate::Replay {
                from,
                missing: None,
                lost,
            } => Outcome::Resumed {
                from,
                to,
                earliest,
                lost,
            },
            Fate::Replay {
                from,
                missing: Some(missing),
                lost,
            } => Outcome::Truncated {
                from,
                to,
                earliest,
                missing,
                lost,
            },
        }
    }
}

impl Hub {
    /// Finds out what becomes of the cursors in the streams that begin with the front operation, once
    /// these are ready.
    pub(super) fn judge_cursors(&mut self, key: Key) {
        let Some(waiting) = self.waiting_mut(key).filter(|waiting| !waiting.is_judged) else {
            return;
        };
        waiting.is_judged = true;
        for at in 0..waiting.facts.len() {
            self.judge_cursor(key, at);
        }
    }

    fn judge_cursor(&mut self, key: Key, at: usize) {
        let viewer = self.peers.viewer(key);
        let waiting = viewer.and_then(|viewer| viewer.waiting.as_ref());
        let Some(slot) = waiting.map(|waiting| waiting.facts[at].slot) else {
            return;
        };
        let Some(state) = self.streams.state(slot) else {
            return;
        };
        let given = viewer
            .and_then(|viewer| viewer.cursors.as_ref())
            .and_then(|cursor| {
                let seq = cursor.seq(StreamName::from(&state.name))?;
                Some((cursor.epoch, seq))
            });
        let (head, stream) = (state.head, state.name.clone());
        let base = self.rings.base(slot).unwrap_or(state.fanned_out());
        let (fate, is_in_memory) = match given {
            None => (Fate::Fresh, true),
            Some((epoch, from)) if self.is_foreign(epoch, from) || from > head => {
                (Fate::Reset { from }, true)
            }
            Some((_, from)) => {
                let fate = Fate::Replay {
                    from,
                    missing: None,
                    lost: None,
                };
                (fate, from >= base)
            }
        };
        if matches!(fate, Fate::Replay { .. }) {
            let counters = &self.stats.counters;
            let counter = match is_in_memory {
                true => &counters.ring_hits,
                false => &counters.ring_misses,
            };
            counter.add(1);
        }
        // Where memory reaches back to the first event there was nothing in the log before.
        let is_all_known = base == Seq(0);
        let what = ReadWhat::Resume {
            cursor: given.filter(|_| !is_in_memory),
            // What follows is in memory, kept or not.
            head: base,
            kept: given
                .filter(|_| !is_in_memory)
                .and_then(|(_, from)| self.kept_up_to(slot, from)),
        };
        let Some(waiting) = self.waiting_mut(key) else {
            return;
        };
        waiting.facts[at] = Facts {
            slot,
            fate,
            earliest: None,
            head,
            is_in_memory,
        };
        if !is_all_known {
            waiting.asked += 1;
            self.reads.ask_facts(key, slot, stream, what);
        }
    }

    /// What the log says of a stream that begins for a viewer.
    pub(super) fn handle_facts(
        &mut self,
        now: Now,
        key: Key,
        slot: StreamSlot,
        result: &Result<Read, ReadFailed>,
    ) {
        let base = self.rings.base(slot);
        let Some(waiting) = self.waiting_mut(key) else {
            return;
        };
        let mut facts = waiting.facts.iter_mut();
        let Some(facts) = facts.find(|facts| facts.slot == slot) else {
            return;
        };
        let (outcome, earliest) = match *result {
            Ok(Read::Resume { outcome, earliest }) => (outcome, earliest),
            // What is live does without the log.
            _ if facts.is_in_memory => (None, None),
            _ => return self.close_peer(now, key, CloseReason::Internal),
        };
        facts.earliest = earliest;
        // All after it is in memory, whatever the log has lost of it.
        let held = base.map_or(facts.head, |base| base.min(facts.head));
        if let Fate::Replay { from, .. } = facts.fate {
            facts.fate = match outcome {
                Some(LogOutcome::Replay { missing, lost }) => Fate::Replay {
                    from,
                    missing: missing.and_then(|hole| hole.up_to(held)),
                    lost,
                },
                Some(LogOutcome::Reset) => Fate::Reset { from },
                None => facts.fate,
            };
        }
        waiting.asked -= 1;
        self.advance_viewer(now, key);
    }

    /// Where the log does not answer in time, what is live or in memory does without it.
    pub(super) fn do_without_late_log(&mut self, now: Now, key: Key) {
        let Some(waiting) = self.waiting_mut(key) else {
            return;
        };
        let is_late = waiting.asked > 0 && now.ms() >= waiting.deadline_ms;
        if is_late && waiting.facts.iter().all(|facts| facts.is_in_memory) {
            waiting.asked = 0;
            self.reads.forget_facts(key);
            self.advance_viewer(now, key);
        }
    }

    /// What is known of a stream that begins with the operation that is carried out.
    pub(super) fn facts_of(&self, key: Key, slot: StreamSlot) -> Option<Facts> {
        let waiting = self.peers.viewer(key)?.waiting.as_ref()?;
        let mut facts = waiting.facts.iter();
        facts.find(|facts| facts.slot == slot).copied()
    }

    /// Up to which record the log must be to have all of a stream up to a seq that is not in memory
    /// here: what the owner core lets go the log has, but for streams that it forgot.
    pub(super) fn kept_up_to(&self, slot: StreamSlot, up_to: Seq) -> Kept {
        let state = self.streams.state(slot)?;
        if self.streams.is_owned(slot) {
            return Some((self.options.core, self.forgotten_through));
        }
        let remote = state.live.as_ref()?.remote();
        let (base, through) = remote.base;
        let through = if up_to <= base {
            through
        } else {
            remote.through
        };
        Some((state.owner(), through))
    }

    fn is_foreign(&self, epoch: Option<Epoch>, from: Seq) -> bool {
        match epoch {
            None => from != Seq(0),
            Some(epoch) => epoch != self.options.epoch(),
        }
    }

    fn waiting_mut(&mut self, key: Key) -> Option<&mut Waiting> {
        let viewer: &mut Viewer = self.peers.viewer_mut(key)?;
        viewer.waiting.as_deref_mut()
    }
}

#[cfg(test)]
mod tests;
