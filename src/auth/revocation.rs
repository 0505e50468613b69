//! Tokens taken back before they end.
//!
//! Every core holds a replica of [`Revocations`] and hands each [`Revocation`] on to the others;
//! merging is by maximum, so that replicas agree in whatever order entries come, and reading
//! them again from a log changes nothing. Driven by the event loop, which passes `now`.

use std::collections::BTreeMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::claims::Claims;
use crate::limits::{REVOCATION_SWEEP_S, REVOCATIONS_MAX};

/// What the event log keeps of administrators' decisions about tokens, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// To take tokens back.
    Revoke(Revocation),
    /// To take that back.
    Undo(Target),
}

impl Decision {
    /// As it is kept: JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and integers have a form in JSON")
    }

    /// Reads what `encode` made; `None` where it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Which tokens are taken back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The token with this `jti`.
    Jti(CompactString),
    /// All tokens of this session.
    Session(CompactString),
    /// All tokens of this user that were issued before the revocation or in its second, or do not
    /// say when.
    User(CompactString),
}

/// One decision of an administrator, as cores send it to each other and as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Which tokens.
    pub target: Target,
    /// When it was decided, in seconds since the Unix epoch.
    pub revoked_at_s: u64,
    /// The second from which it no longer holds; `None`: it holds until it is undone.
    pub expires_at_s: Option<u64>,
}

impl Revocation {
    /// Whether this, while it is in force, takes back the token with these claims. Tells which
    /// open connections a new revocation closes.
    pub fn hits(&self, claims: &Claims) -> bool {
        match &self.target {
            Target::Jti(jti) => claims.jti.as_ref() == Some(jti),
            Target::Session(session) => claims.session.as_ref() == Some(session),
            Target::User(user) => {
                claims.sub == *user && is_issued_by(claims.iat_s, self.revoked_at_s)
            }
        }
    }
}

/// A token that does not say when it was issued cannot show that it is newer.
fn is_issued_by(iat_s: Option<u64>, revoked_at_s: u64) -> bool {
    iat_s.is_none_or(|iat_s| iat_s <= revoked_at_s)
}

/// The revocations in force, as one core knows them. Bounded by `REVOCATIONS_MAX`.
#[derive(Clone, Debug, Default)]
pub struct Revocations {
    // Ordered maps: they need no seed, and keys chosen to collide do not slow them.
    jtis: Table,
    sessions: Table,
    users: Table,
    /// Until then nothing is swept; looking up goes by the entries' own times.
    sweep_at_s: u64,
}

type Table = BTreeMap<CompactString, Span>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    revoked_at_s: u64,
    /// `u64::MAX`: until it is undone.
    expires_at_s: u64,
}

impl Span {
    fn is_over(self, now_s: u64) -> bool {
        now_s >= self.expires_at_s
    }
}

impl Revocations {
    /// Takes a revocation in. A second one of the same target only widens the first: the later
    /// decision and the later end hold. To shorten one, undo it first.
    /// Errors: [`RevocationsFull`], and nothing is changed.
    pub fn revoke(&mut self, revocation: Revocation, now_s: u64) -> Result<(), RevocationsFull> {
        let added = Span {
            revoked_at_s: revocation.revoked_at_s,
            expires_at_s: revocation.expires_at_s.unwrap_or(u64::MAX),
        };
        if self.len() >= REVOCATIONS_MAX {
            self.sweep(now_s);
        }
        let is_full = self.len() >= REVOCATIONS_MAX;
        let (table, id) = self.table_mut(revocation.target);
        match table.get_mut(&id) {
            Some(span) => {
                span.revoked_at_s = span.revoked_at_s.max(added.revoked_at_s);
                span.expires_at_s = span.expires_at_s.max(added.expires_at_s);
            }
            None if is_full => return Err(RevocationsFull),
            None => drop(table.insert(id, added)),
        }
        Ok(())
    }

    /// Takes in a decision that was kept. Errors: [`RevocationsFull`], and nothing is changed.
    pub fn restore(&mut self, decision: Decision, now_s: u64) -> Result<(), RevocationsFull> {
        match decision {
            Decision::Revoke(revocation) => self.revoke(revocation, now_s),
            Decision::Undo(target) => {
                self.undo(target);
                Ok(())
            }
        }
    }

    /// All that are held, as decisions.
    pub fn iter(&self) -> impl Iterator<Item = Revocation> {
        let jtis = self
            .jtis
            .iter()
            .map(|entry| (Target::Jti as fn(_) -> _, entry));
        let sessions = self
            .sessions
            .iter()
            .map(|entry| (Target::Session as fn(_) -> _, entry));
        let users = self
            .users
            .iter()
            .map(|entry| (Target::User as fn(_) -> _, entry));
        jtis.chain(sessions)
            .chain(users)
            .map(|(target, (id, span))| Revocation {
                target: target(id.clone()),
                revoked_at_s: span.revoked_at_s,
                expires_at_s: Some(span.expires_at_s).filter(|end_s| *end_s != u64::MAX),
            })
    }

    /// Takes a revocation out; tells whether there was one.
    pub fn undo(&mut self, target: Target) -> bool {
        let (table, id) = self.table_mut(target);
        table.remove(&id).is_some()
    }

    /// Whether the token with these claims is taken back at `now_s`.
    pub fn is_revoked(&self, claims: &Claims, now_s: u64) -> bool {
        let in_force = |table: &Table, id: &Option<CompactString>| {
            let span = id.as_ref().and_then(|id| table.get(id));
            span.is_some_and(|span| !span.is_over(now_s))
        };
        let by_user = || {
            self.users.get(&claims.sub).is_some_and(|span| {
                !span.is_over(now_s) && is_issued_by(claims.iat_s, span.revoked_at_s)
            })
        };
        in_force(&self.jtis, &claims.jti) || in_force(&self.sessions, &claims.session) || by_user()
    }

    /// Forgets what has run out, once a minute however often it is called.
    pub fn handle_tick(&mut self, now_s: u64) {
        if now_s >= self.sweep_at_s {
            self.sweep(now_s);
            self.sweep_at_s = now_s.saturating_add(REVOCATION_SWEEP_S);
        }
    }

    /// How many are held, those not yet swept included.
    pub fn len(&self) -> usize {
        self.jtis.len() + self.sessions.len() + self.users.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn sweep(&mut self, now_s: u64) {
        for table in [&mut self.jtis, &mut self.sessions, &mut self.users] {
            table.retain(|_, span| !span.is_over(now_s));
        }
    }

    fn table_mut(&mut self, target: Target) -> (&mut Table, CompactString) {
        match target {
            Target::Jti(id) => (&mut self.jtis, id),
            Target::Session(id) => (&mut self.sessions, id),
            Target::User(id) => (&mut self.users, id),
        }
    }
}

/// No room for a further revocation; ours, and the administrator is told. Forgetting another one
/// instead would let a revoked token in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many revocations are in force; undo some, or let some run out")]
pub struct RevocationsFull;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::permissions::Permissions;
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn claims(sub: &str, session: Option<&str>, jti: Option<&str>, iat_s: Option<u64>) -> Claims {
        Claims {
            sub: sub.into(),
            exp_s: NOW_S + 3600,
            iat_s,
            tier: None,
            projects: [].into(),
            permissions: Permissions::default(),
            session: session.map(Into::into),
            jti: jti.map(Into::into),
        }
    }

    fn revocation(target: Target, expires_at_s: Option<u64>) -> Revocation {
        Revocation {
            target,
            revoked_at_s: NOW_S,
            expires_at_s,
        }
    }

    fn user(name: &str) -> Target {
        Target::User(name.into())
    }

    #[test]
    fn each_target_takes_back_its_own_tokens_only() {
        let table = [
            (
                Target::Jti("j".into()),
                claims("a", None, Some("j"), None),
                true,
            ),
            (
                Target::Jti("j".into()),
                claims("j", Some("j"), Some("k"), None),
                false,
            ),
            (
                Target::Jti("j".into()),
                claims("j", Some("j"), None, None),
                false,
            ),
            (
                Target::Session("s".into()),
                claims("a", Some("s"), None, None),
                true,
            ),
            (
                Target::Session("s".into()),
                claims("s", Some("t"), Some("s"), None),
                false,
            ),
            (user("a"), claims("a", None, None, None), true),
            (user("a"), claims("a", None, None, Some(NOW_S - 1)), true),
            (user("a"), claims("a", None, None, Some(NOW_S)), true),
            (user("a"), claims("a", None, None, Some(NOW_S + 1)), false),
            (user("a"), claims("A", Some("a"), Some("a"), None), false),
        ];
        for (target, claims, expected) in table {
            let revocation = revocation(target, None);
            let mut all = Revocations::default();
            assert!(!all.is_revoked(&claims, NOW_S));
            all.revoke(revocation.clone(), NOW_S).unwrap();
            assert_eq!(
                all.is_revoked(&claims, NOW_S),
                expected,
                "{revocation:?} {claims:?}"
            );
            assert_eq!(revocation.hits(&claims), expected);
            assert!(all.undo(revocation.target.clone()));
            assert!(!all.undo(revocation.target));
            assert!(!all.is_revoked(&claims, NOW_S));
        }
    }

    #[test]
    fn a_revocation_ends_at_its_second_and_is_swept_later() {
        let mut all = Revocations::default();
        all.handle_tick(NOW_S);
        let ends = revocation(Target::Jti("j".into()), Some(NOW_S + 10));
        all.revoke(ends, NOW_S).unwrap();
        let bearer = claims("a", None, Some("j"), None);
        assert!(all.is_revoked(&bearer, NOW_S + 9));
        assert!(!all.is_revoked(&bearer, NOW_S + 10));
        all.handle_tick(NOW_S + 59);
        assert_eq!(all.len(), 1);
        all.handle_tick(NOW_S + 60);
        assert!(all.is_empty());
    }

    #[test]
    fn a_second_revocation_widens_the_first_in_either_order() {
        let early = revocation(user("a"), None);
        let late = Revocation {
            revoked_at_s: NOW_S + 5,
            expires_at_s: Some(NOW_S + 50),
            target: user("a"),
        };
        for order in [[&early, &late], [&late, &early]] {
            let mut all = Revocations::default();
            for one in order {
                all.revoke(one.clone(), NOW_S).unwrap();
            }
            assert_eq!(all.len(), 1);
            let between = claims("a", None, None, Some(NOW_S + 5));
            assert!(all.is_revoked(&between, NOW_S + 1_000_000));
        }
    }

    #[test]
    fn a_full_replica_refuses_and_forgets_nothing() {
        let mut all = Revocations::default();
        let numbered = |n: usize| Target::Jti(n.to_string().into());
        for n in 0..REVOCATIONS_MAX {
            let end_s = NOW_S + 10 + u64::from(n > 0);
            all.revoke(revocation(numbered(n), Some(end_s)), NOW_S)
                .unwrap();
        }
        let more = || revocation(user("a"), None);
        assert_eq!(all.revoke(more(), NOW_S), Err(RevocationsFull));
        assert_eq!(all.revoke(revocation(numbered(5), None), NOW_S), Ok(()));
        assert_eq!(all.len(), REVOCATIONS_MAX);
        assert_eq!(all.revoke(more(), NOW_S + 10), Ok(()));
        assert!(all.is_revoked(&claims("a", None, None, None), NOW_S + 10));
    }

    fn any_target() -> impl Strategy<Value = Target> {
        ("[ab]", 0..3).prop_map(|(id, kind)| match kind {
            0 => Target::Jti(id.into()),
            1 => Target::Session(id.into()),
            _ => Target::User(id.into()),
        })
    }

    prop_compose! {
        fn any_revocation()(
            target in any_target(),
            revoked_at_s in 0_u64..10,
            expires_at_s in proptest::option::of(0_u64..20),
        ) -> Revocation {
            Revocation { target, revoked_at_s, expires_at_s }
        }
    }

    prop_compose! {
        fn any_claims()(
            sub in "[ab]",
            session in proptest::option::of("[ab]"),
            jti in proptest::option::of("[ab]"),
            iat_s in proptest::option::of(0_u64..12),
        ) -> Claims {
            claims(&sub, session.as_deref(), jti.as_deref(), iat_s)
        }
    }

    proptest! {
        #[test]
        fn what_is_held_can_be_written_again(
            entries in proptest::collection::vec((any_revocation(), any::<bool>()), 0..8),
        ) {
            let mut all = Revocations::default();
            for (entry, is_undone) in entries {
                let decision = match is_undone {
                    true => Decision::Undo(entry.target),
                    false => Decision::Revoke(entry),
                };
                all.restore(decision, 0).unwrap();
            }
            let mut again = Revocations::default();
            for entry in all.iter() {
                again.restore(Decision::Revoke(entry), 0).unwrap();
            }
            prop_assert!(again.iter().eq(all.iter()));
            prop_assert_eq!(again.len(), all.len());
        }

        #[test]
        fn a_replica_refuses_at_least_what_its_entries_hit(
            entries in proptest::collection::vec(any_revocation(), 0..8),
            claims in any_claims(),
            now_s in 0_u64..25,
        ) {
            let mut all = Revocations::default();
            let mut reversed = Revocations::default();
            for entry in &entries {
                all.revoke(entry.clone(), now_s).unwrap();
            }
            for entry in entries.iter().rev() {
                reversed.revoke(entry.clone(), now_s).unwrap();
            }
            let in_force = |entry: &&Revocation| entry.expires_at_s.is_none_or(|end_s| now_s < end_s);
            let hit = entries.iter().filter(in_force).any(|entry| entry.hits(&claims));
            prop_assert!(all.is_revoked(&claims, now_s) || !hit);
            prop_assert_eq!(all.is_revoked(&claims, now_s), reversed.is_revoked(&claims, now_s));
            let before = all.is_revoked(&claims, now_s);
            all.handle_tick(now_s);
            prop_assert_eq!(all.is_revoked(&claims, now_s), before);
        }

        #[test]
        fn an_entry_survives_being_written(entry in any_revocation()) {
            let decisions = [Decision::Undo(entry.target.clone()), Decision::Revoke(entry)];
            for decision in decisions {
                prop_assert_eq!(Decision::decode(&decision.encode()), Some(decision));
            }
        }
    }
}
