//! The users whose connections live on this core: how many viewers each has, which are the
//! oldest, and whose turn it is to be written to. The ring over users is what keeps one user with
//! a thousand connections from holding up the others.

use std::collections::VecDeque;

use compact_str::CompactString;

use super::keyed::{Key, Keyed};
use super::names::Names;

/// Names a user on this core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserSlot(Key);

/// All users with connections on one core.
#[derive(Debug)]
pub struct Users {
    users: Keyed<User>,
    by_name: Names,
    ring: VecDeque<UserSlot>,
    // A viewer stopped counting since `take_departures`.
    has_departures: bool,
}

#[derive(Debug)]
struct User {
    name: CompactString,
    // Connections of any kind; the user is forgotten at 0.
    connections: usize,
    // Viewers in the order of their arrival.
    viewers: Vec<Key>,
    // Connections with bytes to write. The user is in the ring exactly while this is not empty.
    dirty: VecDeque<Key>,
}

impl Users {
    /// None yet.
    pub fn new(seed: u64) -> Self {
        Self {
            users: Keyed::default(),
            by_name: Names::new(ahash::RandomState::with_seeds(seed, 11, 13, 17)),
            ring: VecDeque::new(),
            has_departures: false,
        }
    }

    /// The user, where it has connections here.
    pub fn find(&self, name: &str) -> Option<UserSlot> {
        let name_of = |key| name_of(&self.users, key);
        self.by_name.find(name, name_of).map(UserSlot)
    }

    /// Counts one connection more of the user.
    pub fn handle_connect(&mut self, name: &CompactString) -> UserSlot {
        let slot = self.find(name).unwrap_or_else(|| self.insert(name));
        if let Some(user) = self.users.find_mut(slot.0) {
            user.connections += 1;
        }
        slot
    }

    /// Counts one connection less.
    pub fn handle_disconnect(&mut self, slot: UserSlot) {
        let Some(user) = self.users.find_mut(slot.0) else {
            return;
        };
        user.connections -= 1;
        if user.connections == 0 {
            debug_assert!(user.viewers.is_empty());
            if let Some(user) = self.users.remove(slot.0) {
                self.by_name.remove(slot.0, &user.name);
            }
        }
    }

    /// Counts a viewer against the user's tier.
    pub fn add_viewer(&mut self, slot: UserSlot, viewer: Key) {
        if let Some(user) = self.users.find_mut(slot.0) {
            if user.viewers.is_empty() {
                // Most users have one.
                user.viewers.reserve_exact(1);
            }
            user.viewers.push(viewer);
        }
    }

    /// The viewer no longer counts against the tier.
    pub fn remove_viewer(&mut self, slot: UserSlot, viewer: Key) {
        self.has_departures = true;
        if let Some(user) = self.users.find_mut(slot.0) {
            user.viewers.retain(|other| *other != viewer);
            if user.viewers.is_empty() {
                user.viewers = Vec::new();
            }
        }
    }

    /// Whether a viewer stopped counting since `take_departures`: there may be room for another.
    pub fn has_departures(&self) -> bool {
        self.has_departures
    }

    /// What departed so far is taken account of.
    pub fn take_departures(&mut self) {
        self.has_departures = false;
    }

    /// The user's viewers, oldest first.
    pub fn viewers(&self, name: &str) -> &[Key] {
        self.find(name)
            .and_then(|slot| self.users.find(slot.0))
            .map_or(&[], |user| &user.viewers)
    }

    /// The connection has bytes to write.
    pub fn mark_dirty(&mut self, slot: UserSlot, connection: Key) {
        let Some(user) = self.users.find_mut(slot.0) else {
            return;
        };
        if user.dirty.is_empty() {
            self.ring.push_back(slot);
        }
        user.dirty.push_back(connection);
    }

    /// The next connection to write to: round robin over users.
    pub fn poll_dirty(&mut self) -> Option<Key> {
        while let Some(slot) = self.ring.pop_front() {
            let Some(user) = self.users.find_mut(slot.0) else {
                continue;
            };
            let next = user.dirty.pop_front();
            if user.dirty.is_empty() {
                user.dirty.shrink_to(1);
            } else {
                self.ring.push_back(slot);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// Whether some connection has bytes to write.
    pub fn has_dirty(&self) -> bool {
        !self.ring.is_empty()
    }

    fn insert(&mut self, name: &CompactString) -> UserSlot {
        let user = User {
            name: name.clone(),
            connections: 0,
            viewers: Vec::new(),
            dirty: VecDeque::new(),
        };
        let key = self.users.insert(user);
        self.by_name.insert(key, |key| name_of(&self.users, key));
        UserSlot(key)
    }
}

fn name_of(users: &Keyed<User>, key: Key) -> Option<&str> {
    users.find(key).map(|user| user.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_many_connections_waits_its_turn() {
        let (mut users, mut keys) = (Users::new(1), Keyed::default());
        let hot = users.handle_connect(&"hot".into());
        let quiet = users.handle_connect(&"quiet".into());
        let hot_keys: Vec<Key> = (0..3).map(|_| keys.insert(())).collect();
        let quiet_key = keys.insert(());
        for key in &hot_keys {
            users.mark_dirty(hot, *key);
        }
        users.mark_dirty(quiet, quiet_key);
        let order: Vec<Key> = std::iter::from_fn(|| users.poll_dirty()).collect();
        assert_eq!(order, [hot_keys[0], quiet_key, hot_keys[1], hot_keys[2]]);
        assert!(!users.has_dirty());
    }

    #[test]
    fn a_user_without_connections_is_forgotten() {
        let mut users = Users::new(1);
        let slot = users.handle_connect(&"a".into());
        users.mark_dirty(slot, Keyed::default().insert(()));
        users.handle_disconnect(slot);
        assert_eq!(users.find("a"), None);
        assert_eq!(users.poll_dirty(), None);
    }
}
