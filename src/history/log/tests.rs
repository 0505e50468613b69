#![allow(clippy::unwrap_used)]

use std::io::IoSlice;

use super::super::chores::Chores;
use super::super::retention::{Retention, RetentionOptions, RetentionStep};
use super::super::rig::{self, Rig, SEGMENT_BYTES, options};
use super::super::segment::{CRC_AT, HEADER_BYTES, segment_name};
use super::super::sim_storage::{Faults, SimStorage};
use super::super::storage::{StorageFile as _, read_exact};
use super::*;
use crate::event::record::RecordView;
use crate::event::{Epoch, RecordBatch, SeqRange, Stream};
use crate::limits::{SEGMENT_FILES_MAX, SNAPSHOT_PART_BYTES};

#[test]
fn a_second_process_is_refused() {
    let rig = Rig::new();
    let second = open(&rig.storage, options()).map(|log| log.report);
    assert!(matches!(second, Err(OpenError::Locked)), "{second:?}");
}

#[test]
fn a_new_log_is_the_first_life() {
    let rig = Rig::new();
    assert_eq!(rig.log.report.new_epoch, Some(NewEpoch::First));
    assert_eq!(rig.log.catalog.epoch(), Epoch(0xabc));
    assert_eq!(rig.log.report.start, Seq(0));
}

#[test]
fn after_a_clean_stop_streams_go_on_above_the_highest() {
    let mut rig = Rig::new();
    rig.write("a", [5]);
    rig.write("b", [70_000]);
    let rig = rig.closed();
    let report = rig.log.report;
    assert!(report.is_clean && report.new_epoch.is_none());
    assert_eq!(report.start, Seq(2 * Seq::LEVEL_STEP));
    // And nothing is used up by being opened.
    let rig = rig.closed();
    assert_eq!(rig.log.report.start, report.start);
}

#[test]
fn after_an_unclean_stop_streams_go_on_above_what_was_reserved() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let reserve = rig.log.writer.levels_kept().reserve;
    let mut rig = rig.again(SimStorage::power_cut);
    assert!(!rig.log.report.is_clean);
    assert_eq!(rig.log.report.start, reserve);
    assert_eq!(rig.seqs("a"), [1, 2, 3]);
    // A second one, without any event between.
    let second = rig.log.writer.levels_kept().reserve;
    let rig = rig.again(SimStorage::power_cut);
    assert_eq!(rig.log.report.start, second);
}

#[test]
fn a_spare_that_was_left_does_not_keep_a_full_log_from_being_opened() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.want_spare();
    rig.do_chores(&mut chores);
    rig.storage.set_faults(Faults {
        capacity_bytes: Some(2 * SEGMENT_BYTES + HEADER_BYTES),
        ..Faults::default()
    });
    let mut rig = rig.again(SimStorage::kill);
    assert_eq!(rig.seqs("a"), [1, 2, 3]);
    rig.write("a", 200_001..=200_010);
}

#[test]
fn a_file_of_any_name_does_not_keep_a_log_from_going_on() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let junk = segment_name(u64::MAX);
    rig.storage.create(&junk).unwrap();
    let mut rig = rig.again(SimStorage::kill);
    // As a hub does: above the level that the process begins at.
    let start = rig.log.report.start.0;
    rig.write("a", start + 1..=start + 3);
    let mut rig = rig.again(SimStorage::kill);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    assert_eq!(rig.seqs("a").len(), 6);
    assert!(rig.storage.list().unwrap().contains(&junk));
}

#[test]
fn records_of_a_kind_to_come_outlive_an_unclean_stop() {
    let mut rig = Rig::new();
    let kinds = |rig: &Rig| {
        let mut kinds = Vec::new();
        let inspection = crate::history::inspect::Inspection::new(rig.storage.clone()).unwrap();
        inspection
            .each_record(i64::MIN..i64::MAX, |_, view| {
                kinds.extend(match view {
                    RecordView::Unknown(kind) => Some(kind),
                    _ => None,
                });
                Ok::<(), io::Error>(())
            })
            .unwrap();
        kinds
    };
    rig.write("a", 1..=3);
    let mut batch = rig::batch(&rig.log.codec, "a", 4, 3);
    batch.bytes[8] = 200;
    rig.log.codec.reseal(&mut batch.bytes);
    batch.entries.clear();
    rig.log.writer.push_own(batch);
    rig.poll();
    // Written, and not known to be on disk.
    let mut rig = rig.again(SimStorage::kill);
    assert_eq!(kinds(&rig), [200]);
    assert_eq!(rig.log.report.recovered, 0);
    assert_eq!(rig.seqs("a"), [1, 2, 3]);
}

#[test]
fn a_new_spare_is_no_garbage() {
    let mut rig = Rig::new();
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.want_spare();
    rig.do_chores(&mut chores);
    let mut rig = rig.again(SimStorage::kill);
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.want_spare();
    rig.do_chores(&mut chores);
    let names = rig.storage.list().unwrap();
    assert!(names.contains(&"spare-1.new".to_owned()), "{names:?}");
}

#[test]
fn openings_without_events_leave_nothing_behind() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    for _ in 0..20 {
        rig = rig.again(SimStorage::kill);
        rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    }
    let names = rig.storage.list().unwrap();
    let logs = names.iter().filter(|name| name.ends_with(".log")).count();
    assert_eq!(logs, 1, "{names:?}");
    assert_eq!(rig.seqs("a"), [1, 2, 3]);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let mut whole = Rig::new();
    let end = |rig: &Rig| rig.log.catalog.summaries().next().unwrap().1.unwrap().end;
    whole.write("a", 1..=3);
    let committed = end(&whole);
    whole.write("a", 4..=5);
    let end = end(&whole);
    let name = segment_name(1);
    for cut in committed..end {
        let storage = whole.storage.copied(cut);
        let file = storage.open(&name).unwrap();
        let zeros = vec![0; (end - cut) as usize];
        file.write_at(cut, &mut [IoSlice::new(&zeros)]).unwrap();
        let mut rig = Rig::on(storage).unwrap();
        let seqs = rig.seqs("a");
        assert!((3..=5).contains(&seqs.len()), "{cut}: {seqs:?}");
        assert!(seqs.iter().copied().eq(1..=seqs.len() as u64));
        assert_eq!(rig.log.report.damaged, 0, "{cut}");
    }
}

#[test]
fn damage_below_what_was_on_disk_is_fenced_and_stated() {
    let mut whole = Rig::new();
    for seq in 1..=6 {
        whole.write("a", [seq]);
        whole.write("b", [seq]);
    }
    let end = whole.log.catalog.summaries().next().unwrap().1.unwrap().end;
    let mut fenced = 0;
    for at in (HEADER_BYTES..end).step_by(13) {
        let storage = whole.storage.copied(at);
        storage.corrupt(&segment_name(1), at, 0x20);
        let mut rig = Rig::on(storage).unwrap();
        fenced += rig.log.report.damaged;
        assert_eq!(rig.log.report.new_epoch, None);
        for user in ["a", "b"] {
            let (seqs, missing) = rig.read(user);
            // The last commit is the only one that no mark vouches for.
            let gone = (1..=5).find(|seq| !seqs.contains(seq));
            let is_stated = |seq: u64| missing.iter().any(|m| m.from.0 <= seq && seq <= m.to.0);
            assert!(
                gone.is_none_or(is_stated),
                "{at} {user}: {seqs:?} {missing:?}"
            );
            assert!(seqs.len() >= 4, "{at} {user}: {seqs:?}");
        }
    }
    assert!(fenced > 50, "{fenced}");
}

#[test]
fn a_damaged_header_costs_no_event() {
    let mut whole = Rig::new();
    whole.write("a", 1..=300);
    for number in 1..=2 {
        let storage = whole.storage.copied(number);
        storage.corrupt(&segment_name(number), 20, 1);
        let mut rig = Rig::on(storage).unwrap();
        assert_eq!(
            (rig.log.report.headless, rig.log.report.new_epoch),
            (1, None)
        );
        assert_eq!(rig.seqs("a").len(), 300);
    }
}

#[test]
fn damage_before_a_damaged_header_is_stated() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.write("b", 1..=1);
    rig.roll();
    rig.write("b", 2..=2);
    rig.roll();
    rig.write("b", 3..=3);
    let key = rig.log.catalog.key(&Stream::user("a"));
    let last = rig.log.catalog.last_up_to(key, Seq::MAX).unwrap().unwrap();
    let at = u64::from(last.cell.offset);
    let mut rig = rig.again(|storage| {
        storage.corrupt(&segment_name(1), at + 40, 1);
        storage.corrupt(&segment_name(2), 100, 1);
        storage.kill();
    });
    assert_eq!(rig.log.report.headless, 1);
    let (seqs, missing) = rig.read("a");
    assert_eq!(seqs, [1, 2]);
    let is_stated = missing
        .iter()
        .any(|range| range.from <= Seq(3) && Seq(3) <= range.to);
    assert!(is_stated, "{missing:?}");
    assert_eq!(rig.read("b").0, [1, 2, 3]);
    // Whoever reads on is told too, where it is.
    let catalog = &mut rig.log.catalog;
    let mut replay = catalog.replay_from(&Stream::user("a"), Seq(1), Seq(3));
    let batch = catalog.read(&mut replay, 1_000).unwrap();
    assert_eq!(batch.events.len(), 1);
    let hole = SeqRange {
        from: Seq(3),
        to: Seq(3),
    };
    assert_eq!((batch.missing, batch.is_done), (Some(hole), false));
    assert!(catalog.read(&mut replay, 1_000).unwrap().is_done);
}

#[test]
fn a_later_version_is_refused_and_nothing_is_changed() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let storage = rig.storage.copied(1);
    let file = storage.open(&segment_name(1)).unwrap();
    let mut header = read_exact(&file, 0, HEADER_BYTES as usize).unwrap();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..CRC_AT]).to_le_bytes();
    header[CRC_AT..].copy_from_slice(&crc);
    file.write_at(0, &mut [IoSlice::new(&header)]).unwrap();
    let before = storage.changes();
    let refused = open(&storage, options()).map(|log| log.report);
    let Err(OpenError::Version { name, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((name, storage.changes()), (segment_name(1), before));
}

#[test]
fn the_epoch_changes_when_history_is_gone_and_only_then() {
    let check = |gone: &[u64], rule: EpochRule, expected: Option<NewEpoch>| {
        let mut rig = Rig::new();
        rig.write("a", 1..=900);
        rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
        let storage = rig.storage.copied(1);
        let newest = rig.log.catalog.newest().unwrap().number;
        for back in gone {
            storage.unlink(&segment_name(newest - back)).unwrap();
        }
        let fresh = LogIdentity {
            epoch: Epoch(0xdef),
            ..options().fresh
        };
        let log = open(
            &storage,
            OpenOptions {
                fresh,
                epoch: rule,
                ..options()
            },
        )
        .unwrap();
        assert_eq!(log.report.new_epoch, expected, "{gone:?}");
        let epoch = if expected.is_some() { 0xdef } else { 0xabc };
        assert_eq!(log.catalog.epoch(), Epoch(epoch));
        assert!(log.report.start.0 > 900);
        // The next opening finds nothing new.
        drop(log);
        storage.kill();
        let again = open(&storage, options()).unwrap();
        assert_eq!(
            (again.report.new_epoch, again.catalog.epoch()),
            (None, Epoch(epoch))
        );
    };
    check(&[], EpochRule::Keep, None);
    check(&[], EpochRule::Renew, Some(NewEpoch::Asked));
    check(&[0], EpochRule::Keep, Some(NewEpoch::Backwards));
    check(&[1], EpochRule::Keep, Some(NewEpoch::Lost));
    check(&[0, 1, 2, 3], EpochRule::Keep, Some(NewEpoch::Backwards));
}

#[test]
fn missing_and_damaged_indices_are_made_again() {
    let mut rig = Rig::new();
    rig.write("a", 1..=400);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let storage = rig.storage.copied(1);
    storage.unlink(&index_name(1)).unwrap();
    storage.corrupt(&index_name(2), 515, 1);
    let mut rig = Rig::on(storage).unwrap();
    assert_eq!(rig.log.report.unindexed, 2);
    assert_eq!(rig.seqs("a").len(), 400);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let rig = rig.again(SimStorage::power_cut);
    assert_eq!(rig.log.report.unindexed, 0);
}

#[test]
fn many_missing_indices_are_not_kept_in_memory() {
    let mut rig = Rig::new();
    rig.write("a", 1..=900);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let storage = rig.storage.copied(1);
    for number in 1..=4 {
        storage.unlink(&index_name(number)).unwrap();
    }
    let mut rig = Rig::on(storage).unwrap();
    let unsaved = |rig: &Rig| {
        let numbers = rig.log.catalog.numbers();
        let held = numbers.filter(|number| rig.log.catalog.unsaved_index(*number).is_some());
        held.count()
    };
    assert!(rig.log.catalog.revocations().unwrap().is_empty());
    assert_eq!(rig.seen(0, 5_000).len(), 900);
    assert_eq!(rig.seqs("a").len(), 900);
    // But for the segment that was open.
    assert!(unsaved(&rig) <= 1);
}

#[test]
fn open_files_are_bounded_and_what_is_behind_them_is_not() {
    let mut rig = Rig::new();
    for round in 1..=SEGMENT_FILES_MAX as u64 + 20 {
        rig.write("a", [round]);
        rig.roll();
    }
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let mut rig = rig.again(SimStorage::kill);
    for _ in 0..2 {
        assert_eq!(rig.seqs("a").len(), SEGMENT_FILES_MAX + 20);
        let open = rig.storage.open_files() as usize;
        // The writer's own is one more.
        assert!(open <= 2 * SEGMENT_FILES_MAX + 1, "{open}");
    }
    assert_eq!(rig.log.report.unindexed, 0);
}

#[test]
fn ids_are_found_again_where_the_index_has_them_no_more() {
    let mut rig = Rig::new();
    rig.write("a", 1..=200);
    rig.roll();
    rig.write("b", 1..=3);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let storage = rig.storage.copied(1);
    let file = storage.open(&index_name(1)).unwrap();
    // Behind the header and a front with a filter and a key or two.
    storage.corrupt(&index_name(1), HEADER_BYTES + 200, 1);
    let index = SealedIndex::open(1, file).unwrap();
    assert!(index.seen().is_err());
    let mut rig = Rig::on(storage).unwrap();
    assert_eq!(rig.seen(0, 5_000).len(), 203);
}

#[test]
fn decisions_are_found_without_reading_the_rest() {
    let mut rig = Rig::new();
    for round in 0..5 {
        rig.write("a", round * 100 + 1..=round * 100 + 80);
        let mut batch = RecordBatch::default();
        let payload = round.to_string();
        batch
            .push_revocation(&rig.log.codec, payload.as_bytes())
            .unwrap();
        rig.push_batch(batch);
        rig.settle();
        rig.roll();
    }
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let mut rig = rig.again(SimStorage::kill);
    // Whatever is beside them.
    for number in 1..=5 {
        rig.storage
            .corrupt(&segment_name(number), HEADER_BYTES + 100, 1);
    }
    let revocations = rig.log.catalog.revocations().unwrap();
    assert_eq!(revocations, ["0", "1", "2", "3", "4"]);
    assert_eq!(rig.log.catalog.damaged_len(), 0);
    let summary = rig.log.catalog.summaries().next().unwrap().1.unwrap();
    assert_eq!((summary.streams, summary.revocations), (1, 1));
}

#[test]
fn ids_and_decisions_are_found_again() {
    let mut rig = Rig::new();
    rig.write("a", 1..=200);
    let mut batch = RecordBatch::default();
    batch.push_revocation(&rig.log.codec, b"first").unwrap();
    rig.push_batch(batch);
    rig.write("b", 1..=200);
    let mut batch = RecordBatch::default();
    batch.push_revocation(&rig.log.codec, b"second").unwrap();
    rig.push_batch(batch);
    rig.settle();
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let mut rig = rig.again(SimStorage::kill);
    let catalog = &mut rig.log.catalog;
    assert_eq!(catalog.revocations().unwrap(), [&b"first"[..], b"second"]);
    let seen = rig.seen(0, usize::MAX);
    assert_eq!(seen.len(), 400);
    assert_eq!(rig.seen(0, 3), seen[397..]);
    assert_eq!(rig.seen(1_190, usize::MAX).len(), 22);
}

#[test]
fn a_segment_that_lost_its_end_is_read_and_erased_as_far_as_it_goes() {
    let mut whole = Rig::new();
    let mut batch = RecordBatch::default();
    batch.push_revocation(&whole.log.codec, b"first").unwrap();
    whole.push_batch(batch);
    whole.write("a", 1..=20);
    whole.roll();
    whole.write("b", 1..=3);
    whole.do_chores(&mut Chores::new(SEGMENT_BYTES));
    for has_index in [true, false] {
        let storage = whole.storage.copied(1);
        storage.truncate(&segment_name(1), 1_000).unwrap();
        // Nor does anything say where it should end.
        if !has_index {
            storage.unlink(&index_name(1)).unwrap();
            storage.corrupt(&segment_name(2), 100, 1);
        }
        let mut rig = Rig::on(storage).unwrap();
        assert_eq!(rig.log.catalog.revocations().unwrap(), [&b"first"[..]]);
        assert!(rig.seen(0, 99).len() > 3);
        let mut chores = Chores::new(SEGMENT_BYTES);
        rig.do_chores(&mut chores);
        chores.erase(&rig.log.catalog, "a");
        rig.do_chores(&mut chores);
        assert!(!rig.read("a").0.contains(&1));
        assert_eq!(rig.read("b").0, [1, 2, 3]);
    }
}

#[test]
fn a_segment_of_snapshots_goes_no_sooner_than_what_follows() {
    let mut rig = Rig::new();
    let mut batch = RecordBatch::default();
    let stream = Stream::user("a");
    let codec = &rig.log.codec;
    batch
        .push_snapshot(codec, &stream, Seq(3), b"tree")
        .unwrap();
    rig.push_batch(batch);
    rig.settle();
    rig.roll();
    rig.write("a", 4..=6);
    rig.roll();
    rig.write("a", 7..=9);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let mut retention = Retention::new(RetentionOptions {
        age_max_ms: 1_000,
        bytes_max: u64::MAX,
    });
    // The last event of the second segment arrived at 1,006.
    let mut poll = |now_ms| {
        let kept = rig.log.writer.levels_kept();
        retention.poll(now_ms, kept, &mut rig.log.catalog).unwrap()
    };
    assert_eq!(poll(2_006), RetentionStep::Idle);
    let expected = RetentionStep::SetFloor {
        first: 3,
        floor: Seq(6),
    };
    assert_eq!(poll(2_007), expected);
}

#[test]
fn the_latest_snapshot_of_a_stream_is_found() {
    let mut rig = Rig::new();
    for (seq, payload) in [(3, "old"), (9, "new")] {
        let mut batch = RecordBatch::default();
        let stream = Stream::user("a");
        let codec = &rig.log.codec;
        batch
            .push_snapshot(codec, &stream, Seq(seq), payload.as_bytes())
            .unwrap();
        rig.push_batch(batch);
        rig.write("a", seq * 100..seq * 100 + 200);
    }
    let found = rig.log.catalog.snapshot(&Stream::user("a")).unwrap();
    assert_eq!(found, Some((Seq(9), "new".into())));
    assert_eq!(
        rig.log.catalog.snapshot(&Stream::project("a")).unwrap(),
        None
    );
}

#[test]
fn a_large_snapshot_is_found_whole_or_the_one_before_it() {
    let mut rig = Rig::new();
    let stream = Stream::user("a");
    let large = |byte: u8| vec![byte; 2 * SNAPSHOT_PART_BYTES + 7];
    let batch = |rig: &Rig, seq, payload: &[u8]| {
        let mut batch = RecordBatch::default();
        let codec = &rig.log.codec;
        let count = batch.push_snapshot(codec, &stream, Seq(seq), payload);
        assert_eq!(count, Ok(3));
        batch
    };
    let latest = |rig: &mut Rig| {
        let found = rig.log.catalog.snapshot(&stream).unwrap();
        found.map(|(seq, payload)| (seq.0, payload.len(), payload[0]))
    };
    let first = batch(&rig, 5, &large(1));
    rig.push_batch(first);
    rig.settle();
    assert_eq!(latest(&mut rig), Some((5, large(1).len(), 1)));
    rig.roll();
    assert_eq!(latest(&mut rig), Some((5, large(1).len(), 1)), "sealed");
    // Of the next one the middle part is not there.
    let mut second = batch(&rig, 9, &large(2));
    second.entries.remove(1);
    rig.push_batch(second);
    // One of another attempt is not taken in its place.
    let mut third = batch(&rig, 9, &large(3));
    third.entries.retain(|entry| entry.offset > 0);
    third.entries.truncate(1);
    rig.push_batch(third);
    rig.settle();
    assert_eq!(latest(&mut rig), Some((5, large(1).len(), 1)));
    let fourth = batch(&rig, 11, &large(4));
    rig.push_batch(fourth);
    rig.settle();
    assert_eq!(latest(&mut rig), Some((11, large(4).len(), 4)));
}
