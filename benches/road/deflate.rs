//! What compression costs a core: making the deflated frame of an event's text (the plain one is in
//! `frame`), and inflating what a client sent. Each deflated frame is made once, however many take
//! it.

use std::hint::black_box;
use std::sync::Arc;

use sightline::hub::Compression;
use sightline::hub::encoder::Encoder;
use sightline::limits::BODY_BYTES_MAX;
use sightline::wire::Inflater;
use sightline::wire::deflate::Deflater;
use sightline::wire::frame::Data;

use crate::case::{Case, Run};

/// A tool's event as it goes to viewers, of about `length` bytes.
fn text(length: usize) -> Vec<u8> {
    let mut output = String::new();
    for n in 0.. {
        let text = format!(
            r#"{{"type":"tool_execution","timestamp":1763805600250,"stream":"project/42","seq":4711,"session_id":"0f8e3c1a-7b52-4c6e-9a51-2f6d7c1b8e90","data":{{"tool_name":"Bash","duration_ms":1250,"success":true,"output":"{output}","message":{{"type":"assistant","parts":[1,2.5,null]}}}}}}"#
        );
        if text.len() >= length {
            return text.into_bytes();
        }
        output += &format!(
            "test wire::case_{} ... ok ({} ms)\\n",
            n * 7_919 % 997,
            n * 31 % 89
        );
    }
    Vec::new()
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [1_360, 2_048, 16_384] {
        for level in [1, 3, 6] {
            let name = format!("deflate at level {level}/{length}");
            let make = move || deflate(level, length);
            cases.push(Case::of_bytes("deflate", name, length, make));
        }
        let name = format!("inflate/{length}");
        cases.push(Case::of_bytes("deflate", name, length, move || {
            inflate(length)
        }));
    }
    cases
}

fn deflate(level: u32, length: usize) -> Run {
    let compression = Compression {
        level,
        threshold_bytes: 0,
    };
    let mut encoder = Encoder::new(compression, Arc::default());
    let (text, mut out) = (text(length), Vec::new());
    Box::new(move || {
        out.clear();
        encoder.encode_deflated(&mut out, Data::Text, black_box(&text));
    })
}

fn inflate(length: usize) -> Run {
    let mut deflater = Deflater::new(6);
    let payload = deflater.deflate(&text(length)).map(<[u8]>::to_vec);
    let payload = payload.expect("text with repetitions gets smaller");
    let mut inflater = Inflater::default();
    Box::new(move || {
        let text = inflater.inflate(black_box(&payload), BODY_BYTES_MAX);
        assert!(text.is_ok(), "it was just deflated");
    })
}
