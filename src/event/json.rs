//! Writes JSON straight into the caller's buffer: strings, numbers, objects, arrays. Allocates
//! nothing besides that buffer. Lacks any check of what the caller nests. Whatever leaves for a
//! client is written by it: the envelopes of `dialect`, the trees of `agents`.
//! Source: RFC 8259 §7 for the escapes.

use std::fmt;
use std::io::Write;

/// Appends `text` as a JSON string, quotes included.
pub fn push_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text, out);
    out.push(b'"');
}

/// Appends `text` as the inside of a JSON string. What needs no escape is copied in whole runs.
pub fn push_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    // Ids rarely hold anything to escape: the search over all bytes vectorises, and one copy ends it.
    if bytes.iter().any(|&byte| needs_escape(byte)) {
        for (at, &byte) in bytes.iter().enumerate() {
            if needs_escape(byte) {
                out.extend_from_slice(&bytes[copied..at]);
                push_escape(byte, out);
                copied = at + 1;
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Appends an integer in decimal.
pub fn push_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends the display of `value` as a JSON string; it holds nothing to escape.
pub fn push_plain(value: impl fmt::Display, out: &mut Vec<u8>) {
    write!(out, "\"{value}\"").expect("a Vec takes all bytes");
}

/// Appends `[…]`, each item written by `push_item`.
pub fn push_array<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut push_item: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_item(item, out);
    }
    out.push(b']');
}

/// A JSON object under construction; [`Object::close`] ends it.
#[must_use]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Appends the opening brace.
    pub fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            is_empty: true,
        }
    }

    /// Starts a member and hands out the buffer, to which its value is to be appended.
    /// `name` is one of ours and holds nothing to escape.
    pub fn member(&mut self, name: &'static str) -> &mut Vec<u8> {
        debug_assert!(!name.bytes().any(needs_escape));
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// As [`Self::member`], with a name that `push_name` writes (as a string, quotes included).
    pub fn member_named(&mut self, push_name: impl FnOnce(&mut Vec<u8>)) -> &mut Vec<u8> {
        self.separate();
        push_name(self.out);
        self.out.push(b':');
        self.out
    }

    /// Appends a member whose value is a string.
    pub fn string(&mut self, name: &'static str, value: &str) {
        push_string(value, self.member(name));
    }

    /// Appends a member whose value is an integer.
    pub fn integer(&mut self, name: &'static str, value: impl itoa::Integer) {
        push_integer(value, self.member(name));
    }

    /// Appends the closing brace.
    pub fn close(self) {
        self.out.push(b'}');
    }

    fn separate(&mut self) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
    }
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: &str) {
        let mut out = Vec::new();
        push_string(text, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn strings_are_escaped_only_where_json_demands_it() {
        check("", r#""""#);
        check("sess-1", r#""sess-1""#);
        check(r#"a"b\c"#, r#""a\"b\\c""#);
        check("\n\r\t", r#""\n\r\t""#);
        check("\0\u{1f}x", r#""\u0000\u001fx""#);
        check("é/\u{2028}\u{7f}😀", "\"é/\u{2028}\u{7f}😀\"");
    }

    #[test]
    fn objects_and_arrays_separate_their_parts() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.string("a", "x");
        object.integer("b", -5_i64);
        push_array([1_u8, 2], object.member("c"), push_integer);
        object
            .member_named(|out| push_string("d\"", out))
            .push(b'0');
        object.close();
        assert_eq!(out, br#"{"a":"x","b":-5,"c":[1,2],"d\"":0}"#);
    }

    proptest! {
        #[test]
        fn any_string_reads_back_as_itself(text in any::<String>()) {
            let mut out = Vec::new();
            push_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
