//! A stream as a viewer names it. Lacks the own user's id: that never leaves in an envelope.
//! Source: the contract, section 1.

use std::fmt;

use super::json;
use crate::event::{Stream, StreamKind};

/// A stream in text that a viewer sends or receives: `user`, `project/7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamName<'a> {
    /// The viewer's own stream, `user`.
    Own,
    /// `project/<id>`, the id unescaped.
    Project(&'a str),
    /// `user/<id>`: named by a cursor only. No token shows it, so its answer is always `reset`.
    User(&'a str),
}

impl<'a> From<&'a Stream> for StreamName<'a> {
    /// A stream as it is called towards those who see it: a user's is seen by its own user only.
    fn from(stream: &'a Stream) -> Self {
        match stream.kind {
            StreamKind::Project => Self::Project(&stream.id),
            StreamKind::User => Self::Own,
        }
    }
}

impl fmt::Display for StreamName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, id) = self.parts();
        write!(f, "{prefix}{id}")
    }
}

impl<'a> StreamName<'a> {
    /// What stands before the id, and the id.
    pub(super) fn parts(self) -> (&'static str, &'a str) {
        match self {
            Self::Own => ("user", ""),
            Self::Project(id) => ("project/", id),
            Self::User(id) => ("user/", id),
        }
    }

    /// Appends the name as a JSON string.
    pub(super) fn push_json(self, out: &mut Vec<u8>) {
        let (prefix, id) = self.parts();
        out.push(b'"');
        out.extend_from_slice(prefix.as_bytes());
        json::push_escaped(id, out);
        out.push(b'"');
    }
}
