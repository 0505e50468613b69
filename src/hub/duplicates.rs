//! Which `event_id`s were seen of late. The window is ten minutes or the last so many ids,
//! whichever is shorter; both ends are told by `span_ms` and `len`.
//!
//! Ids are kept as 128-bit hashes: at a million ids the odds that two differ and collide are below
//! 2^-88, and an id costs 24 bytes beside its place in the table.

use std::collections::{HashSet, VecDeque};

use crate::event::{RecordCodec, StreamKind};
use crate::limits::DUPLICATE_WINDOW_MS;

use super::Now;

/// A hash that names (token's `sub`, stream, `event_id`), by a secret of the log.
pub type Fingerprint = u128;

/// An id that the log remembers from before the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownId {
    /// When the event arrived, in milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// Names it.
    pub fingerprint: Fingerprint,
}

/// Names the event `event_id` of the publisher `sub` in a stream: the same for the life of the log.
pub fn fingerprint(
    codec: &RecordCodec,
    sub: &str,
    kind: StreamKind,
    stream: &str,
    event_id: &str,
) -> Fingerprint {
    let kind = match kind {
        StreamKind::Project => "project",
        StreamKind::User => "user",
    };
    codec.fingerprint(&[sub, kind, stream, event_id])
}

/// The window of recent fingerprints of one core.
#[derive(Debug)]
pub struct Duplicates {
    // Fingerprints are hashes already, of a secret; the set adds its own.
    seen: HashSet<Fingerprint, ahash::RandomState>,
    // With the moment from which each counts no more, in monotonic milliseconds.
    order: VecDeque<(u64, Fingerprint)>,
    ids_max: usize,
}

impl Duplicates {
    /// Remembers at most `ids_max` ids.
    pub fn new(ids_max: usize, seed: u64) -> Self {
        let hasher = ahash::RandomState::with_seeds(seed, 1, 2, 3);
        Self {
            seen: HashSet::with_hasher(hasher),
            order: VecDeque::new(),
            ids_max,
        }
    }

    /// Whether `id` was seen within the window; if not, it is remembered from now on.
    pub fn is_duplicate(&mut self, now_ms: u64, id: Fingerprint) -> bool {
        self.forget(now_ms);
        if self.seen.contains(&id) {
            return true;
        }
        self.remember(now_ms + DUPLICATE_WINDOW_MS, id);
        false
    }

    /// Takes in what was seen before the start, in any order.
    pub fn restore(&mut self, now: Now, mut ids: Vec<KnownId>) {
        ids.sort_by_key(|id| id.received_ms);
        for id in ids {
            // A clock that was set back makes nothing younger than it can be.
            let age_ms = u64::try_from(now.wall_ms.saturating_sub(id.received_ms)).unwrap_or(0);
            if age_ms < DUPLICATE_WINDOW_MS && !self.seen.contains(&id.fingerprint) {
                self.remember(now.ms() + DUPLICATE_WINDOW_MS - age_ms, id.fingerprint);
            }
        }
    }

    fn remember(&mut self, until_ms: u64, id: Fingerprint) {
        if self.ids_max == 0 {
            return;
        }
        if self.order.len() >= self.ids_max {
            self.forget_oldest();
        }
        self.seen.insert(id);
        self.order.push_back((until_ms, id));
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Milliseconds back to the oldest id that would still be recognised.
    pub fn span_ms(&self, now_ms: u64) -> u64 {
        self.order.front().map_or(0, |(until, _)| {
            (now_ms + DUPLICATE_WINDOW_MS).saturating_sub(*until)
        })
    }

    fn forget(&mut self, now_ms: u64) {
        while self
            .order
            .front()
            .is_some_and(|(until_ms, _)| *until_ms <= now_ms)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.seen.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_duplicate_for_ten_minutes() {
        let mut duplicates = Duplicates::new(10, 7);
        assert!(!duplicates.is_duplicate(0, 1));
        assert!(duplicates.is_duplicate(DUPLICATE_WINDOW_MS - 1, 1));
        assert!(
            !duplicates.is_duplicate(DUPLICATE_WINDOW_MS, 1),
            "a duplicate does not prolong the window"
        );
    }

    #[test]
    fn the_last_ids_max_ids_are_known() {
        let mut duplicates = Duplicates::new(2, 7);
        for id in 1..=3 {
            assert!(!duplicates.is_duplicate(5, id));
        }
        assert!(
            !duplicates.is_duplicate(6, 1),
            "the third id pushed the first out"
        );
        assert!(duplicates.is_duplicate(7, 3));
        assert_eq!((duplicates.len(), duplicates.span_ms(9)), (2, 4));
    }

    #[test]
    fn ids_of_before_the_start_count_for_what_is_left_of_their_time() {
        let mut duplicates = Duplicates::new(10, 7);
        let now = Now {
            monotonic_ns: 1_000_000,
            wall_ms: 5_000_000,
        };
        let known = |fingerprint, age_ms| KnownId {
            received_ms: now.wall_ms - age_ms,
            fingerprint,
        };
        let window_ms = DUPLICATE_WINDOW_MS as i64;
        let ids = vec![
            known(3, -99),
            known(2, 10),
            known(1, window_ms - 5),
            known(1, window_ms - 6),
            known(0, window_ms),
        ];
        duplicates.restore(now, ids);
        assert_eq!((duplicates.len(), duplicates.span_ms(1)), (3, 599_995));
        assert!(!duplicates.is_duplicate(1, 0));
        assert!(duplicates.is_duplicate(5, 1));
        assert!(!duplicates.is_duplicate(6, 1));
        assert!(duplicates.is_duplicate(DUPLICATE_WINDOW_MS - 10, 2));
        assert!(!duplicates.is_duplicate(DUPLICATE_WINDOW_MS - 9, 2));
        assert!(duplicates.is_duplicate(DUPLICATE_WINDOW_MS, 3));
    }

    #[test]
    fn fingerprints_tell_parts_apart() {
        let codec = |secret| {
            let epoch = crate::event::Epoch(1);
            RecordCodec::new(crate::event::LogIdentity { epoch, secret })
        };
        let (one, other) = (codec([1, 2]), codec([1, 3]));
        let (user, project) = (StreamKind::User, StreamKind::Project);
        let print = fingerprint(&one, "a", user, "b", "c");
        assert_eq!(print, fingerprint(&one, "a", user, "b", "c"));
        assert_ne!(print, fingerprint(&one, "ab", user, "", "c"));
        assert_ne!(print, fingerprint(&one, "a", project, "b", "c"));
        assert_ne!(print, fingerprint(&other, "a", user, "b", "c"));
    }
}
