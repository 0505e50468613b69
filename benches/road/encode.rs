//! An event becomes the frame that all its subscribers share: once for each dialect that somebody
//! speaks, and once more, deflated, for those who agreed on that.

use std::hint::black_box;
use std::sync::Arc;

use sightline::dialect::StreamName;
use sightline::event::{Dialect, Seq};
use sightline::hub::Compression;
use sightline::hub::encoder::Encoder;
use sightline::hub::frames::{BatchBuilder, Numbered, Variant, Variants};

use crate::case::{Case, Run};
use crate::events::parsed;

pub fn cases() -> Vec<Case> {
    let [keen, observatory] = Dialect::ALL.map(Variant::plain);
    let all = Variant::all().collect::<Vec<_>>();
    let sets = [
        ("keen", vec![keen]),
        ("observatory", vec![observatory]),
        ("both, plain and deflated", all),
    ];
    let mut cases = Vec::new();
    for length in [415, 4_096] {
        for (name, set) in &sets {
            let variants = set
                .iter()
                .fold(Variants::default(), |all, one| all.with(*one));
            let make = move || encode(length, variants);
            cases.push(Case::of_bytes(
                "encode",
                format!("{name}/{length}"),
                length,
                make,
            ));
        }
    }
    cases
}

/// The level and the threshold are those of the configuration where it says nothing.
fn encode(length: usize, variants: Variants) -> Run {
    let event = parsed(length);
    let compression = Compression {
        level: 1,
        threshold_bytes: 1_024,
    };
    let mut encoder = Encoder::new(compression, Arc::default());
    Box::new(move || {
        let numbered = Numbered {
            stream: StreamName::Project("42"),
            seq: Seq(4_711),
            event: black_box(&event),
            received_ns: 0,
            numbered_ns: 0,
        };
        let mut batch = BatchBuilder::default();
        batch.push(variants, numbered, &mut encoder);
        black_box(batch);
    })
}
