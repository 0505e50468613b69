//! The trees of one user that viewers are shown, and those that they will be. To make one costs what
//! it holds, so that a viewer that begins with many waits some turns for them.

use std::collections::{BTreeMap, BTreeSet};

use compact_str::CompactString;

use crate::agents::{Forest, Node, Shown, TreeChanges};
use crate::event::Seq;

/// Trees by the session of their root. Each is shown or awaited, never both.
#[derive(Debug, Default)]
pub(super) struct Showing {
    shown: BTreeMap<CompactString, Shown>,
    awaited: BTreeSet<CompactString>,
}

impl Showing {
    /// The tree of this root, where it is shown.
    pub fn find(&self, root: &str) -> Option<&Shown> {
        self.shown.get(root)
    }

    /// Whether no tree is awaited.
    pub fn is_complete(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Whether nothing is shown or awaited.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.awaited.is_empty()
    }

    /// A tree is to be shown.
    pub fn expect(&mut self, root: &CompactString) {
        if !self.shown.contains_key(root) {
            self.awaited.insert(root.clone());
        }
    }

    /// One that is awaited, for `show`.
    pub fn poll_awaited(&mut self) -> Option<CompactString> {
        self.awaited.pop_first()
    }

    /// A tree is shown from now on, as it is now. `at_seq`: the last event that the forest has taken in.
    /// Returns the bytes of what was made; 0 where there is no such tree, or it is shown already.
    pub fn show(&mut self, forest: &Forest, root: &str, at_seq: Seq) -> usize {
        if self.shown.contains_key(root) {
            return 0;
        }
        let node = forest.find(root);
        let Some(tree) = node.and_then(|node| Shown::new(forest, node, at_seq)) else {
            return 0;
        };
        let bytes = tree.bytes_max();
        self.shown.insert(root.into(), tree);
        bytes
    }

    /// The same, but one that is awaited stays so.
    pub fn show_unless_awaited(&mut self, forest: &Forest, root: &str, at_seq: Seq) {
        if !self.awaited.contains(root) {
            self.show(forest, root, at_seq);
        }
    }

    /// Takes in what events did to a tree, up to the one numbered `at_seq`.
    pub fn apply(&mut self, forest: &Forest, changes: &TreeChanges, at_seq: Seq) {
        let session = forest.node(changes.root).map(Node::session);
        if let Some(shown) = session.and_then(|session| self.shown.get_mut(session)) {
            shown.apply(forest, changes, at_seq);
        }
    }

    /// A tree is gone.
    pub fn remove(&mut self, root: &str) {
        self.shown.remove(root);
        self.awaited.remove(root);
    }

    /// Keeps those that somebody sees.
    pub fn retain(&mut self, is_seen: impl Fn(&str) -> bool) {
        self.shown.retain(|root, _| is_seen(root));
        self.awaited.retain(|root| is_seen(root));
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
