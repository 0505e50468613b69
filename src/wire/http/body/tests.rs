#![allow(clippy::unwrap_used)]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::limits::{CHUNK_EXTRAS_BYTES_MAX, GZIP_MEMBERS_MAX};

const BYTES_MAX: usize = 64 * 1024;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn chunked(bytes: &[u8], chunk_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(chunk_len) {
        out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        out.extend([chunk, b"\r\n"].concat());
    }
    out.extend(b"0\r\n\r\n");
    out
}

/// Decodes `parts` as separate reads. Returns the body and how many bytes were left after it;
/// `None` where it did not end.
type Decoded = Result<Option<(Vec<u8>, usize)>, HttpError>;

fn decode_parts<'a>(
    framing: BodyFraming,
    coding: ContentCoding,
    parts: impl Iterator<Item = &'a [u8]>,
    takes_early: bool,
) -> Decoded {
    let mut decoder = BodyDecoder::new(framing, coding, BYTES_MAX)?;
    let (mut body, mut left, mut is_done) = (Vec::new(), 0, decoder.decode(b"")?.1);
    for part in parts {
        let (consumed, done) = decoder.decode(part)?;
        is_done = done;
        assert!(
            consumed == part.len() || is_done,
            "only what follows the body is left"
        );
        left += part.len() - consumed;
        if takes_early {
            body.extend(decoder.take());
        }
    }
    body.extend(decoder.take());
    assert_eq!(decoder.buffered_bytes(), 0);
    Ok(is_done.then_some((body, left)))
}

/// Decodes whole, by the byte, and cut at each place; all must agree.
fn decode(framing: BodyFraming, coding: ContentCoding, bytes: &[u8]) -> Decoded {
    let whole = decode_parts(framing, coding, [bytes].into_iter(), false);
    assert_eq!(decode_parts(framing, coding, bytes.chunks(1), true), whole);
    for cut in 0..bytes.len().min(200) {
        let (front, back) = bytes.split_at(cut);
        assert_eq!(
            decode_parts(framing, coding, [front, back].into_iter(), false),
            whole,
            "cut at {cut}"
        );
    }
    whole
}

fn check_chunked(bytes: &[u8], expected: Result<Option<(&[u8], usize)>, HttpError>) {
    let found = decode(BodyFraming::Chunked, ContentCoding::Identity, bytes);
    let expected = expected.map(|body| body.map(|(body, left)| (body.to_vec(), left)));
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(bytes));
}

fn gunzip(bytes: &[u8]) -> Decoded {
    decode(
        BodyFraming::Length(bytes.len() as u64),
        ContentCoding::Gzip,
        bytes,
    )
}

#[test]
fn a_length_ends_the_body_and_leaves_the_next_request() {
    let found = decode(BodyFraming::Length(3), ContentCoding::Identity, b"abcGET");
    assert_eq!(found, Ok(Some((b"abc".to_vec(), 3))));
    assert_eq!(
        decode(BodyFraming::Length(4), ContentCoding::Identity, b"abc"),
        Ok(None)
    );
    let found = decode(BodyFraming::Length(0), ContentCoding::Identity, b"GET");
    assert_eq!(found, Ok(Some((vec![], 3))));
    assert_eq!(
        decode(BodyFraming::None, ContentCoding::Identity, b""),
        Ok(Some((vec![], 0)))
    );
    let over = BodyFraming::Length(BYTES_MAX as u64 + 1);
    assert_eq!(
        decode(over, ContentCoding::Identity, b""),
        Err(HttpError::BodyTooLarge)
    );
    assert_eq!(HttpError::BodyTooLarge.refusal().status(), 413);
}

#[test]
fn chunks_are_joined() {
    check_chunked(b"3\r\nabc\r\n0\r\n\r\n", Ok(Some((b"abc", 0))));
    check_chunked(b"0\r\n\r\nGET", Ok(Some((b"", 3))));
    check_chunked(
        b"1\r\na\r\n00A\r\n0123456789\r\n0\r\n\r\n",
        Ok(Some((b"a0123456789", 0))),
    );
    check_chunked(b"1;a=b;c=\"d\"\r\na\r\n0;e\r\n\r\n", Ok(Some((b"a", 0))));
    check_chunked(
        b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nrest",
        Ok(Some((b"a", 4))),
    );
    check_chunked(b"3\r\nab", Ok(None));
    check_chunked(b"0\r\n", Ok(None));
}

#[test]
fn malformed_chunks_are_refused() {
    for malformed in [
        "\r\n",
        ";a\r\n",
        "x\r\n",
        "+1\r\na\r\n",
        "-1\r\na\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "1\na\n0\n\n",
        "1\r\na\n",
        "1\r\nab\r\n",
        "1\ra\r\n",
        "1;a\nb\r\n",
        "1;\0\r\n",
        "10000000000000000\r\n",
        "0000000000000001\r\n",
        "ffffffffffffffffff\r\n",
        "0\r\n\n",
        "0\r\nX\r\n\r\n",
        "0\r\n X: a\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\n: a\r\n\r\n",
    ] {
        check_chunked(malformed.as_bytes(), Err(HttpError::Chunk));
    }
    assert_eq!(HttpError::Chunk.refusal().status(), 400);
}

#[test]
fn extensions_and_trailers_are_bounded_together() {
    let extension = ";".repeat(CHUNK_EXTRAS_BYTES_MAX + 2);
    check_chunked(
        format!("1{extension}\r\n").as_bytes(),
        Err(HttpError::Chunk),
    );
    let trailers = "X: a\r\n".repeat(CHUNK_EXTRAS_BYTES_MAX / 4 + 1);
    check_chunked(
        format!("0\r\n{trailers}\r\n").as_bytes(),
        Err(HttpError::Chunk),
    );
    let flood = "1;x\r\na\r\n".repeat(CHUNK_EXTRAS_BYTES_MAX + 1);
    check_chunked(flood.as_bytes(), Err(HttpError::Chunk));
}

#[test]
fn chunks_stop_at_the_limit() {
    let full = vec![b'x'; BYTES_MAX];
    check_chunked(&chunked(&full, 40_000), Ok(Some((&full, 0))));
    check_chunked(
        &chunked(&[&full[..], b"x"].concat(), 40_000),
        Err(HttpError::BodyTooLarge),
    );
}

#[test]
fn gzip_in_one_member_or_several() {
    assert_eq!(gunzip(&gzip(b"hello")), Ok(Some((b"hello".to_vec(), 0))));
    assert_eq!(gunzip(&gzip(b"")), Ok(Some((vec![], 0))));
    let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    assert_eq!(gunzip(&members), Ok(Some((b"one two".to_vec(), 0))));
    let bytes = chunked(&gzip(b"hello"), 7);
    let found = decode(BodyFraming::Chunked, ContentCoding::Gzip, &bytes);
    assert_eq!(found, Ok(Some((b"hello".to_vec(), 0))));
}

#[test]
fn damaged_gzip_is_refused() {
    let good = gzip(b"hello, hello, hello");
    let mut wrong_sum = good.clone();
    let sum_at = good.len() - 8;
    wrong_sum[sum_at] ^= 1;
    let mut wrong_data = good.clone();
    wrong_data[12] ^= 0xff;
    let trailing = [&good[..], b"garbage that is no member"].concat();
    let padded = [&good[..], &[0; 4]].concat();
    let followed = [&wrong_sum[..], &good].concat();
    let no_gzip = b"{\"event_type\":\"a\"}".to_vec();
    for damaged in [
        wrong_sum,
        followed,
        wrong_data,
        trailing,
        padded,
        no_gzip,
        vec![],
    ] {
        assert_eq!(gunzip(&damaged), Err(HttpError::Gzip), "{damaged:x?}");
    }
    for len in 0..good.len() {
        assert_eq!(gunzip(&good[..len]), Err(HttpError::Gzip), "cut to {len}");
    }
    assert_eq!(HttpError::Gzip.refusal().status(), 400);
}

#[test]
fn a_gzip_bomb_stops_at_the_limit() {
    let inflate = |inflated_len: usize| {
        let bytes = gzip(&vec![0; inflated_len]);
        let framing = BodyFraming::Length(bytes.len() as u64);
        decode_parts(framing, ContentCoding::Gzip, bytes.chunks(1), false)
    };
    assert_eq!(inflate(BYTES_MAX), Ok(Some((vec![0; BYTES_MAX], 0))));
    assert_eq!(inflate(BYTES_MAX + 1), Err(HttpError::BodyTooLarge));

    let bomb = gzip(&vec![0; 100 * BYTES_MAX]);
    assert!(bomb.len() < BYTES_MAX);
    let framing = BodyFraming::Length(bomb.len() as u64);
    let mut decoder = BodyDecoder::new(framing, ContentCoding::Gzip, BYTES_MAX).unwrap();
    assert_eq!(decoder.decode(&bomb), Err(HttpError::BodyTooLarge));
    assert!(
        decoder.buffered_bytes() <= BYTES_MAX,
        "{}",
        decoder.buffered_bytes()
    );
}

#[test]
fn a_bomb_that_is_damaged_behind_the_limit_is_too_large_however_it_is_cut() {
    let damaged = |inflated_len: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; inflated_len]).unwrap();
        encoder.flush().unwrap();
        // No block is of type 3.
        [encoder.get_ref().as_slice(), &[7]].concat()
    };
    assert_eq!(gunzip(&damaged(BYTES_MAX)), Err(HttpError::Gzip));
    let bomb = damaged(BYTES_MAX + 1_000);
    assert_eq!(gunzip(&bomb), Err(HttpError::BodyTooLarge));
}

#[test]
fn what_was_taken_still_counts_against_the_limit() {
    let bytes = gzip(&vec![0; BYTES_MAX + 1]);
    let framing = BodyFraming::Length(bytes.len() as u64);
    let found = decode_parts(framing, ContentCoding::Gzip, bytes.chunks(1), true);
    assert_eq!(found, Err(HttpError::BodyTooLarge));
}

#[test]
fn gzip_members_are_bounded() {
    let members = gzip(b"").repeat(GZIP_MEMBERS_MAX as usize + 1);
    let framing = BodyFraming::Length(members.len() as u64);
    let found = decode_parts(
        framing,
        ContentCoding::Gzip,
        [&members[..]].into_iter(),
        false,
    );
    assert_eq!(found, Err(HttpError::Gzip));
}

#[test]
fn an_announced_length_reserves_only_what_arrives() {
    let framing = BodyFraming::Length(BYTES_MAX as u64);
    let mut decoder = BodyDecoder::new(framing, ContentCoding::Identity, BYTES_MAX).unwrap();
    decoder.decode(b"a").unwrap();
    assert!(decoder.buffered_bytes() <= 64);
}

proptest! {
    #[test]
    fn any_body_survives_chunks_gzip_and_cuts(
        body in proptest::collection::vec(any::<u8>(), 0..2_000),
        chunk_len in 1usize..500,
        part_len in 1usize..300,
        is_gzip: bool,
    ) {
        let (coding, coded) = match is_gzip {
            true => (ContentCoding::Gzip, gzip(&body)),
            false => (ContentCoding::Identity, body.clone()),
        };
        let mut bytes = chunked(&coded, chunk_len);
        bytes.extend(b"next");
        let found = decode_parts(BodyFraming::Chunked, coding, bytes.chunks(part_len), false);
        prop_assert_eq!(found, Ok(Some((body, 4))));
    }

    #[test]
    fn any_chunk_bytes_mean_the_same_however_cut(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'0'), Just(b'2'), Just(b'\r'), Just(b'\n'), Just(b';'), any::<u8>()],
            0..40,
        ),
    ) {
        let _ = decode(BodyFraming::Chunked, ContentCoding::Identity, &bytes);
    }
}
