//! What becomes due for a connection as time passes: heartbeats, the end of its token, the end of
//! an operation's patience, the end of its close.

use crate::dialect::ServerMessage;
use crate::limits::{GIVE_WAY_MS, TOKEN_EXPIRING_MS};
use crate::wire::close::CloseReason;
use crate::wire::frame::encode_close_answer;

use super::keyed::Key;
use super::peers::{Peer, PingState};
use super::{Hub, Now};

impl Hub {
    /// A frame of any kind came from the peer.
    pub fn handle_sign_of_life(&mut self, now: Now, key: Key) {
        self.peers.handle_heard(now, key);
    }

    /// A ping of the peer's.
    pub fn handle_ping(&mut self, key: Key, payload: &[u8]) {
        self.peers.push_pong(key, payload);
    }

    /// The peer misbehaved or said goodbye: close with `reason`.
    pub fn handle_close(&mut self, now: Now, key: Key, reason: CloseReason) {
        self.close_peer(now, key, reason);
    }

    /// The peer closes: its own code goes back to it.
    pub fn handle_goodbye(&mut self, now: Now, key: Key, code: Option<u16>) {
        let mut frame = Vec::new();
        encode_close_answer(&mut frame, code);
        self.close_peer_with(now, key, CloseReason::Normal, frame);
    }

    /// The process itself was stopped for a while that ended now: no peer is to blame for silence
    /// before.
    pub fn handle_stall(&mut self, now: Now) {
        self.resumed_ms = now.ms();
        for waiting in &mut self.giving_way {
            waiting.deadline_ms = waiting.deadline_ms.max(now.ms() + GIVE_WAY_MS);
        }
    }

    /// Does what is due for a connection; what is due next is scheduled. Returns `false` where the
    /// time for its close is over: the socket is to be closed, whatever it still holds.
    #[must_use]
    pub fn handle_deadline(&mut self, now: Now, key: Key) -> bool {
        if !self.peers.take_timer(now, key) {
            return true;
        }
        let Some(peer) = self.peers.find(key) else {
            return true;
        };
        match peer.closing() {
            Some(closing) if now.ms() >= closing.deadline_ms => return false,
            Some(_) => {}
            None => self.handle_due(now, key),
        }
        self.schedule_next(now, key);
        true
    }

    fn handle_due(&mut self, now: Now, key: Key) {
        self.do_without_late_log(now, key);
        let Some(reason) = self
            .peers
            .find(key)
            .and_then(|peer| self.reason_to_close(now, peer))
        else {
            self.warn_of_expiry(now, key);
            self.beat(now, key);
            return;
        };
        if reason == CloseReason::TokenExpired {
            self.send_present_cursor(now, key);
        }
        self.close_peer(now, key, reason);
    }

    /// Asks the engine for a call when something is next due.
    pub(super) fn schedule_next(&mut self, now: Now, key: Key) {
        if let Some(at_ms) = self.next_due_ms(now, key) {
            // A connection is not looked at twice in a millisecond.
            self.peers.schedule(key, at_ms.max(now.ms() + 1));
        }
    }

    fn reason_to_close(&self, now: Now, peer: &Peer) -> Option<CloseReason> {
        if peer.details.claims.is_expired(now.wall_s()) {
            return Some(CloseReason::TokenExpired);
        }
        let is_heard_by_us = !self.is_unread(peer);
        if is_heard_by_us
            && self
                .silence_ends_ms(peer)
                .is_some_and(|ends_ms| now.ms() >= ends_ms)
        {
            return Some(CloseReason::NoSignOfLife);
        }
        let waiting = peer.viewer().and_then(|viewer| viewer.waiting.as_ref());
        waiting
            .filter(|waiting| now.ms() >= waiting.deadline_ms)
            .map(|_| CloseReason::Internal)
    }

    // Whether we do not read the peer: a publisher of which something waits for room.
    fn is_unread(&self, peer: &Peer) -> bool {
        let publisher = peer.publisher().and_then(|key| self.publishers.find(key));
        publisher.is_some_and(|publisher| publisher.is_stalled)
    }

    // When the peer's silence is too long. Silence counts from the writing of the ping; a ping that
    // cannot even be written is given a whole interval more.
    fn silence_ends_ms(&self, peer: &Peer) -> Option<u64> {
        let grace_ms = self.options.heartbeat_grace_ms;
        match peer.details.pulse.ping {
            PingState::Answered => None,
            PingState::Queued(at_ms) => {
                Some(at_ms.max(self.resumed_ms) + self.options.heartbeat_interval_ms + grace_ms)
            }
            PingState::Written(at_ms) => Some(at_ms.max(self.resumed_ms) + grace_ms),
        }
    }

    fn warn_of_expiry(&mut self, now: Now, key: Key) {
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        let expires_at_ms = exp_wall_ms(peer);
        let Some(viewer) = peer.viewer_mut() else {
            return;
        };
        if !viewer.is_warned_of_expiry && now.wall_ms >= expires_at_ms - TOKEN_EXPIRING_MS as i64 {
            viewer.is_warned_of_expiry = true;
            self.peers
                .push_message(now, key, &ServerMessage::TokenExpiring { expires_at_ms });
        }
    }

    fn beat(&mut self, now: Now, key: Key) {
        let interval_ms = self.options.heartbeat_interval_ms;
        let Some(peer) = self.peers.find_mut(key) else {
            return;
        };
        if now.ms() < peer.details.pulse.next_ping_ms {
            return;
        }
        peer.details.pulse.next_ping_ms = now.ms() + interval_ms;
        let is_viewer = match peer.viewer_mut() {
            Some(viewer) => {
                viewer.rate.handle_idle(now.ms());
                true
            }
            None => false,
        };
        self.peers.push_ping(now, key);
        if is_viewer {
            self.send_present_cursor(now, key);
        }
    }

    fn next_due_ms(&self, now: Now, key: Key) -> Option<u64> {
        let peer = self.peers.find(key)?;
        if let Some(closing) = peer.closing() {
            return Some(closing.deadline_ms);
        }
        let at_wall_ms =
            |wall_ms: i64| now.ms() + u64::try_from(wall_ms - now.wall_ms).unwrap_or(0);
        let expires_ms = at_wall_ms(wall_ms(peer.details.claims.expires_s()));
        let viewer = peer.viewer();
        let warning_ms = viewer
            .filter(|viewer| !viewer.is_warned_of_expiry)
            .map(|_| at_wall_ms(exp_wall_ms(peer) - TOKEN_EXPIRING_MS as i64));
        let waiting_ms = viewer
            .and_then(|viewer| viewer.waiting.as_ref())
            .map(|waiting| waiting.deadline_ms);
        let silence_ms = self.silence_ends_ms(peer);
        let all = [
            Some(peer.details.pulse.next_ping_ms),
            Some(expires_ms),
            warning_ms,
            waiting_ms,
            silence_ms,
        ];
        all.into_iter().flatten().min()
    }
}

fn exp_wall_ms(peer: &Peer) -> i64 {
    wall_ms(peer.details.claims.exp_s)
}

fn wall_ms(seconds: u64) -> i64 {
    i64::try_from(seconds)
        .unwrap_or(i64::MAX / 1_000)
        .saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use crate::auth::Claims;
    use crate::dialect::ConnectQuery;
    use crate::event::Dialect;
    use crate::hub::rig::{Client, Rig, WALL_MS, claims};

    const INTERVAL_MS: u64 = 30_000;
    const GRACE_MS: u64 = 5_000;

    fn connected() -> (Rig, Client) {
        let mut rig = Rig::new();
        let client = rig.viewer("ada", &["7"]);
        rig.turn();
        assert_eq!(rig.names(client), ["connection_established"]);
        (rig, client)
    }

    fn fire_after(rig: &mut Rig, client: Client, ms: u64) -> Vec<String> {
        rig.wait(ms);
        assert!(rig.fire(client));
        rig.names(client)
    }

    #[test]
    fn a_ping_and_a_cursor_each_interval_and_nothing_else_of_a_peer_that_answers() {
        let (mut rig, client) = connected();
        assert!(fire_after(&mut rig, client, INTERVAL_MS - 1).is_empty());
        for _ in 0..3 {
            assert_eq!(fire_after(&mut rig, client, 1), ["ping", "cursor"]);
            rig.hear(client);
            assert!(fire_after(&mut rig, client, INTERVAL_MS - 1).is_empty());
        }
    }

    #[test]
    fn silence_after_the_ping_was_written_closes_and_a_sign_of_life_does_not() {
        let (mut rig, client) = connected();
        fire_after(&mut rig, client, INTERVAL_MS);
        assert!(fire_after(&mut rig, client, GRACE_MS - 1).is_empty());
        assert_eq!(fire_after(&mut rig, client, 1), ["4009"]);
        assert!(
            fire_after(&mut rig, client, 4_999).is_empty(),
            "it has time to read that"
        );
        rig.wait(1);
        assert!(!rig.fire(client), "then the socket is closed");
    }

    #[test]
    fn a_ping_that_cannot_be_written_gets_an_interval_more() {
        let (mut rig, client) = connected();
        rig.wait(INTERVAL_MS);
        rig.fire(client);
        rig.wait(INTERVAL_MS + GRACE_MS - 1);
        rig.fire(client);
        assert_eq!(rig.closing(client), None);
        rig.wait(1);
        rig.fire(client);
        assert_eq!(rig.closing(client), Some(4009));
    }

    #[test]
    fn a_process_that_was_stopped_does_not_blame_its_peers() {
        let (mut rig, client) = connected();
        fire_after(&mut rig, client, INTERVAL_MS);
        rig.wait(60_000);
        let now = rig.now;
        rig.hub().handle_stall(now);
        assert_eq!(fire_after(&mut rig, client, 0), ["cursor"]);
        assert!(fire_after(&mut rig, client, GRACE_MS - 1).is_empty());
        assert_eq!(fire_after(&mut rig, client, 1), ["4009"]);
    }

    #[test]
    fn a_token_is_said_to_expire_and_then_does_with_the_place_told() {
        let mut rig = Rig::new();
        let exp_s = (WALL_MS / 1_000) as u64 + 60;
        let short = Claims {
            exp_s,
            ..claims("ada", &[])
        };
        let client = rig.connect(short, Dialect::Keen, ConnectQuery::default());
        rig.turn();
        rig.names(client);
        let fire = |rig: &mut Rig, ms| {
            rig.hear(client);
            let names = fire_after(rig, client, ms);
            names
                .into_iter()
                .filter(|name| name != "ping")
                .collect::<Vec<_>>()
        };
        assert!(fire(&mut rig, 29_999).is_empty());
        assert_eq!(fire(&mut rig, 1), ["token_expiring", "cursor"]);
        assert_eq!(fire(&mut rig, 30_000), ["cursor"], "the heartbeat's");
        assert!(fire(&mut rig, 4_999).is_empty(), "the leeway");
        assert_eq!(fire(&mut rig, 1), ["cursor", "4001"]);
    }

    #[test]
    fn a_token_that_ends_soon_is_said_to_at_once_but_after_the_greeting() {
        let mut rig = Rig::new();
        let exp_s = (WALL_MS / 1_000) as u64 + 10;
        let client = rig.connect(
            Claims {
                exp_s,
                ..claims("ada", &[])
            },
            Dialect::Keen,
            ConnectQuery::default(),
        );
        rig.wait(1);
        rig.fire(client);
        assert_eq!(
            rig.names(client),
            ["connection_established", "token_expiring"]
        );
    }

    #[test]
    fn a_goodbye_is_answered_with_its_own_code() {
        let (mut rig, client) = connected();
        let now = rig.now;
        rig.hub().handle_goodbye(now, client.key, Some(3_000));
        assert_eq!(rig.names(client), ["3000"]);
    }
}
