//! A tree cut to what one message may hold: which nodes of it are there, and which of those show
//! their children.
//!
//! Owns a text for each of its nodes, so that the whole can be written at any time without a look at
//! the forest, which may be further by then. Either all children of a node are listed or none are.
//! Nodes are taken breadth first, while bytes and depth allow; nothing recurses, and the work is
//! bounded by the bytes, not by the tree. Source: contract section 8.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::{mem, slice};

use super::patch::Version;
use super::render::{NODE_BYTES_MIN, NodeText, Text};
use super::{Forest, NodeId};
use crate::event::json;
use crate::limits::TREE_DEPTH_SHOWN_MAX;

/// Nodes of one tree, or of several, with their texts.
#[derive(Clone, Debug, Default)]
pub(super) struct Cut {
    nodes: BTreeMap<NodeId, ShownNode>,
    /// What all texts take in the dialect that takes more; an upper bound of the JSON's length.
    bytes: usize,
}

#[derive(Clone, Debug)]
pub(super) struct ShownNode {
    /// Its parent here; `None`: a tree's topmost node.
    pub(super) parent: Option<NodeId>,
    pub(super) children: Children,
    pub(super) text: NodeText,
    /// The version in which it came to be here.
    pub(super) since: Version,
}

/// A node's children, as they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Children {
    /// All of them, in their order; each is a node of the same cut.
    Listed(Vec<NodeId>),
    /// Their number.
    Omitted(usize),
}

impl Cut {
    /// The nodes of `tops` and what is below them, breadth first, while all is within `bytes_max`; and
    /// whether that was all. The first node is there whatever it takes.
    pub(super) fn of(forest: &Forest, tops: &[NodeId], bytes_max: usize) -> (Self, bool) {
        let mut cut = Self::default();
        for (count, &top) in tops.iter().enumerate() {
            let Some(text) = NodeText::new(forest, top) else {
                continue;
            };
            if count > 0 && cut.bytes + text.bytes_max() > bytes_max {
                return (cut, false);
            }
            cut.insert(forest, top, None, text, Version::default());
        }
        let is_complete = cut.reveal(forest, tops, Version::default(), bytes_max);
        (cut, is_complete)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn node(&self, id: NodeId) -> Option<&ShownNode> {
        self.nodes.get(&id)
    }

    /// The children that a node shows; `None`: it shows none, or is not here.
    pub(super) fn listed(&self, id: NodeId) -> Option<&[NodeId]> {
        match &self.nodes.get(&id)?.children {
            Children::Listed(children) => Some(children),
            Children::Omitted(_) => None,
        }
    }

    /// Shows what is below `tops`, breadth first, while all stays within `bytes_max`.
    /// Returns whether nothing was left out for want of bytes.
    pub(super) fn reveal(
        &mut self,
        forest: &Forest,
        tops: &[NodeId],
        since: Version,
        bytes_max: usize,
    ) -> bool {
        let mut is_complete = true;
        let mut queue: VecDeque<(NodeId, usize)> =
            tops.iter().map(|&top| (top, self.depth(top))).collect();
        while let Some((id, depth)) = queue.pop_front() {
            if depth >= TREE_DEPTH_SHOWN_MAX && !forest.children(id).is_empty() {
                continue;
            }
            if self.list_children(forest, id, since, bytes_max) {
                let children = forest.children(id).iter();
                queue.extend(children.map(|&child| (child, depth + 1)));
            } else {
                is_complete = false;
            }
        }
        is_complete
    }

    /// Bytes of memory that all of it takes.
    pub(super) fn heap_bytes(&self) -> usize {
        let nodes = self.nodes.values().map(|node| node.text.heap_bytes());
        // Every node but the topmost is in one list.
        let places = size_of::<(NodeId, ShownNode)>() + size_of::<NodeId>();
        nodes.sum::<usize>() + self.nodes.len() * places
    }

    /// Puts another text in the place of a node's.
    pub(super) fn rewrite(&mut self, id: NodeId, text: NodeText) {
        if let Some(node) = self.nodes.get_mut(&id) {
            self.bytes += text.bytes_max();
            self.bytes -= node.text.bytes_max();
            node.text = text;
        }
    }

    /// Takes the child at a place of a node's list out, and all that is below it.
    pub(super) fn take_child(&mut self, parent: NodeId, place: usize) {
        if let Some(children) = self.listed_mut(parent) {
            let child = children.remove(place);
            self.remove(vec![child]);
        }
    }

    /// Puts a child into a place of a node's list; of what is below, only the number of its children.
    pub(super) fn put_child(
        &mut self,
        forest: &Forest,
        parent: NodeId,
        place: usize,
        child: NodeId,
        since: Version,
    ) {
        let Some(text) = NodeText::new(forest, child) else {
            return;
        };
        if let Some(children) = self.listed_mut(parent) {
            children.insert(place, child);
            self.insert(forest, child, Some(parent), text, since);
        }
    }

    /// Shows of a node's children only that there are `count`.
    pub(super) fn omit_children(&mut self, id: NodeId, count: usize) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        if let Children::Listed(children) =
            mem::replace(&mut node.children, Children::Omitted(count))
        {
            self.remove(children);
        }
    }

    /// The nodes, each with the number of its children, whose children are past `bytes_max` where the
    /// tree of `root` is taken breadth first.
    pub(super) fn surplus(&self, root: NodeId, bytes_max: usize) -> Vec<(NodeId, usize)> {
        let mut surplus = Vec::new();
        let mut bytes = self.text_bytes(&[root]);
        let mut queue = VecDeque::from([root]);
        while let Some(id) = queue.pop_front() {
            let children = self.listed(id).unwrap_or_default();
            let more = self.text_bytes(children);
            if bytes + more > bytes_max {
                surplus.push((id, children.len()));
            } else {
                bytes += more;
                queue.extend(children);
            }
        }
        surplus
    }

    /// Levels between a node and the topmost one above it.
    pub(super) fn depth(&self, id: NodeId) -> usize {
        self.ancestors(id).count()
    }

    /// Where a node is from the topmost one above it (RFC 6901).
    pub(super) fn path(&self, id: NodeId) -> String {
        let mut child = id;
        let mut places = Vec::new();
        for (parent, node) in self.ancestors(id) {
            places.push(node.place_of(child));
            child = parent;
        }
        let mut path = String::new();
        for place in places.iter().rev() {
            write!(path, "/children/{place}").expect("a String takes all text");
        }
        path
    }

    /// The list of a node's children as it is shown; `None` where it is not.
    pub(super) fn list_text(&self, id: NodeId) -> Option<Text> {
        let mut text = Text::default();
        text.bytes().push(b'[');
        self.push_lists(vec![self.listed(id)?.iter()], &mut text);
        text.bytes().push(b']');
        Some(text)
    }

    /// Appends a node and what is shown below it.
    pub(super) fn push(&self, top: NodeId, text: &mut Text) {
        if let Some(children) = self.push_node(top, text) {
            self.push_lists(vec![children], text);
            text.bytes().extend_from_slice(b"]}");
        }
    }

    /// Appends the rest of a list, in which further ones may be begun; its end is the caller's.
    fn push_lists<'c>(&'c self, mut lists: Vec<slice::Iter<'c, NodeId>>, text: &mut Text) {
        while let Some(list) = lists.last_mut() {
            match list.next() {
                Some(&child) => {
                    if text.bytes().ends_with(b"}") {
                        text.bytes().push(b',');
                    }
                    lists.extend(self.push_node(child, text));
                }
                None if lists.len() == 1 => return,
                None => {
                    lists.pop();
                    text.bytes().extend_from_slice(b"]}");
                }
            }
        }
    }

    /// What always holds: every node is in its parent's list or topmost, and the bytes are their sum.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let lists = self.nodes.keys().filter_map(|&id| self.listed(id));
        let tops = self.nodes.values().filter(|node| node.parent.is_none());
        assert_eq!(
            lists.map(<[_]>::len).sum::<usize>() + tops.count(),
            self.nodes.len()
        );
        for (&id, node) in &self.nodes {
            for child in self.listed(id).unwrap_or_default() {
                assert_eq!(self.nodes[child].parent, Some(id));
            }
            assert_ne!(node.children, Children::Omitted(0));
        }
        let bytes = self.nodes.values().map(|node| node.text.bytes_max());
        assert_eq!(bytes.sum::<usize>(), self.bytes);
    }

    /// Appends a node up to its first child, where children are listed: these are to follow.
    fn push_node<'c>(&'c self, id: NodeId, text: &mut Text) -> Option<slice::Iter<'c, NodeId>> {
        let node = self.nodes.get(&id)?;
        node.text.push(text);
        let bytes = text.bytes();
        match &node.children {
            Children::Listed(children) => {
                bytes.extend_from_slice(b",\"children\":[");
                Some(children.iter())
            }
            Children::Omitted(count) => {
                bytes.extend_from_slice(b",\"children_omitted\":");
                json::push_integer(*count, bytes);
                bytes.push(b'}');
                None
            }
        }
    }

    /// Lists the children of a node, where all of them fit into `bytes_max` beside what is there.
    fn list_children(
        &mut self,
        forest: &Forest,
        id: NodeId,
        since: Version,
        bytes_max: usize,
    ) -> bool {
        let children = forest.children(id);
        let Some(texts) = written_within(forest, children, bytes_max.saturating_sub(self.bytes))
        else {
            return false;
        };
        for (&child, text) in children.iter().zip(texts) {
            self.insert(forest, child, Some(id), text, since);
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.children = Children::Listed(children.to_vec());
        }
        true
    }

    fn insert(
        &mut self,
        forest: &Forest,
        id: NodeId,
        parent: Option<NodeId>,
        text: NodeText,
        since: Version,
    ) {
        self.bytes += text.bytes_max();
        let children = match forest.children(id).len() {
            0 => Children::Listed(Vec::new()),
            count => Children::Omitted(count),
        };
        let node = ShownNode {
            parent,
            children,
            text,
            since,
        };
        let before = self.nodes.insert(id, node);
        debug_assert!(before.is_none(), "a node is shown once");
    }

    /// Takes out nodes and all below them. The lists that they are in are the caller's business.
    fn remove(&mut self, mut waiting: Vec<NodeId>) {
        while let Some(id) = waiting.pop() {
            let Some(node) = self.nodes.remove(&id) else {
                continue;
            };
            self.bytes -= node.text.bytes_max();
            if let Children::Listed(children) = node.children {
                waiting.extend(children);
            }
        }
    }

    fn listed_mut(&mut self, id: NodeId) -> Option<&mut Vec<NodeId>> {
        match &mut self.nodes.get_mut(&id)?.children {
            Children::Listed(children) => Some(children),
            Children::Omitted(_) => None,
        }
    }

    fn text_bytes(&self, nodes: &[NodeId]) -> usize {
        let nodes = nodes.iter().filter_map(|id| self.nodes.get(id));
        nodes.map(|node| node.text.bytes_max()).sum()
    }

    /// The nodes above one, the nearest first.
    fn ancestors(&self, id: NodeId) -> impl Iterator<Item = (NodeId, &ShownNode)> {
        let parent = |id| {
            let parent = self.nodes.get(&id)?.parent?;
            Some((parent, self.nodes.get(&parent)?))
        };
        std::iter::successors(parent(id), move |&(id, _)| parent(id))
    }
}

impl ShownNode {
    /// The place of a child in its list.
    pub(super) fn place_of(&self, child: NodeId) -> usize {
        let Children::Listed(children) = &self.children else {
            return 0;
        };
        let place = children.iter().position(|&id| id == child);
        debug_assert!(place.is_some(), "what is shown is in its parent's list");
        place.unwrap_or(children.len())
    }
}

/// The texts of `nodes`, where together they fit into `room` bytes.
fn written_within(forest: &Forest, nodes: &[NodeId], room: usize) -> Option<Vec<NodeText>> {
    if nodes.len() * NODE_BYTES_MIN > room {
        return None;
    }
    let mut bytes = 0;
    let mut texts = Vec::with_capacity(nodes.len());
    for &id in nodes {
        let text = NodeText::new(forest, id)?;
        bytes += text.bytes_max();
        if bytes > room {
            return None;
        }
        texts.push(text);
    }
    Some(texts)
}
