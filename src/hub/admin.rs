//! Administrators' orders and questions: asked of every core, answered when all have answered.

use compact_str::CompactString;

use crate::auth::{Decision, Revocation};
use crate::wire::close::CloseReason;

use super::keyed::Key;
use super::ledger::Due;
use super::mail::{Answer, Ask, ConnectionRow, Mail, Target};
use super::peers::{Peer, Role};
use super::{Action, Hub, Now};

/// A question that not all cores have answered.
#[derive(Debug)]
pub(super) struct PendingAsk {
    connection: Key,
    // Whose events go when the cores have answered.
    erasing: Option<CompactString>,
    outstanding: usize,
    answer: Option<Answer>,
}

impl Hub {
    /// Asks every core; `Action::Asked` brings the answer for `connection`, or `Action::Erase` what
    /// comes before it. An order is carried out whether or not the connection stays.
    pub fn handle_administrator(&mut self, now: Now, connection: Key, ask: &Ask) {
        let id = self.asks.insert(PendingAsk {
            connection,
            erasing: match ask {
                Ask::Erase(user) => Some(user.clone()),
                _ => None,
            },
            outstanding: self.outgoing.len(),
            answer: None,
        });
        self.send_to_others(|| Mail::Ask {
            id,
            ask: ask.clone(),
        });
        let answer = self.answer(now, ask);
        if let Some(decision) = ask.decision().filter(|_| !matches!(answer, Answer::Full)) {
            self.keep_decision(id, &decision);
        }
        self.handle_answer(id, answer);
    }

    // It holds at once, and is answered when the log keeps it.
    fn keep_decision(&mut self, id: Key, decision: &Decision) {
        self.ledger.append_decision(&decision.encode());
        self.ledger.wait(Due::Ask(id));
        if let Some(pending) = self.asks.find_mut(id) {
            pending.outstanding += 1;
        }
    }

    /// The event log has nothing of this user any more: nor has the memory of any core once it has
    /// heard how far the log is. What was queued for viewers stays.
    pub fn handle_erased(&mut self, user: CompactString) {
        self.send_to_others(|| Mail::Erased(user.clone()));
        self.ledger.note_erased(user);
    }

    pub(super) fn forget_user(&mut self, user: &str) {
        self.rings.forget_user(user);
        self.reads.forget_held();
        self.forget_user_in_folds(user);
        // Some of what memory let go the log may not keep yet.
        self.forgotten_through = self.appended();
    }

    pub(super) fn handle_order_kept(&mut self, id: Key) {
        self.handle_answer(id, Answer::Count(0));
    }

    pub(super) fn handle_ask(&mut self, now: Now, from: usize, id: Key, ask: &Ask) {
        let answer = self.answer(now, ask);
        self.send(from, Mail::Answer { id, answer });
    }

    pub(super) fn handle_answer(&mut self, id: Key, answer: Answer) {
        let Some(pending) = self.asks.find_mut(id) else {
            return;
        };
        pending.outstanding -= 1;
        pending.answer = Some(match pending.answer.take() {
            None => answer,
            Some(before) => before.merged(answer),
        });
        if pending.outstanding > 0 {
            return;
        }
        if let Some(PendingAsk {
            connection,
            erasing,
            answer: Some(answer),
            ..
        }) = self.asks.remove(id)
        {
            self.actions.push_back(match erasing {
                None => Action::Asked { connection, answer },
                Some(user) => Action::Erase { connection, user },
            });
        }
    }

    fn answer(&mut self, now: Now, ask: &Ask) -> Answer {
        match ask {
            Ask::Connections => Answer::Rows(self.connection_rows()),
            Ask::Disconnect(target) => {
                Answer::Count(
                    self.close_where(now, CloseReason::NotAllowed, |peer| target.hits(peer)),
                )
            }
            // What was numbered is in the log's hands when the answer leaves this core.
            Ask::Erase(user) => {
                self.pause_snapshots(user.clone());
                Answer::Count(0)
            }
            Ask::Revoke(revocation) => self.revoke(now, revocation),
            Ask::Unrevoke(revocation) => {
                let undone = self.trust.revocations.undo(revocation.target.clone());
                // Every core holds the same list: the first one's word is the node's.
                Answer::Count(u64::from(undone && self.options.core == 0))
            }
        }
    }

    fn revoke(&mut self, now: Now, revocation: &Revocation) -> Answer {
        if self
            .trust
            .revocations
            .revoke(revocation.clone(), now.wall_s())
            .is_err()
        {
            return Answer::Full;
        }
        let hits = |peer: &Peer| revocation.hits(&peer.details.claims);
        Answer::Count(self.close_where(now, CloseReason::TokenRevoked, hits))
    }

    fn close_where(&mut self, now: Now, reason: CloseReason, hits: impl Fn(&Peer) -> bool) -> u64 {
        let open = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.closing().is_none() && hits(peer));
        let keys: Vec<Key> = open.map(|(key, _)| key).collect();
        for key in &keys {
            self.close_peer(now, *key, reason);
        }
        keys.len() as u64
    }

    fn connection_rows(&self) -> Vec<ConnectionRow> {
        let row = |(_, peer): (Key, &Peer)| ConnectionRow {
            connection_id: format!("{:016x}", peer.details.id),
            user_id: peer.details.claims.sub.clone(),
            role: match peer.role() {
                Role::Echo { .. } => "echo",
                Role::Publisher(_) => "publisher",
                Role::Viewer(viewer) => viewer.dialect.name(),
            },
            remote: peer.details.remote.clone(),
            connected_at: peer.details.connected_wall_ms,
            core: self.options.core,
            queued_bytes: peer.waiting_bytes(),
            frames_written: peer.frames_written(),
            subscriptions: peer
                .viewer()
                .map_or(0, |viewer| viewer.subscriptions().len()),
        };
        self.peers.iter().map(row).collect()
    }
}

impl Ask {
    // What of it holds beyond the life of the process.
    fn decision(&self) -> Option<Decision> {
        match self {
            Self::Revoke(revocation) => Some(Decision::Revoke(revocation.clone())),
            Self::Unrevoke(revocation) => Some(Decision::Undo(revocation.target.clone())),
            Self::Connections | Self::Disconnect(_) | Self::Erase(_) => None,
        }
    }
}

impl Target {
    fn hits(&self, peer: &Peer) -> bool {
        match self {
            Self::Connection(id) => *id == format!("{:016x}", peer.details.id),
            Self::User(user) => *user == peer.details.claims.sub,
        }
    }
}

impl Answer {
    fn merged(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a + b),
            (Self::Rows(mut a), Self::Rows(b)) => {
                a.extend(b);
                Self::Rows(a)
            }
            // A core without room speaks for the node: the order was not carried out everywhere.
            _ => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{self, Claims};
    use crate::dialect::ConnectQuery;
    use crate::event::{Dialect, StreamKind};
    use crate::hub::Bounds;
    use crate::hub::rig::{Client, Rig, claims};

    // Two cores with a viewer each, of users that they own.
    fn two() -> (Rig, [String; 2], [Client; 2]) {
        let mut rig = Rig::with(2, Bounds::default(), |_| {});
        let users = [
            rig.id_on(0, StreamKind::User),
            rig.id_on(1, StreamKind::User),
        ];
        let clients = [rig.viewer(&users[0], &[]), rig.viewer(&users[1], &[])];
        rig.settle();
        (rig, users, clients)
    }

    fn answer(rig: &mut Rig, ask: &Ask) -> Answer {
        let now = rig.now;
        rig.hub().handle_administrator(now, Key::from_u64(99), ask);
        assert!(
            rig.hub().poll_action().is_none(),
            "the other core has a part in it"
        );
        rig.settle();
        match rig.action() {
            Action::Asked { connection, answer } => {
                assert_eq!(connection, Key::from_u64(99));
                answer
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn connections_of_all_cores_are_listed() {
        let (mut rig, users, _) = two();
        rig.publisher(1);
        let Answer::Rows(mut rows) = answer(&mut rig, &Ask::Connections) else {
            panic!("rows were asked for");
        };
        rows.sort_by_key(|row| (row.core, row.role));
        let shown: Vec<(&str, &str, usize, usize)> = rows
            .iter()
            .map(|row| (row.user_id.as_str(), row.role, row.core, row.subscriptions))
            .collect();
        let expected = [
            (users[0].as_str(), "observatory", 0, 1),
            (users[1].as_str(), "observatory", 1, 1),
            ("producer", "publisher", 1, 0),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_user_or_one_connection_is_disconnected_wherever_it_is() {
        let (mut rig, users, clients) = two();
        let id = rig.hubs[0]
            .peers()
            .find(clients[0].key)
            .map(|peer| peer.details.id);
        let id = format!("{:016x}", id.unwrap_or(0)).into();
        let counted = |rig: &mut Rig, target| {
            matches!(answer(rig, &Ask::Disconnect(target)), Answer::Count(1))
        };
        assert!(counted(&mut rig, Target::User(users[1].as_str().into())));
        assert_eq!(
            (rig.closing(clients[0]), rig.closing(clients[1])),
            (None, Some(4503))
        );
        assert!(counted(&mut rig, Target::Connection(id)));
        assert_eq!(rig.closing(clients[0]), Some(4503));
    }

    #[test]
    fn a_revocation_closes_what_it_hits_on_all_cores_until_it_is_undone() {
        let (mut rig, users, clients) = two();
        let revocation = Revocation {
            target: auth::Target::Jti("jti".into()),
            revoked_at_s: rig.now.wall_s(),
            expires_at_s: None,
        };
        assert!(matches!(
            answer(&mut rig, &Ask::Revoke(revocation.clone())),
            Answer::Count(2)
        ));
        assert_eq!(
            (rig.closing(clients[0]), rig.closing(clients[1])),
            (Some(4002), Some(4002))
        );
        let ask_in = |rig: &mut Rig| {
            let claims: Claims = claims(&users[1], &[]);
            rig.ask_in(claims, Dialect::Keen, ConnectQuery::default()).1
        };
        assert!(ask_in(&mut rig).is_some_and(|answer| answer.is_err()));
        let undone = answer(&mut rig, &Ask::Unrevoke(revocation.clone()));
        assert!(
            matches!(undone, Answer::Count(1)),
            "once, though every core forgot it: {undone:?}"
        );
        assert!(matches!(
            answer(&mut rig, &Ask::Unrevoke(revocation)),
            Answer::Count(0)
        ));
        assert!(ask_in(&mut rig).is_some_and(|answer| answer.is_ok()));
    }

    #[test]
    fn an_erasure_is_the_logs_business_once_all_cores_have_answered() {
        let (mut rig, users, _) = two();
        let (now, ask) = (rig.now, Ask::Erase(users[1].as_str().into()));
        rig.hub().handle_administrator(now, Key::from_u64(99), &ask);
        assert!(rig.hub().poll_action().is_none());
        rig.settle();
        match rig.action() {
            Action::Erase { connection, user } => {
                assert_eq!((connection, &*user), (Key::from_u64(99), &*users[1]));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_core_without_room_speaks_for_the_node() {
        let full = Answer::Count(3)
            .merged(Answer::Full)
            .merged(Answer::Count(1));
        assert!(matches!(full, Answer::Full));
    }
}
