//! Messages of permessage-deflate.
//!
//! The first byte of an input chooses a level and whether the rest is a payload as a peer may send
//! it, or a message of ours. Properties: a payload inflates to what a second reader has, within
//! the bound, or is refused where he refuses it; a message comes back; and no payload or message,
//! whatever became of it, leaves a trace in the one that follows.

use flate2::{Decompress, FlushDecompress, Status};
use sightline::wire::deflate::{Deflater, InflateError, Inflater};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "deflate",
    run,
    tokens: TOKENS,
    bytes_max: 4 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "\u{0}\u{0}", "\u{1}\u{0}\u{0}", "\u{2}\u{7}\u{0}", "\u{3}\u{0}", "\u{4}\u{c1}",
];

/// Small, so that inputs reach it.
const MESSAGE_BYTES_MAX: usize = 20_000;

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    if first & 1 == 0 {
        check_payload(rest);
    } else {
        check_message(rest, 1 + u32::from(first >> 1) % 9);
    }
}

fn check_payload(payload: &[u8]) {
    let mut inflater = Inflater::default();
    let found = inflater.inflate(payload, MESSAGE_BYTES_MAX);
    match (&found, read_naively(payload)) {
        (Ok(message), Some(expected)) => assert_eq!(*message, expected),
        (Err(InflateError::TooBig), Some(expected)) => {
            assert!(expected.len() > MESSAGE_BYTES_MAX);
        }
        // What is wrong with a payload may lie behind the bound.
        (Err(_), None) => {}
        (found, expected) => panic!("{found:?}, and the second reader {expected:?}"),
    }
    assert_eq!(inflater.inflate(HELLO_DEFLATED, 5), Ok(HELLO.to_vec()));
    assert_eq!(inflater.inflate(payload, MESSAGE_BYTES_MAX), found);
    let counts = inflater.take_counts();
    assert_eq!(counts.inflated + counts.failed, 3);
}

/// RFC 7692 §7.2.3.1.
const HELLO_DEFLATED: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const HELLO: &[u8] = b"Hello";

/// The second reader, in one go and with room for all: `None` where `payload` is no deflate stream,
/// or ends within one, or does not end with it but for one zero.
fn read_naively(payload: &[u8]) -> Option<Vec<u8>> {
    // The stripped tail, and a final block, so that the end of the stream can be seen.
    let stream = [payload, &[0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]].concat();
    let mut message = Vec::with_capacity(1_100 * stream.len());
    let mut inflater = Decompress::new(false);
    let status = inflater.decompress_vec(&stream, &mut message, FlushDecompress::Finish);
    let left = stream.len() - inflater.total_in() as usize;
    let is_ended = left == 0 || left == 9 || (left == 10 && payload.ends_with(&[0]));
    (status.ok() == Some(Status::StreamEnd) && is_ended).then_some(message)
}

fn check_message(message: &[u8], level: u32) {
    let mut deflater = Deflater::new(level);
    let payload = deflater.deflate(message).map(<[u8]>::to_vec);
    if let Some(payload) = &payload {
        assert!(payload.len() < message.len());
        let inflated = Inflater::default().inflate(payload, message.len());
        assert_eq!(inflated.as_deref(), Ok(message));
        let narrow = Inflater::default().inflate(payload, message.len() - 1);
        assert_eq!(narrow, Err(InflateError::TooBig));
    }
    let other = [message, b"-", message].concat();
    let alone = Deflater::new(level).deflate(&other).map(<[u8]>::to_vec);
    assert_eq!(deflater.deflate(&other).map(<[u8]>::to_vec), alone);
    assert_eq!(deflater.deflate(message).map(<[u8]>::to_vec), payload);
}
