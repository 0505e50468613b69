//! What fills an event up to its size: one letter, or text as an agent's tools print it, which
//! a compressor finds as hard as theirs.
//!
//! Pure and repeatable: the same marker gives the same text, another marker another.

use serde::{Deserialize, Serialize};

use crate::dice::{Dice, GOLDEN};
use crate::mix;
use crate::payload::Marker;

/// The filling of an event, by its kind and its bytes inside the JSON string (escapes counted).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Filling {
    /// One letter again and again.
    Letters(usize),
    /// As the mixture's row says, which gives the event its type too.
    Mixed,
    /// The output of a build, different in every event. Deflated at level 1, an event of 2 KiB
    /// takes about a third.
    Text(usize),
}

impl Filling {
    /// The same kind of filling, of `bytes`.
    pub(crate) fn of_bytes(self, bytes: usize) -> Self {
        match self {
            Self::Letters(_) => Self::Letters(bytes),
            Self::Mixed => Self::Mixed,
            Self::Text(_) => Self::Text(bytes),
        }
    }

    /// Appends the filling of the event with `marker`, as the inside of a JSON string.
    pub(crate) fn write_to(self, marker: &Marker, out: &mut Vec<u8>) {
        match self {
            Self::Letters(bytes) => out.resize(out.len() + bytes, b'x'),
            Self::Mixed => write_text(mix::row_of(marker).1, marker, out),
            Self::Text(bytes) => write_text(bytes, marker, out),
        }
    }
}

fn write_text(bytes: usize, marker: &Marker, out: &mut Vec<u8>) {
    let end = out.len() + bytes;
    let mut dice = dice_of(marker);
    while out.len() < end {
        write_line(&mut dice, out);
        out.extend_from_slice(NEWLINE);
    }
    let is_cut = out[..end].ends_with(b"\\") && out.get(end) == Some(&b'n');
    out.truncate(end);
    if let Some(last) = out.last_mut().filter(|_| is_cut) {
        *last = b'.';
    }
}

fn write_line(dice: &mut Dice, out: &mut Vec<u8>) {
    let module = dice.one_of(&MODULES);
    match dice.below(4) {
        0 => {
            push(out, &["   Compiling sightline-", module, " v0."]);
            push_number(dice, 100, out);
            push(out, &[".", dice.one_of(&["0", "1", "2"])]);
        }
        1 => {
            push(out, &["warning: unused variable `", dice.one_of(&WORDS)]);
            push(out, &["` --> src/engine/", module, ".rs:"]);
            push_number(dice, 1000, out);
        }
        _ => {
            push(out, &["test engine::", module, "::tests::"]);
            push(
                out,
                &[dice.one_of(&WORDS), "_after_a_reconnect ... ok <0.00"],
            );
            push(out, &[dice.one_of(&["1", "2", "3"]), "s>"]);
        }
    }
}

fn push(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A line's end, escaped.
const NEWLINE: &[u8] = b"\\n";
const MODULES: [&str; 8] = [
    "flush", "listener", "mailbox", "outbox", "replay", "session", "stream", "timers",
];
const WORDS: [&str; 16] = [
    "accepts", "bounded", "closes", "cursor", "drains", "empty", "frame", "keeps", "late", "order",
    "peer", "refused", "resumes", "slow", "token", "wakes",
];

/// The sequence of the event with `marker`.
fn dice_of(marker: &Marker) -> Dice {
    let Marker { run, user, n, .. } = *marker;
    Dice::new((u64::from(run) << 32 ^ u64::from(user)).wrapping_mul(GOLDEN) ^ u64::from(n) << 20)
}

/// Appends a number below `bound` (at most 1000) as three digits.
fn push_number(dice: &mut Dice, bound: usize, out: &mut Vec<u8>) {
    let number = dice.below(bound);
    out.extend([100, 10, 1].map(|place| b'0' + (number / place % 10) as u8));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::inflate::tests::deflate;
    use crate::payload::{is_whole, write_event};

    fn marker(n: u32) -> Marker {
        Marker {
            run: 7,
            user: 1,
            n,
            intended_ns: 0,
            slip_ns: 0,
        }
    }

    fn event(n: u32, filling: Filling) -> Vec<u8> {
        let mut out = Vec::new();
        write_event(&mut out, &marker(n), 1_763_805_600_000, filling.into());
        out
    }

    #[test]
    fn text_of_every_length_is_json_and_as_long_as_asked_for() {
        let empty = event(0, Filling::Text(0)).len();
        for bytes in 0..300 {
            let text = event(3, Filling::Text(bytes));
            assert_eq!(text.len(), empty + bytes);
            assert!(is_whole(&text, &marker(3), Filling::Text(bytes)), "{bytes}");
        }
    }

    #[test]
    fn text_differs_from_event_to_event() {
        let filling = Filling::Text(200);
        let (one, other) = (event(1, filling), event(2, filling));
        assert!(!is_whole(&one, &marker(2), filling));
        assert_ne!(one, other);
        assert_eq!(one, event(1, filling));
    }

    #[test]
    fn text_deflates_as_well_as_real_events() {
        for n in 0..50 {
            let text = event(n, Filling::Text(1900));
            let ratio = text.len() as f64 / deflate(&text).len() as f64;
            assert!((2.8..4.0).contains(&ratio), "event {n}: {ratio:.2}");
        }
    }
}
