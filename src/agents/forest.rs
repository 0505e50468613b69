//! One user's agents as trees: where each one stands, and what became of it.
//!
//! What an event of which type changes is in `apply`; here are the nodes and the links between them.
//! A link follows the claim that counts (`claims`). A node knows its tree and its depth, so that an
//! event costs the same in a tree of any size; a node that moves takes all below it along. Nothing
//! recurses: trees are as deep as their producers make them.

use std::collections::BTreeSet;

use compact_str::CompactString;
use hashbrown::HashTable;
use slab::Slab;

use super::TreeStats;
use super::claims::Claims;
use super::node::Node;
use super::stats::Share;
use super::trees::{TreeId, Trees};

/// Names one node for as long as it is in its forest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    pub(super) index: u32,
    generation: u32,
}

/// How much of a user's agents is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Nodes of all trees; at least 1.
    pub nodes_max: usize,
    /// Trees without an active node.
    pub finished_trees_max: usize,
    /// Milliseconds for which such a tree is kept after its last event.
    pub finished_max_ms: i64,
}

/// One user's trees of agents.
#[derive(Debug)]
pub struct Forest {
    pub(super) bounds: Bounds,
    first_phase: CompactString,
    pub(super) seats: Slab<Box<Seat>>,
    // Indices of seats, by session.
    by_session: HashTable<u32>,
    hasher: ahash::RandomState,
    generation: u32,
    pub(super) claims: Claims,
    pub(super) trees: Trees,
    /// When the last event arrived, in milliseconds since the Unix epoch. Never falls.
    pub(super) received_ms: i64,
    /// What the present event named or touched. Kept for its memory.
    pub(super) named: Vec<NodeId>,
    // What was touched since changes were taken, in no order; how often nodes were.
    pub(super) touched: Vec<NodeId>,
    touches: u64,
    /// Roots that went since then, of trees that somebody was told of.
    pub(super) gone: Vec<(CompactString, NodeId)>,
}

/// A node and its place in the forest.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) id: NodeId,
    pub(super) node: Node,
    parent: Option<NodeId>,
    /// When it was spawned by that parent, in milliseconds since the Unix epoch.
    placed_ms: i64,
    /// By `placed_ms`, then by session.
    pub(super) children: Vec<NodeId>,
    pub(super) tree: TreeId,
    depth: u32,
    /// When it was touched last, since changes were taken; 0: not since then.
    pub(super) touched: u64,
    /// Whether something that is shown of itself has changed since then, or its children are others.
    pub(super) is_changed: bool,
    pub(super) is_reshaped: bool,
}

impl Forest {
    /// Without agents. `first_phase` is that of an agent that has not said in which one it is; `seed`
    /// is secret, so that nobody can choose sessions that crowd the index.
    pub fn new(bounds: Bounds, first_phase: &str, seed: u64) -> Self {
        Self {
            bounds,
            first_phase: first_phase.into(),
            seats: Slab::new(),
            by_session: HashTable::new(),
            hasher: ahash::RandomState::with_seeds(seed, 41, 43, 47),
            generation: 0,
            claims: Claims::default(),
            trees: Trees::default(),
            received_ms: i64::MIN,
            named: Vec::new(),
            touched: Vec::new(),
            touches: 0,
            gone: Vec::new(),
        }
    }

    /// Lets go of finished trees that are too old at `now_ms`. Returns how many. Every event does so
    /// first, with its time of arrival: so a fold of the log comes to the same.
    pub fn evict(&mut self, now_ms: i64) -> u32 {
        let mut evicted = 0;
        while let Some(tree) = self.trees.longest_finished() {
            let silent_ms = now_ms.saturating_sub(self.trees.get(tree).last_ms);
            if silent_ms <= self.bounds.finished_max_ms {
                break;
            }
            self.evict_tree(tree);
            evicted += 1;
        }
        evicted
    }

    /// When the next finished tree is too old, in milliseconds since the Unix epoch.
    pub fn next_eviction_ms(&self) -> Option<i64> {
        let last_ms = self.trees.get(self.trees.longest_finished()?).last_ms;
        let kept_ms = last_ms.saturating_add(self.bounds.finished_max_ms);
        Some(kept_ms.saturating_add(1))
    }

    /// The node of `session`.
    pub fn find(&self, session: &str) -> Option<NodeId> {
        let hash = self.hasher.hash_one(session);
        let is_it = |index: &u32| self.seats[*index as usize].node.session() == session;
        let index = self.by_session.find(hash, is_it)?;
        Some(self.seats[*index as usize].id)
    }

    /// The node; `None` once it is gone.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        Some(&self.seat(id)?.node)
    }

    /// Its parent; `None`: it is a root, or gone.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.seat(id)?.parent
    }

    /// Its children by the time of their spawn, then by session; none once it is gone.
    pub fn children(&self, id: NodeId) -> &[NodeId] {
        self.seat(id).map_or(&[], |seat| &seat.children)
    }

    /// Steps from its root to it; 0 once it is gone.
    pub fn depth(&self, id: NodeId) -> u32 {
        self.seat(id).map_or(0, |seat| seat.depth)
    }

    /// `current_phase`: what it says, else the first one of all.
    pub fn current_phase(&self, id: NodeId) -> &str {
        let said = self.node(id).and_then(Node::phase);
        said.unwrap_or(&self.first_phase)
    }

    /// `purpose`: what its spawn says; else `root` for a root, and nothing for others.
    pub fn purpose(&self, id: NodeId) -> &str {
        let said = self.node(id).and_then(Node::purpose);
        said.unwrap_or(if self.parent(id).is_none() {
            "root"
        } else {
            ""
        })
    }

    /// The roots of all trees, the one that has been silent longest first.
    pub fn roots(&self) -> impl Iterator<Item = NodeId> {
        self.trees
            .by_silence()
            .map(|tree| self.trees.get(tree).root)
    }

    /// The root of its tree; `None` once it is gone. Costs the same at any depth.
    pub fn root_of(&self, id: NodeId) -> Option<NodeId> {
        Some(self.trees.get(self.seat(id)?.tree).root)
    }

    /// The roll-up of the tree that it is in; all 0 once it is gone.
    pub fn stats(&self, id: NodeId) -> TreeStats {
        let tree = self.seat(id).map(|seat| self.trees.get(seat.tree));
        tree.map(|tree| tree.sums.stats()).unwrap_or_default()
    }

    /// The nodes from the root to it, both included; empty once it is gone.
    pub fn path(&self, id: NodeId) -> Vec<NodeId> {
        let start = self.seat(id).map(|seat| seat.id);
        let mut path = Vec::from_iter(std::iter::successors(start, |id| self.parent(*id)));
        path.reverse();
        path
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Bytes of memory that it takes beside its own place. Looks at every node.
    pub fn heap_bytes(&self) -> usize {
        let ids = size_of::<NodeId>();
        let seats = self.seats.iter().map(|(_, seat)| {
            size_of::<Seat>() + seat.node.heap_bytes() + seat.children.capacity() * ids
        });
        seats.sum::<usize>()
            + self.seats.capacity() * size_of::<(usize, Box<Seat>)>()
            + self.by_session.allocation_size()
            + (self.named.capacity() + self.touched.capacity()) * ids
            + self.gone.capacity() * size_of::<(CompactString, NodeId)>()
            + self.claims.heap_bytes()
            + self.trees.heap_bytes()
    }

    pub(super) fn tree_of(&self, id: NodeId) -> Option<TreeId> {
        Some(self.seat(id)?.tree)
    }

    pub(super) fn seat(&self, id: NodeId) -> Option<&Seat> {
        let seat = self.seats.get(id.index as usize)?;
        (seat.id == id).then_some(seat)
    }

    /// Makes the node of `session`, which has none, as a tree of its own.
    pub(super) fn insert(&mut self, node: Node) -> NodeId {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.seats.vacant_entry();
        let id = NodeId {
            index: u32::try_from(entry.key()).expect("fewer than 2^32 nodes fit into memory"),
            generation: self.generation,
        };
        let tree = self.trees.begin(id, self.received_ms);
        self.trees.get_mut(tree).sums.add(node.share(), 0);
        let hash = self.hasher.hash_one(node.session());
        entry.insert(Box::new(Seat {
            id,
            node,
            parent: None,
            placed_ms: 0,
            children: Vec::new(),
            tree,
            depth: 0,
            touched: 0,
            is_changed: false,
            is_reshaped: false,
        }));
        let seats = &self.seats;
        let hash_of = |index: &u32| self.hasher.hash_one(seats[*index as usize].node.session());
        self.by_session.insert_unique(hash, id.index, hash_of);
        id
    }

    /// Lets an event `change` a node, and its tree's sums with it. `change` returns whether something
    /// that is shown has changed.
    pub(super) fn update(&mut self, id: NodeId, change: impl FnOnce(&mut Node) -> bool) {
        let seat = &mut self.seats[id.index as usize];
        let before = seat.node.share();
        let is_changed = change(&mut seat.node);
        let sums = &mut self.trees.get_mut(seat.tree).sums;
        sums.replace(before, seat.node.share());
        self.touch(id, is_changed);
    }

    /// An event touches a node: something that is shown of it may have changed.
    pub(super) fn touch(&mut self, id: NodeId, is_changed: bool) {
        self.touches += 1;
        let seat = &mut self.seats[id.index as usize];
        let was_touched = seat.touched > 0;
        seat.is_changed |= is_changed;
        seat.touched = self.touches;
        self.named.push(id);
        if was_touched {
            return;
        }
        // Where nobody takes the changes, those of nodes that went would pile up.
        if self.touched.len() > 2 * self.seats.len() {
            let seats = &self.seats;
            let is_there = |id: &NodeId| {
                seats
                    .get(id.index as usize)
                    .is_some_and(|seat| seat.id == *id)
            };
            self.touched.retain(is_there);
        }
        self.touched.push(id);
    }

    /// The children of a node are others, or in another order.
    fn reshape(&mut self, id: NodeId) {
        self.touch(id, false);
        self.seats[id.index as usize].is_reshaped = true;
    }

    /// Brings `nodes` to where their claims say that they belong.
    pub(super) fn relink(&mut self, mut nodes: Vec<u32>) {
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|node| self.claims.parent(*node) != self.placed(*node));
        nodes.retain(|node| {
            self.unlink(*node);
            self.link(*node)
        });
        // What is below two of them moves once, with the upper one.
        for node in &nodes {
            if !self.is_below(*node, &nodes) {
                self.relabel(*node);
            }
        }
    }

    /// Lets go of a tree, with all that is known of its nodes.
    pub(super) fn evict_tree(&mut self, tree: TreeId) {
        let tree = self.trees.end(tree);
        let mut nodes = BTreeSet::new();
        let mut left = vec![tree.root];
        let session = self.seats[tree.root.index as usize].node.session().into();
        while let Some(id) = left.pop() {
            let seat = self.seats.remove(id.index as usize);
            let hash = self.hasher.hash_one(seat.node.session());
            if let Ok(entry) = self.by_session.find_entry(hash, |index| *index == id.index) {
                entry.remove();
            }
            left.extend_from_slice(&seat.children);
            nodes.insert(id.index);
        }
        self.claims.forget(&nodes);
        if !tree.is_new {
            self.gone.push((session, tree.root));
        }
    }

    /// Where a node stands, as `Claims::parent` says where it belongs.
    fn placed(&self, node: u32) -> Option<(u32, i64)> {
        let seat = &self.seats[node as usize];
        seat.parent.map(|parent| (parent.index, seat.placed_ms))
    }

    /// Takes a node from among its parent's children. It remembers its parent.
    fn unlink(&mut self, node: u32) {
        let seat = &self.seats[node as usize];
        let Some(parent) = seat.parent else {
            return;
        };
        if let Ok(place) = self.place_among(parent.index, node) {
            self.seats[parent.index as usize].children.remove(place);
        }
        self.reshape(parent);
    }

    /// Puts a node among the children of the parent that it belongs to. Returns whether that is
    /// another one than before.
    fn link(&mut self, node: u32) -> bool {
        let claimed = self.claims.parent(node);
        let parent = claimed.map(|(parent, _)| self.seats[parent as usize].id);
        let seat = &mut self.seats[node as usize];
        let (id, is_moved) = (seat.id, seat.parent != parent);
        seat.parent = parent;
        seat.placed_ms = claimed.map_or(0, |(_, timestamp_ms)| timestamp_ms);
        self.touch(id, is_moved);
        if let Some(parent) = parent {
            let (Ok(place) | Err(place)) = self.place_among(parent.index, node);
            self.seats[parent.index as usize].children.insert(place, id);
            self.reshape(parent);
        }
        is_moved
    }

    /// Where a node is among the children of `parent`, or where it would be.
    fn place_among(&self, parent: u32, node: u32) -> Result<usize, usize> {
        let key = |node: u32| {
            let seat = &self.seats[node as usize];
            (seat.placed_ms, seat.node.session())
        };
        let children = &self.seats[parent as usize].children;
        children.binary_search_by(|child| key(child.index).cmp(&key(node)))
    }

    /// Whether one of `nodes`, which are sorted, is above `node`.
    fn is_below(&self, node: u32, nodes: &[u32]) -> bool {
        let parent = |id: &NodeId| self.seats[id.index as usize].parent;
        let above = std::iter::successors(self.seats[node as usize].parent, parent);
        // Alone it cannot be below itself, and need not look.
        nodes.len() > 1
            && above
                .into_iter()
                .any(|id| nodes.binary_search(&id.index).is_ok())
    }

    /// Tells a node that has moved, and all below it, their tree and depth. Their former trees end
    /// where nothing is left of them.
    fn relabel(&mut self, node: u32) {
        let Seat { id, parent, .. } = *self.seats[node as usize];
        let above = parent.map(|parent| &self.seats[parent.index as usize]);
        let (tree, depth) = match above {
            Some(above) => (above.tree, above.depth + 1),
            None => (self.trees.begin(id, self.received_ms), 0),
        };
        let mut left = vec![(id, depth)];
        while let Some((id, depth)) = left.pop() {
            let seat = &mut self.seats[id.index as usize];
            let (tree_before, depth_before) = (seat.tree, seat.depth);
            (seat.tree, seat.depth) = (tree, depth);
            left.extend(seat.children.iter().map(|child| (*child, depth + 1)));
            let share = seat.node.share();
            self.trees.get_mut(tree).sums.add(share, depth);
            self.leave(tree_before, share, depth_before);
        }
    }

    /// Takes a node's share from the tree that it was in.
    fn leave(&mut self, tree: TreeId, share: Share, depth: u32) {
        let sums = &mut self.trees.get_mut(tree).sums;
        sums.remove(share, depth);
        if sums.total() > 0 {
            return;
        }
        let tree = self.trees.end(tree);
        if !tree.is_new {
            let root = &self.seats[tree.root.index as usize];
            self.gone.push((root.node.session().into(), tree.root));
        }
    }
}
