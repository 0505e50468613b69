//! What viewers have missed goes into their outboxes as far as these have room, so that what is live
//! finds room too.

use std::rc::Rc;

use super::{Peer, Peers};
use crate::hub::frames::{FrameBatch, Variant};
use crate::hub::keyed::Key;
use crate::limits::REPLAY_BYTES_IN_FLIGHT_CROWDED;

/// What an outbox takes of what its viewer has missed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    // bytes <= bytes_max
    bytes: usize,
    bytes_max: usize,
}

impl Room {
    /// Takes room for a frame, where there is some. A frame that takes half of all the room there can
    /// be is content with whatever is left: behind a busy live stream the outbox may never be empty.
    pub fn try_take(&mut self, bytes: usize) -> bool {
        let is_large = bytes > self.bytes_max / 2;
        let has_room = bytes <= self.bytes || (is_large && self.bytes > 0);
        if has_room {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        has_room
    }

    /// Whether most of what there can be is free.
    pub fn is_wide(&self) -> bool {
        self.bytes >= self.bytes_max / 2
    }
}

impl Peers {
    /// Queues frames `first..=last` of a batch that the viewer has missed. Whoever sends these asks
    /// `replay_room` before.
    pub fn push_missed(
        &mut self,
        key: Key,
        batch: &Rc<FrameBatch>,
        variant: Variant,
        first: usize,
        last: usize,
    ) {
        let Some(peer) = self.find_open_mut(key) else {
            return;
        };
        let (start, end) = batch.range(variant, first, last + 1);
        peer.outbox.push_missed(batch, variant, first, last);
        self.stats
            .counters
            .events_replayed
            .add((last - first + 1) as u64);
        self.handle_pushed(key, (end - start) as usize, last - first + 1);
    }

    /// How much of what it has missed a viewer may be sent now, while other cores' outboxes hold
    /// `foreign_bytes`.
    pub fn replay_room(&self, key: Key, foreign_bytes: usize) -> Room {
        let Some(outbox) = self.find(key).map(Peer::outbox) else {
            return Room::default();
        };
        let is_crowded = self.outbox_bytes + foreign_bytes > self.outbox_bytes_total / 2;
        let bytes_max = match is_crowded {
            true => self.replay_bytes_max.min(REPLAY_BYTES_IN_FLIGHT_CROWDED),
            false => self.replay_bytes_max,
        };
        Room {
            bytes: bytes_max.saturating_sub(outbox.bytes()),
            bytes_max,
        }
    }

    /// The viewer is to be sent more of what it has missed once its outbox has room for it.
    pub fn await_room(&mut self, key: Key) {
        if let Some(peer) = self.find_open_mut(key) {
            peer.awaits_room = true;
        }
    }

    /// A viewer whose outbox has room again for what it has missed.
    pub fn poll_with_room(&mut self) -> Option<Key> {
        self.with_room.pop()
    }

    /// Whether there is such a viewer.
    pub fn has_with_room(&self) -> bool {
        !self.with_room.is_empty()
    }
}
