//! What a viewer asks for in the query of its request: which sessions, which first subscription,
//! which trees, from where. Takes pairs that are decoded already; lacks the token and `refusals`,
//! which others read from the same query. Source: the contract, section 4.

use std::collections::HashSet;

use compact_str::CompactString;

use super::{Cursor, CursorError};
use crate::limits::{FILTER_VALUES_MAX, SESSION_ID_BYTES_MAX};

/// A viewer's wishes. The default is a query that says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectQuery {
    /// Sessions that narrow the initial subscription and the trees, each once; empty: all.
    pub sessions: Vec<CompactString>,
    /// What the connection is subscribed to from the start.
    pub subscribe: SubscribeScope,
    /// How trees are sent; `None`: not said, which means more than the dialect's default.
    pub tree: Option<TreeMode>,
    /// From where the streams resume.
    pub cursor: Option<Cursor>,
}

/// What a connection is subscribed to from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubscribeScope {
    /// `subscribe=all`: the own stream and every allowed project.
    All,
    /// As the dialect has it: keen the own stream, observatory nothing.
    #[default]
    Dialect,
}

/// How agent trees are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeMode {
    /// Whole, each time.
    Full,
    /// Not at all.
    Off,
    /// As RFC 6902 patches against the last one sent.
    Patch,
}

impl ConnectQuery {
    /// Reads decoded (name, value) pairs of a query. Other parameters are left to others.
    /// Errors are the viewer's fault: 400 with `code()`.
    pub fn parse<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConnectError> {
        let mut given = Given::default();
        for (name, value) in pairs {
            given.take(name.as_ref(), value.as_ref())?;
        }
        given.read()
    }
}

/// Why a query cannot be read. The viewer's fault: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// `epoch` or `resume` cannot be read.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A parameter twice.
    #[error("the query holds {0} twice")]
    Duplicate(
        /// The parameter's name.
        &'static str,
    ),
    /// A session that cannot be one.
    #[error("sessions holds an id that has not 1 to {SESSION_ID_BYTES_MAX} bytes")]
    Session,
    /// `subscribe` with another value.
    #[error("subscribe is not all")]
    Subscribe,
    /// More than `limits::FILTER_VALUES_MAX`.
    #[error("sessions holds more than {FILTER_VALUES_MAX} ids")]
    TooManySessions,
    /// `tree` with another value.
    #[error("tree is none of full, patch, off")]
    Tree,
}

impl ConnectError {
    /// The code word of the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Self::Cursor(error) => error.code(),
            _ => "BAD_REQUEST",
        }
    }
}

/// The parameters that are read here, as text; each at most once.
#[derive(Default)]
struct Given([Option<String>; PARAMETERS.len()]);

const PARAMETERS: [&str; 5] = ["epoch", "resume", "sessions", "subscribe", "tree"];

impl Given {
    fn take(&mut self, name: &str, value: &str) -> Result<(), ConnectError> {
        let place = PARAMETERS
            .iter()
            .zip(&mut self.0)
            .find(|(known, _)| **known == name);
        let Some((&name, place)) = place else {
            return Ok(());
        };
        match place.replace(value.into()) {
            Some(_) => Err(ConnectError::Duplicate(name)),
            None => Ok(()),
        }
    }

    fn read(&self) -> Result<ConnectQuery, ConnectError> {
        let [epoch, resume, sessions, subscribe, tree] = self.0.each_ref().map(Option::as_deref);
        Ok(ConnectQuery {
            sessions: read_sessions(sessions.unwrap_or_default())?,
            subscribe: read_subscribe(subscribe)?,
            tree: tree.map(read_tree).transpose()?,
            cursor: Cursor::parse(epoch, resume)?,
        })
    }
}

/// `a,b`; an empty value is as if absent, like an empty list in a filter.
fn read_sessions(text: &str) -> Result<Vec<CompactString>, ConnectError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = text.split(',').take(FILTER_VALUES_MAX + 1).collect();
    if ids.len() > FILTER_VALUES_MAX {
        return Err(ConnectError::TooManySessions);
    }
    let is_id = |id: &&str| (1..=SESSION_ID_BYTES_MAX).contains(&id.len());
    if !ids.iter().all(is_id) {
        return Err(ConnectError::Session);
    }
    let mut seen = HashSet::new();
    let fresh = ids.into_iter().filter(|id| seen.insert(*id));
    Ok(fresh.map(CompactString::from).collect())
}

fn read_subscribe(text: Option<&str>) -> Result<SubscribeScope, ConnectError> {
    match text {
        None => Ok(SubscribeScope::Dialect),
        Some("all") => Ok(SubscribeScope::All),
        Some(_) => Err(ConnectError::Subscribe),
    }
}

fn read_tree(text: &str) -> Result<TreeMode, ConnectError> {
    match text {
        "full" => Ok(TreeMode::Full),
        "off" => Ok(TreeMode::Off),
        "patch" => Ok(TreeMode::Patch),
        _ => Err(ConnectError::Tree),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialect::StreamName;
    use crate::event::{Epoch, Seq};

    fn read(query: &str) -> Result<ConnectQuery, ConnectError> {
        ConnectQuery::parse(form_urlencoded::parse(query.as_bytes()))
    }

    fn check(query: &str, expected: &ConnectQuery) {
        assert_eq!(read(query).as_ref(), Ok(expected), "{query}");
    }

    fn check_refused(query: &str, expected: ConnectError, code: &str) {
        assert_eq!(read(query), Err(expected), "{query}");
        assert_eq!(expected.code(), code);
    }

    #[test]
    fn every_wish_is_read() {
        let mut cursor = Cursor::new(Some(Epoch(1)));
        cursor.insert(StreamName::Own, Seq(3));
        cursor.insert(StreamName::Project("a,b"), Seq(4));
        check(
            "sessions=a,b,a&subscribe=all&tree=patch&epoch=00000001\
             &resume=user%3D3%2Cproject%2Fa%252Cb%3D4&token=x&token=y&refusals=close",
            &ConnectQuery {
                sessions: vec!["a".into(), "b".into()],
                subscribe: SubscribeScope::All,
                tree: Some(TreeMode::Patch),
                cursor: Some(cursor),
            },
        );
        for query in ["", "sessions=", "Tree=never", "subscribed=all"] {
            check(query, &ConnectQuery::default());
        }
        for (query, tree) in [("tree=full", TreeMode::Full), ("tree=off", TreeMode::Off)] {
            let tree = Some(tree);
            check(
                query,
                &ConnectQuery {
                    tree,
                    ..ConnectQuery::default()
                },
            );
        }
    }

    #[test]
    fn wishes_that_cannot_be_read_are_refused() {
        let check = |query: &str, expected| check_refused(query, expected, "BAD_REQUEST");
        check("subscribe=none", ConnectError::Subscribe);
        check("subscribe=", ConnectError::Subscribe);
        check("tree=on", ConnectError::Tree);
        check("tree=", ConnectError::Tree);
        check("sessions=a,,b", ConnectError::Session);
        check("sessions=a,", ConnectError::Session);
        let long = "x".repeat(SESSION_ID_BYTES_MAX + 1);
        check(&format!("sessions={long}"), ConnectError::Session);
        let many = "x,".repeat(FILTER_VALUES_MAX) + "x";
        check(&format!("sessions={many}"), ConnectError::TooManySessions);
        for name in PARAMETERS {
            let query = format!("{name}=all&x=1&{name}=all");
            check(&query, ConnectError::Duplicate(name));
        }
    }

    #[test]
    fn a_cursor_that_cannot_be_read_has_its_own_code() {
        let check = |query, error: CursorError| {
            check_refused(query, error.into(), "INVALID_CURSOR");
        };
        check("resume=x", CursorError::Seq);
        check("resume=", CursorError::Seq);
        check("resume=project%2F=1", CursorError::Stream);
        check("epoch=x", CursorError::Epoch);
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in "((sessions|tree|epoch|resume|subscribe)=[a-z0-9,=%/]{0,9}&?){0,6}|.{0,60}") {
            if let Ok(read) = read(&query) {
                prop_assert!(read.sessions.iter().all(|id| !id.is_empty()));
            }
        }
    }
}
