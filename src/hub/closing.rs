//! Ending a connection in order: the close frame goes out behind what is queued, or, where a viewer
//! does not keep up, in place of it.

use crate::event::Seq;
use crate::limits::{CLOSE_TIMEOUT_MS, SLOW_CLOSE_TIMEOUT_MS};
use crate::wire::close::CloseReason;
use crate::wire::frame::encode_close;

use super::keyed::Key;
use super::rows::Place;
use super::streams::StreamSlot;
use super::{Hub, Now};

use super::peers::Peer;

impl Hub {
    /// Begins to close a connection of either kind.
    pub(super) fn close_peer(&mut self, now: Now, key: Key, reason: CloseReason) {
        let mut frame = Vec::new();
        encode_close(&mut frame, reason, reason.text());
        self.close_peer_with(now, key, reason, frame);
    }

    /// The same, with the close frame given.
    pub(super) fn close_peer_with(
        &mut self,
        now: Now,
        key: Key,
        reason: CloseReason,
        frame: Vec<u8>,
    ) {
        let timeout_ms = match reason {
            // It has stopped reading: give it time to find out why.
            CloseReason::SlowConsumer => SLOW_CLOSE_TIMEOUT_MS,
            _ => CLOSE_TIMEOUT_MS,
        };
        self.peers
            .begin_close(key, reason, frame, now.ms() + timeout_ms);
        self.detach_all(key);
        if let Some(publisher) = self.peers.find(key).and_then(Peer::publisher) {
            self.drop_publisher(publisher);
        }
    }

    /// Closes the peers that do not read what they asked for.
    pub(super) fn close_overfull(&mut self, now: Now) {
        while let Some(key) = self.peers.poll_overfull() {
            self.close_slow(now, key, None);
        }
    }

    /// Closes a viewer that does not keep up: what waits is thrown away, and it is told how far it
    /// got. `blocked`: a stream and its first seq that found no room.
    pub(super) fn close_slow(&mut self, now: Now, key: Key, blocked: Option<(StreamSlot, Seq)>) {
        if !self.is_open(key) {
            return;
        }
        let undelivered = self.peers.undelivered(key);
        let before_lost = |slot: StreamSlot, place: Place| {
            let lost = undelivered
                .iter()
                .chain(&blocked)
                .filter(|(stream, _)| *stream == slot);
            lost.map(|(_, seq)| Seq(seq.0 - 1))
                .chain([place.queued])
                .min()
                .unwrap_or(place.queued)
        };
        let positions = self.positions(key, before_lost);
        self.peers.discard(key);
        self.send_cursor(now, key, &positions);
        self.stats.counters.slow_closes.add(1);
        self.close_peer(now, key, CloseReason::SlowConsumer);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hub::rig::{OUTBOX_BYTES_MAX, Rig, event, messages, seqs};

    #[test]
    fn a_slow_viewer_gets_the_frame_on_its_way_then_how_far_that_is_then_4008() {
        let mut rig = Rig::new();
        let (viewer, publisher) = (rig.viewer("ada", &["7"]), rig.publisher(0));
        rig.turn();
        rig.read(viewer);
        rig.publish(publisher, &event(None, Some("7"), 1));
        rig.turn();
        rig.read(viewer);
        let large = event(Some("ada"), None, OUTBOX_BYTES_MAX / 2);
        rig.publish(publisher, &large);
        rig.turn();
        let mut bytes = rig.write(viewer, 100);
        rig.publish(publisher, &event(None, Some("7"), 1));
        rig.turn();
        assert_eq!(rig.closing(viewer), None);
        rig.publish(publisher, &large);
        rig.turn();
        assert_eq!(rig.closing(viewer), Some(4008));
        bytes.extend(rig.write(viewer, usize::MAX));
        let said = messages(&bytes);
        assert_eq!(seqs(&said), [1]);
        assert_eq!(
            said[1]["data"]["streams"],
            json!({"user": 1, "project/7": 1})
        );
        assert_eq!(said[2]["close"], 4008);
        rig.read(publisher);
        rig.check_balance();
    }

    #[test]
    fn a_frame_of_nearly_the_bound_enters_an_empty_outbox() {
        let mut rig = Rig::new();
        let (viewer, publisher) = (rig.viewer("ada", &[]), rig.publisher(0));
        rig.turn();
        rig.read(viewer);
        rig.publish(publisher, &event(Some("ada"), None, OUTBOX_BYTES_MAX - 500));
        rig.turn();
        assert_eq!(rig.names(viewer), ["progress_update", "lag", "lag"]);
    }

    #[test]
    fn a_viewer_that_does_not_read_its_answers_is_closed_too() {
        let mut rig = Rig::new();
        let viewer = rig.viewer("ada", &[]);
        let ping = json!({"type": "ping", "data": {"timestamp": "x".repeat(OUTBOX_BYTES_MAX / 2)}});
        for _ in 0..3 {
            rig.say(viewer, &ping);
            rig.turn();
        }
        assert_eq!(rig.closing(viewer), Some(4008));
        assert_eq!(rig.stats[0].counters.slow_closes.value(), 1);
    }

    #[test]
    fn a_slow_consumer_is_given_longer_to_read_its_close() {
        let mut rig = Rig::new();
        let (slow, other) = (rig.viewer("ada", &[]), rig.viewer("bob", &[]));
        let now = rig.now;
        rig.hub().close_slow(now, slow.key, None);
        rig.hub().close_peer(now, other.key, CloseReason::GoingAway);
        rig.wait(CLOSE_TIMEOUT_MS);
        assert!(rig.fire(slow) && !rig.fire(other));
        rig.wait(SLOW_CLOSE_TIMEOUT_MS - CLOSE_TIMEOUT_MS);
        assert!(!rig.fire(slow));
    }
}
