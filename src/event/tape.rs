//! A view of simd-json's tape together with the text that it was made from.
//!
//! The tape says what every value is, but not where it stood: strings are unescaped in the copy and
//! nodes carry no offsets. Stage 1 left the offset of every structural byte, though, and those that
//! begin a value are as many, and in the same order, as the nodes. So a value is found in the
//! untouched text by counting. Source: simd-json 0.19, `tape::Node`, `Buffers::structural_indexes`.

use std::borrow::Cow;
use std::ops::Range;

use simd_json::{Node, StaticNode};

use super::syntax;

/// One valid JSON text, as a list of nodes in the order of the text. A node is named by its place.
#[derive(Clone, Copy)]
pub(super) struct Document<'t> {
    nodes: &'t [Node<'t>],
    // Offsets of `{ } [ ] : ,` outside strings, and of the first byte of every string and scalar.
    marks: &'t [u32],
    text: &'t [u8],
}

/// The place of the outermost value.
pub(super) const ROOT: usize = 0;

impl<'t> Document<'t> {
    /// What stands for `data` where an event has none.
    pub(super) const EMPTY_OBJECT: Document<'static> = Document {
        nodes: &[Node::Object { len: 0, count: 0 }],
        marks: &[0, 1],
        text: b"{}",
    };

    /// Of a `text` that simd-json accepted, with the nodes and structural indexes it left.
    pub(super) fn new(nodes: &'t [Node<'t>], marks: &'t [u32], text: &'t [u8]) -> Self {
        Self { nodes, marks, text }
    }

    /// The node at `at`.
    pub(super) fn node(&self, at: usize) -> Node<'t> {
        let absent = Node::Static(StaticNode::Null);
        self.nodes.get(at).copied().unwrap_or(absent)
    }

    /// The node's text, unescaped, where it is a string.
    pub(super) fn string(&self, at: usize) -> Option<&'t str> {
        match self.node(at) {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether the node is `null`.
    pub(super) fn is_null(&self, at: usize) -> bool {
        matches!(self.node(at), Node::Static(StaticNode::Null))
    }

    /// Whether the node is an object.
    pub(super) fn is_object(&self, at: usize) -> bool {
        matches!(self.node(at), Node::Object { .. })
    }

    /// Whether the node is an array.
    pub(super) fn is_array(&self, at: usize) -> bool {
        matches!(self.node(at), Node::Array { .. })
    }

    /// What the node is, in a few words for people.
    pub(super) fn describe(&self, at: usize) -> Cow<'static, str> {
        let words = match self.node(at) {
            Node::Array { .. } => "an array",
            Node::Object { .. } => "an object",
            Node::Static(StaticNode::Bool(_)) => "a boolean",
            Node::Static(StaticNode::F64(_)) => "a number with a fraction, or beyond 64 bits",
            Node::Static(StaticNode::I64(_) | StaticNode::U64(_)) => "an integer",
            Node::Static(StaticNode::Null) => "null",
            Node::String("") => "an empty string",
            Node::String(text) => return format!("a string of {} bytes", text.len()).into(),
        };
        Cow::Borrowed(words)
    }

    /// The places of the elements of the array at `at`. Nothing where it is no array.
    pub(super) fn elements(self, at: usize) -> impl Iterator<Item = usize> + use<'t> {
        let count = match self.node(at) {
            Node::Array { len, .. } => len,
            _ => 0,
        };
        let mut next = at + 1;
        (0..count).map(move |_| {
            let element = next;
            next += self.size(element);
            element
        })
    }

    /// The members of the object at `at`, repeated names too: unescaped name, place of the value.
    /// Nothing where it is no object.
    pub(super) fn members(self, at: usize) -> impl Iterator<Item = (&'t str, usize)> {
        let count = match self.node(at) {
            Node::Object { len, .. } => len,
            _ => 0,
        };
        let mut name_at = at + 1;
        (0..count).map_while(move |_| {
            let name = self.string(name_at)?;
            let value_at = name_at + 1;
            name_at = value_at + self.size(value_at);
            Some((name, value_at))
        })
    }

    /// The value of `name` in the object at `at`, the last where it is repeated: what a reader in
    /// JavaScript sees. Not for what decides who sees an event.
    pub(super) fn last(self, at: usize, name: &str) -> Option<usize> {
        let named = self.members(at).filter(|member| member.0 == name);
        named.last().map(|member| member.1)
    }

    /// Where the value at `at`, a member of the outermost object, stands in the text, without the
    /// white space around it.
    pub(super) fn member_span(&self, at: usize) -> Range<usize> {
        // Counted from whichever end is outside the value, so that a large one is never walked.
        let begins_value = |mark: &&u32| self.begins_value(**mark as usize);
        let start = self.marks.iter().filter(begins_value).nth(at);
        // What follows the value is a comma and the next name, or the closing brace.
        let following = self.nodes.len().saturating_sub(at + self.size(at));
        let mut ends = self.marks.iter().rev();
        for _ in 0..following {
            ends.find(begins_value);
        }
        let end = ends.next().map_or(self.text.len(), |mark| *mark as usize);
        let start = start.map_or(end, |mark| *mark as usize);
        syntax::trimmed(self.text, start.min(end)..end)
    }

    /// The text of the value at `at`, wherever it is, without the white space around it. All that
    /// stands before it is walked, and the value itself.
    pub(super) fn text_of(&self, at: usize) -> &'t [u8] {
        let mut marks = self.marks.iter().map(|mark| *mark as usize);
        let begins_value = |mark: &usize| self.begins_value(*mark);
        let start = marks.by_ref().filter(begins_value).nth(at);
        let start = start.unwrap_or(self.text.len());
        let mut open = usize::from(self.is_object(at) || self.is_array(at));
        if open == 0 {
            let end = marks.next().unwrap_or(self.text.len());
            return &self.text[syntax::trimmed(self.text, start..end)];
        }
        let last = marks.find(|mark| {
            match self.text.get(*mark) {
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') => open -= 1,
                _ => {}
            }
            open == 0
        });
        &self.text[start..last.map_or(self.text.len(), |last| last + 1)]
    }

    /// Whether a value begins at `mark`.
    fn begins_value(&self, mark: usize) -> bool {
        let byte = self.text.get(mark);
        !matches!(byte, None | Some(b':' | b',' | b'}' | b']'))
    }

    /// How many nodes the value at `at` takes up, itself included.
    fn size(&self, at: usize) -> usize {
        match self.node(at) {
            Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
            Node::String(_) | Node::Static(_) => 1,
        }
    }
}
