#![allow(clippy::unwrap_used)]

use super::super::chores::Chores;
use super::super::rig::{Rig, SEGMENT_BYTES, batch, options};
use super::super::sim_storage::{Faults, SimStorage};
use super::*;
use crate::event::LogIdentity;
use crate::limits::COMMIT_BYTES_TARGET;

/// A writer on an empty disk that has begun its first segment.
fn writer(durability: Durability) -> (SimStorage, Writer<SimStorage>) {
    let storage = SimStorage::new(1);
    let codec = codec();
    let options = WriterOptions {
        durability,
        cores: 2,
        ..options().writer
    };
    let levels = Levels::default();
    let mut writer = Writer::new(storage.clone(), options, codec, levels, LogEnd::default());
    writer.start().unwrap();
    (storage, writer)
}

fn codec() -> RecordCodec {
    let LogIdentity { epoch, secret } = options().fresh;
    RecordCodec::new(LogIdentity { epoch, secret })
}

fn push(writer: &mut Writer<SimStorage>, core: usize, through: u64) {
    writer.push(core, through, batch(&codec(), "a", through, through - 1));
}

const MS: u64 = 1_000_000;

#[test]
fn a_batch_is_committed_at_once_and_the_next_one_in_its_time() {
    let (_, mut writer) = writer(Durability::Fsync);
    assert_eq!(writer.poll(10 * MS), Step::Idle(None));
    push(&mut writer, 0, 1);
    assert_eq!(writer.poll(10 * MS), Step::Wrote);
    assert_eq!(writer.poll(10 * MS), Step::Synced);
    push(&mut writer, 0, 2);
    assert_eq!(writer.poll(10 * MS), Step::Idle(Some(11 * MS)));
    push(&mut writer, 0, 3);
    assert_eq!(writer.poll(11 * MS), Step::Wrote, "both in one group");
    assert_eq!(writer.poll(11 * MS), Step::Synced);
    assert_eq!(writer.stats().commits, 2);
}

#[test]
fn many_bytes_do_not_wait_for_their_time() {
    let (_, mut writer) = writer(Durability::Fsync);
    push(&mut writer, 0, 1);
    writer.poll(10 * MS);
    writer.poll(10 * MS);
    let mut large = RecordBatch::default();
    large
        .push_revocation(&codec(), &vec![1; COMMIT_BYTES_TARGET])
        .unwrap();
    writer.push(0, 2, large);
    // It takes a segment of its own.
    assert_eq!(writer.poll(10 * MS), Step::Began);
    assert_eq!(writer.poll(10 * MS), Step::Wrote);
}

#[test]
fn each_core_learns_how_far_its_own_records_are() {
    let (_, mut writer) = writer(Durability::Fsync);
    push(&mut writer, 0, 7);
    push(&mut writer, 1, 3);
    let check = |writer: &Writer<SimStorage>, core, written, durable| {
        assert_eq!(writer.progress(core), Progress { written, durable });
    };
    check(&writer, 0, 0, 0);
    writer.poll(10 * MS);
    check(&writer, 0, 7, 0);
    check(&writer, 1, 3, 0);
    writer.poll(10 * MS);
    check(&writer, 0, 7, 7);
    check(&writer, 1, 3, 3);
}

#[test]
fn durable_means_what_was_asked_for() {
    let (_, mut none) = writer(Durability::None);
    push(&mut none, 0, 1);
    assert_eq!(none.progress(0), Progress::default(), "told with the group");
    none.storage.set_faults(Faults {
        write_error_percent: 100,
        ..Faults::default()
    });
    assert_eq!(none.poll(10 * MS), Step::Failed);
    assert_eq!(
        none.progress(0),
        Progress {
            written: 0,
            durable: 1
        }
    );
    let (_, mut write) = writer(Durability::Write);
    push(&mut write, 0, 1);
    assert_eq!(write.poll(10 * MS), Step::Wrote);
    assert_eq!(
        write.progress(0),
        Progress {
            written: 1,
            durable: 1
        }
    );
    // It comes to disk all the same, in its time.
    let due = SYNC_DELAY_NS;
    assert_eq!(write.poll(20 * MS), Step::Idle(Some(due)));
    assert_eq!(write.poll(due), Step::Synced);
}

#[test]
fn what_is_read_is_what_is_kept() {
    let (_, mut writer) = writer(Durability::Fsync);
    assert!(matches!(writer.poll_change(), Some(Change::Began(_))));
    push(&mut writer, 0, 1);
    writer.poll(10 * MS);
    assert_eq!(writer.poll_change(), None, "not before the sync");
    writer.poll(10 * MS);
    let Some(Change::Kept { base, entries }) = writer.poll_change() else {
        panic!("nothing is kept");
    };
    assert_eq!((base, entries.len()), (HEADER_BYTES + MARK_BYTES as u64, 1));
}

#[test]
fn a_failed_sync_is_not_retried_on_the_same_file() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.push("a", 4..=5);
    rig.storage.set_faults(Faults {
        sync_error_percent: 100,
        ..Faults::default()
    });
    assert_eq!(rig.poll(), Step::Wrote);
    assert_eq!(rig.poll(), Step::Failed);
    assert_eq!(rig.log.writer.status(), LogStatus::Failing);
    for _ in 0..20 {
        rig.poll();
    }
    assert_eq!(rig.durable(), 3, "nothing more is acknowledged");
    rig.storage.set_faults(Faults::default());
    rig.now_ns += WRITE_RETRY_NS;
    rig.settle();
    assert_eq!(rig.log.writer.status(), LogStatus::Writing);
    assert_eq!(rig.durable(), 5);
    let mut rig = rig.again(SimStorage::power_cut);
    assert_eq!(rig.seqs("a"), [1, 2, 3, 4, 5]);
}

#[test]
fn a_failed_write_leaves_the_file_too() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.push("a", 4..=5);
    rig.storage.set_faults(Faults {
        write_error_percent: 100,
        ..Faults::default()
    });
    assert_eq!(rig.poll(), Step::Failed);
    rig.storage.set_faults(Faults::default());
    rig.settle();
    assert_eq!(rig.log.catalog.segments_len(), 2);
    assert_eq!(rig.seqs("a"), [1, 2, 3, 4, 5]);
}

#[test]
fn a_full_disk_is_waited_out() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let capacity_bytes = Some(SEGMENT_BYTES + 512);
    rig.storage.set_faults(Faults {
        capacity_bytes,
        ..Faults::default()
    });
    rig.push("a", 4..=300);
    for _ in 0..2_000 {
        rig.poll();
    }
    assert_eq!(rig.log.writer.status(), LogStatus::Full);
    let durable = rig.durable();
    assert!((3..300).contains(&durable), "{durable}: what fits is kept");
    assert_eq!(rig.seqs("a").len() as u64, durable, "and served");
    assert!(rig.log.writer.queued_bytes() > 0);
    rig.storage.set_faults(Faults::default());
    rig.now_ns += WRITE_RETRY_NS;
    rig.settle();
    assert_eq!(rig.log.writer.status(), LogStatus::Writing);
    assert_eq!(rig.log.writer.queued_bytes(), 0);
    assert_eq!(rig.seqs("a"), (1..=300).collect::<Vec<_>>());
}

/// Fills a disk with room for three segments and somewhat more, up to the last byte that fits.
fn filled(left: u64) -> Rig {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.storage.set_faults(Faults {
        capacity_bytes: Some(3 * SEGMENT_BYTES + left),
        ..Faults::default()
    });
    let mut seq = 4;
    while rig.log.writer.status() != LogStatus::Full {
        rig.push("a", seq..seq + 5);
        seq += 5;
        for _ in 0..8 {
            rig.poll();
        }
    }
    rig
}

#[test]
fn a_full_disk_does_not_keep_retention_from_making_room() {
    for left in [0, 100, 600, 700, 1_000, 4_000, 9_000] {
        let mut rig = filled(left);
        let durable = rig.durable();
        rig.log.writer.set_floor(3, Seq(150));
        for _ in 0..1_000 {
            rig.poll();
        }
        let kept = rig.log.writer.levels_kept();
        assert_eq!((kept.first, kept.floor), (3, Seq(150)), "{left}");
        assert_eq!(rig.log.writer.status(), LogStatus::Full, "{left}");
        rig.log.catalog.forget_before(3, Seq(150));
        rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
        rig.push("a", 1_000..1_050);
        for _ in 0..1_000 {
            rig.poll();
        }
        assert!(rig.durable() > durable + 50, "{left}: it goes on");
        rig.storage.set_faults(Faults::default());
        let mut rig = rig.again(SimStorage::power_cut);
        assert_eq!(rig.log.catalog.floor(), Seq(150));
        assert!(rig.read("a").0.len() > 50);
    }
}

#[test]
fn what_is_left_of_a_disk_is_used() {
    let rig = filled(SEGMENT_BYTES / 2);
    let bytes = rig.log.catalog.bytes_len();
    assert!(bytes > 3 * SEGMENT_BYTES, "{bytes}");
}

#[test]
fn a_full_segment_is_followed_by_another() {
    let mut rig = Rig::new();
    rig.write("a", 1..=700);
    assert!(rig.log.catalog.segments_len() > 3);
    let ends = rig
        .log
        .catalog
        .summaries()
        .filter_map(|(_, summary)| Some(summary?.end));
    assert!(ends.max().unwrap() <= SEGMENT_BYTES);
    assert_eq!(rig.seqs("a").len(), 700);
}

#[test]
fn a_spare_is_the_next_segment_and_the_first_one_is_left_for_it_at_once() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let file = create_spare(&rig.storage, "spare.new", SEGMENT_BYTES).unwrap();
    rig.log.writer.offer_spare("spare.new".into(), file);
    assert!(!rig.log.writer.wants_spare());
    let second = create_spare(&rig.storage, "second.new", SEGMENT_BYTES).unwrap();
    rig.log.writer.offer_spare("second.new".into(), second);
    assert!(
        rig.storage.open("second.new").is_err(),
        "a second one is not kept"
    );
    rig.write("a", 4..=5);
    assert!(rig.log.writer.wants_spare());
    let third = create_spare(&rig.storage, "third.new", SEGMENT_BYTES).unwrap();
    rig.log.writer.offer_spare("third.new".into(), third);
    rig.write("a", 6..=7);
    assert!(
        !rig.log.writer.wants_spare(),
        "this one goes on until it is full"
    );
    assert!(
        !rig.storage
            .list()
            .unwrap()
            .contains(&"spare.new".to_owned())
    );
    let mut rig = rig.again(SimStorage::power_cut);
    assert_eq!(rig.seqs("a"), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_segment_is_begun_whenever_it_is_said_to_be() {
    let mut rig = Rig::new();
    let segments = |rig: &Rig| rig.log.catalog.segments_len();
    assert!(!rig.log.writer.roll());
    rig.settle();
    rig.write("a", 1..=3);
    assert_eq!(segments(&rig), 1, "nor does it stay wanted");
    assert!(rig.log.writer.roll());
    rig.settle();
    assert_eq!(segments(&rig), 2);
    assert!(!rig.log.writer.roll());
    rig.push("a", 4..=5);
    assert!(rig.log.writer.roll(), "what is on its way is before it");
    rig.settle();
    assert_eq!(segments(&rig), 3);
}

#[test]
fn seqs_are_reserved_long_before_they_are_given() {
    let mut rig = Rig::new();
    let first = rig.log.writer.levels_kept().reserve;
    assert!(first.0 >= SEQS_RESERVED && first.is_level());
    rig.write("a", [first.0 - SEQS_RESERVED / 2 + 1]);
    let second = rig.log.writer.levels_kept().reserve;
    assert!(second.0 > first.0 + SEQS_RESERVED / 4, "{second}");
}

#[test]
fn silence_is_marked_once() {
    let (_, mut writer) = writer(Durability::Fsync);
    push(&mut writer, 0, 1);
    writer.poll(10 * MS);
    writer.poll(10 * MS);
    let at = 10 * MS + MARK_DELAY_NS;
    assert_eq!(writer.poll(20 * MS), Step::Idle(Some(at)));
    assert_eq!(writer.poll(at), Step::Wrote);
    assert_eq!(writer.poll(at + MARK_DELAY_NS), Step::Idle(None));
}

#[test]
fn a_floor_is_on_disk_before_it_is_said_to_be() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.log.writer.set_floor(7, Seq(99));
    assert_eq!(rig.log.writer.levels_kept().floor, Seq(0));
    rig.settle();
    let kept = rig.log.writer.levels_kept();
    assert_eq!((kept.first, kept.floor), (7, Seq(99)));
    let rig = rig.again(SimStorage::power_cut);
    assert_eq!(rig.log.catalog.floor(), Seq(99));
}
