//! How a tree that is shown went from version to version, and the patch from one of them to the last.
//!
//! Of shape every operation is kept as it was sent, for a path is right only where it is applied. Of a
//! field it is kept only that it changed: a patch ends with the present values of all that did, each
//! once, at the places where their nodes are by then. So a long way takes no more than a short one.
//! Source: RFC 6902, RFC 6901.

use std::collections::{BTreeMap, VecDeque};

use super::NodeId;
use super::cut::{Children, Cut};
use super::render::{FIELDS, FieldSet, Text};
use crate::event::json;

/// Which state of a tree; it rises with every update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u64);

/// The last of what happened to a tree, within a bound of bytes that the caller sets.
#[derive(Debug, Default)]
pub(super) struct Log {
    version: Version,
    /// The version from which on all is here.
    oldest: Version,
    /// What changed the shape, in the order in which it is to be applied.
    operations: VecDeque<(Version, Operation)>,
    /// Fields of nodes that were shown before.
    changes: VecDeque<(Version, NodeId, FieldSet)>,
    /// What all of it takes.
    bytes: usize,
}

#[derive(Debug)]
enum Operation {
    Add { path: String, value: Text },
    Remove { path: String },
}

impl Log {
    /// The version that what is said now belongs to.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// Begins the next version.
    pub(super) fn begin(&mut self) {
        self.version = Version(self.version.0 + 1);
    }

    pub(super) fn add(&mut self, path: String, value: Text) {
        self.push_operation(Operation::Add { path, value });
    }

    pub(super) fn remove(&mut self, path: String) {
        self.push_operation(Operation::Remove { path });
    }

    pub(super) fn change(&mut self, node: NodeId, fields: FieldSet) {
        self.changes.push_back((self.version, node, fields));
        self.bytes += CHANGE_BYTES;
    }

    /// Lets go of the oldest versions while all takes more than `bytes_max`.
    pub(super) fn trim(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let operation = self.operations.front().map(|&(version, _)| version);
            let change = self.changes.front().map(|&(version, ..)| version);
            let Some(version) = operation.into_iter().chain(change).min() else {
                break;
            };
            self.forget(version);
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes
    }

    /// The patch that makes of the tree at `base` what `cut` shows now; `None` where some of the way
    /// is gone.
    pub(super) fn patch(&self, base: Version, cut: &Cut) -> Option<Text> {
        if base < self.oldest {
            return None;
        }
        let mut patch = PatchText::open();
        let first = self
            .operations
            .partition_point(|&(version, _)| version <= base);
        for (_, operation) in self.operations.range(first..) {
            operation.push(patch.next());
        }
        for (id, fields) in self.changes_since(base, cut) {
            push_replacements(cut, id, fields, &mut patch);
        }
        Some(patch.close())
    }

    /// What changed of nodes that were there at `base` or came later without it.
    fn changes_since(&self, base: Version, cut: &Cut) -> BTreeMap<NodeId, FieldSet> {
        let mut changed = BTreeMap::<NodeId, FieldSet>::new();
        let first = self
            .changes
            .partition_point(|&(version, ..)| version <= base);
        for &(version, id, fields) in self.changes.range(first..) {
            if cut.node(id).is_some_and(|node| node.since < version) {
                let all = changed.entry(id).or_default();
                *all = all.union(fields);
            }
        }
        changed
    }

    /// Lets go of the oldest version.
    fn forget(&mut self, version: Version) {
        while let Some((first, operation)) = self.operations.front()
            && *first == version
        {
            self.bytes -= operation.bytes();
            self.operations.pop_front();
        }
        let changes = self
            .changes
            .partition_point(|&(first, ..)| first <= version);
        self.changes.drain(..changes);
        self.bytes -= changes * CHANGE_BYTES;
        self.oldest = version;
    }

    fn push_operation(&mut self, operation: Operation) {
        self.bytes += operation.bytes();
        self.operations.push_back((self.version, operation));
    }
}

const CHANGE_BYTES: usize = size_of::<(Version, NodeId, FieldSet)>();

impl Operation {
    fn push(&self, text: &mut Text) {
        match self {
            Self::Add { path, value } => {
                open_operation("add", path, text);
                text.push_text(value);
                text.bytes().push(b'}');
            }
            Self::Remove { path } => {
                let bytes = text.bytes();
                bytes.extend_from_slice(b"{\"op\":\"remove\",\"path\":\"");
                bytes.extend_from_slice(path.as_bytes());
                bytes.extend_from_slice(b"\"}");
            }
        }
    }

    /// Bytes of memory that it takes in a log.
    fn bytes(&self) -> usize {
        let texts = match self {
            Self::Add { path, value } => path.capacity() + value.heap_bytes(),
            Self::Remove { path } => path.capacity(),
        };
        size_of::<(Version, Self)>() + texts
    }
}

/// The patch that puts a whole tree in the place of whatever was there.
pub(super) fn replacement(tree: &Text) -> Text {
    let mut patch = PatchText::open();
    let text = patch.next();
    open_operation("replace", "", text);
    text.push_text(tree);
    text.bytes().push(b'}');
    patch.close()
}

/// An array of operations under construction.
struct PatchText {
    text: Text,
    is_empty: bool,
}

impl PatchText {
    fn open() -> Self {
        let mut text = Text::default();
        text.bytes().push(b'[');
        Self {
            text,
            is_empty: true,
        }
    }

    /// Where the next operation is to be appended.
    fn next(&mut self) -> &mut Text {
        if !self.is_empty {
            self.text.bytes().push(b',');
        }
        self.is_empty = false;
        &mut self.text
    }

    fn close(mut self) -> Text {
        self.text.bytes().push(b']');
        self.text
    }
}

/// Appends the present values of some fields of a node.
fn push_replacements(cut: &Cut, id: NodeId, fields: FieldSet, patch: &mut PatchText) {
    let Some(node) = cut.node(id) else {
        return;
    };
    let path = cut.path(id);
    for field in fields.fields() {
        let text = patch.next();
        open_operation("replace", &(path.clone() + FIELDS[field].pointer), text);
        node.text.push_value(field, text);
        text.bytes().push(b'}');
    }
    // Where its children are listed by now, an operation has said so.
    if let (true, Children::Omitted(count)) = (fields.has_omitted(), &node.children) {
        let text = patch.next();
        open_operation("replace", &(path + "/children_omitted"), text);
        json::push_integer(*count, text.bytes());
        text.bytes().push(b'}');
    }
}

/// Appends an operation up to its value. `path` holds nothing to escape: names of ours, and places.
fn open_operation(name: &str, path: &str, text: &mut Text) {
    let bytes = text.bytes();
    for part in ["{\"op\":\"", name, "\",\"path\":\"", path, "\",\"value\":"] {
        bytes.extend_from_slice(part.as_bytes());
    }
}
