//! Framing: a publisher's frames become messages, unmasked and checked to be UTF-8, and a text
//! becomes a frame. The masking key is zero, so that what was unmasked in place is there again for
//! the next run; the work is that of any other key.

use std::hint::black_box;

use sightline::limits::BODY_BYTES_MAX;
use sightline::wire::frame::encode_text;
use sightline::wire::{Assembler, Inflater, Intake};

use crate::case::{Case, Run};
use crate::events::published;

/// Messages that one read of a busy publisher's socket brings.
const AT_ONCE: usize = 32;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::of_things("frame", "read one by one", AT_ONCE, || {
            read(frame(415).len())
        }),
        Case::of_things("frame", "read many at once", AT_ONCE, || read(usize::MAX)),
        Case::of_things("frame", "read in parts of 100 bytes", AT_ONCE, || read(100)),
    ];
    for length in [4_096, 65_000] {
        let make = move || read_one(length);
        cases.push(Case::of_bytes(
            "frame",
            format!("read/{length}"),
            length,
            make,
        ));
    }
    for length in [415, 4_096] {
        let make = move || write(length);
        cases.push(Case::of_bytes(
            "frame",
            format!("write/{length}"),
            length,
            make,
        ));
    }
    cases
}

/// A masked text frame of 126 to 65,535 bytes.
fn frame(length: usize) -> Vec<u8> {
    let text = published(length);
    let length = u16::try_from(text.len()).expect("it is not that long");
    let header = [0x81, 0x80 | 126].into_iter().chain(length.to_be_bytes());
    header.chain([0; 4]).chain(text.into_bytes()).collect()
}

/// `AT_ONCE` messages, in reads of at most so many bytes.
fn read(bytes_max: usize) -> Run {
    feed(frame(415).repeat(AT_ONCE), bytes_max, AT_ONCE)
}

fn read_one(length: usize) -> Run {
    feed(frame(length), usize::MAX, 1)
}

fn feed(mut input: Vec<u8>, bytes_max: usize, messages: usize) -> Run {
    let mut assembler = Assembler::new(Intake::text(BODY_BYTES_MAX));
    let mut inflater = Inflater::default();
    let bytes_max = bytes_max.min(input.len());
    Box::new(move || {
        let mut found = 0;
        for mut part in black_box(&mut input).chunks_mut(bytes_max) {
            while let (taken, Ok(Some(message))) = assembler.feed(part, &mut inflater) {
                black_box(message);
                found += 1;
                part = &mut part[taken..];
            }
        }
        assert_eq!(found, messages, "all are good");
    })
}

fn write(length: usize) -> Run {
    let (text, mut out) = (published(length), Vec::new());
    Box::new(move || {
        out.clear();
        encode_text(&mut out, black_box(text.as_bytes()));
    })
}
