//! Frames that are made for a viewer and wait until it may be sent them: for the event log to keep
//! what they tell of, and for room. They show one moment together, whenever they are sent.

use std::rc::Rc;

use super::{OwnKind, Peer, Peers};
use crate::event::Seq;
use crate::hub::keyed::Key;

/// A frame that waits.
#[derive(Debug)]
pub(in crate::hub) struct HeldFrame {
    bytes: Rc<[u8]>,
    // The viewer's user stream must have been handed out up to here before.
    at_seq: Seq,
}

impl Peers {
    /// Queues a frame of a viewer that watches trees behind those that it waits for.
    pub(in crate::hub) fn hold(&mut self, key: Key, bytes: Rc<[u8]>, at_seq: Seq) {
        let viewer = self.find_open_mut(key).and_then(Peer::viewer_mut);
        let Some(trees) = viewer.and_then(|viewer| viewer.trees.as_deref_mut()) else {
            return;
        };
        let len = bytes.len();
        trees.held_bytes += len;
        trees.held.push_back(HeldFrame { bytes, at_seq });
        self.add_waiting(len);
    }

    /// Puts held frames into the outbox while that is low, as far as the user's stream has been handed
    /// out up to `head`.
    pub(in crate::hub) fn release_held(
        &mut self,
        key: Key,
        head: Seq,
        foreign_bytes: usize,
    ) -> Release {
        loop {
            let viewer = self.viewer(key);
            let Some(trees) = viewer.and_then(|viewer| viewer.trees.as_deref()) else {
                return Release::Done;
            };
            let Some(front) = trees.held.front() else {
                return Release::Done;
            };
            if front.at_seq > head {
                return Release::AwaitsLog(front.at_seq);
            }
            if !self.takes_state(key, front.bytes.len(), foreign_bytes) {
                self.await_room(key);
                return Release::AwaitsRoom;
            }
            if let Some(frame) = self.take_held(key) {
                self.stats.counters.agent_tree_messages_queued.add(1);
                self.push_own(key, frame, OwnKind::Frame);
            }
        }
    }

    /// Whether a viewer may be sent state now: little else waits for it, so that what it gets is not
    /// old when it reads it. A frame always enters an empty outbox.
    pub(in crate::hub) fn takes_state(&self, key: Key, bytes: usize, foreign_bytes: usize) -> bool {
        let Some(outbox) = self.find(key).map(Peer::outbox) else {
            return false;
        };
        let is_low = self.replay_room(key, foreign_bytes).is_wide();
        outbox.is_empty() || (is_low && outbox.bytes() + bytes <= self.outbox_bytes_max)
    }

    /// Throws away what is held for a viewer.
    pub(in crate::hub) fn discard_held(&mut self, key: Key) {
        while self.take_held(key).is_some() {}
    }

    fn take_held(&mut self, key: Key) -> Option<Rc<[u8]>> {
        let trees = self.viewer_mut(key)?.trees.as_deref_mut()?;
        let HeldFrame { bytes, .. } = trees.held.pop_front()?;
        trees.held_bytes -= bytes.len();
        self.sub_waiting(bytes.len());
        Some(bytes)
    }

    fn add_waiting(&mut self, bytes: usize) {
        self.outbox_bytes += bytes;
        self.stats.counters.outbox_bytes.add(bytes as u64);
    }

    fn sub_waiting(&mut self, bytes: usize) {
        self.outbox_bytes -= bytes;
        self.stats.counters.outbox_bytes.sub(bytes as u64);
    }
}

/// What became of held frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hub) enum Release {
    /// The user's stream is not handed out up to there.
    AwaitsLog(Seq),
    /// The outbox is not low; the viewer is among those with room once it is.
    AwaitsRoom,
    /// None is left.
    Done,
}
