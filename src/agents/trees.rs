//! The trees of a forest: their roots, what they come to, and which of them has been silent longest.

use std::collections::BTreeMap;

use slab::Slab;

use super::NodeId;
use super::stats::RollUp;

/// Names a tree as long as there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TreeId(u32);

/// One tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: NodeId,
    pub(super) sums: RollUp,
    /// When its last event arrived, in milliseconds since the Unix epoch.
    pub(super) last_ms: i64,
    /// Whether nobody was told of it yet.
    pub(super) is_new: bool,
    // Its place in the order of last events.
    noted: u64,
}

/// All trees of one user. A tree begins without nodes.
#[derive(Debug, Default)]
pub(super) struct Trees {
    trees: Slab<Tree>,
    // Counts events as trees note them. Of any two trees it tells which one was touched later, also
    // where one event touched both.
    notes: u64,
    // By `noted`: all of them, and those without an active node.
    by_silence: BTreeMap<u64, TreeId>,
    finished: BTreeMap<u64, TreeId>,
}

impl Trees {
    /// Begins a tree of `root`, which has yet to be added to its sums.
    pub(super) fn begin(&mut self, root: NodeId, received_ms: i64) -> TreeId {
        self.notes += 1;
        let tree = self.trees.insert(Tree {
            root,
            sums: RollUp::default(),
            last_ms: received_ms,
            is_new: true,
            noted: self.notes,
        });
        let tree =
            TreeId(u32::try_from(tree).expect("a tree has a node, and nodes are counted by u32"));
        self.by_silence.insert(self.notes, tree);
        tree
    }

    /// Ends a tree without nodes.
    pub(super) fn end(&mut self, tree: TreeId) -> Tree {
        let tree = self.trees.remove(tree.0 as usize);
        self.by_silence.remove(&tree.noted);
        self.finished.remove(&tree.noted);
        tree
    }

    /// An event that arrived at `received_ms` has touched a tree.
    pub(super) fn note(&mut self, id: TreeId, received_ms: i64) {
        let tree = &mut self.trees[id.0 as usize];
        tree.last_ms = received_ms;
        self.finished.remove(&tree.noted);
        // The one touched last stays in its place: an agent that talks moves nothing.
        if tree.noted != self.notes {
            self.notes += 1;
            self.by_silence.remove(&tree.noted);
            tree.noted = self.notes;
            self.by_silence.insert(tree.noted, id);
        }
        if tree.sums.is_finished() {
            self.finished.insert(tree.noted, id);
        }
    }

    pub(super) fn get(&self, tree: TreeId) -> &Tree {
        &self.trees[tree.0 as usize]
    }

    pub(super) fn get_mut(&mut self, tree: TreeId) -> &mut Tree {
        &mut self.trees[tree.0 as usize]
    }

    /// All, the one that has been silent longest first.
    pub(super) fn by_silence(&self) -> impl Iterator<Item = TreeId> {
        self.by_silence.values().copied()
    }

    /// The finished one that has been silent longest.
    pub(super) fn longest_finished(&self) -> Option<TreeId> {
        self.finished.values().next().copied()
    }

    /// How many are finished.
    pub(super) fn finished_count(&self) -> usize {
        self.finished.len()
    }

    /// Bytes of memory that they take beside their own place.
    pub(super) fn heap_bytes(&self) -> usize {
        let sums: usize = self
            .trees
            .iter()
            .map(|(_, tree)| tree.sums.heap_bytes())
            .sum();
        let places = self.by_silence.len() + self.finished.len();
        self.trees.capacity() * size_of::<Tree>() + sums + places * PLACE_BYTES
    }
}

/// An entry of a B-tree that is, as most are, a good half full; with its share of the inner nodes.
const PLACE_BYTES: usize = 2 * size_of::<(u64, TreeId)>();
