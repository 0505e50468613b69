//! A gzip body.
//!
//! The first byte of an input says whether the rest is the body as it stands, or the deflate data
//! of its members, to be framed with the right checksums, without which nearly all mutations end at
//! the checksum. Properties: what comes out keeps to its bound and is what a second reader has,
//! who inflates member by member; any cutting gives the same.

use std::io::Read;

use flate2::Crc;
use flate2::bufread::{DeflateDecoder, GzDecoder};
use sightline::limits::GZIP_MEMBERS_MAX;
use sightline::wire::http::ContentCoding;
use sightline::wire::{BodyDecoder, BodyFraming, HttpError};

use crate::Target;
use crate::pieces::pieces;

pub(super) const TARGET: Target = Target {
    name: "gzip",
    run,
    tokens: TOKENS,
    bytes_max: 4 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "\u{1f}", "\u{8}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{3}", "\u{3}\u{0}", "\u{1}\u{0}\u{0}",
];

/// Small, so that inputs reach it.
const BODY_BYTES_MAX: usize = 40_000;

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let body = if first & 1 == 0 {
        rest.to_vec()
    } else {
        framed(rest)
    };
    let whole = decode(&[&body]);
    assert_eq!(whole, decode(&pieces(&body)), "whole, and cut");
    match (whole, read_naively(&body)) {
        (Ok(found), Some(expected)) => assert_eq!(found, expected),
        (Err(_), None) => {}
        (found, expected) => panic!(
            "decoded {:?}, and the second reader {:?}",
            found.map(|body| body.len()),
            expected.map(|body| body.len())
        ),
    }
}

fn decode(pieces: &[&[u8]]) -> Result<Vec<u8>, HttpError> {
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    let framing = BodyFraming::Length(length);
    let mut decoder = BodyDecoder::new(framing, ContentCoding::Gzip, BODY_BYTES_MAX)?;
    let mut body = Vec::new();
    // An empty body comes in no piece at all, and is asked for all the same.
    let (mut is_done, mut pieces) = (false, pieces.iter());
    while !is_done {
        let piece = pieces.next().copied().unwrap_or_default();
        let (taken, done) = decoder.decode(piece)?;
        assert_eq!(taken, piece.len());
        assert!(decoder.buffered_bytes() <= BODY_BYTES_MAX);
        body.extend_from_slice(&decoder.take());
        is_done = done;
    }
    assert!(body.len() <= BODY_BYTES_MAX);
    Ok(body)
}

/// The second reader: `None` where the body is damaged or too large.
fn read_naively(mut rest: &[u8]) -> Option<Vec<u8>> {
    let (is_sent_whole, mut body) = (rest.len() <= BODY_BYTES_MAX, Vec::new());
    for _ in 0..GZIP_MEMBERS_MAX {
        let mut member = GzDecoder::new(rest);
        let bytes_max = BODY_BYTES_MAX as u64 + 1;
        member
            .by_ref()
            .take(bytes_max)
            .read_to_end(&mut body)
            .ok()?;
        if body.len() > BODY_BYTES_MAX {
            return None;
        }
        rest = member.into_inner();
        if rest.is_empty() {
            return is_sent_whole.then_some(body);
        }
    }
    None
}

/// Makes a member of each deflate stream in `data`, until one is damaged.
fn framed(mut data: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while !data.is_empty() {
        let (mut inflated, mut decoder) = (Vec::new(), DeflateDecoder::new(data));
        let bytes_max = 2 * BODY_BYTES_MAX as u64;
        let outcome = decoder.by_ref().take(bytes_max).read_to_end(&mut inflated);
        let taken = decoder.total_in() as usize;
        body.extend_from_slice(b"\x1f\x8b\x08\0\0\0\0\0\0\xff");
        body.extend_from_slice(&data[..taken]);
        if outcome.is_err() || taken == 0 {
            break;
        }
        let mut crc = Crc::new();
        crc.update(&inflated);
        body.extend_from_slice(&crc.sum().to_le_bytes());
        body.extend_from_slice(&crc.amount().to_le_bytes());
        data = &data[taken..];
    }
    body
}
