//! A publish body, cut into its events a budget at a time, so that a large body does not hold a
//! turn of the core.
//!
//! An array is gone through twice: first all of it is checked, because an unreadable array has no
//! events to take, then its events are handed out. Nothing is kept per event meanwhile. In an array
//! or among lines, an event that is JSON but refused spoils only itself.
//!
//! The one thing that is not cut is a single value: an event of up to 1 MiB, and the check of a
//! larger one (at most the body's 8 MiB), each take one step. Source: contract section 3.

use std::ops::Range;

use bytes::Bytes;

use super::syntax::{self, Scanner};
use super::{Parsed, Parser, Rejection, RejectionCode};

/// How a body says where its events begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// One event, or an array of events: `application/json`, and a message of `/v1/publish`.
    Json,
    /// One event a line: `application/x-ndjson`. `\r\n` ends a line too; blank lines are skipped
    /// and not counted.
    Ndjson,
}

/// What becomes of an event of a known type whose `data` has another shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// It is taken as it is: a producer's slip hides no event.
    #[default]
    Lenient,
    /// It is refused: `INVALID_FIELD`, with the path of the field.
    Strict,
}

/// What came of a step through a body.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart at once; a box would cost an allocation for every event"
)]
pub enum Step {
    /// The next event, with its index among the events of the body, from 0.
    Event(usize, Result<Parsed, Rejection>),
    /// The budget is used up: go on with a new one, in another turn.
    Working,
    /// There was nothing more.
    Done,
}

/// A body of at most `BODY_BYTES_MAX`, and how far it has been cut.
///
/// An empty `Json` body is one event, `INVALID_JSON`; an empty array, and lines that are all blank,
/// are no event at all. An unreadable array is one event with index 0, `INVALID_JSON`.
#[derive(Debug)]
pub struct Body {
    bytes: Bytes,
    strictness: Strictness,
    // The next event's.
    index: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// An array in its first pass.
    Checking(Elements),
    /// An array in its second.
    Cutting(Elements),
    Done,
    Lines(Lines),
    Single,
}

impl Body {
    /// A body of which nothing has been taken yet.
    pub fn new(bytes: Bytes, kind: BodyKind) -> Self {
        let form = match kind {
            BodyKind::Json => Form::of_json(&bytes),
            BodyKind::Ndjson => Form::Lines(Lines::default()),
        };
        Self {
            bytes,
            strictness: Strictness::Lenient,
            index: 0,
            form,
        }
    }

    /// The same body, whose events are to be judged so.
    #[must_use]
    pub fn with_strictness(self, strictness: Strictness) -> Self {
        Self { strictness, ..self }
    }

    /// Cuts and reads the next event, which arrived at `now_ms`. Takes the bytes that it looked at
    /// from `budget`, and answers `Working` where none is left; so a new one must be above 0.
    pub fn next(&mut self, parser: &mut Parser, now_ms: i64, budget: &mut usize) -> Step {
        if let Some(step) = self.check_array(budget) {
            return step;
        }
        let cut = match &mut self.form {
            Form::Checking(elements) | Form::Cutting(elements) => {
                elements.next(&self.bytes, budget)
            }
            Form::Done => Cut::End,
            Form::Lines(lines) => lines.next(&self.bytes, budget),
            Form::Single if *budget == 0 => Cut::Paused,
            Form::Single => {
                *budget = budget.saturating_sub(self.bytes.len());
                self.form = Form::Done;
                Cut::Event(0..self.bytes.len())
            }
        };
        match cut {
            Cut::Event(range) => {
                let text = self.bytes.slice(syntax::trimmed(&self.bytes, range));
                self.index += 1;
                let parsed = match self.strictness {
                    Strictness::Lenient => parser.parse(&text, now_ms),
                    Strictness::Strict => parser.parse_strict(&text, now_ms),
                };
                Step::Event(self.index - 1, parsed)
            }
            Cut::Paused => Step::Working,
            Cut::Broken | Cut::End => Step::Done,
        }
    }

    /// Goes on with the first pass through an array. `None` once it is over and good, and for all
    /// that is no array.
    fn check_array(&mut self, budget: &mut usize) -> Option<Step> {
        let Form::Checking(elements) = &mut self.form else {
            return None;
        };
        let problem = loop {
            match elements.next(&self.bytes, budget) {
                Cut::Event(range) => {
                    let range = syntax::trimmed(&self.bytes, range);
                    if let Err(problem) = syntax::check(&self.bytes[range.clone()]) {
                        let (index, at) = (self.index, range.start);
                        break format!("element {index}, at byte {at} of the body: {problem}");
                    }
                    self.index += 1;
                }
                Cut::Paused => return Some(Step::Working),
                Cut::Broken => break "its `]` is missing, or not at its end".to_owned(),
                Cut::End => {
                    self.index = 0;
                    self.form = Form::Cutting(elements.again());
                    return None;
                }
            }
        };
        self.form = Form::Done;
        let message = format!("the array cannot be read, so none of it was taken: {problem}");
        let refusal = Rejection::new(RejectionCode::InvalidJson, message);
        Some(Step::Event(0, Err(refusal)))
    }
}

impl Form {
    fn of_json(bytes: &[u8]) -> Self {
        let start = syntax::trimmed(bytes, 0..bytes.len()).start;
        match bytes.get(start) {
            Some(b'[') => Self::Checking(Elements::new(start + 1)),
            _ => Self::Single,
        }
    }
}

/// What came of cutting.
enum Cut {
    /// This is no array.
    Broken,
    /// There are no more.
    End,
    /// These bytes are the next event's, with white space around them.
    Event(Range<usize>),
    /// The budget is used up.
    Paused,
}

/// Cuts an array at its commas. It can be trusted once every element was seen to be JSON.
#[derive(Debug)]
struct Elements {
    // After the opening bracket.
    first: usize,
    // The next element begins here.
    start: usize,
    // Brackets open at the scanner's place, those of the array itself not counted.
    depth: usize,
    scanner: Scanner,
    is_closed: bool,
}

impl Elements {
    /// Those of the array whose bracket opens before byte `first`.
    fn new(first: usize) -> Self {
        Self {
            first,
            start: first,
            depth: 0,
            scanner: Scanner::new(first),
            is_closed: false,
        }
    }

    /// The same, from the first one.
    fn again(&self) -> Self {
        Self::new(self.first)
    }

    fn next(&mut self, text: &[u8], budget: &mut usize) -> Cut {
        if self.is_closed {
            let rest = syntax::trimmed(text, self.scanner.position()..text.len());
            return if rest.is_empty() {
                Cut::End
            } else {
                Cut::Broken
            };
        }
        let from = self.scanner.position();
        let end = text.len().min(from.saturating_add(*budget));
        let cut = self.next_before(text, end);
        *budget = budget.saturating_sub(self.scanner.position() - from);
        cut
    }

    fn next_before(&mut self, text: &[u8], end: usize) -> Cut {
        while let Some(at) = self.scanner.next_mark(text, end) {
            match text[at] {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 0 => self.depth -= 1,
                b',' if self.depth > 0 => {}
                b',' => {
                    let start = std::mem::replace(&mut self.start, at + 1);
                    return Cut::Event(start..at);
                }
                b']' => return self.close(text, at),
                _ => return Cut::Broken,
            }
        }
        let is_over = self.scanner.position() >= text.len();
        if is_over { Cut::Broken } else { Cut::Paused }
    }

    fn close(&mut self, text: &[u8], at: usize) -> Cut {
        self.is_closed = true;
        let is_empty = syntax::trimmed(text, self.first..at).is_empty();
        if is_empty {
            return self.next(text, &mut 0);
        }
        Cut::Event(self.start..at)
    }
}

/// Cuts text into lines.
#[derive(Debug, Default)]
struct Lines {
    // The next line begins here.
    start: usize,
    // It does not end before this.
    scanned: usize,
}

impl Lines {
    /// The next line that is not blank.
    fn next(&mut self, text: &[u8], budget: &mut usize) -> Cut {
        while self.start < text.len() {
            if *budget == 0 {
                return Cut::Paused;
            }
            let end = text.len().min(self.scanned.saturating_add(*budget));
            let found = memchr::memchr(b'\n', &text[self.scanned..end]);
            let stop = found.map_or(end, |offset| self.scanned + offset + 1);
            *budget -= stop - self.scanned;
            self.scanned = stop;
            if found.is_none() && end < text.len() {
                return Cut::Paused;
            }
            let line = std::mem::replace(&mut self.start, stop)..stop;
            if !syntax::trimmed(text, line.clone()).is_empty() {
                return Cut::Event(line);
            }
        }
        Cut::End
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// All that a body yields under budgets of `budget` bytes: the session that each event carries,
    /// or the code of its refusal.
    fn outcomes(body: impl Into<Bytes>, kind: BodyKind, budget: usize) -> Vec<String> {
        let bytes: Bytes = body.into();
        let steps_max = 4 * bytes.len() / budget + 100;
        let (mut body, mut parser) = (Body::new(bytes, kind), Parser::new());
        let mut outcomes = Vec::new();
        for _ in 0..steps_max {
            let mut left = budget;
            loop {
                match body.next(&mut parser, 0, &mut left) {
                    Step::Event(index, event) => {
                        assert_eq!(index, outcomes.len());
                        outcomes.push(match event {
                            Ok(parsed) => parsed.event.session.unwrap_or_default().into(),
                            Err(refusal) => refusal.code.to_string(),
                        });
                    }
                    Step::Working => break,
                    Step::Done => return outcomes,
                }
            }
        }
        panic!("not done after {steps_max} budgets of {budget} bytes");
    }

    fn check(body: &str, kind: BodyKind, expected: &[&str]) {
        for budget in [1, 7, 64 * 1024] {
            let body = body.to_owned();
            assert_eq!(
                outcomes(body.clone(), kind, budget),
                expected,
                "{budget}: {body}"
            );
        }
    }

    const A: &str = r#"{"type":"t","user_id":1,"session_id":"a"}"#;
    const B: &str = r#"{"type":"t","user_id":1,"session_id":"b","data":["\"],[",{}]}"#;
    const NOBODYS: &str = r#"{"type":"t"}"#;

    #[test]
    fn json_is_one_event_or_an_array() {
        let check = |body: &str, expected: &[&str]| check(body, BodyKind::Json, expected);
        check(A, &["a"]);
        check(&format!(" \n{A}\n"), &["a"]);
        check("", &["INVALID_JSON"]);
        check(" \n", &["INVALID_JSON"]);
        check("3", &["INVALID_FIELD"]);
        check("{", &["INVALID_JSON"]);
        check(&format!("{A}{A}"), &["INVALID_JSON"]);
        check(&format!("{A}\n{A}"), &["INVALID_JSON"]);
        check("[]", &[]);
        check(" [ \n] ", &[]);
        check(&format!("[{A}]"), &["a"]);
        check(&format!(" [ {A} ,\n{B}\t] "), &["a", "b"]);
        check(&format!("[{A},{NOBODYS},{B}]"), &["a", "NO_AUDIENCE", "b"]);
        check(
            &format!("[3,[{A}],{B},null]"),
            &["INVALID_FIELD", "INVALID_FIELD", "b", "INVALID_FIELD"],
        );
    }

    #[test]
    fn an_unreadable_array_is_refused_as_a_whole() {
        for body in [
            "[",
            "[,]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1}",
            "[1]]",
            "[1],",
            "[1][2]",
            "[1] x",
            "[]x",
            "[{]}",
            "[[1]",
            "[1,,2]",
            "[1 2]",
            "[\"a]",
            "[\"a\\\"]",
            "[tru]",
            "[1,\u{c}2]",
        ] {
            check(body, BodyKind::Json, &["INVALID_JSON"]);
            let behind = body.replacen('[', &format!("[{A},"), 1);
            check(&behind, BodyKind::Json, &["INVALID_JSON"]);
        }
        assert_eq!(
            outcomes(&b"[\"\xff\"]"[..], BodyKind::Json, 9),
            ["INVALID_JSON"]
        );
    }

    #[test]
    fn says_where_an_array_is_broken() {
        let body = Bytes::from(format!("[{A}, {{\"a\":}}]"));
        let mut body = Body::new(body, BodyKind::Json);
        let Step::Event(0, Err(refusal)) = body.next(&mut Parser::new(), 0, &mut 1_000) else {
            panic!("not refused");
        };
        let place = format!("element 1, at byte {} of the body: not JSON", A.len() + 3);
        assert!(refusal.message.contains(&place), "{}", refusal.message);
    }

    #[test]
    fn what_is_json_but_no_event_spoils_only_itself() {
        let deep = "[".repeat(2_000) + &"]".repeat(2_000);
        let large = format!("\"{}\"", "a".repeat(crate::limits::EVENT_BYTES_MAX));
        let body = format!("[{deep},{large},1e400,\"\\ud800\",{A}]");
        let expected = [
            "TOO_DEEP",
            "EVENT_TOO_LARGE",
            "INVALID_JSON",
            "INVALID_JSON",
            "a",
        ];
        assert_eq!(outcomes(body, BodyKind::Json, 64 * 1024), expected);
    }

    #[test]
    fn white_space_around_an_event_is_no_part_of_it() {
        let space = " ".repeat(crate::limits::EVENT_BYTES_MAX);
        let body = format!("{space}{A}{space}");
        assert_eq!(outcomes(body.clone(), BodyKind::Json, 64 * 1024), ["a"]);
        assert_eq!(
            outcomes(format!("[{body}]"), BodyKind::Json, 64 * 1024),
            ["a"]
        );
        assert_eq!(outcomes(body, BodyKind::Ndjson, 64 * 1024), ["a"]);
    }

    #[test]
    fn lines_are_one_event_each() {
        let check = |body: &str, expected: &[&str]| check(body, BodyKind::Ndjson, expected);
        check("", &[]);
        check("\n \r\n\t\n", &[]);
        check(A, &["a"]);
        check(&format!("{A}\n"), &["a"]);
        check(&format!("\n{A}\r\n\r\n  {B}  \n"), &["a", "b"]);
        check(
            &format!("{A}\n{{\n{B}\n[{A}]\n{NOBODYS}"),
            &["a", "INVALID_JSON", "b", "INVALID_FIELD", "NO_AUDIENCE"],
        );
    }

    #[test]
    fn a_large_body_takes_many_budgets() {
        let events = vec![A; 5_000].join(",");
        let mut body = Body::new(format!("[{events}]").into(), BodyKind::Json);
        let (mut parser, mut turns) = (Parser::new(), 1);
        let mut left = 4_096;
        loop {
            match body.next(&mut parser, 0, &mut left) {
                Step::Event(..) => {}
                Step::Working => {
                    turns += 1;
                    left = 4_096;
                }
                Step::Done => break,
            }
        }
        assert!(turns >= 2 * events.len() / 4_096, "{turns} turns");
    }

    proptest! {
        #[test]
        fn any_budget_and_either_kind_give_the_same_events(
            events in prop::collection::vec(select(&[A, B, NOBODYS, "3", "\"]\"", "{}"][..]), 0..12),
            space in select(&["", " ", "\t"][..]),
            budget in 1..200_usize,
        ) {
            let parsed = |text: &&str| match Parser::new().parse(&Bytes::copy_from_slice(text.as_bytes()), 0) {
                Ok(parsed) => parsed.event.session.unwrap_or_default().into(),
                Err(refusal) => refusal.code.to_string(),
            };
            let expected: Vec<String> = events.iter().map(parsed).collect();
            let padded: Vec<String> = events.iter().map(|e| format!("{space}{e}{space}")).collect();
            let array = format!("{space}[{}]{space}", padded.join(","));
            prop_assert_eq!(&outcomes(array, BodyKind::Json, budget), &expected);
            prop_assert_eq!(&outcomes(padded.join("\n"), BodyKind::Ndjson, budget), &expected);
        }

        #[test]
        fn an_array_is_read_exactly_where_serde_json_reads_it(
            text in "\\[[\\[\\]{}\",:1 \\\\a]{0,12}\\]?",
            budget in 1..20_usize,
        ) {
            let readable = serde_json::from_str::<Vec<serde_json::Value>>(&text);
            let outcomes = outcomes(text, BodyKind::Json, budget);
            match readable {
                Ok(elements) => prop_assert_eq!(outcomes.len(), elements.len()),
                Err(_) => prop_assert_eq!(outcomes, ["INVALID_JSON"]),
            }
        }

        #[test]
        fn cuts_anything_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            budget in 1..50_usize,
        ) {
            outcomes(bytes.clone(), BodyKind::Json, budget);
            outcomes([b"[", &bytes[..]].concat(), BodyKind::Json, budget);
            outcomes(bytes, BodyKind::Ndjson, budget);
        }
    }
}
