#![allow(clippy::unwrap_used)]

use flate2::read::DeflateEncoder;
use proptest::prelude::*;
use std::io::Read;

use super::*;

const BYTES_MAX: usize = 16 * 1024;

fn json(len: usize) -> Vec<u8> {
    let mut text = String::new();
    for n in 0.. {
        text += &format!("{{\"tool\":\"bash\",\"took_ms\":{}}},", n * 7919 % 1013);
        if text.len() >= len {
            break;
        }
    }
    text.as_bytes()[..len].to_vec()
}

/// Bytes in which nothing repeats.
fn noise(len: usize) -> Vec<u8> {
    let mut dice = fastrand::Rng::with_seed(len as u64);
    (0..len).map(|_| dice.u8(..)).collect()
}

fn inflate(payload: &[u8]) -> Result<Vec<u8>, InflateError> {
    Inflater::default().inflate(payload, BYTES_MAX)
}

/// A whole deflate stream with a final block, as no sync flush makes it.
fn finished(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    DeflateEncoder::new(message, Compression::best())
        .read_to_end(&mut out)
        .unwrap();
    out
}

#[test]
fn every_size_and_level_comes_back() {
    let mut inflater = Inflater::default();
    for level in 1..=9 {
        let mut deflater = Deflater::new(level);
        for len in (40..200).chain([1_000, 4_096, 16_384, 70_000, 300_000]) {
            let message = json(len);
            let Some(payload) = deflater.deflate(&message) else {
                assert!(len < 100, "{len} bytes at level {level}");
                continue;
            };
            assert!(payload.len() < len);
            assert_eq!(
                inflater.inflate(payload, len),
                Ok(message),
                "{len} at {level}"
            );
        }
    }
}

#[test]
fn what_does_not_get_smaller_is_not_deflated() {
    let mut deflater = Deflater::new(1);
    for len in [0, 1, 5, 100, 5_000, 100_000] {
        assert_eq!(deflater.deflate(&noise(len)), None, "{len}");
    }
    assert!(
        deflater.deflate(&json(5_000)).is_some(),
        "it goes on after that"
    );
}

#[test]
fn no_stream_looks_back_further_than_its_window() {
    // What repeats lies 3,000 to 30,000 bytes back, so that a longer look would pay.
    for (level, distance) in
        (1..=9).flat_map(|level| [(level, 3_000), (level, 5_000), (level, 30_000)])
    {
        let part = noise(distance);
        let message = [part.clone(), json(400), part].concat();
        let mut deflater = Deflater::new(level);
        let Some(payload) = deflater.deflate(&message) else {
            continue;
        };
        // A byte at a time there is nothing to look back into but the window.
        let mut narrow = Decompress::new_with_window_bits(false, WINDOW_BITS);
        let (mut found, mut byte) = (Vec::new(), [0]);
        loop {
            let rest = &payload[narrow.total_in() as usize..];
            let made = narrow.total_out();
            narrow
                .decompress(rest, &mut byte, FlushDecompress::Sync)
                .unwrap();
            if narrow.total_out() == made {
                break;
            }
            found.push(byte[0]);
        }
        assert!(found == message, "level {level}, distance {distance}");
    }
}

#[test]
fn a18_a_message_bears_no_trace_of_the_one_before() {
    let (secret, other) = (json(3_000), json(2_000));
    let alone = Deflater::new(6).deflate(&other).unwrap().to_vec();
    let mut deflater = Deflater::new(6);
    for before in [&secret[..], &noise(9_000), &other] {
        deflater.deflate(before);
        assert_eq!(deflater.deflate(&other), Some(&alone[..]));
    }
}

#[test]
fn the_samples_of_the_rfc_are_read() {
    let check =
        |payload: &[u8]| assert_eq!(inflate(payload), Ok(b"Hello".to_vec()), "{payload:x?}");
    check(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    check(&[
        0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
    ]);
    // A final block, with the octet that the RFC wants behind it and without.
    check(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]);
    check(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
    // Two blocks.
    check(&[
        0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
    ]);
    assert_eq!(inflate(&[0x00]), Ok(Vec::new()), "an empty message");
}

#[test]
fn what_is_no_stream_is_corrupt() {
    for payload in [
        &b""[..],
        &[0xff],
        &[0xf2, 0x48, 0xcd],
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07],
        // Something behind the final block.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x01],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00],
        // Looks back before its beginning.
        &[0x4b, 0x04, 0x82, 0x00],
        b"no deflate at all",
    ] {
        assert_eq!(inflate(payload), Err(InflateError::Corrupt), "{payload:x?}");
    }
    let whole = Deflater::new(6).deflate(&json(3_000)).unwrap().to_vec();
    for cut in 1..whole.len() {
        assert_eq!(
            inflate(&whole[..cut]),
            Err(InflateError::Corrupt),
            "cut at {cut}"
        );
    }
}

#[test]
fn a17_a_bomb_ends_at_the_bound() {
    let mut inflater = Inflater::default();
    let bomb = finished(&vec![0; 64 * 1024 * 1024]);
    assert!(bomb.len() < 100_000);
    assert_eq!(
        inflater.inflate(&bomb, BYTES_MAX),
        Err(InflateError::TooBig)
    );
    let made = inflater.stream.total_out() as usize;
    assert!(made <= BYTES_MAX + CHUNK_BYTES, "{made}");
    let exact = finished(&[b' '; BYTES_MAX]);
    assert_eq!(
        inflater.inflate(&exact, BYTES_MAX).unwrap().len(),
        BYTES_MAX
    );
    assert_eq!(
        inflater.inflate(&exact, BYTES_MAX - 1),
        Err(InflateError::TooBig)
    );
    assert_eq!(inflater.inflate(&exact, 0), Err(InflateError::TooBig));
    let counts = InflateCounts {
        inflated: 1,
        failed: 3,
    };
    assert_eq!(inflater.take_counts(), counts);
    assert_eq!(inflater.take_counts(), InflateCounts::default());
}

#[test]
fn what_no_code_makes_smaller_still_fits() {
    let message = noise(BYTES_MAX);
    let mut stored = Compress::new_with_window_bits(Compression::none(), false, 15);
    let mut payload = vec![0; 2 * BYTES_MAX];
    stored
        .compress(&message, &mut payload, FlushCompress::Sync)
        .unwrap();
    payload.truncate(stored.total_out() as usize - TAIL.len());
    assert!((BYTES_MAX + 1..=deflated_bytes_max(BYTES_MAX)).contains(&payload.len()));
    assert_eq!(inflate(&payload), Ok(message));
}

proptest! {
    #[test]
    fn inflating_undoes_deflating(
        words in proptest::collection::vec("[a-e]{1,6}|[ -~]{3}", 0..300),
        level in 1_u32..=9,
    ) {
        let message = words.concat().into_bytes();
        let mut deflater = Deflater::new(level);
        if let Some(payload) = deflater.deflate(&message) {
            prop_assert_eq!(inflate(payload), Ok(message));
        }
    }

    #[test]
    fn any_bytes_are_inflated_or_refused_and_within_the_bound(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        byte: u8,
        bytes_max in 0_usize..3_000,
    ) {
        let mut broken = Deflater::new(1).deflate(&json(2_000)).unwrap().to_vec();
        let at = at.index(broken.len());
        broken[at] ^= byte;
        let mut inflater = Inflater::default();
        for payload in [&noise, &broken] {
            if let Ok(message) = inflater.inflate(payload, bytes_max) {
                prop_assert!(message.len() <= bytes_max);
            }
        }
        let good = Deflater::new(1).deflate(&json(500)).unwrap().to_vec();
        prop_assert_eq!(inflater.inflate(&good, 500), Ok(json(500)), "it goes on after that");
    }
}
