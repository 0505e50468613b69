//! Viewers that are behind in a stream: sent what they have missed at their own pace, from memory or
//! from what was read of the log, until they are at the head; then the stream is live for them.
//!
//! Who is behind holds a place among the stream's waiters, so that the stream stays followed and its
//! ring goes on. Viewers take turns, each with a bounded number of bytes, and none is sent more than
//! its outbox has room for: what a slow one has not taken waits in the ring and in the log.

use std::collections::VecDeque;
use std::rc::Rc;

use compact_str::CompactString;

use crate::dialect::{ServerMessage, StreamName};
use crate::event::{EventKeys, Seq, SeqRange, StreamKind};
use crate::limits::{REPLAY_BYTES_AT_ONCE, REPLAY_BYTES_PER_TURN};
use crate::wire::close::CloseReason;

use super::facts::Facts;
use super::frames::{FrameBatch, FrameMeta, Variant};
use super::keyed::Key;
use super::peers::Room;
use super::reads::{Asker, Found, Read, ReadAnswer, ReadRequest};
use super::replay::Replay;
use super::ring::{Frames, Maker};
use super::streams::StreamSlot;
use super::subscriptions::Wanted;
use super::viewer::Viewer;
use super::{Hub, Now};

/// What one viewer is to be sent of the past.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// The streams that are not live for it yet.
    pub streams: Vec<CatchUp>,
    /// What it asked for again, in order.
    pub replays: VecDeque<Replay>,
    // Whether it is on the list of those that can go on, or of those that wait for a read.
    is_ready: bool,
    is_thirsty: bool,
}

/// A viewer's way to the head of one stream.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub slot: StreamSlot,
    /// All up to here was queued, or is not wanted.
    pub after: Seq,
    // Where `replay_complete` stands, until it is said.
    to: Option<Seq>,
    // What is wanted; and what had to be wanted as well by an event up to a seq, since it was wanted
    // when the event came.
    wanted: Wanted,
    earlier: Vec<(Seq, Wanted)>,
    // What the viewer knows to be missing.
    stated: Option<SeqRange>,
    // A read that brings more is under way.
    awaits_read: bool,
}

/// Who can go on, and who waits for one of the reads that may be under way.
#[derive(Debug, Default)]
pub(super) struct Waking {
    ready: VecDeque<Key>,
    thirsty: VecDeque<Key>,
}

/// What came of one step.
pub(super) enum Step {
    /// The stream is live.
    Arrived,
    /// The outbox has no room.
    Full,
    /// So many bytes were sent, or as much work was done.
    Moved(usize),
    /// A read must be answered first.
    Waits,
}

/// What comes after a seq.
enum Next {
    Frames(Rc<FrameBatch>, Seq),
    Missing(SeqRange),
    // No event up to here.
    Nothing(Seq),
    // To be read, up to here.
    Read(Seq),
}

impl CatchUp {
    /// From what is known of the stream, whose head is `to`.
    pub fn new(facts: &Facts, start: Seq, to: Seq, wanted: Wanted) -> Self {
        Self {
            slot: facts.slot,
            after: start.min(to),
            to: Some(to),
            wanted,
            earlier: Vec::new(),
            stated: facts.missing(),
            awaits_read: false,
        }
    }

    /// From the stream's head: nothing was missed, but something else comes first.
    pub fn at_head(slot: StreamSlot, head: Seq, wanted: Wanted) -> Self {
        Self {
            slot,
            after: head,
            to: None,
            wanted,
            earlier: Vec::new(),
            stated: None,
            awaits_read: false,
        }
    }

    /// From the event after `head` on something else is wanted; of what came before, what is wanted
    /// then and now.
    pub fn change(&mut self, head: Seq, wanted: Wanted) {
        if self.wanted != wanted {
            let before = std::mem::replace(&mut self.wanted, wanted);
            self.earlier.push((head, before));
        }
    }

    /// What is wanted of the stream now.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    // Takes the frames of a piece that are wanted, as far as there is room and work may be done. `own`:
    // the viewer's user, whose events in a project come on the own stream.
    fn pick(
        &mut self,
        piece: &Piece,
        own: &CompactString,
        mut room: Room,
        work_max: usize,
    ) -> Picked {
        let mut picked = Picked {
            runs: Vec::new(),
            work: STEP_COST,
            is_full: false,
        };
        let metas = &piece.batch.metas;
        let end = metas.partition_point(|meta| meta.seq <= piece.last);
        let mut reached = metas.partition_point(|meta| meta.seq <= self.after);
        while reached < end && picked.work < work_max {
            let FrameMeta { seq, keys, .. } = &metas[reached];
            let is_own = piece.kind == StreamKind::Project && keys.user.as_ref() == Some(own);
            if is_own || !self.wants(*seq, keys) {
                picked.work += PASSED_COST;
            } else {
                let (start, stop) = piece.batch.range(piece.variant, reached, reached + 1);
                let bytes = (stop - start) as usize;
                if !room.try_take(bytes) {
                    picked.is_full = true;
                    break;
                }
                picked.work += bytes;
                match picked
                    .runs
                    .last_mut()
                    .filter(|(_, last)| last + 1 == reached)
                {
                    Some((_, last)) => *last = reached,
                    None => picked.runs.push((reached, reached)),
                }
            }
            self.after = *seq;
            reached += 1;
        }
        if reached == end {
            self.after = piece.last;
        }
        self.earlier.retain(|(up_to, _)| *up_to > self.after);
        picked
    }

    fn wants(&self, seq: Seq, keys: &EventKeys) -> bool {
        let mut earlier = self.earlier.iter().filter(|(up_to, _)| seq <= *up_to);
        is_wanted(&self.wanted, keys) && earlier.all(|(_, wanted)| is_wanted(wanted, keys))
    }
}

impl Behind {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.replays.is_empty()
    }
}

impl Waking {
    fn has_work(&self, is_full: bool) -> bool {
        !self.ready.is_empty() || (!self.thirsty.is_empty() && !is_full)
    }
}

impl Hub {
    /// The next request for the event log.
    pub fn poll_read(&mut self) -> Option<ReadRequest> {
        self.reads.poll()
    }

    /// What the event log has answered.
    pub fn handle_read(&mut self, now: Now, answer: ReadAnswer) {
        match self.reads.take_asker(answer.id) {
            None => {}
            Some(Asker::Count(question)) => self.handle_count(now, question, answer.result),
            Some(Asker::Facts(key, slot)) => self.handle_facts(now, key, slot, &answer.result),
            Some(Asker::Fold(slot)) => self.handle_fold_read(now, slot, answer.result),
            Some(Asker::Events(slot, under_way)) => {
                for key in &under_way.viewers {
                    self.handle_read_done(*key, slot);
                }
                let Ok(Read::Events {
                    events,
                    missing,
                    is_done,
                }) = answer.result
                else {
                    for key in under_way.viewers {
                        self.close_peer(now, key, CloseReason::Internal);
                    }
                    return;
                };
                if self.streams.state(slot).is_some() {
                    self.reads.hold(slot, &under_way, events, missing, is_done);
                }
            }
        }
    }

    fn handle_read_done(&mut self, key: Key, slot: StreamSlot) {
        let name = self.streams.state(slot).map(|state| state.name.clone());
        let Some(behind) = self.behind_mut(key) else {
            return;
        };
        let mut streams = behind.streams.iter_mut();
        if let Some(catch_up) = streams.find(|catch_up| catch_up.slot == slot) {
            catch_up.awaits_read = false;
        }
        if let Some(replay) = behind.replays.front_mut()
            && name.is_none_or(|name| replay.is_of(&name))
        {
            replay.awaits_read = false;
        }
        self.wake(key);
    }

    /// Whether somebody who is behind can go on.
    pub(super) fn can_catch_up(&self) -> bool {
        self.waking.has_work(self.reads.is_full()) || self.peers.has_with_room()
    }

    /// A stream begins for a viewer at what it has missed.
    pub(super) fn fall_behind(&mut self, key: Key, catch_up: CatchUp) {
        if let Some(state) = self.streams.state_mut(catch_up.slot) {
            state.live_mut().add_waiter(key);
        }
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        let behind = viewer.behind.get_or_insert_default();
        behind.streams.push(catch_up);
        self.stats.counters.catch_ups.add(1);
        self.wake(key);
    }

    /// The way to the head of a stream, where the viewer is behind.
    pub(super) fn catch_up_mut(&mut self, key: Key, slot: StreamSlot) -> Option<&mut CatchUp> {
        let behind = self.behind_mut(key)?;
        let mut streams = behind.streams.iter_mut();
        streams.find(|catch_up| catch_up.slot == slot)
    }

    /// A viewer does not want what it is behind in any more.
    pub(super) fn give_up_all(&mut self, key: Key) {
        self.give_up_unless(key, |_| false);
        if let Some(viewer) = self.peers.viewer_mut(key) {
            viewer.behind = None;
        }
    }

    /// The same, but for some streams.
    pub(super) fn give_up_unless(&mut self, key: Key, is_kept: impl Fn(StreamSlot) -> bool) {
        let is_gone = |catch_up: &CatchUp| !is_kept(catch_up.slot);
        while let Some(at) = self
            .behind_mut(key)
            .and_then(|behind| behind.streams.iter().position(is_gone))
        {
            if let Some(catch_up) = self.leave_behind(key, at) {
                self.release_stream(catch_up.slot);
            }
        }
    }

    // Takes a viewer off the way to a stream's head. The stream may be followed by nobody then.
    fn leave_behind(&mut self, key: Key, at: usize) -> Option<CatchUp> {
        let viewer = self.peers.viewer_mut(key)?;
        let behind = viewer.behind.as_deref_mut()?;
        if at >= behind.streams.len() {
            return None;
        }
        let catch_up = behind.streams.remove(at);
        if behind.is_empty() {
            viewer.behind = None;
        }
        self.stats.counters.catch_ups.sub(1);
        self.drop_waiter(catch_up.slot, key);
        Some(catch_up)
    }

    /// Outboxes have room again for more than what is live.
    pub(super) fn note_room(&mut self, now: Now) {
        while let Some(key) = self.peers.poll_with_room() {
            self.wake(key);
            self.look_for_viewer(now, key);
        }
    }

    /// Sends those who are behind some of what they have missed.
    pub(super) fn catch_up(&mut self, now: Now) {
        let mut bytes_left = REPLAY_BYTES_PER_TURN;
        while bytes_left > 0
            && let Some(key) = self.next_to_catch_up()
        {
            let sent = self.catch_up_viewer(now, key);
            bytes_left = bytes_left.saturating_sub(sent);
        }
    }

    fn next_to_catch_up(&mut self) -> Option<Key> {
        while self.waking.has_work(self.reads.is_full()) {
            let ready = self.waking.ready.pop_front();
            let is_thirsty = ready.is_none();
            let key = ready.or_else(|| self.waking.thirsty.pop_front())?;
            if let Some(behind) = self.behind_mut(key) {
                match is_thirsty {
                    true => behind.is_thirsty = false,
                    false => behind.is_ready = false,
                }
                return Some(key);
            }
        }
        None
    }

    // One viewer's turn. Returns what it took: bytes sent, or as much work.
    fn catch_up_viewer(&mut self, now: Now, key: Key) -> usize {
        if self.awaits_trees(key) {
            // They come first, and wake it then.
            return 0;
        }
        let (mut at, mut spent) = (0, 0);
        while spent < REPLAY_BYTES_AT_ONCE {
            let bytes_max = REPLAY_BYTES_AT_ONCE - spent;
            let step = self.catch_up_stream(now, key, at, bytes_max);
            let is_last = step.is_none();
            match step.or_else(|| self.replay_on(now, key, bytes_max)) {
                None => return spent,
                Some(Step::Arrived) => spent += STEP_COST,
                Some(Step::Full) => {
                    self.peers.await_room(key);
                    return spent;
                }
                Some(Step::Moved(work)) => spent += work,
                Some(Step::Waits) if is_last => return spent,
                Some(Step::Waits) => at += 1,
            }
        }
        self.wake(key);
        spent
    }

    // `None`: there is no such stream, or no such viewer any more.
    fn catch_up_stream(&mut self, now: Now, key: Key, at: usize, bytes_max: usize) -> Option<Step> {
        let slot = self.behind_mut(key)?.streams.get(at)?.slot;
        // All up to there is in the ring or in the log; what follows is fanned out to those who are there.
        let head = self.streams.state(slot)?.fanned_out();
        let catch_up = self.behind_mut(key)?.streams.get_mut(at)?;
        let after = catch_up.after;
        if let Some(to) = catch_up.to.filter(|to| *to <= after) {
            catch_up.to = None;
            self.say_complete(now, key, slot, to);
        }
        let catch_up = self.behind_mut(key)?.streams.get_mut(at)?;
        if after >= head {
            self.arrive(now, key, at);
            return Some(Step::Arrived);
        }
        if catch_up.awaits_read {
            return Some(Step::Waits);
        }
        let (limit, stated) = (catch_up.to.unwrap_or(head), catch_up.stated);
        let variant = self.peers.viewer(key)?.variant;
        let kind = self.streams.state(slot)?.name.kind;
        match self.next_frames(slot, after, variant)? {
            Next::Frames(batch, last) => {
                let piece = Piece {
                    batch,
                    variant,
                    kind,
                    last: last.min(limit),
                };
                self.send_missed(key, at, &piece, bytes_max)
            }
            Next::Missing(hole) if stated.is_some_and(|stated| stated.contains(hole)) => {
                self.behind_mut(key)?.streams.get_mut(at)?.after = hole.to.min(limit);
                Some(Step::Moved(STEP_COST))
            }
            Next::Missing(_) => {
                // Nobody told the viewer: the next resume does.
                self.close_peer(now, key, CloseReason::Internal);
                None
            }
            Next::Nothing(last) => {
                self.behind_mut(key)?.streams.get_mut(at)?.after = last.min(limit);
                Some(Step::Moved(STEP_COST))
            }
            Next::Read(up_to) => {
                let awaits_read = self.ask_events(key, slot, (after, up_to));
                self.behind_mut(key)?.streams.get_mut(at)?.awaits_read = awaits_read;
                Some(Step::Waits)
            }
        }
    }

    // The next frames after a seq: from memory, from what was read, or to be read.
    fn next_frames(&mut self, slot: StreamSlot, after: Seq, variant: Variant) -> Option<Next> {
        let state = self.streams.state(slot)?;
        let maker = Maker {
            stream: slot,
            name: StreamName::from(&state.name),
            variant,
        };
        let encoder = &mut self.peers.encoder;
        let up_to = match self.rings.frames_after(after, maker, encoder) {
            Some((Frames::Here(batch), last)) => return Some(Next::Frames(batch, last)),
            // It is known here in other encodings only.
            Some((Frames::None | Frames::Unknown, last)) => last,
            None => self.rings.base(slot).unwrap_or(state.head),
        };
        Some(match self.reads.find(slot, after) {
            None => Next::Read(up_to),
            Some(Found::Missing(hole)) => Next::Missing(hole),
            Some(Found::Chunk(chunk)) => {
                let last = chunk.last();
                match chunk.frames(maker, encoder) {
                    Frames::Here(batch) => Next::Frames(batch, last),
                    Frames::None | Frames::Unknown => Next::Nothing(last),
                }
            }
        })
    }

    /// Asks for events of a stream on behalf of a viewer. `false`: it is woken when that is possible.
    pub(super) fn ask_events(&mut self, key: Key, slot: StreamSlot, range: (Seq, Seq)) -> bool {
        let Some(state) = self.streams.state(slot) else {
            return false;
        };
        let (after, mut up_to) = range;
        let live = state.live.as_ref().filter(|_| !self.streams.is_owned(slot));
        if let Some((base, _)) = live
            .map(|live| live.remote().base)
            .filter(|base| after < base.0)
        {
            // The log may have this part before the rest.
            up_to = up_to.min(base);
        }
        let kept = self.kept_up_to(slot, up_to);
        let range = (after, up_to);
        let is_asked = self.reads.ask_events(key, slot, &state.name, range, kept);
        if let Some(behind) = self.behind_mut(key).filter(|_| !is_asked)
            && !std::mem::replace(&mut behind.is_thirsty, true)
        {
            self.waking.thirsty.push_back(key);
        }
        is_asked
    }

    // Queues the frames of a piece that are wanted, as far as there is room.
    fn send_missed(
        &mut self,
        key: Key,
        at: usize,
        piece: &Piece,
        bytes_max: usize,
    ) -> Option<Step> {
        let room = self.peers.replay_room(key, self.foreign_outbox_bytes);
        let own = self.peers.find(key)?.details.claims.sub.clone();
        let catch_up = self.behind_mut(key)?.streams.get_mut(at)?;
        let picked = catch_up.pick(piece, &own, room, bytes_max);
        for (first, last) in picked.runs {
            self.peers
                .push_missed(key, &piece.batch, piece.variant, first, last);
        }
        Some(match picked.is_full {
            true => Step::Full,
            false => Step::Moved(picked.work),
        })
    }

    // Everything was queued: from here on the stream is live.
    fn arrive(&mut self, now: Now, key: Key, at: usize) {
        if let Some(catch_up) = self.leave_behind(key, at) {
            self.attach_live(key, catch_up.slot, catch_up.wanted);
            self.look_for_viewer(now, key);
        }
    }

    fn say_complete(&mut self, now: Now, key: Key, slot: StreamSlot, seq: Seq) {
        if let Some(state) = self.streams.state(slot) {
            let stream = StreamName::from(&state.name);
            let message = ServerMessage::ReplayComplete {
                id: None,
                stream,
                seq,
                more: None,
            };
            self.peers.push_message(now, key, &message);
        }
    }

    // Puts a viewer on the list of those that can go on.
    pub(super) fn wake(&mut self, key: Key) {
        if let Some(behind) = self.behind_mut(key)
            && !std::mem::replace(&mut behind.is_ready, true)
        {
            self.waking.ready.push_back(key);
        }
    }

    pub(super) fn behind_mut(&mut self, key: Key) -> Option<&mut Behind> {
        let viewer: &mut Viewer = self.peers.viewer_mut(key)?;
        viewer.behind.as_deref_mut()
    }
}

/// Frames to send.
struct Piece {
    batch: Rc<FrameBatch>,
    variant: Variant,
    kind: StreamKind,
    // Up to here.
    last: Seq,
}

/// What of a piece is sent: runs of frames, first and last.
struct Picked {
    runs: Vec<(usize, usize)>,
    work: usize,
    is_full: bool,
}

/// Whether an event with these keys is wanted.
pub(super) fn is_wanted(wanted: &Wanted, keys: &EventKeys) -> bool {
    wanted
        .as_ref()
        .is_none_or(|any| any.iter().any(|filter| filter.matches(keys)))
}

/// What a step costs beside what it sends, in bytes that could be sent meanwhile.
pub(super) const STEP_COST: usize = 256;
/// The same of an event that is looked at and not sent.
pub(super) const PASSED_COST: usize = 64;

#[cfg(test)]
pub(super) mod tests;
