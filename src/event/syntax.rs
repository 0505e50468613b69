//! JSON text below the level of values: its grammar, its nesting, its white space.
//!
//! These are the paths for what `parse` does not put on a tape: texts that simd-json refuses, texts
//! too large to be an event, and bodies on their way to being cut. Nothing here keeps memory in
//! proportion to the text, whatever it holds. Source: RFC 8259.

use std::ops::Range;

use serde::de::IgnoredAny;

use super::{Rejection, RejectionCode};
use crate::limits::{EVENT_BYTES_MAX, EVENT_DEPTH_MAX};

/// Whether `text` is JSON by its grammar, in UTF-8, nested however deep; else what is wrong.
pub(super) fn check(text: &[u8]) -> Result<(), String> {
    if trimmed(text, 0..text.len()).is_empty() {
        return Err("there is nothing here; send a JSON object".to_owned());
    }
    // serde_json looks for UTF-8 only in the strings that it hands out, which here are none. What
    // it ignores it walks without recursion, so depth is no danger.
    if let Err(error) = std::str::from_utf8(text) {
        return Err(format!("not UTF-8 at byte {}", error.valid_up_to()));
    }
    match serde_json::from_slice::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// Why `text`, which simd-json refuses or which is too large to be tried, is no event.
pub(super) fn diagnose(text: &[u8]) -> Rejection {
    if let Err(message) = check(text) {
        return Rejection::new(RejectionCode::InvalidJson, message);
    }
    if depth(text) > EVENT_DEPTH_MAX {
        let message = format!("nested deeper than {EVENT_DEPTH_MAX} levels; flatten the event");
        return Rejection::new(RejectionCode::TooDeep, message);
    }
    if text.len() > EVENT_BYTES_MAX {
        let message = format!(
            "{} bytes, where an event has at most {EVENT_BYTES_MAX}; send less, or a reference",
            text.len()
        );
        return Rejection::new(RejectionCode::EventTooLarge, message);
    }
    let message = "a string holds half of a surrogate pair (\\ud800 to \\udfff alone), or a number \
                   is beyond what a 64-bit float holds; send it as a plain string";
    Rejection::new(RejectionCode::InvalidJson, message)
}

/// How deep the brackets of a JSON text are nested; an object of plain values is 1 deep.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut scanner = Scanner::new(0);
    while let Some(at) = scanner.next_mark(text, text.len()) {
        match text[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// `range` of `text` without the white space of JSON at both ends.
pub(super) fn trimmed(text: &[u8], range: Range<usize>) -> Range<usize> {
    // `trim_ascii` takes the form feed too, which JSON does not.
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let inner = &text[range.clone()];
    let Some(first) = inner.iter().position(is_text) else {
        return range.start..range.start;
    };
    let last = inner.iter().rposition(is_text).unwrap_or(first);
    range.start + first..range.start + last + 1
}

/// Passes over JSON text and stops where it takes shape: at brackets, braces and commas outside
/// strings. Can rest at any byte. Makes no check: text that is not JSON gives marks all the same.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    // The next byte to look at. One past the end of what was given where that ended with a
    // backslash within a string.
    at: usize,
    in_string: bool,
}

impl Scanner {
    /// Begins at byte `at`, outside strings.
    pub(super) fn new(at: usize) -> Self {
        Self {
            at,
            in_string: false,
        }
    }

    /// How far it has come.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The offset of the next mark before `end`, which is at most `text.len()`.
    /// `None` when `end` is reached; a later call goes on from there.
    pub(super) fn next_mark(&mut self, text: &[u8], end: usize) -> Option<usize> {
        loop {
            if self.in_string {
                self.leave_string(text, end)?;
            }
            let rest = text.get(self.at..end)?;
            let is_mark = |b: &u8| matches!(b, b'"' | b'{' | b'}' | b'[' | b']' | b',');
            let Some(offset) = rest.iter().position(is_mark) else {
                self.at = end;
                return None;
            };
            self.at += offset + 1;
            if rest[offset] != b'"' {
                return Some(self.at - 1);
            }
            self.in_string = true;
        }
    }

    fn leave_string(&mut self, text: &[u8], end: usize) -> Option<()> {
        let is_mark = |b: &u8| matches!(b, b'"' | b'\\');
        loop {
            let rest = text.get(self.at..end)?;
            // Most strings end, or escape something, within a few bytes, for which a call of
            // memchr does not pay.
            let (near, far) = rest.split_at(rest.len().min(NEAR_BYTES));
            let in_far = || Some(NEAR_BYTES + memchr::memchr2(b'"', b'\\', far)?);
            let Some(offset) = near.iter().position(is_mark).or_else(in_far) else {
                self.at = end;
                return None;
            };
            if rest[offset] == b'"' {
                self.at += offset + 1;
                self.in_string = false;
                return Some(());
            }
            self.at += offset + 2;
        }
    }
}

/// How far a string is looked through byte by byte.
const NEAR_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn marks(text: &str, step: usize) -> Vec<(usize, u8)> {
        let text = text.as_bytes();
        let mut scanner = Scanner::new(0);
        let mut marks = Vec::new();
        for end in (0..text.len()).step_by(step).chain([text.len()]) {
            while let Some(at) = scanner.next_mark(text, end) {
                marks.push((at, text[at]));
            }
        }
        marks
    }

    #[test]
    fn marks_are_what_stands_outside_strings() {
        let check = |text: &str, expected: &str| {
            let found: String = marks(text, 64).iter().map(|m| m.1 as char).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("", "");
        check("17", "");
        check(r#"{"a":[1,2]}"#, "{[,]}");
        check(r#"["},{","\"]","\\",{}]"#, "[,,,{}]");
        check(r#"["é\\\"]"]"#, "[]");
        check(r#"["open, "#, "[");
        check(r#"["a\"#, "[");
    }

    #[test]
    fn knows_the_depth_of_nesting() {
        let check = |text: &str, expected: usize| assert_eq!(depth(text.as_bytes()), expected);
        check("1", 0);
        check("{}", 1);
        check(r#"{"a":{},"b":[[]],"c":"[[[[["}"#, 3);
    }

    #[test]
    fn trims_what_json_calls_white_space() {
        let check = |text: &str, expected: &str| {
            let range = trimmed(text.as_bytes(), 0..text.len());
            assert_eq!(&text[range], expected);
        };
        check(" \t\r\n{} \n", "{}");
        check("1", "1");
        check("", "");
        check("\n \r\t", "");
        check("\u{c}1\u{c}", "\u{c}1\u{c}");
    }

    #[test]
    fn a_million_levels_are_too_deep_and_no_danger() {
        let text = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        assert_eq!(diagnose(text.as_bytes()).code, RejectionCode::TooDeep);
        let cut_short = &text.as_bytes()[..text.len() - 1];
        assert_eq!(diagnose(cut_short).code, RejectionCode::InvalidJson);
    }

    proptest! {
        #[test]
        fn resting_anywhere_finds_the_same_marks(text in "[\\[\\]{},\"\\\\ aé]{0,60}", step in 1..20_usize) {
            prop_assert_eq!(marks(&text, step), marks(&text, 1_000));
        }
    }
}
