//! A slab whose keys carry a generation, so that a key kept too long finds nothing rather than
//! somebody else's value.

use slab::Slab;

/// Names one value of a `Keyed` for as long as the value lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The place in the slab; shared with later generations.
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// The key as one number, for `mio::Token` and the like.
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The inverse of `to_u64`.
    pub fn from_u64(bits: u64) -> Self {
        Self {
            index: bits as u32,
            generation: (bits >> 32) as u32,
        }
    }
}

/// Values under keys with generations. Look-ups of a stale key return `None`.
#[derive(Debug)]
pub struct Keyed<T> {
    slots: Slab<(u32, T)>,
    generation: u32,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            generation: 0,
        }
    }
}

impl<T> Keyed<T> {
    /// Stores a value and names it.
    pub fn insert(&mut self, value: T) -> Key {
        self.insert_with(|_| value)
    }

    /// Stores the value that `make` builds from the key it will have.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.slots.vacant_entry();
        let index = u32::try_from(entry.key()).expect("fewer than 2^32 values fit into memory");
        let key = Key {
            index,
            generation: self.generation,
        };
        entry.insert((key.generation, make(key)));
        key
    }

    /// The value, unless it was removed.
    pub fn find(&self, key: Key) -> Option<&T> {
        self.slots
            .get(key.index())
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, value)| value)
    }

    /// The value for change, unless it was removed.
    pub fn find_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots
            .get_mut(key.index())
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, value)| value)
    }

    /// Takes the value out; the key is stale from now on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.find(key)?;
        let (_, value) = self.slots.remove(key.index());
        self.give_back();
        Some(value)
    }

    // A crowd that has gone leaves its places to the system, as far as nobody stands behind them. Tried
    // a few times on the way down, since each try may walk over all places.
    fn give_back(&mut self) {
        let (len, places) = (self.slots.len(), self.slots.capacity());
        if places > PLACES_KEPT && len <= places / 4 && (len == 0 || len.is_power_of_two()) {
            self.slots.shrink_to_fit();
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All values with their keys, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().map(|(index, (generation, value))| {
            (
                Key {
                    index: index as u32,
                    generation: *generation,
                },
                value,
            )
        })
    }

    /// All keys, collected, for walks that change what they walk over.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

/// Places that are kept whether anybody has them or not.
const PLACES_KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing_although_its_place_is_taken_again() {
        let mut keyed = Keyed::default();
        let first = keyed.insert("first");
        assert_eq!(keyed.remove(first), Some("first"));
        let second = keyed.insert("second");
        assert_eq!(first.index(), second.index());
        assert_eq!(keyed.find(first), None);
        assert_eq!(keyed.remove(first), None);
        assert_eq!(keyed.find(second), Some(&"second"));
    }

    #[test]
    fn a_key_survives_being_a_number() {
        let mut keyed = Keyed::default();
        keyed.insert(0);
        let key = keyed.insert(1);
        assert_eq!(Key::from_u64(key.to_u64()), key);
    }

    #[test]
    fn the_places_of_a_crowd_that_has_gone_are_given_back() {
        let mut values = Keyed::default();
        let first = values.insert(0);
        let crowd: Vec<Key> = (1..10_000).map(|value| values.insert(value)).collect();
        for key in crowd {
            assert!(values.remove(key).is_some());
        }
        assert!(values.slots.capacity() <= PLACES_KEPT);
        assert_eq!(values.find(first), Some(&0));
    }
}
