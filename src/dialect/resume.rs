//! What a viewer is told of each stream when it attaches: one row, whose fields follow from the
//! outcome, so that no row can claim what its outcome does not know. Lacks the decision itself,
//! which is the hub's. Source: the contract, section 5.

use super::StreamName;
use super::json::{self, Object};
use crate::event::{Seq, SeqRange};

/// How one stream continues for a viewer: a row of `resume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeRow<'a> {
    /// Which stream.
    pub stream: StreamName<'a>,
    /// How it continues.
    pub outcome: Outcome,
}

/// How a stream continues, with what the viewer needs to go on. In every outcome `to` is the
/// stream's head when the connection was attached to it: live begins after it. `from` is the
/// viewer's cursor, the last seq that it has seen. `earliest` is the first seq still held, where
/// any is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No cursor was given: live from now.
    Fresh {
        /// The stream's head.
        to: Seq,
        /// The first seq still held.
        earliest: Option<Seq>,
    },
    /// No subscription reaches the stream yet; the first that does starts it at `from`.
    Pending {
        /// The viewer's cursor.
        from: Seq,
    },
    /// The cursor says nothing about a stream that this token may see: live from now.
    Reset {
        /// The viewer's cursor.
        from: Seq,
        /// The stream's head.
        to: Seq,
        /// The first seq still held.
        earliest: Option<Seq>,
    },
    /// A stream that this token may not see, or that does not exist: written as `reset`, without
    /// any further field, so that the two are not told apart.
    ResetUnseen,
    /// Everything after the cursor is still held and follows.
    Resumed {
        /// The viewer's cursor.
        from: Seq,
        /// The stream's head.
        to: Seq,
        /// The first seq still held.
        earliest: Option<Seq>,
        /// What the viewer saw and an unclean stop then lost.
        lost: Option<SeqRange>,
    },
    /// Retention took part of what follows the cursor; what is held, from `earliest` on, follows.
    Truncated {
        /// The viewer's cursor.
        from: Seq,
        /// The stream's head.
        to: Seq,
        /// The first seq still held, where any is.
        earliest: Option<Seq>,
        /// What retention took.
        missing: SeqRange,
        /// What the viewer saw and an unclean stop then lost.
        lost: Option<SeqRange>,
    },
}

impl Outcome {
    /// The word that a viewer reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh { .. } => "fresh",
            Self::Pending { .. } => "pending",
            Self::Reset { .. } | Self::ResetUnseen => "reset",
            Self::Resumed { .. } => "resumed",
            Self::Truncated { .. } => "truncated",
        }
    }
}

impl ResumeRow<'_> {
    /// Appends the row as a JSON object.
    pub(super) fn push_json(self, out: &mut Vec<u8>) {
        let fields = Fields::from(self.outcome);
        let mut row = Object::open(out);
        self.stream.push_json(row.member("stream"));
        row.string("outcome", self.outcome.name());
        push_seq(&mut row, "from", fields.from);
        push_seq(&mut row, "to", fields.to);
        push_seq(&mut row, "earliest", fields.earliest);
        push_range(&mut row, "missing", fields.missing);
        push_range(&mut row, "lost", fields.lost);
        row.close();
    }
}

/// The members of a row; what is `None` is left out.
#[derive(Default)]
struct Fields {
    from: Option<Seq>,
    to: Option<Seq>,
    earliest: Option<Seq>,
    missing: Option<SeqRange>,
    lost: Option<SeqRange>,
}

impl From<Outcome> for Fields {
    fn from(outcome: Outcome) -> Self {
        let none = Self::default();
        match outcome {
            Outcome::Fresh { to, earliest } => Self {
                to: Some(to),
                earliest,
                ..none
            },
            Outcome::Reset { from, to, earliest } => Self {
                from: Some(from),
                to: Some(to),
                earliest,
                ..none
            },
            Outcome::Pending { from } => Self {
                from: Some(from),
                ..none
            },
            Outcome::ResetUnseen => none,
            Outcome::Resumed {
                from,
                to,
                earliest,
                lost,
            } => Self {
                from: Some(from),
                to: Some(to),
                earliest,
                lost,
                ..none
            },
            Outcome::Truncated {
                from,
                to,
                earliest,
                missing,
                lost,
            } => Self {
                from: Some(from),
                to: Some(to),
                earliest,
                missing: Some(missing),
                lost,
            },
        }
    }
}

fn push_seq(row: &mut Object<'_>, name: &'static str, seq: Option<Seq>) {
    if let Some(seq) = seq {
        row.integer(name, seq.0);
    }
}

fn push_range(row: &mut Object<'_>, name: &'static str, range: Option<SeqRange>) {
    if let Some(SeqRange { from, to }) = range {
        let mut object = Object::open(row.member(name));
        json::push_integer(from.0, object.member("from"));
        json::push_integer(to.0, object.member("to"));
        object.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stream: StreamName<'_>, outcome: Outcome, expected: &str) {
        let mut out = Vec::new();
        ResumeRow { stream, outcome }.push_json(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn each_outcome_has_its_own_fields() {
        let (from, to, earliest) = (Seq(10), Seq(50), Some(Seq(5)));
        let range = |from, to| SeqRange {
            from: Seq(from),
            to: Seq(to),
        };
        check(
            StreamName::Own,
            Outcome::Fresh { to, earliest },
            r#"{"stream":"user","outcome":"fresh","to":50,"earliest":5}"#,
        );
        check(
            StreamName::Own,
            Outcome::Fresh {
                to: Seq(0),
                earliest: None,
            },
            r#"{"stream":"user","outcome":"fresh","to":0}"#,
        );
        check(
            StreamName::Project("7"),
            Outcome::Pending { from },
            r#"{"stream":"project/7","outcome":"pending","from":10}"#,
        );
        check(
            StreamName::Project("7"),
            Outcome::Reset {
                from: Seq(60),
                to,
                earliest: None,
            },
            r#"{"stream":"project/7","outcome":"reset","from":60,"to":50}"#,
        );
        check(
            StreamName::Own,
            Outcome::Resumed {
                from,
                to,
                earliest,
                lost: Some(range(8, 10)),
            },
            r#"{"stream":"user","outcome":"resumed","from":10,"to":50,"earliest":5,"lost":{"from":8,"to":10}}"#,
        );
        check(
            StreamName::Own,
            Outcome::Truncated {
                from,
                to,
                earliest: Some(Seq(20)),
                missing: range(11, 19),
                lost: None,
            },
            r#"{"stream":"user","outcome":"truncated","from":10,"to":50,"earliest":20,"missing":{"from":11,"to":19}}"#,
        );
    }

    #[test]
    fn a_stream_that_may_not_be_seen_tells_nothing() {
        let rows = [
            (
                StreamName::Project("secret"),
                r#"{"stream":"project/secret","outcome":"reset"}"#,
            ),
            (
                StreamName::User("a\"b"),
                r#"{"stream":"user/a\"b","outcome":"reset"}"#,
            ),
        ];
        for (stream, expected) in rows {
            check(stream, Outcome::ResetUnseen, expected);
        }
    }
}
