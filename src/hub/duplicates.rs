//! Which `event_id`s were seen of late. The window is ten minutes or the last so many ids,
//! whichever is shorter; both ends are told by `span_ms` and `len`.
//!
//! Ids are kept as 128-bit hashes: at a million ids the odds that two differ and collide are below
//! 2^-88. An id costs 24 bytes beside its place in the table, which is 5 to 10.

use std::collections::VecDeque;

use hashbrown::HashTable;

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
    // In order; the first one's number is `first`, and they count on.
    ids: VecDeque<Remembered>,
    first: u32,
    // Numbers, by fingerprint: of one that was seen again after its time, the later.
    numbers: HashTable<u32>,
    ids_max: usize,
}

/// One id.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    // The moment from which it counts no more, in monotonic milliseconds.
    until_ms: u64,
    // In halves, so that nothing is wasted between two ids.
    fingerprint: [u64; 2],
}

impl Remembered {
    fn new(until_ms: u64, id: Fingerprint) -> Self {
        Self {
            until_ms,
            fingerprint: [id as u64, (id >> 64) as u64],
        }
    }

    // Fingerprints are hashes already, of a secret.
    fn hash(&self) -> u64 {
        self.fingerprint[0]
    }
}

impl Duplicates {
    /// Remembers at most `ids_max` ids, and never more than `u32` can number.
    pub fn new(ids_max: usize) -> Self {
        Self {
            ids: VecDeque::new(),
            first: 0,
            numbers: HashTable::new(),
            ids_max: ids_max.min(u32::MAX as usize),
        }
    }

    /// Whether `id` was seen within the window; if not, it is remembered from now on.
    pub fn is_duplicate(&mut self, now_ms: u64, id: Fingerprint) -> bool {
        self.forget(now_ms);
        self.note(now_ms, now_ms + DUPLICATE_WINDOW_MS, id)
    }

    /// Takes in an id seen before the start, after those that were seen before it.
    pub fn restore(&mut self, now: Now, id: KnownId) {
        // A clock that was set back makes nothing younger than it can be.
        let age_ms = u64::try_from(now.wall_ms.saturating_sub(id.received_ms)).unwrap_or(0);
        if let Some(left_ms) = DUPLICATE_WINDOW_MS.checked_sub(age_ms).filter(|ms| *ms > 0) {
            self.note(now.ms(), now.ms() + left_ms, id.fingerprint);
        }
    }

    /// How many ids are remembered.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Milliseconds back to the oldest id that would still be recognised.
    pub fn span_ms(&self, now_ms: u64) -> u64 {
        self.ids.front().map_or(0, |first| {
            (now_ms + DUPLICATE_WINDOW_MS).saturating_sub(first.until_ms)
        })
    }

    // Whether `id` counts at `now_ms`; if not, it does from now on until `until_ms`.
    fn note(&mut self, now_ms: u64, until_ms: u64, id: Fingerprint) -> bool {
        let new = Remembered::new(until_ms, id);
        let (ids, first) = (&self.ids, self.first);
        let known = |number: &u32| ids.get(number.wrapping_sub(first) as usize);
        let is_same =
            |number: &u32| known(number).is_some_and(|it| it.fingerprint == new.fingerprint);
        let found = self.numbers.find(new.hash(), is_same);
        // One may be kept beyond its time by another before it, from a clock that was set back.
        if found.and_then(known).is_some_and(|it| it.until_ms > now_ms) {
            return true;
        }
        self.remember(new);
        false
    }

    fn remember(&mut self, new: Remembered) {
        if self.ids_max == 0 {
            return;
        }
        if self.ids.len() >= self.ids_max {
            self.forget_first();
        }
        let first = self.first;
        let number = first.wrapping_add(self.ids.len() as u32);
        self.ids.push_back(new);
        let ids = &self.ids;
        let at = |number: &u32| &ids[number.wrapping_sub(first) as usize];
        let is_same = |number: &u32| at(number).fingerprint == new.fingerprint;
        let hash = |number: &u32| at(number).hash();
        *self
            .numbers
            .entry(new.hash(), is_same, hash)
            .or_insert(number)
            .get_mut() = number;
    }

    fn forget(&mut self, now_ms: u64) {
        let is_over = |first: &Remembered| first.until_ms <= now_ms;
        while self.ids.front().is_some_and(is_over) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let number = self.first;
        if let Some(first) = self.ids.pop_front() {
            if let Ok(own) = self
                .numbers
                .find_entry(first.hash(), |other| *other == number)
            {
                own.remove();
            }
            self.first = number.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_a_duplicate_for_ten_minutes() {
        let mut duplicates = Duplicates::new(10);
        assert!(!duplicates.is_duplicate(0, 1));
        assert!(duplicates.is_duplicate(DUPLICATE_WINDOW_MS - 1, 1));
        assert!(
            !duplicates.is_duplicate(DUPLICATE_WINDOW_MS, 1),
            "a duplicate does not prolong the window"
        );
    }

    #[test]
    fn the_last_ids_max_ids_are_known() {
        let mut duplicates = Duplicates::new(2);
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
        let mut duplicates = Duplicates::new(10);
        let now = Now {
            monotonic_ns: 1_000_000,
            wall_ms: 5_000_000,
        };
        let known = |fingerprint, age_ms| KnownId {
            received_ms: now.wall_ms - age_ms,
            fingerprint,
        };
        let window_ms = DUPLICATE_WINDOW_MS as i64;
        let ids = [
            known(0, window_ms),
            known(1, window_ms - 5),
            known(1, window_ms - 6),
            known(2, 10),
            known(3, -99),
        ];
        for id in ids {
            duplicates.restore(now, id);
        }
        assert_eq!((duplicates.len(), duplicates.span_ms(1)), (3, 599_995));
        assert!(!duplicates.is_duplicate(1, 0));
        assert!(duplicates.is_duplicate(5, 1));
        assert!(!duplicates.is_duplicate(6, 1));
        assert!(duplicates.is_duplicate(DUPLICATE_WINDOW_MS - 10, 2));
        assert!(!duplicates.is_duplicate(DUPLICATE_WINDOW_MS - 9, 2));
        assert!(duplicates.is_duplicate(DUPLICATE_WINDOW_MS, 3));
    }

    #[test]
    fn an_id_behind_a_later_one_counts_for_its_own_time() {
        let mut duplicates = Duplicates::new(10);
        let now = Now {
            monotonic_ns: 0,
            wall_ms: 5_000_000,
        };
        for (fingerprint, age_ms) in [(1, 0), (2, DUPLICATE_WINDOW_MS as i64 - 5)] {
            let received_ms = now.wall_ms - age_ms;
            duplicates.restore(
                now,
                KnownId {
                    received_ms,
                    fingerprint,
                },
            );
        }
        assert!(duplicates.is_duplicate(4, 2));
        assert!(!duplicates.is_duplicate(5, 2));
        assert!(duplicates.is_duplicate(6, 2), "it was seen again");
        let window_ms = DUPLICATE_WINDOW_MS;
        assert!(!duplicates.is_duplicate(window_ms, 1));
        assert!(duplicates.is_duplicate(window_ms + 4, 2));
        assert_eq!(duplicates.len(), 2);
    }

    proptest! {
        // However the numbers wrap, and whatever comes when.
        #[test]
        fn the_table_finds_what_the_window_has(
            first: u32,
            ids_max in 0_usize..6,
            seen in vec((0_u64..DUPLICATE_WINDOW_MS, 0_u128..8), 0..64),
        ) {
            let mut duplicates = Duplicates::new(ids_max);
            duplicates.first = first;
            let (mut now_ms, mut model) = (0, VecDeque::new());
            for (later_ms, id) in seen {
                now_ms += later_ms;
                model.retain(|(at_ms, _)| at_ms + DUPLICATE_WINDOW_MS > now_ms);
                let is_known = model.iter().any(|(_, known)| *known == id);
                prop_assert_eq!(duplicates.is_duplicate(now_ms, id), is_known);
                if !is_known && ids_max > 0 {
                    model.push_back((now_ms, id));
                    model.drain(..model.len().saturating_sub(ids_max));
                }
                prop_assert_eq!(duplicates.len(), model.len());
            }
        }
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
