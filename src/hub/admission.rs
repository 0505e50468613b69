//! Who is let in on the user's own core: revocation, drain, and the tier's number of connections.
//!
//! At the limit the user's oldest connections are pinged; one that stays silent gives way, and
//! only when all have answered is the newcomer refused.

use std::borrow::Cow;
use std::rc::Rc;

use crate::auth::{Claims, TokenError};
use crate::dialect::{ConnectQuery, SubscribeScope};
use crate::event::{Dialect, Filter, Strictness};
use crate::failpoint;
use crate::limits::{GIVE_WAY_MS, GIVE_WAY_PINGED_MAX};
use crate::wire::Refused;
use crate::wire::close::{CloseReason, Refusal};

use super::frames::Variant;
use super::keyed::Key;
use super::mail::Ack;
use super::peers::{Arrival, Role};
use super::publisher::{Publisher, Terms};
use super::subscriptions::Subscription;
use super::viewer::{Operation, Viewer};
use super::{Action, Hub, Now, Trust};

/// A viewer whose token is good, and who asks to be let in.
#[derive(Debug)]
pub struct ViewerRequest {
    /// What it brings.
    pub arrival: Arrival,
    /// The encoding of the frames it takes.
    pub variant: Variant,
    /// What it asked for in its query.
    pub query: ConnectQuery,
}

/// A newcomer that waits for one of its user's connections to give way.
#[derive(Debug)]
pub(super) struct GivingWay {
    request: ViewerRequest,
    pinged: Vec<Key>,
    // Whoever of them was heard in that turn or later lives.
    asked_ns: u64,
    pub(super) deadline_ms: u64,
}

impl Trust {
    /// What a token says, if it is good and not revoked.
    pub fn read(&self, now: Now, token: &str) -> Result<Claims, TokenError> {
        failpoint::panic_at("token", token.as_bytes());
        let claims = self.verifier.verify(token, now.wall_s())?;
        if self.revocations.is_revoked(&claims, now.wall_s()) {
            return Err(TokenError::Revoked);
        }
        Ok(claims)
    }

    /// The same of claims that were read before.
    pub fn check(&self, now: Now, claims: &Claims) -> Result<(), TokenError> {
        if claims.is_expired(now.wall_s()) {
            return Err(TokenError::Expired);
        }
        if self.revocations.is_revoked(claims, now.wall_s()) {
            return Err(TokenError::Revoked);
        }
        Ok(())
    }
}

impl Hub {
    /// Lets a viewer in: its name among the peers, or the refusal. `None`: it has to wait, and
    /// `Action::Admitted` follows.
    pub fn handle_viewer(
        &mut self,
        now: Now,
        request: ViewerRequest,
    ) -> Option<Result<Key, Refused>> {
        if let Err(refused) = self.check_arrival(now, &request.arrival.claims) {
            return Some(Err(refused));
        }
        let sub = &request.arrival.claims.sub;
        let viewers = self.peers.users.viewers(sub);
        if viewers.len() < self.connections_max(&request.arrival.claims) {
            return Some(Ok(self.admit_viewer(now, request)));
        }
        let pinged: Vec<Key> = viewers.iter().take(GIVE_WAY_PINGED_MAX).copied().collect();
        if pinged.is_empty() {
            return Some(Err(USER_LIMIT));
        }
        for key in &pinged {
            self.peers.push_ping(now, *key);
        }
        self.giving_way.push(GivingWay {
            request,
            pinged,
            asked_ns: now.monotonic_ns,
            deadline_ms: now.ms() + GIVE_WAY_MS,
        });
        None
    }

    /// Lets a publisher's WebSocket in.
    pub fn handle_publisher(
        &mut self,
        now: Now,
        arrival: Arrival,
        strictness: Strictness,
    ) -> Result<Key, Refused> {
        self.check_arrival(now, &arrival.claims)?;
        let (connection, claims) = (arrival.connection, Rc::clone(&arrival.claims));
        let terms = Terms {
            ack: Ack::Durable,
            strictness,
        };
        let publisher = Publisher::new(connection, claims, terms);
        let publisher = self.publishers.insert(publisher);
        let next_ping_ms = now.ms() + self.options.heartbeat_interval_ms;
        let key = self
            .peers
            .insert(now, arrival, Role::Publisher(publisher), next_ping_ms);
        if let Some(publisher) = self.publishers.find_mut(publisher) {
            publisher.peer = Some(key);
        }
        self.schedule_next(now, key);
        Ok(key)
    }

    /// The connection of a newcomer is gone while it waited.
    pub fn handle_newcomer_gone(&mut self, connection: Key) {
        self.giving_way
            .retain(|waiting| waiting.request.arrival.connection != connection);
    }

    /// The socket of a connection is gone.
    pub fn handle_disconnect(&mut self, key: Key) {
        self.detach_all(key);
        let Some(peer) = self.peers.remove(key) else {
            return;
        };
        if let Some(publisher) = peer.publisher() {
            self.drop_publisher(publisher);
        }
    }

    // Decides for newcomers: room was made, or somebody stayed silent, or all have answered.
    pub(super) fn check_giving_way(&mut self, now: Now) {
        self.peers.users.take_departures();
        let mut index = 0;
        while index < self.giving_way.len() {
            let Some(verdict) = self.judge_waiting(now, &self.giving_way[index]) else {
                index += 1;
                continue;
            };
            let GivingWay { request, .. } = self.giving_way.remove(index);
            let connection = request.arrival.connection;
            let outcome = verdict.map(|silent| {
                if let Some(silent) = silent {
                    self.close_peer(now, silent, CloseReason::GaveWay);
                }
                self.admit_viewer(now, request)
            });
            self.actions.push_back(Action::Admitted {
                connection,
                outcome,
            });
        }
    }

    // Whether room may have been made for a newcomer when the turn was over.
    pub(super) fn can_judge_waiting(&self) -> bool {
        !self.giving_way.is_empty() && self.peers.users.has_departures()
    }

    // `None`: the newcomer goes on waiting. Else whom it takes the place of, if of anybody, or why it
    // is refused.
    fn judge_waiting(&self, now: Now, waiting: &GivingWay) -> Option<Result<Option<Key>, Refused>> {
        let claims = &waiting.request.arrival.claims;
        if let Err(refused) = self.check_arrival(now, claims) {
            return Some(Err(refused));
        }
        if self.peers.users.viewers(&claims.sub).len() < self.connections_max(claims) {
            return Some(Ok(None));
        }
        let is_silent = |key: &&Key| {
            self.peers.find(**key).is_some_and(|peer| {
                peer.details.pulse.heard_ns < waiting.asked_ns && peer.closing().is_none()
            })
        };
        match waiting.pinged.iter().find(is_silent) {
            None => Some(Err(USER_LIMIT)),
            Some(silent) if now.ms() >= waiting.deadline_ms => Some(Ok(Some(*silent))),
            Some(_) => None,
        }
    }

    // What a connection is subscribed to from the start, if anything.
    fn initial_subscription(&self, dialect: Dialect, query: &ConnectQuery) -> Option<Subscription> {
        let filter = if query.sessions.is_empty() {
            Rc::clone(&self.everything)
        } else {
            Rc::new(Filter::default().with_sessions(query.sessions.iter().cloned()))
        };
        match (query.subscribe, dialect) {
            (SubscribeScope::All, _) => Some(Subscription::allowed(filter)),
            (SubscribeScope::Dialect, Dialect::Keen) => Some(Subscription::own_stream(filter)),
            (SubscribeScope::Dialect, Dialect::Observatory) => None,
        }
    }

    fn admit_viewer(&mut self, now: Now, request: ViewerRequest) -> Key {
        let ViewerRequest {
            arrival,
            variant,
            query,
        } = request;
        let initial = self.initial_subscription(variant.dialect(), &query);
        let viewer = Viewer::new(variant, query.sessions, query.tree, query.cursor);
        let next_ping_ms = now.ms() + self.options.heartbeat_interval_ms;
        let key = self
            .peers
            .insert(now, arrival, Role::Viewer(Box::new(viewer)), next_ping_ms);
        self.enqueue(now, key, Operation::Establish { initial });
        self.schedule_next(now, key);
        key
    }

    // Once more on the core that keeps the connection: a revocation or a drain may have come since.
    pub(super) fn check_arrival(&self, now: Now, claims: &Claims) -> Result<(), Refused> {
        if self.drain.is_draining() {
            return Err(DRAINING);
        }
        let check = self.trust.check(now, claims);
        check.map_err(|error| Refused::new(refusal_of(error), error.message()))
    }

    fn connections_max(&self, claims: &Claims) -> usize {
        let tiers = &self.options.tiers;
        let named = claims.tier.as_ref().and_then(|tier| tiers.get(tier));
        named
            .or_else(|| tiers.get(DEFAULT_TIER))
            .copied()
            .unwrap_or(usize::MAX)
    }
}

/// How a peer is told that its token is no good.
pub fn refusal_of(error: TokenError) -> Refusal {
    match error {
        TokenError::Expired => Refusal::TokenExpired,
        TokenError::Invalid(_) => Refusal::TokenInvalid,
        TokenError::Missing => Refusal::TokenMissing,
        TokenError::Revoked => Refusal::TokenRevoked,
    }
}

const DEFAULT_TIER: &str = "individual";

const USER_LIMIT: Refused = Refused {
    refusal: Refusal::UserLimit,
    message: Cow::Borrowed(
        "this user has as many connections as its tier allows, and all are alive: close one first",
    ),
    retry_after_s: Some(5),
};

const DRAINING: Refused = Refused {
    refusal: Refusal::Draining,
    message: Cow::Borrowed("the server is shutting down: connect again in a moment"),
    retry_after_s: Some(5),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Revocation, Target};
    use crate::hub::rig::{Client, Rig, claims};

    // `ada` holds the two connections of her tier, and a third one asks.
    fn full() -> (Rig, Client, Client) {
        let mut rig = Rig::new();
        let (first, second) = (rig.viewer("ada", &[]), rig.viewer("ada", &[]));
        rig.turn();
        for client in [first, second] {
            rig.read(client);
        }
        let asked = rig.ask_in(claims("ada", &[]), Dialect::Keen, ConnectQuery::default());
        assert_eq!(asked.1, None, "it waits for the others");
        rig.turn();
        (rig, first, second)
    }

    fn admitted(rig: &mut Rig) -> Result<Key, Refused> {
        match rig.action() {
            Action::Admitted { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_silent_connection_gives_way_after_two_seconds() {
        let (mut rig, first, second) = full();
        assert_eq!(
            (rig.names(first), rig.names(second)),
            (vec!["ping".into()], vec!["ping".into()])
        );
        rig.wait(GIVE_WAY_MS - 1);
        rig.turn();
        assert!(rig.hub().poll_action().is_none());
        assert_eq!(rig.hub().next_deadline_ms(), Some(rig.now.ms() + 1));
        rig.wait(1);
        rig.turn();
        assert!(admitted(&mut rig).is_ok());
        assert_eq!(
            (rig.closing(first), rig.closing(second)),
            (Some(4010), None)
        );
    }

    #[test]
    fn whoever_answers_stays_and_the_newcomer_is_refused_once_all_have() {
        let (mut rig, first, second) = full();
        rig.wait(1);
        rig.hear(first);
        rig.turn();
        assert!(rig.hub().poll_action().is_none());
        rig.hear(second);
        rig.turn();
        assert_eq!(admitted(&mut rig), Err(USER_LIMIT));
        assert_eq!((rig.closing(first), rig.closing(second)), (None, None));
    }

    #[test]
    fn who_answered_one_newcomer_is_not_silent_towards_it_when_the_next_one_asks() {
        let (mut rig, first, second) = full();
        rig.wait(1_000);
        rig.hear(first);
        rig.ask_in(claims("ada", &[]), Dialect::Keen, ConnectQuery::default());
        rig.wait(1_000);
        rig.turn();
        assert!(admitted(&mut rig).is_ok());
        assert_eq!(
            (rig.closing(first), rig.closing(second)),
            (None, Some(4010))
        );
    }

    #[test]
    fn room_that_is_made_goes_to_the_newcomer_at_once() {
        let (mut rig, first, second) = full();
        rig.hub().handle_disconnect(first.key);
        assert!(rig.hub().has_work(), "it is not to wait for its deadline");
        rig.turn();
        assert!(admitted(&mut rig).is_ok());
        assert_eq!(rig.closing(second), None);
    }

    #[test]
    fn room_that_a_close_makes_at_the_end_of_a_turn_wakes_the_core_too() {
        let (mut rig, first, _) = full();
        let now = rig.now;
        rig.hub().close_slow(now, first.key, None);
        assert!(rig.hub().has_work());
        rig.turn();
        assert!(admitted(&mut rig).is_ok());
        assert!(!rig.hub().has_work());
    }

    #[test]
    fn nobody_gives_way_to_a_newcomer_that_is_refused_anyway() {
        let (mut rig, first, second) = full();
        let now = rig.now;
        rig.hub().handle_drain(now, now.ms() + 5_000);
        rig.wait(GIVE_WAY_MS);
        rig.turn();
        assert_eq!(admitted(&mut rig), Err(DRAINING));
        assert_eq!(
            (rig.closing(first), rig.closing(second)),
            (Some(1001), Some(1001))
        );
    }

    #[test]
    fn a_process_that_was_stopped_gives_the_asked_their_time() {
        let (mut rig, _, _) = full();
        rig.wait(GIVE_WAY_MS);
        let now = rig.now;
        rig.hub().handle_stall(now);
        rig.turn();
        assert!(rig.hub().poll_action().is_none());
    }

    #[test]
    fn a_newcomer_that_went_away_is_forgotten() {
        let (mut rig, first, _) = full();
        // The third connection of the rig.
        rig.hub().handle_newcomer_gone(Key::from_u64(3));
        rig.wait(GIVE_WAY_MS);
        rig.turn();
        assert!(rig.hub().poll_action().is_none());
        assert_eq!(rig.closing(first), None);
    }

    #[test]
    fn a_token_that_was_revoked_or_ran_out_on_the_way_is_refused() {
        let mut rig = Rig::new();
        let revocation = Revocation {
            target: Target::Jti("jti".into()),
            revoked_at_s: rig.now.wall_s(),
            expires_at_s: None,
        };
        let ask = crate::hub::mail::Ask::Revoke(revocation);
        let now = rig.now;
        rig.hub().handle_administrator(now, Key::from_u64(9), &ask);
        let check = |rig: &mut Rig, claims, expected| {
            let (_, answer) = rig.ask_in(claims, Dialect::Keen, ConnectQuery::default());
            assert_eq!(
                answer.map(|answer| answer.map_err(|refused| refused.refusal)),
                Some(Err(expected))
            );
        };
        check(&mut rig, claims("ada", &[]), Refusal::TokenRevoked);
        let ended = Claims {
            exp_s: 0,
            jti: None,
            ..claims("ada", &[])
        };
        check(&mut rig, ended, Refusal::TokenExpired);
    }

    #[test]
    fn a_tier_has_its_own_number_and_an_unknown_one_that_of_individual() {
        let mut rig = Rig::with(1, crate::hub::Bounds::default(), |options| {
            options.tiers.insert("team".into(), 3);
        });
        let check = |rig: &mut Rig, user: &str, tier: &str, count: usize| {
            let of_tier = || Claims {
                tier: Some(tier.into()),
                ..claims(user, &[])
            };
            for _ in 0..count {
                rig.connect(of_tier(), Dialect::Keen, ConnectQuery::default());
            }
            let (_, next) = rig.ask_in(of_tier(), Dialect::Keen, ConnectQuery::default());
            assert_eq!(next, None);
        };
        check(&mut rig, "ada", "team", 3);
        check(&mut rig, "bob", "none such", 2);
    }
}
