//! An agent as JSON, in the shape of the keen document's `SerializedAgentTree`.
//!
//! Owns the order and the names of a node's members, and what of them can change. The dialects differ
//! in how they write times and in nothing else, so a text is written once, with its times left open,
//! and leaves in either. `cut` puts texts together; `patch` and `shown` send parts of them.
//! Source: the keen document, `serializeAgentTree`; contract sections 5 and 8.

use std::ops::Range;

use super::{Forest, Node, NodeId, Status, TreeStats};
use crate::event::json::{self, Object};
use crate::event::{Dialect, time};

/// JSON whose times are left open.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// Where in `bytes` a time belongs, in rising order, and the milliseconds since the Unix epoch.
    times: Vec<(usize, i64)>,
}

impl Text {
    /// Where to append what is the same in both dialects.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn push_time(&mut self, time_ms: i64) {
        self.times.push((self.bytes.len(), time_ms));
    }

    pub(super) fn push_text(&mut self, text: &Text) {
        let start = self.bytes.len();
        let moved = text.times.iter().map(|&(place, ms)| (start + place, ms));
        self.times.extend(moved);
        self.bytes.extend_from_slice(&text.bytes);
    }

    /// Appends the text as `dialect` writes times.
    pub(super) fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        out.reserve(self.bytes_max());
        let mut copied = 0;
        for &(place, time_ms) in &self.times {
            out.extend_from_slice(&self.bytes[copied..place]);
            push_time(dialect, time_ms, out);
            copied = place;
        }
        out.extend_from_slice(&self.bytes[copied..]);
    }

    /// Bytes of it in the dialect that takes more.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes.len() + self.times.len() * TIME_BYTES_MAX
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.times.capacity() * size_of::<(usize, i64)>()
    }
}

/// A node's own members: all but `children`, with which the object goes on.
#[derive(Clone, Debug)]
pub(super) struct NodeText {
    bytes: Box<[u8]>,
    /// Where in `bytes` the value of each field is; that of `start_time` is empty.
    values: [Range<u32>; FIELDS.len()],
    start_time_ms: i64,
}

impl NodeText {
    /// `None`: there is no such node.
    pub(super) fn new(forest: &Forest, id: NodeId) -> Option<Self> {
        let node = forest.node(id)?;
        let agent = Agent { forest, id, node };
        let mut bytes = b"{\"session_id\":".to_vec();
        json::push_string(node.session(), &mut bytes);
        let values = FIELDS.each_ref().map(|field| {
            bytes.extend_from_slice(field.before.as_bytes());
            let start = bytes.len() as u32;
            (field.push_value)(agent, &mut bytes);
            start..bytes.len() as u32
        });
        bytes.push(b'}');
        Some(Self {
            bytes: bytes.into(),
            values,
            start_time_ms: node.start_ms(),
        })
    }

    /// Appends the members; the object stays open.
    pub(super) fn push(&self, text: &mut Text) {
        let (head, tail) = self.bytes.split_at(self.values[START_TIME].start as usize);
        text.bytes.extend_from_slice(head);
        text.push_time(self.start_time_ms);
        text.bytes.extend_from_slice(tail);
    }

    /// Appends the value of one field.
    pub(super) fn push_value(&self, field: usize, text: &mut Text) {
        match field {
            START_TIME => text.push_time(self.start_time_ms),
            _ => text.bytes.extend_from_slice(self.value(field)),
        }
    }

    /// The fields whose values are not those of `before`.
    pub(super) fn changes_since(&self, before: &Self) -> FieldSet {
        let mut changed = FieldSet::default();
        for field in 0..FIELDS.len() {
            if self.value(field) != before.value(field) {
                changed.insert(field);
            }
        }
        if self.start_time_ms != before.start_time_ms {
            changed.insert(START_TIME);
        }
        changed
    }

    /// Bytes that the node adds to a tree in the dialect that takes more, `children` and all that is
    /// around it included.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes.len() + TIME_BYTES_MAX + CHILDREN_BYTES_MAX
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn value(&self, field: usize) -> &[u8] {
        let Range { start, end } = self.values[field];
        &self.bytes[start as usize..end as usize]
    }
}

/// Fields of a node, by their places in [`FIELDS`], and how many children it has but does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(u32);

impl FieldSet {
    /// `children_omitted` alone.
    pub(super) const OMITTED: Self = Self(1 << FIELDS.len());

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_omitted(self) -> bool {
        self.0 & Self::OMITTED.0 != 0
    }

    #[must_use]
    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The places of its fields.
    pub(super) fn fields(self) -> impl Iterator<Item = usize> {
        (0..FIELDS.len()).filter(move |&field| self.0 & (1 << field) != 0)
    }

    fn insert(&mut self, field: usize) {
        self.0 |= 1 << field;
    }
}

/// A member that may change.
pub(super) struct Field {
    /// What stands in a node's text between the value before and this one's.
    before: &'static str,
    /// Where it is from its node (RFC 6901); nothing in it needs an escape.
    pub(super) pointer: &'static str,
    push_value: fn(Agent<'_>, &mut Vec<u8>),
}

/// Where the values of a node are found.
#[derive(Clone, Copy)]
struct Agent<'f> {
    forest: &'f Forest,
    id: NodeId,
    node: &'f Node,
}

impl<'f> Agent<'f> {
    fn parent_session(self) -> Option<&'f str> {
        let parent = self.forest.parent(self.id)?;
        self.forest.node(parent).map(Node::session)
    }
}

/// What can change of a node, in the order of its text.
pub(super) const FIELDS: [Field; 16] = [
    Field {
        before: r#","parent_session":"#,
        pointer: "/parent_session",
        push_value: |agent, out| push_text_or_null(agent.parent_session(), out),
    },
    Field {
        before: r#","git_branch":"#,
        pointer: "/git_branch",
        push_value: |agent, out| json::push_string(agent.node.branch(), out),
    },
    Field {
        before: r#","status":"#,
        pointer: "/status",
        push_value: |agent, out| json::push_plain(agent.node.status().as_str(), out),
    },
    Field {
        before: r#","current_phase":"#,
        pointer: "/current_phase",
        push_value: |agent, out| json::push_string(agent.forest.current_phase(agent.id), out),
    },
    Field {
        before: r#","purpose":"#,
        pointer: "/purpose",
        push_value: |agent, out| json::push_string(agent.forest.purpose(agent.id), out),
    },
    Field {
        before: r#","progress":"#,
        pointer: "/progress",
        push_value: |agent, out| push_number(agent.node.progress(), out),
    },
    Field {
        before: r#","metrics":{"start_time":"#,
        pointer: "/metrics/start_time",
        push_value: |_, _| {},
    },
    Field {
        before: r#","tokens_used":"#,
        pointer: "/metrics/tokens_used",
        push_value: |agent, out| json::push_integer(agent.node.tokens_used(), out),
    },
    Field {
        before: r#","cost_so_far":"#,
        pointer: "/metrics/cost_so_far",
        push_value: |agent, out| push_number(agent.node.cost_so_far(), out),
    },
    Field {
        before: r#","files_created":"#,
        pointer: "/metrics/files_created",
        push_value: |agent, out| json::push_integer(agent.node.files_created(), out),
    },
    Field {
        before: r#","files_modified":"#,
        pointer: "/metrics/files_modified",
        push_value: |agent, out| json::push_integer(agent.node.files_modified(), out),
    },
    Field {
        before: r#","git_commits":"#,
        pointer: "/metrics/git_commits",
        push_value: |agent, out| json::push_integer(agent.node.git_commits(), out),
    },
    Field {
        before: r#"},"git_info":{"branch":"#,
        pointer: "/git_info/branch",
        push_value: |agent, out| json::push_string(agent.node.git_branch(), out),
    },
    Field {
        before: r#","latest_commit":"#,
        pointer: "/git_info/latest_commit",
        push_value: |agent, out| push_text_or_null(agent.node.latest_commit(), out),
    },
    Field {
        before: r#","commits_count":"#,
        pointer: "/git_info/commits_count",
        push_value: |agent, out| json::push_integer(agent.node.git_commits(), out),
    },
    Field {
        before: r#","files_changed":"#,
        pointer: "/git_info/files_changed",
        push_value: |agent, out| {
            json::push_array(agent.node.files_changed(), out, |path, out| {
                json::push_string(path, out)
            });
        },
    },
];

/// The place of `start_time` in [`FIELDS`]: the one value that the dialects write differently.
const START_TIME: usize = 6;
/// Bytes of a time in the dialect that takes more: `"2026-11-22T10:00:00.000Z"`.
const TIME_BYTES_MAX: usize = 26;
/// Bytes around and of `,"children_omitted":4294967295},`.
const CHILDREN_BYTES_MAX: usize = 32;
/// Bytes that any node takes at least, as [`NodeText::bytes_max`] counts them: a bound by which many
/// children are known not to fit without a look at them.
pub(super) const NODE_BYTES_MIN: usize = 360;

/// Appends the roll-ups of a tree.
pub(super) fn push_stats(stats: &TreeStats, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object.integer("total", stats.total);
    object.integer("active", stats.active);
    let mut by_status = Object::open(object.member("by_status"));
    for status in Status::ALL {
        by_status.integer(status.as_str(), stats.by_status[status.index()]);
    }
    by_status.close();
    object.integer("max_depth", stats.max_depth);
    object.integer("tokens_used", stats.tokens_used);
    push_number(stats.cost_so_far, object.member("cost_so_far"));
    object.integer("git_commits", stats.git_commits);
    object.close();
}

fn push_time(dialect: Dialect, time_ms: i64, out: &mut Vec<u8>) {
    match dialect {
        Dialect::Keen => {
            out.push(b'"');
            time::write_rfc3339_ms(out, time_ms);
            out.push(b'"');
        }
        Dialect::Observatory => json::push_integer(time_ms, out),
    }
}

fn push_text_or_null(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => json::push_string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a number as JavaScript would: a whole one has no fraction.
fn push_number(value: f64, out: &mut Vec<u8>) {
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        json::push_integer(value as i64, out);
    } else {
        serde_json::to_writer(out, &value).expect("a Vec takes all bytes, and any number is JSON");
    }
}

/// 2^53: up to here every whole number is a `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn check(value: f64, expected: &str) {
        let mut out = Vec::new();
        push_number(value, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        check(0.0, "0");
        check(-0.0, "0");
        check(45.0, "45");
        check(-1.0, "-1");
        check(0.25, "0.25");
        check(9_007_199_254_740_992.0, "9007199254740992");
        check(1e300, "1e+300");
    }

    #[test]
    fn times_are_left_open_until_it_is_known_who_reads_them() {
        let mut inner = Text::default();
        inner.bytes().push(b'[');
        inner.push_time(1_795_341_600_000);
        inner.bytes().push(b']');
        let mut outer = Text::default();
        outer.bytes().extend_from_slice(b"{\"a\":");
        outer.push_text(&inner);
        outer.bytes().push(b'}');
        let encoded = |dialect| {
            let mut out = Vec::new();
            outer.encode(dialect, &mut out);
            assert!(out.len() <= outer.bytes_max());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(encoded(Dialect::Observatory), r#"{"a":[1795341600000]}"#);
        let keen = r#"{"a":["2026-11-22T10:00:00.000Z"]}"#;
        assert_eq!(encoded(Dialect::Keen), keen);
    }

    proptest! {
        #[test]
        fn any_number_reads_back_as_itself(value in any::<f64>()) {
            let mut out = Vec::new();
            push_number(value, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap(), value);
        }
    }
}
