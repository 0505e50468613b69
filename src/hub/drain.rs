//! Going away without losing anything: events are refused, mail between the cores runs dry, every
//! viewer is told, outboxes are flushed, and then each connection is closed with 1001.
//!
//! Two rounds of mail make sure of it: when every core has said that it sends no more events, a
//! core that has numbered all it was sent says that no more frames follow either.

use crate::dialect::ServerMessage;
use crate::limits::{RECONNECT_AFTER_MS_MIN, RECONNECT_SPREAD_MS};
use crate::wire::close::CloseReason;

use super::keyed::Key;
use super::mail::Mail;
use super::{Hub, Now};

/// How far the drain is.
#[derive(Debug)]
pub(super) struct Drain {
    phase: Phase,
    // Cores that send no more events, and no more frames.
    without_events: Vec<bool>,
    without_frames: Vec<bool>,
    // When goodbyes are said though somebody is not done, in milliseconds of the monotonic clock.
    patience_ends_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    // Events are refused; those under way are finished.
    Refusing,
    // This core has numbered everything that it was sent.
    Numbered,
    // Every connection was told goodbye.
    Closing,
}

impl Drain {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            phase: Phase::Running,
            without_events: vec![false; cores],
            without_frames: vec![false; cores],
            patience_ends_ms: None,
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase > Phase::Running
    }

    /// When the patience with those that are not done ends.
    pub(super) fn patience_ends_ms(&self) -> Option<u64> {
        self.patience_ends_ms
            .filter(|_| self.phase < Phase::Closing)
    }

    pub(super) fn handle_no_more_events(&mut self, from: usize) {
        self.without_events[from] = true;
    }

    pub(super) fn handle_no_more_frames(&mut self, from: usize) {
        self.without_frames[from] = true;
    }
}

impl Hub {
    /// Begins the drain: new events are refused, and every viewer is told when to come back. From
    /// `patience_ends_ms` on goodbyes are said, whoever is not done: a publisher that reads nothing
    /// must not cost the viewers theirs.
    pub fn handle_drain(&mut self, now: Now, patience_ends_ms: u64) {
        if self.drain.is_draining() {
            return;
        }
        self.drain.phase = Phase::Refusing;
        self.drain.patience_ends_ms = Some(patience_ends_ms);
        for key in self.publishers.keys() {
            if let Some(publisher) = self.publishers.find_mut(key) {
                publisher.refusing = Some(crate::event::RejectionCode::Draining);
            }
        }
        for key in self.peers.keys() {
            self.shut_down_viewer(now, key);
        }
        self.drain.without_events[self.options.core] = true;
        self.send_to_others(|| Mail::NoMoreEvents);
    }

    /// Whether the drain is over: every connection was told goodbye, and has read it and ended.
    pub fn is_drained(&self) -> bool {
        self.drain.phase == Phase::Closing
            && self.peers.is_empty()
            && !self.has_outgoing()
            && !self.ledger.has_records()
    }

    pub(super) fn shut_down_viewer(&mut self, now: Now, key: Key) {
        let Some(peer) = self.peers.find(key) else {
            return;
        };
        // Spread over the clients by their ids, so that they do not return as one herd.
        let reconnect_after_ms = RECONNECT_AFTER_MS_MIN + peer.details.id % RECONNECT_SPREAD_MS;
        let message = "the server is shutting down";
        self.peers.push_message(
            now,
            key,
            &ServerMessage::ServerShutdown {
                message,
                reconnect_after_ms,
            },
        );
    }

    pub(super) fn advance_drain(&mut self, now: Now) {
        if self.drain.phase == Phase::Refusing && self.has_numbered_everything() {
            self.drain.phase = Phase::Numbered;
            self.drain.without_frames[self.options.core] = true;
            self.send_to_others(|| Mail::NoMoreFrames);
        }
        let is_last =
            self.drain.without_frames.iter().all(|done| *done) && self.requests.is_empty();
        let is_done = self.drain.phase == Phase::Numbered && is_last;
        let is_overdue = self
            .drain
            .patience_ends_ms()
            .is_some_and(|at_ms| now.ms() >= at_ms);
        if is_done || is_overdue {
            self.drain.phase = Phase::Closing;
            for key in self.peers.keys() {
                if self.is_open(key) {
                    if self.peers.viewer(key).is_some() {
                        self.send_present_cursor(now, key);
                    }
                    self.close_peer(now, key, CloseReason::GoingAway);
                }
            }
        }
    }

    fn has_numbered_everything(&self) -> bool {
        self.drain.without_events.iter().all(|done| *done)
            && !self.has_waiting_submissions()
            && !self.folds.holds_submissions()
            && !self.ledger.holds_events()
            && self.touched.is_empty()
    }

    pub(super) fn send_to_others(&mut self, mail: impl Fn() -> Mail) {
        for core in 0..self.outgoing.len() {
            if core != self.options.core {
                self.send(core, mail());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StreamKind;
    use crate::hub::rig::{Rig, event};
    use crate::hub::{Bounds, Work};

    fn drain(rig: &mut Rig, core: usize) {
        let now = rig.now;
        rig.hubs[core].handle_drain(now, now.ms() + 4_000);
    }

    #[test]
    fn a_viewer_is_told_gets_what_was_under_way_and_is_closed() {
        let mut rig = Rig::with(2, Bounds::default(), |_| {});
        let (user, project) = (
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::Project),
        );
        let viewer = rig.viewer(&user, &[&project]);
        rig.settle();
        rig.read(viewer);
        let publisher = rig.publisher(0);
        rig.publish(publisher, &event(None, Some(&project), 1));
        drain(&mut rig, 0);
        rig.turn();
        assert_eq!(
            rig.names(viewer),
            ["server_shutdown"],
            "the other core has yet to say that it is done"
        );
        drain(&mut rig, 1);
        rig.settle();
        assert_eq!(rig.names(viewer), ["progress_update", "cursor", "1001"]);
        assert_eq!(rig.names(publisher), ["ack", "1001"]);
        assert!(!rig.hubs[0].is_drained(), "they have not ended yet");
        for client in [viewer, publisher] {
            rig.hubs[0].handle_disconnect(client.key);
        }
        assert!(rig.hubs.iter().all(Hub::is_drained));
        rig.check_balance();
    }

    #[test]
    fn new_events_are_refused_and_owed_acks_are_sent() {
        let mut rig = Rig::new();
        let publisher = rig.publisher(0);
        rig.publish(publisher, &event(Some("ada"), None, 1));
        drain(&mut rig, 0);
        rig.publish(publisher, r#"{"type":"continue"}"#);
        rig.publish(publisher, &event(Some("ada"), None, 1));
        rig.turn();
        let said = rig.read(publisher);
        assert_eq!(said[0]["data"]["code"], "DRAINING");
        assert_eq!(said[1]["data"]["through"], 2);
        assert_eq!(said[2]["close"], 1001);
        rig.check_balance();
    }

    #[test]
    fn a_publisher_that_reads_nothing_costs_the_viewers_no_goodbye() {
        let bounds = Bounds {
            nack_bytes_queued_max: 100,
            ..Bounds::default()
        };
        let mut rig = Rig::with(1, bounds, |_| {});
        let (viewer, publisher) = (rig.viewer("ada", &[]), rig.publisher(0));
        assert_eq!(rig.publish(publisher, "[5,5,5,5]"), Work::Stalled);
        drain(&mut rig, 0);
        rig.turn();
        rig.wait(3_999);
        rig.turn();
        assert_eq!((rig.closing(viewer), rig.closing(publisher)), (None, None));
        assert_eq!(rig.hub().next_deadline_ms(), Some(rig.now.ms() + 1));
        rig.wait(1);
        rig.turn();
        assert_eq!(
            (rig.closing(viewer), rig.closing(publisher)),
            (Some(1001), Some(1001))
        );
        for client in [viewer, publisher] {
            rig.read(client);
        }
        rig.check_balance();
    }

    #[test]
    fn viewers_are_asked_back_at_different_times() {
        let mut rig = Rig::new();
        let viewers = [
            rig.viewer("ada", &[]),
            rig.viewer("bob", &[]),
            rig.viewer("cy", &[]),
        ];
        drain(&mut rig, 0);
        rig.turn();
        let mut after: Vec<u64> = viewers
            .into_iter()
            .map(|viewer| {
                let said = rig.read(viewer);
                let told = said
                    .iter()
                    .find(|message| message["type"] == "server_shutdown");
                told.and_then(|message| message["data"]["reconnectAfter"].as_u64())
                    .unwrap_or(0)
            })
            .collect();
        after.sort_unstable();
        after.dedup();
        assert_eq!(after.len(), 3);
        assert!(after[0] >= RECONNECT_AFTER_MS_MIN);
        assert!(after[2] < RECONNECT_AFTER_MS_MIN + RECONNECT_SPREAD_MS);
    }
}
