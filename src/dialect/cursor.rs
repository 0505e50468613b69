//! The place from which a viewer resumes: `epoch=E&resume=CURSOR` of a query or a `subscribe`.
//! Reads and writes the text; what the seqs mean is the hub's to judge.
//! Source: the contract, section 5.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::StreamName;
use crate::event::{Epoch, Seq, Stream, StreamKind};
use crate::limits::CURSOR_STREAMS_MAX;

/// The last seq that a viewer has seen in each stream, and the life of the log they belong to.
/// Displays as the `resume` value, before the encoding that a URL adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Without it only a seq of 0 has a meaning.
    pub epoch: Option<Epoch>,
    own: Option<Seq>,
    /// All but the own stream; `Stream::user` here is somebody's full name, never the viewer's own.
    others: BTreeMap<Stream, Seq>,
}

impl Cursor {
    /// Names no stream yet.
    pub fn new(epoch: Option<Epoch>) -> Self {
        Self {
            epoch,
            ..Self::default()
        }
    }

    /// Reads the two parameters, already decoded from query or JSON. `None` without `resume`.
    /// `resume` is `123` (the own stream) or `user=123,project/7=456`, ids percent-encoded.
    /// Errors are the viewer's fault: 400 in a query, `INVALID_CURSOR` in a message.
    pub fn parse(epoch: Option<&str>, resume: Option<&str>) -> Result<Option<Self>, CursorError> {
        let epoch = epoch
            .map(|text| Epoch::parse(text).ok_or(CursorError::Epoch))
            .transpose()?;
        resume
            .map(|text| Self::parse_streams(epoch, text))
            .transpose()
    }

    /// Where the viewer stands in `stream`, if it said so.
    pub fn seq(&self, stream: StreamName<'_>) -> Option<Seq> {
        match key(stream) {
            None => self.own,
            Some(other) => self.others.get(&other).copied(),
        }
    }

    /// Sets where the viewer stands in `stream`; gives back what stood there before.
    pub fn insert(&mut self, stream: StreamName<'_>, seq: Seq) -> Option<Seq> {
        match key(stream) {
            None => self.own.replace(seq),
            Some(other) => self.others.insert(other, seq),
        }
    }

    /// Forgets where the viewer stands in `stream`; gives back what stood there.
    pub fn remove(&mut self, stream: StreamName<'_>) -> Option<Seq> {
        match key(stream) {
            None => self.own.take(),
            Some(other) => self.others.remove(&other),
        }
    }

    /// Every stream with its seq: the own one first, then by name.
    pub fn iter(&self) -> impl Iterator<Item = (StreamName<'_>, Seq)> {
        let own = self.own.map(|seq| (StreamName::Own, seq));
        let others = self.others.iter().map(|(stream, &seq)| {
            let name = match stream.kind {
                StreamKind::Project => StreamName::Project(&stream.id),
                StreamKind::User => StreamName::User(&stream.id),
            };
            (name, seq)
        });
        own.into_iter().chain(others)
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        usize::from(self.own.is_some()) + self.others.len()
    }

    /// Whether no stream is named. A cursor that was read names at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn parse_streams(epoch: Option<Epoch>, text: &str) -> Result<Self, CursorError> {
        let mut cursor = Self::new(epoch);
        if !text.contains('=') {
            cursor.own = Some(parse_seq(text)?);
            return Ok(cursor);
        }
        for part in text.split(',') {
            cursor.add(part)?;
        }
        Ok(cursor)
    }

    fn add(&mut self, part: &str) -> Result<(), CursorError> {
        let (name, seq) = part.split_once('=').ok_or(CursorError::Stream)?;
        let seq = parse_seq(seq)?;
        let before = match name.split_once('/') {
            None if name == "user" => self.own.replace(seq),
            Some(("project", id)) => self.others.insert(Stream::project(&decode_id(id)?), seq),
            Some(("user", id)) => self.others.insert(Stream::user(&decode_id(id)?), seq),
            _ => return Err(CursorError::Stream),
        };
        if before.is_some() {
            return Err(CursorError::Duplicate);
        }
        if self.len() > CURSOR_STREAMS_MAX {
            return Err(CursorError::TooManyStreams);
        }
        Ok(())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (stream, seq)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let (prefix, id) = stream.parts();
            let id = utf8_percent_encode(id, ID_ESCAPED);
            write!(f, "{comma}{prefix}{id}={seq}")?;
        }
        Ok(())
    }
}

/// Why a cursor cannot be read. The viewer's fault: 400, or `INVALID_CURSOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// A stream twice.
    #[error("resume names a stream twice")]
    Duplicate,
    /// Not an epoch at all; an epoch of another life is none of these errors.
    #[error("epoch is not 8 lower-case hex digits")]
    Epoch,
    /// Not a number, or 2^53 and more.
    #[error("resume holds a seq that is not a decimal number below 2^53")]
    Seq,
    /// Neither `user` nor `project/<id>`, or an id that is not percent-encoded UTF-8.
    #[error("resume is neither a seq nor a list like user=123,project/7=456 with encoded ids")]
    Stream,
    /// More than `limits::CURSOR_STREAMS_MAX`.
    #[error("resume names more than {CURSOR_STREAMS_MAX} streams")]
    TooManyStreams,
}

impl CursorError {
    /// The code word of the refusal.
    pub fn code(self) -> &'static str {
        "INVALID_CURSOR"
    }
}

/// Where a stream other than the own one is kept.
fn key(stream: StreamName<'_>) -> Option<Stream> {
    match stream {
        StreamName::Own => None,
        StreamName::Project(id) => Some(Stream::project(id)),
        StreamName::User(id) => Some(Stream::user(id)),
    }
}

fn parse_seq(text: &str) -> Result<Seq, CursorError> {
    // `u64::from_str` alone would take a plus sign.
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seq = text.parse().ok().filter(|_| is_decimal).map(Seq);
    seq.filter(|&seq| seq <= Seq::MAX).ok_or(CursorError::Seq)
}

fn decode_id(encoded: &str) -> Result<String, CursorError> {
    // The decoder would leave a stray percent sign as it stands.
    let mut escapes = encoded.split('%').skip(1);
    let is_whole = escapes
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    if encoded.is_empty() || !is_whole {
        return Err(CursorError::Stream);
    }
    let decoded = percent_decode_str(encoded).decode_utf8();
    decoded.map(Into::into).map_err(|_| CursorError::Stream)
}

/// RFC 3986 unreserved characters stay as they are.
const ID_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn check(resume: &str, expected: Result<&[(StreamName<'_>, u64)], CursorError>) {
        let parsed = Cursor::parse(Some("0badcafe"), Some(resume)).map(Option::unwrap_or_default);
        let streams = match &parsed {
            Ok(cursor) => {
                assert_eq!(cursor.epoch, Some(Epoch(0x0bad_cafe)));
                Ok(cursor.iter().map(|(stream, seq)| (stream, seq.0)).collect())
            }
            Err(error) => Err(*error),
        };
        assert_eq!(streams, expected.map(<[_]>::to_vec), "{resume}");
    }

    #[test]
    fn both_forms_are_read() {
        use StreamName::{Own, Project, User};
        check("123", Ok(&[(Own, 123)]));
        check("0", Ok(&[(Own, 0)]));
        check("user=123", Ok(&[(Own, 123)]));
        check(
            "project/7=456,user=9007199254740991",
            Ok(&[(Own, 9_007_199_254_740_991), (Project("7"), 456)]),
        );
        check("project/a%2Cb%3D%25c=1", Ok(&[(Project("a,b=%c"), 1)]));
        check("project/a/b=1", Ok(&[(Project("a/b"), 1)]));
        check("project/%C3%A9=1", Ok(&[(Project("é"), 1)]));
        check("user/bob=5", Ok(&[(User("bob"), 5)]));
    }

    #[test]
    fn malformed_cursors_are_refused() {
        use CursorError::{Duplicate, Seq, Stream};
        check("", Err(Seq));
        check("-1", Err(Seq));
        check("+1", Err(Seq));
        check("1.0", Err(Seq));
        check("9007199254740992", Err(Seq));
        check("99999999999999999999999", Err(Seq));
        check("user=", Err(Seq));
        check("user=1=2", Err(Seq));
        check("1,2", Err(Seq));
        check("project/7", Err(Seq));
        check("1,project/7=2", Err(Stream));
        check("user=1,", Err(Stream));
        check("=1", Err(Stream));
        check("User=1", Err(Stream));
        check("project=1", Err(Stream));
        check("project/=1", Err(Stream));
        check("project/%=1", Err(Stream));
        check("project/%4=1", Err(Stream));
        check("project/%zz=1", Err(Stream));
        check("project/%ff=1", Err(Stream));
        check("user=1,user=1", Err(Duplicate));
        check("project/7=1,project/%37=2", Err(Duplicate));
    }

    #[test]
    fn the_number_of_streams_is_bounded() {
        let streams = |count: usize| {
            let parts: Vec<_> = (0..count).map(|id| format!("project/{id}=1")).collect();
            Cursor::parse(None, Some(&parts.join(","))).map(|cursor| cursor.unwrap().len())
        };
        assert_eq!(streams(CURSOR_STREAMS_MAX), Ok(CURSOR_STREAMS_MAX));
        assert_eq!(
            streams(CURSOR_STREAMS_MAX + 1),
            Err(CursorError::TooManyStreams)
        );
    }

    #[test]
    fn an_epoch_alone_is_no_cursor_but_must_be_one() {
        assert_eq!(Cursor::parse(None, None), Ok(None));
        assert_eq!(Cursor::parse(Some("00000001"), None), Ok(None));
        for epoch in ["", "1", "0BADCAFE", "0badcafe0", "0badcafg"] {
            assert_eq!(Cursor::parse(Some(epoch), None), Err(CursorError::Epoch));
        }
        let cursor = Cursor::parse(None, Some("7")).unwrap().unwrap();
        assert_eq!(
            (cursor.epoch, cursor.seq(StreamName::Own)),
            (None, Some(Seq(7)))
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            own in proptest::option::of(0..=Seq::MAX.0),
            projects in proptest::collection::btree_map("\\PC{1,20}|[\0-\u{7f}]{1,8}", 0..=Seq::MAX.0, 0..6),
            users in proptest::collection::btree_map(".{1,8}", 0..=Seq::MAX.0, 0..3),
        ) {
            let mut cursor = Cursor::default();
            let own = own.map(|seq| (StreamName::Own, seq));
            let projects = projects.iter().map(|(id, &seq)| (StreamName::Project(id), seq));
            let users = users.iter().map(|(id, &seq)| (StreamName::User(id), seq));
            for (stream, seq) in own.into_iter().chain(projects).chain(users) {
                prop_assert_eq!(cursor.insert(stream, Seq(seq)), None);
                prop_assert_eq!(cursor.seq(stream), Some(Seq(seq)));
            }
            prop_assume!(!cursor.is_empty());
            prop_assert_eq!(Cursor::parse(None, Some(&cursor.to_string())), Ok(Some(cursor)));
        }

        #[test]
        fn any_text_is_read_or_refused(resume in "[user/project=0-9,%a-f]{0,40}|.{0,40}") {
            if let Ok(Some(cursor)) = Cursor::parse(None, Some(&resume)) {
                let again = Cursor::parse(None, Some(&cursor.to_string()));
                prop_assert_eq!(again, Ok(Some(cursor)));
            }
        }
    }
}
