#![allow(clippy::unwrap_used)]

use super::super::chores::Chores;
use super::super::rig::{Rig, SEGMENT_BYTES};
use super::super::sim_storage::SimStorage;
use super::*;

fn inspect(storage: &SimStorage) -> Inspection<SimStorage> {
    Inspection::new(storage.clone()).unwrap()
}

fn seqs(inspection: &Inspection<SimStorage>, received_ms: Range<i64>) -> Vec<u64> {
    let mut seqs = Vec::new();
    inspection
        .each_record(received_ms, |_, view| {
            if let RecordView::Event(event) = view {
                seqs.push(event.seq.0);
            }
            Ok::<(), io::Error>(())
        })
        .unwrap();
    seqs
}

const ALWAYS: Range<i64> = i64::MIN..i64::MAX;

#[test]
fn a_log_in_use_can_be_looked_at() {
    let mut rig = Rig::new();
    rig.write("a", 1..=400);
    let changes = rig.storage.changes();
    let inspection = inspect(&rig.storage);
    assert!(!inspection.is_clean);
    assert_eq!(seqs(&inspection, ALWAYS).len(), 400);
    assert_eq!(inspection.verify().unwrap().events, 400);
    let summaries = inspection.summaries().unwrap();
    assert_eq!(
        summaries.iter().map(|summary| summary.events).sum::<u64>(),
        400
    );
    assert_eq!(rig.storage.changes(), changes, "nothing was changed");
    rig.write("a", [401]);
}

#[test]
fn segments_of_another_time_are_not_read() {
    let mut rig = Rig::new();
    rig.write("a", 1..=400);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    // The index alone tells: the records could not be read.
    rig.storage.corrupt(&segment_name(1), HEADER_BYTES + 100, 1);
    let last = inspect(&rig.storage).summaries().unwrap()[0].received_ms.1;
    let inspection = inspect(&rig.storage);
    let late = seqs(&inspection, last + 1..i64::MAX);
    assert_eq!(late.first().copied(), Some((last - 1_000) as u64 + 1));
    assert_eq!(late.last().copied(), Some(400));
}

#[test]
fn damaged_records_are_named() {
    let mut rig = Rig::new();
    rig.write("a", 1..=300);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    assert!(inspect(&rig.storage).verify().unwrap().damaged.is_empty());
    // Within the third record: a mark, then about a hundred bytes each.
    rig.storage
        .corrupt(&segment_name(1), HEADER_BYTES + 64 + 250, 1);
    let verification = inspect(&rig.storage).verify().unwrap();
    let [damaged] = &verification.damaged[..] else {
        panic!("{verification:?}");
    };
    assert_eq!(damaged.segment, segment_name(1));
    assert_eq!(
        (&damaged.stream, damaged.seq),
        (&Some(Stream::user("a")), Some(Seq(3)))
    );
    assert_eq!(verification.events, 299);
}

#[test]
fn what_the_index_does_not_know_is_told_by_its_place() {
    let mut rig = Rig::new();
    rig.write("a", 1..=300);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    rig.storage.unlink(&index_name(1)).unwrap();
    rig.storage
        .corrupt(&segment_name(1), HEADER_BYTES + 64 + 250, 1);
    let verification = inspect(&rig.storage).verify().unwrap();
    assert_eq!(verification.indices, [index_name(1)]);
    let [damaged] = &verification.damaged[..] else {
        panic!("{verification:?}");
    };
    assert_eq!((&damaged.stream, damaged.seq), (&None, None));
    assert!(damaged.offset < HEADER_BYTES + 64 + 250);
}

#[test]
fn no_log_is_nothing_to_look_at() {
    let inspection = inspect(&SimStorage::new(1));
    assert!(inspection.newest.is_none());
    assert_eq!(inspection.verify().unwrap(), Verification::default());
}
