//! Rows of RFC 6455: what a client may not send once it is upgraded.

use super::{Ending, Row};
use crate::harness::{close_frame, masked, text_frame};

const VIEWER: &str = "/observatory";
const PUBLISHER: &str = "/v1/publish";
/// Bytes of a viewer's message, by default.
const MESSAGE: usize = 16_384;
/// Fragments of a message.
const FRAGMENTS: usize = 64;

/// A viewer's row.
fn row(what: impl Into<String>, bytes: impl AsRef<[u8]>, code: u16) -> Row {
    Row {
        what: what.into(),
        bytes: bytes.as_ref().to_vec(),
        ending: Ending::Close(VIEWER, code),
    }
}

fn publisher(what: &str, bytes: impl AsRef<[u8]>, code: u16) -> Row {
    Row {
        ending: Ending::Close(PUBLISHER, code),
        ..row(format!("publisher: {what}"), bytes, code)
    }
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = headers();
    rows.extend(fragments());
    rows.extend(closes());
    rows.extend(texts());
    rows.extend(bounds());
    rows
}

/// RFC 6455 §5.2: bits, opcodes, masks and lengths.
fn headers() -> Vec<Row> {
    let mut rows = Vec::new();
    for bits in [0x40, 0x20, 0x10, 0x70] {
        let first = 0x81 | bits;
        rows.push(row(
            format!("{first:#x}: reserved"),
            masked(first, b"{}"),
            1002,
        ));
        let first = 0x89 | bits;
        rows.push(row(
            format!("{first:#x}: reserved"),
            masked(first, b""),
            1002,
        ));
    }
    let later = [masked(0x01, b"{"), masked(0xc0, b"}")].concat();
    rows.push(row("a reserved bit in a later fragment", later, 1002));
    for opcode in (3..=7).chain(0xb..=0xf) {
        let what = format!("opcode {opcode:#x}");
        rows.push(row(what, masked(0x80 | opcode, b""), 1002));
    }
    for first in [0x80, 0x81, 0x82, 0x88, 0x89, 0x8a] {
        rows.push(row(
            format!("{first:#x}: not masked"),
            [first, 2, b'{', b'}'],
            1002,
        ));
    }
    for (what, length) in [
        ("16 bits for 125", &[0xfe, 0, 125][..]),
        ("64 bits for 2", &[0xff, 0, 0, 0, 0, 0, 0, 0, 2]),
        ("64 bits for 65,535", &[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ("the highest bit", &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("all bits", &[0xff; 9]),
    ] {
        let header = [&[0x81], length, &[0; 4]].concat();
        rows.push(row(format!("a length of {what}"), header, 1002));
    }
    rows
}

/// RFC 6455 §5.4 and §5.5: what may be in fragments, and in which order.
fn fragments() -> Vec<Row> {
    let begun = masked(0x01, b"{");
    let text = text_frame(r#"{"type":"ping"}"#);
    vec![
        row("a ping in fragments", masked(0x09, b""), 1002),
        row("a pong in fragments", masked(0x0a, b""), 1002),
        row("a close in fragments", masked(0x08, &[3, 0xe8]), 1002),
        row("a ping of 126 bytes", masked(0x89, &[b'x'; 126]), 1002),
        row("a pong of 64 KiB", masked(0x8a, &[b'x'; 65_536]), 1002),
        row("the end of nothing", masked(0x80, b"x"), 1002),
        row("the middle of nothing", masked(0x00, b"x"), 1002),
        row(
            "the end of a message that has ended",
            [&text[..], &masked(0x80, b"x")].concat(),
            1002,
        ),
        row("a text in a text", [&begun[..], &text].concat(), 1002),
        row(
            "a binary in a text",
            [&begun[..], &masked(0x82, b"x")].concat(),
            1002,
        ),
        row(
            "a text in a text, behind a ping",
            [&begun[..], &masked(0x89, b""), &begun].concat(),
            1002,
        ),
        row("binary", masked(0x82, b"{}"), 1003),
        row("binary in fragments", masked(0x02, b"{}"), 1003),
        publisher("binary", masked(0x82, b"{}"), 1003),
        publisher("the end of nothing", masked(0x80, b"x"), 1002),
        publisher("a reserved bit", masked(0xc1, b"{}"), 1002),
    ]
}

/// RFC 6455 §7: what a close may hold, and that nothing behind it counts.
fn closes() -> Vec<Row> {
    let mut rows: Vec<Row> = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535]
        .into_iter()
        .map(|code| row(format!("a close with {code}"), close_frame(code), 1002))
        .collect();
    let close = |payload: &[u8]| masked(0x88, payload);
    rows.extend([
        row("a close of one byte", close(b"\x03"), 1002),
        row("a close of 126 bytes", close(&[b'x'; 126]), 1002),
        row("a close with bad text", close(b"\x03\xe8\xff"), 1007),
        row(
            "a close with half a character",
            close(b"\x03\xe8\xe2\x82"),
            1007,
        ),
        row(
            "a close, then no frame",
            [&close_frame(1000)[..], b"\xff\xff"].concat(),
            1000,
        ),
        row(
            "a close, then binary",
            [close_frame(1000), masked(0x82, b"x")].concat(),
            1000,
        ),
        row(
            "a close in a message",
            [masked(0x01, b"{"), close_frame(1000)].concat(),
            1000,
        ),
    ]);
    rows
}

/// RFC 6455 §8.1: text is UTF-8, and refused as soon as it cannot be.
fn texts() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        (
            "two bytes that do not belong together",
            &b"\"\xc3\x28\""[..],
        ),
        ("a byte that nothing starts with", b"\xff"),
        ("a continuation without a start", b"\x80"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("past U+10FFFF", b"\xf4\x90\x80\x80"),
        ("an overlong slash", b"\xc0\xaf"),
        ("an overlong NUL", b"\xf0\x80\x80\x80"),
        ("half a character at the end", b"\"\xe2\x82"),
    ]
    .into_iter()
    .map(|(what, text)| row(what, masked(0x81, text), 1007))
    .collect();
    let cut = [masked(0x01, b"\xe2\x82"), masked(0x80, b"")];
    let later = [masked(0x01, b"\xe2"), masked(0x00, b"\x28")];
    // A frame of 4 bytes of which 1 is there: `0xff` under the key's first byte.
    let early = [0x81, 0x84, 0x1f, 0x2e, 0x3d, 0x4c, 0xff ^ 0x1f];
    rows.extend([
        row("cut short between fragments", cut.concat(), 1007),
        row(
            "bad in a fragment that is not the last",
            masked(0x01, b"\xff"),
            1007,
        ),
        row("bad in the second fragment", later.concat(), 1007),
        row("bad in a frame that is not whole", early, 1007),
        publisher("not UTF-8", masked(0x81, b"\"\xff\""), 1007),
    ]);
    rows
}

/// Our own bounds.
fn bounds() -> Vec<Row> {
    let claimed = |bytes: u64| [&[0x81, 0xff], &bytes.to_be_bytes()[..], &[0; 4]].concat();
    let parts = |last: usize| {
        [
            masked(0x01, &vec![b' '; MESSAGE - 384]),
            masked(0x80, &vec![b' '; last]),
        ]
        .concat()
    };
    let begun = masked(0x01, b"");
    vec![
        row(
            "a message too big",
            masked(0x81, &[b' '; MESSAGE + 1]),
            1009,
        ),
        row("too big in parts", parts(385), 1009),
        row("too big, only claimed", claimed(0x7fff_ffff), 1009),
        row(
            "the biggest that can be claimed",
            claimed(i64::MAX as u64),
            1009,
        ),
        row(
            "too many fragments",
            [&begun[..], &masked(0x00, b"").repeat(FRAGMENTS)].concat(),
            1008,
        ),
        row(
            "too many fragments of a byte",
            [&begun[..], &masked(0x00, b" ").repeat(FRAGMENTS)].concat(),
            1008,
        ),
        row("too many pings", masked(0x89, b"").repeat(50), 1008),
        row("too many pongs", masked(0x8a, b"").repeat(50), 1008),
        row(
            "too many pings in a message",
            [&begun[..], &masked(0x89, b"").repeat(50)].concat(),
            1008,
        ),
        publisher(
            "a message too big, only claimed",
            claimed(8 * 1024 * 1024 + 1),
            1009,
        ),
        publisher(
            "too many fragments",
            [&begun[..], &masked(0x00, b"").repeat(FRAGMENTS)].concat(),
            1008,
        ),
    ]
}
