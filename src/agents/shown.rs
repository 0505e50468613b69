//! A tree as its viewers are shown it: one for all of them, whatever they ask for.
//!
//! Owns what is shown (`cut`), the versions of it and the way between them (`patch`), and the `data` of
//! every message about trees. A patched tree always equals the whole one of the same version. Lacks
//! viewers, and when to send them what: the caller takes the forest's changes, applies them here, and
//! asks for an update for whoever is due. An event costs what it changes, not what the tree holds.
//! Source: contract section 8.

use std::collections::VecDeque;

use compact_str::CompactString;

use super::changes::{GoneRoot, NodeChange, TreeChanges};
use super::cut::{Children, Cut};
use super::patch::{self, Log, Version};
use super::render::{self, FieldSet, NODE_BYTES_MIN, NodeText, Text};
use super::{Forest, NodeId, TreeStats};
use crate::event::json::{self, Object};
use crate::event::{Dialect, Seq};
use crate::limits::{
    TREE_BYTES_MAX, TREE_DEPTH_SHOWN_MAX, TREE_LOG_BYTES_MIN, TREE_UPDATED_BYTES_MAX,
};

/// One tree as it is shown.
#[derive(Debug)]
pub struct Shown {
    root: NodeId,
    session: CompactString,
    cut: Cut,
    /// What `cut` may take.
    bytes_max: usize,
    log: Log,
    touched: Touched,
    at_seq: Seq,
    stats: TreeStats,
}

/// What a viewer was sent last of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    /// The state that it was.
    pub version: Version,
    /// The `at_seq` that it was told with it.
    pub at_seq: Seq,
}

/// What goes into an update. Of one [`Shown`] at one version equal ones give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Update {
    /// How times are written.
    pub dialect: Dialect,
    /// The tree, or the way to it.
    pub content: Content,
    /// A seq of the user's stream, at least [`Shown::at_seq`]: the message follows every event up to it.
    pub at_seq: Seq,
}

/// The part of an update that says how the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// `full_tree`.
    FullTree {
        /// After which version `updated_nodes` begins; `None`: only the last one is named.
        since: Option<Version>,
    },
    /// `base_seq` and `patch`, against what was sent last.
    Patch {
        /// That.
        base: Sent,
    },
}

impl Shown {
    /// The tree of `root` as it is now; `at_seq` is the last event that the forest has taken in.
    /// `None`: there is no such tree. Changes of before may still be applied, to no effect but that the
    /// nodes are named as updated.
    pub fn new(forest: &Forest, root: NodeId, at_seq: Seq) -> Option<Self> {
        Self::within(TREE_BYTES_MAX, forest, root, at_seq)
    }

    fn within(bytes_max: usize, forest: &Forest, root: NodeId, at_seq: Seq) -> Option<Self> {
        let mut shown = Self {
            root,
            session: forest.node(root)?.session().into(),
            cut: first_cut(forest, root, bytes_max),
            bytes_max,
            log: Log::default(),
            touched: Touched::default(),
            at_seq,
            stats: forest.stats(root),
        };
        shown.touched.push(forest, root, shown.log.version());
        Some(shown)
    }

    /// Takes in what events did to the tree, up to the one numbered `at_seq`, as a new version.
    /// `changes` are all that were not applied yet, and `forest` is as it was when they were taken.
    pub fn apply(&mut self, forest: &Forest, changes: &TreeChanges, at_seq: Seq) {
        debug_assert_eq!(changes.root, self.root);
        self.log.begin();
        self.follow(forest, &changes.nodes);
        self.log.trim(self.cut.bytes() + TREE_LOG_BYTES_MIN);
        self.at_seq = at_seq;
        self.stats = forest.stats(self.root);
        for change in &changes.nodes {
            self.touched.push(forest, change.node, self.version());
        }
    }

    /// Its root.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The state that is shown.
    pub fn version(&self) -> Version {
        self.log.version()
    }

    /// The last event that touched the tree, as far as it was told.
    pub fn at_seq(&self) -> Seq {
        self.at_seq
    }

    /// Bytes that it takes as JSON at most, in either dialect.
    pub fn bytes_max(&self) -> usize {
        self.cut.bytes()
    }

    /// Bytes of memory that it takes beside its own place.
    pub fn heap_bytes(&self) -> usize {
        self.cut.heap_bytes() + self.log.heap_bytes() + self.touched.heap_bytes()
    }

    /// Appends the `data` of an `agent_tree_update`. A patch is never longer than the tree: past that,
    /// or where `base` is too long ago, it replaces the whole.
    pub fn encode_update(&self, update: &Update, out: &mut Vec<u8>) {
        debug_assert!(
            update.at_seq >= self.at_seq,
            "the tree is not further than its message"
        );
        let since = match update.content {
            Content::FullTree { since } => since,
            Content::Patch { base } => Some(base.version),
        };
        let mut data = Object::open(out);
        data.string("tree_root", &self.session);
        self.touched.push_members(since, &mut data);
        data.integer("at_seq", update.at_seq.0);
        render::push_stats(&self.stats, data.member("tree_stats"));
        match update.content {
            Content::FullTree { .. } => {
                self.tree().encode(update.dialect, data.member("full_tree"));
            }
            Content::Patch { base } => {
                data.integer("base_seq", base.at_seq.0);
                let patch = self.patch(base.version);
                patch.encode(update.dialect, data.member("patch"));
            }
        }
        data.close();
    }

    fn patch(&self, base: Version) -> Text {
        let patch = self.log.patch(base, &self.cut);
        let patch = patch.filter(|patch| patch.bytes_max() <= self.cut.bytes());
        patch.unwrap_or_else(|| patch::replacement(&self.tree()))
    }

    fn tree(&self) -> Text {
        let mut text = Text::default();
        self.cut.push(self.root, &mut text);
        text
    }

    /// Makes of what is shown what `forest` has, where it changed. Children leave their old places
    /// before they come to new ones: a node is shown once.
    fn follow(&mut self, forest: &Forest, changes: &[NodeChange]) {
        let reshaped = changes.iter().filter(|change| change.is_reshaped);
        for change in reshaped.clone() {
            self.let_children_go(forest, change.node);
        }
        for change in reshaped {
            self.follow_children(forest, change.node);
        }
        for change in changes {
            self.follow_fields(forest, change);
        }
        if self.cut.bytes() > self.bytes_max {
            self.cut_back();
        }
    }

    fn let_children_go(&mut self, forest: &Forest, parent: NodeId) {
        let Some(children) = self.cut.listed(parent) else {
            return;
        };
        let gone: Vec<usize> = (0..children.len())
            .filter(|&place| forest.parent(children[place]) != Some(parent))
            .collect();
        for &place in gone.iter().rev() {
            self.take_child(parent, place);
        }
    }

    fn follow_children(&mut self, forest: &Forest, parent: NodeId) {
        let children = forest.children(parent);
        match self.cut.node(parent).map(|node| &node.children) {
            Some(Children::Listed(listed)) => {
                if listed.is_empty() && !children.is_empty() && !self.has_depth_below(parent)
                    || children.len() * NODE_BYTES_MIN > self.bytes_max
                {
                    self.close(parent, children.len());
                } else {
                    self.align_children(forest, parent);
                }
            }
            Some(&Children::Omitted(count)) if count > children.len() => {
                self.omit_fewer(forest, parent);
            }
            Some(&Children::Omitted(count)) if count < children.len() => {
                self.omit(parent, children.len());
            }
            Some(Children::Omitted(_)) | None => {}
        }
    }

    fn has_depth_below(&self, id: NodeId) -> bool {
        self.cut.depth(id) < TREE_DEPTH_SHOWN_MAX
    }

    /// Puts the children that are there into the places of the list that is shown.
    fn align_children(&mut self, forest: &Forest, parent: NodeId) {
        for (place, &child) in forest.children(parent).iter().enumerate() {
            let listed = self.cut.listed(parent).unwrap_or_default();
            if listed.get(place) == Some(&child) {
                continue;
            }
            if listed.get(place + 1) == Some(&child) {
                // What is here belongs further back, and comes there as a new one.
                self.take_child(parent, place);
                continue;
            }
            if self.cut.node(child).is_some()
                && let Some(later) = listed.iter().position(|&id| id == child)
            {
                self.take_child(parent, later);
            }
            self.put_child(forest, parent, place, child);
        }
        debug_assert_eq!(self.cut.listed(parent), Some(forest.children(parent)));
    }

    fn take_child(&mut self, parent: NodeId, place: usize) {
        let path = self.cut.path(parent);
        self.cut.take_child(parent, place);
        self.log.remove(format!("{path}/children/{place}"));
    }

    fn put_child(&mut self, forest: &Forest, parent: NodeId, place: usize, child: NodeId) {
        let path = self.cut.path(parent);
        self.cut
            .put_child(forest, parent, place, child, self.version());
        self.cut
            .reveal(forest, &[child], self.version(), self.bytes_max);
        let mut value = Text::default();
        self.cut.push(child, &mut value);
        self.log.add(format!("{path}/children/{place}"), value);
    }

    /// Fewer children may be few enough to be shown.
    fn omit_fewer(&mut self, forest: &Forest, id: NodeId) {
        self.cut
            .reveal(forest, &[id], self.version(), with_slack(self.bytes_max));
        let path = self.cut.path(id);
        let Some(value) = self.cut.list_text(id) else {
            return self.omit(id, forest.children(id).len());
        };
        self.log.remove(format!("{path}/children_omitted"));
        self.log.add(format!("{path}/children"), value);
    }

    fn omit(&mut self, id: NodeId, count: usize) {
        self.cut.omit_children(id, count);
        self.log.change(id, FieldSet::OMITTED);
    }

    /// Shows a node's children no longer.
    fn close(&mut self, id: NodeId, count: usize) {
        let path = self.cut.path(id);
        self.cut.omit_children(id, count);
        let mut value = Text::default();
        json::push_integer(count, value.bytes());
        self.log.remove(format!("{path}/children"));
        self.log.add(format!("{path}/children_omitted"), value);
    }

    fn follow_fields(&mut self, forest: &Forest, change: &NodeChange) {
        if !change.is_changed {
            return;
        }
        let node = self.cut.node(change.node);
        let Some(node) = node.filter(|node| node.since < self.version()) else {
            return;
        };
        let Some(text) = NodeText::new(forest, change.node) else {
            return;
        };
        let changed = text.changes_since(&node.text);
        if !changed.is_empty() {
            self.cut.rewrite(change.node, text);
            self.log.change(change.node, changed);
        }
    }

    /// Cuts a tree that has outgrown the bound, with some slack, so that this is rare.
    fn cut_back(&mut self) {
        for (id, count) in self.cut.surplus(self.root, with_slack(self.bytes_max)) {
            self.close(id, count);
        }
    }
}

/// The whole tree where it is within the bound, else some of it, with slack to grow in.
fn first_cut(forest: &Forest, root: NodeId, bytes_max: usize) -> Cut {
    let (cut, is_complete) = Cut::of(forest, &[root], bytes_max);
    if is_complete {
        return cut;
    }
    Cut::of(forest, &[root], with_slack(bytes_max)).0
}

/// Bytes to which a tree is cut that has outgrown `bytes_max`: a cut changes what viewers see, so that
/// it should last.
fn with_slack(bytes_max: usize) -> usize {
    bytes_max / 4 * 3
}

/// Which nodes were touched last, the latest at the end.
#[derive(Debug, Default)]
struct Touched {
    nodes: VecDeque<TouchedNode>,
    /// What all sessions take.
    bytes: usize,
}

#[derive(Debug)]
struct TouchedNode {
    id: NodeId,
    /// Its session as a JSON string.
    session: Box<[u8]>,
    version: Version,
}

impl Touched {
    /// Takes in the node touched last, and lets go of the oldest while all take too much.
    fn push(&mut self, forest: &Forest, id: NodeId, version: Version) {
        let Some(node) = forest.node(id) else {
            return;
        };
        if let Some(place) = self.nodes.iter().position(|node| node.id == id) {
            self.take(place);
        }
        let mut session = Vec::new();
        json::push_string(node.session(), &mut session);
        self.bytes += session.len();
        self.nodes.push_back(TouchedNode {
            id,
            session: session.into(),
            version,
        });
        while self.bytes > TREE_UPDATED_BYTES_MAX {
            self.take(0);
        }
    }

    fn take(&mut self, place: usize) {
        if let Some(node) = self.nodes.remove(place) {
            self.bytes -= node.session.len();
        }
    }

    fn heap_bytes(&self) -> usize {
        self.bytes + self.nodes.capacity() * size_of::<TouchedNode>()
    }

    /// Appends `updated_node` and `updated_nodes`: those touched after `since`, but always the last.
    fn push_members(&self, since: Option<Version>, data: &mut Object<'_>) {
        let last = self.nodes.len().saturating_sub(1);
        let first = match since {
            Some(since) => self.nodes.partition_point(|node| node.version <= since),
            None => last,
        };
        let named = || {
            self.nodes
                .range(first.min(last)..)
                .map(|node| &*node.session)
        };
        let push = |session: &[u8], out: &mut Vec<u8>| out.extend_from_slice(session);
        if let Some(session) = named().next_back() {
            push(session, data.member("updated_node"));
        }
        json::push_array(named(), data.member("updated_nodes"), push);
    }
}

/// Appends the `data` of the `agent_tree_update` that tells that a root is none any more.
pub fn encode_removed(gone: &GoneRoot, at_seq: Seq, out: &mut Vec<u8>) {
    let mut data = Object::open(out);
    data.string("tree_root", &gone.session);
    data.integer("at_seq", at_seq.0);
    data.member("removed").extend_from_slice(b"true");
    if let Some(moved_to) = &gone.moved_to {
        data.string("moved_to", moved_to);
    }
    data.close();
}

/// Appends an array of the trees below `tops`, none of which is below another, as they are now;
/// together they are cut like one tree.
/// Returns how many of `tops` are in it; for the rest, even without children, there was no room.
pub fn encode_trees(
    forest: &Forest,
    tops: &[NodeId],
    dialect: Dialect,
    out: &mut Vec<u8>,
) -> usize {
    let (cut, _) = Cut::of(forest, tops, TREE_BYTES_MAX);
    let shown = tops.iter().take_while(|&&top| cut.node(top).is_some());
    let count = shown.clone().count();
    json::push_array(shown, out, |&top, out| {
        let mut text = Text::default();
        cut.push(top, &mut text);
        text.encode(dialect, out);
    });
    count
}

/// Appends an array of the sessions of `nodes`, of as many as are within the bound of a tree.
pub fn encode_sessions(forest: &Forest, nodes: &[NodeId], out: &mut Vec<u8>) {
    let bytes_max = out.len() + TREE_BYTES_MAX;
    out.push(b'[');
    for (place, node) in nodes.iter().filter_map(|id| forest.node(*id)).enumerate() {
        let before = out.len();
        if place > 0 {
            out.push(b',');
        }
        json::push_string(node.session(), out);
        if out.len() >= bytes_max {
            out.truncate(before);
            break;
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
