//! How often what is rare happened, so that runs that no longer come to it are noticed.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Debug, Default)]
pub struct Edges(BTreeMap<&'static str, u64>);

impl Edges {
    pub fn count(&mut self, name: &'static str, times: u64) {
        *self.0.entry(name).or_default() += times;
    }

    pub fn add(&mut self, other: &Self) {
        for (name, times) in &other.0 {
            self.count(name, *times);
        }
    }

    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}
