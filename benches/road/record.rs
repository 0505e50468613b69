//! An event becomes a record of the event log, on its owner core, and is read from one again. What
//! the log's threads and the disk take is in the bench `history`.

use std::hint::black_box;

use bytes::Bytes;
use sightline::event::{
    Epoch, LogIdentity, NumberedEvent, RecordBatch, RecordCodec, Seq, StreamKind,
};

use crate::case::{Case, Run};
use crate::events::parsed;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [415, 4_096] {
        let name = |what| format!("{what}/{length}");
        let write = move || write(length);
        let read = move || read(length);
        cases.push(Case::of_bytes(
            "history",
            name("write a record"),
            length,
            write,
        ));
        cases.push(Case::of_bytes(
            "history",
            name("read a record"),
            length,
            read,
        ));
    }
    cases
}

fn codec() -> RecordCodec {
    RecordCodec::new(LogIdentity {
        epoch: Epoch(1),
        secret: [2, 3],
    })
}

fn push(batch: &mut RecordBatch, codec: &RecordCodec, event: &sightline::event::Event) {
    let numbered = NumberedEvent {
        kind: StreamKind::User,
        seq: Seq(4_711),
        previous: Seq(4_710),
        received_ms: 1_795_341_600_000,
        fingerprint: None,
        event,
    };
    batch.push_event(codec, &numbered).expect("it is short");
}

fn write(length: usize) -> Run {
    let (codec, event, mut batch) = (codec(), parsed(length), RecordBatch::default());
    Box::new(move || {
        batch.bytes.clear();
        batch.entries.clear();
        push(&mut batch, &codec, black_box(&event));
    })
}

fn read(length: usize) -> Run {
    let (codec, mut batch) = (codec(), RecordBatch::default());
    push(&mut batch, &codec, &parsed(length));
    let bytes = Bytes::from(batch.bytes);
    Box::new(move || {
        let decoded = codec.decode(black_box(&bytes));
        let (record, _) = decoded.expect("it was just written");
        black_box(record);
    })
}
