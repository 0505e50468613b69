//! What a command tells its user beside its output: lines on standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Writes one line on standard error. Text from a server or a repository may be in it, so it is
/// made printable. A closed standard error is no reason to stop.
pub(crate) fn say(message: &str) {
    let _ = writeln!(io::stderr().lock(), "sightline: {}", printable(message));
}

/// `text` with every character escaped that could move a terminal's cursor, change its state or
/// reorder what is shown: control characters, line separators and bidirectional marks.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_treacherous) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_treacherous(character) {
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_a_terminal_would_obey() {
        let cases = [
            ("plain ünï 漢字 🙂", "plain ünï 漢字 🙂"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\rb\nc\td\x07\x7f", "a\\u{d}b\\u{a}c\\u{9}d\\u{7}\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("x\u{202e}y\u{2066}", "x\\u{202e}y\\u{2066}"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text), expected, "{text:?}");
        }
    }
}
