//! Which `event_id`s were seen of late. The window is ten minutes or the last so many ids,
//! whichever is shorter; both ends are told by `span_ms` and `len`.
//!
//! Ids are kept as 128-bit hashes: at a million ids the odds that two differ and collide are below
//! 2^-88, and an id costs 24 bytes beside its place in the table.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::limits::DUPLICATE_WINDOW_MS;

/// A hash that names (token's `sub`, stream, `event_id`), or a part of that.
pub type Fingerprint = u128;

/// Makes fingerprints: the same on every core of a process.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    low: ahash::RandomState,
    high: ahash::RandomState,
}

impl Fingerprints {
    /// With a secret `seed`, so that nobody outside can make two ids collide.
    pub fn new(seed: u64) -> Self {
        let state = |salt: u64| {
            let key = seed ^ salt;
            ahash::RandomState::with_seeds(key, key.rotate_left(17), !key, key.rotate_left(43))
        };
        Self {
            low: state(0x9e37_79b9_7f4a_7c15),
            high: state(0xc2b2_ae3d_27d4_eb4f),
        }
    }

    /// The fingerprint of `value`.
    pub fn of(&self, value: impl Hash) -> Fingerprint {
        u128::from(self.high.hash_one(&value)) << 64 | u128::from(self.low.hash_one(&value))
    }
}

/// The window of recent fingerprints of one core.
#[derive(Debug)]
pub struct Duplicates {
    // Fingerprints are hashes already, of a secret seed; the map adds its own.
    seen_ms: HashMap<Fingerprint, u64, ahash::RandomState>,
    order: VecDeque<(u64, Fingerprint)>,
    ids_max: usize,
}

impl Duplicates {
    /// Remembers at most `ids_max` ids.
    pub fn new(ids_max: usize, seed: u64) -> Self {
        let hasher = ahash::RandomState::with_seeds(seed, 1, 2, 3);
        Self {
            seen_ms: HashMap::with_hasher(hasher),
            order: VecDeque::new(),
            ids_max,
        }
    }

    /// Whether `id` was seen within the window; if not, it is remembered from now on.
    pub fn is_duplicate(&mut self, now_ms: u64, id: Fingerprint) -> bool {
        self.forget(now_ms);
        if self.seen_ms.contains_key(&id) {
            return true;
        }
        if self.ids_max > 0 {
            if self.order.len() >= self.ids_max {
                self.forget_oldest();
            }
            self.seen_ms.insert(id, now_ms);
            self.order.push_back((now_ms, id));
        }
        false
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
        self.order
            .front()
            .map_or(0, |(at, _)| now_ms.saturating_sub(*at))
    }

    fn forget(&mut self, now_ms: u64) {
        while self
            .order
            .front()
            .is_some_and(|(at, _)| at + DUPLICATE_WINDOW_MS <= now_ms)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.seen_ms.remove(&id);
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
    fn fingerprints_tell_parts_apart() {
        let prints = Fingerprints::new(3);
        assert_eq!(prints.of(("a", "b")), prints.of(("a", "b")));
        assert_ne!(prints.of(("a", "b")), prints.of(("ab", "")));
        assert_ne!(prints.of("a"), Fingerprints::new(4).of("a"));
    }
}
