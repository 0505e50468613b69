//! An index by name of values that hold their names themselves, so that each name stands once: nine
//! bytes a value, with room to grow.

use hashbrown::HashTable;

use super::keyed::Key;

/// Finds keys of values by the names of these.
#[derive(Debug)]
pub(super) struct Names {
    keys: HashTable<Key>,
    hasher: ahash::RandomState,
}

impl Names {
    /// None yet.
    pub fn new(hasher: ahash::RandomState) -> Self {
        Self {
            keys: HashTable::new(),
            hasher,
        }
    }

    /// The key of the value that `name_of` calls `name`.
    pub fn find<'a>(&self, name: &str, name_of: impl Fn(Key) -> Option<&'a str>) -> Option<Key> {
        let hash = self.hasher.hash_one(name);
        let is_it = |key: &Key| name_of(*key) == Some(name);
        self.keys.find(hash, is_it).copied()
    }

    /// Adds a value that is there already. No other may have its name.
    pub fn insert<'a>(&mut self, key: Key, name_of: impl Fn(Key) -> Option<&'a str>) {
        let hash_of = |key: &Key| self.hasher.hash_one(name_of(*key).unwrap_or_default());
        self.keys.insert_unique(hash_of(&key), key, hash_of);
    }

    /// Takes out a value that was called `name`.
    pub fn remove(&mut self, key: Key, name: &str) {
        let hash = self.hasher.hash_one(name);
        if let Ok(entry) = self.keys.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::keyed::Keyed;

    #[test]
    fn each_is_found_by_its_name_until_it_is_taken_out() {
        let mut values = Keyed::default();
        let mut names = Names::new(ahash::RandomState::with_seeds(1, 2, 3, 4));
        for number in 0..1_000 {
            let key = values.insert(number.to_string());
            names.insert(key, |key| values.find(key).map(String::as_str));
        }
        for number in (0..1_000).step_by(3) {
            let name = number.to_string();
            let name_of = |key| values.find(key).map(String::as_str);
            let key = names.find(&name, name_of).expect("it is there");
            names.remove(key, &name);
            values.remove(key);
        }
        for number in 0..1_000 {
            let name = number.to_string();
            let name_of = |key| values.find(key).map(String::as_str);
            let found = names.find(&name, name_of).and_then(|key| values.find(key));
            assert_eq!(found, (number % 3 > 0).then_some(&name));
        }
    }
}
