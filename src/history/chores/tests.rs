#![allow(clippy::unwrap_used)]

use super::super::rig::{Rig, SEGMENT_BYTES, event};
use super::super::segment::{index_name, segment_name};
use super::super::sim_storage::{Faults, SimStorage};
use super::super::storage::{StorageFile as _, read_exact};
use super::*;
use crate::event::{NumberedEvent, RecordBatch, Seq, SeqRange, Stream, StreamKind};
use crate::history::inspect::Inspection;
use crate::history::resume::{Outcome, ResumePoint};
use crate::limits::SNAPSHOT_PART_BYTES;

fn bytes_of(storage: &SimStorage) -> Vec<u8> {
    let read = |name: String| {
        let file = storage.open(&name).unwrap();
        read_exact(&file, 0, file.bytes_len().unwrap() as usize).unwrap()
    };
    storage.list().unwrap().into_iter().flat_map(read).collect()
}

fn has(storage: &SimStorage, text: &str) -> bool {
    bytes_of(storage)
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn room_for_a_segment_was_written_and_synced_before_it_is_handed_over() {
    let broken_writes = Faults {
        write_error_percent: 100,
        ..Faults::default()
    };
    let broken_syncs = Faults {
        sync_error_percent: 100,
        ..Faults::default()
    };
    for faults in [broken_writes, broken_syncs] {
        let mut rig = Rig::new();
        let mut chores = Chores::new(SEGMENT_BYTES);
        let mut next = |rig: &mut Rig| {
            let mut made = None;
            chores.want_spare();
            loop {
                match chores.step(&mut rig.log.catalog).unwrap() {
                    ChoreStep::Worked => {}
                    ChoreStep::Idle => return made,
                    ChoreStep::Spare(name, _) => made = Some(name),
                }
            }
        };
        let first = next(&mut rig).unwrap();
        rig.storage.set_faults(faults);
        assert_eq!(next(&mut rig), None);
        let names = rig.storage.list().unwrap();
        let spares = names.iter().filter(|name| name.ends_with(SPARE_END));
        assert!(spares.eq([&first]), "nothing is left of what failed");
        rig.storage.set_faults(Faults::default());
        assert!(next(&mut rig).is_some());
    }
}

#[test]
fn room_is_filled_as_far_as_it_may_be_and_nothing_else_waits_for_the_rest() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    let mut chores = Chores::new(2 * FILL_BYTES);
    chores.want_spare();
    chores.set_fill_max(FILL_BYTES);
    let mut go_on = |chores: &mut Chores<_>| loop {
        match chores.step(&mut rig.log.catalog).unwrap() {
            ChoreStep::Idle => return false,
            ChoreStep::Spare(..) => return true,
            ChoreStep::Worked => {}
        }
    };
    assert!(!go_on(&mut chores) && chores.is_filling());
    chores.set_fill_max(2 * FILL_BYTES);
    assert!(go_on(&mut chores) && !chores.is_filling());
}

#[test]
fn one_spare_is_made_however_often_it_is_asked_for() {
    let mut rig = Rig::new();
    let mut chores = Chores::new(SEGMENT_BYTES);
    let mut made = 0;
    chores.want_spare();
    loop {
        match chores.step(&mut rig.log.catalog).unwrap() {
            ChoreStep::Worked if made == 0 => chores.want_spare(),
            ChoreStep::Worked => {}
            ChoreStep::Idle => break,
            ChoreStep::Spare(..) => made += 1,
        }
    }
    assert_eq!(made, 1);
}

/// An event of a user and of a project, in both streams.
fn push_both(rig: &mut Rig, user: &str, seq: u64) {
    let event = event(user, Some("p"), "\"of both\"");
    let mut batch = RecordBatch::default();
    for kind in [StreamKind::User, StreamKind::Project] {
        let numbered = NumberedEvent {
            kind,
            seq: Seq(seq),
            previous: Seq(seq - 1),
            received_ms: 1,
            fingerprint: None,
            event: &event,
        };
        batch.push_event(&rig.log.codec, &numbered).unwrap();
    }
    rig.push_batch(batch);
}

#[test]
fn a_sealed_segment_gives_its_room_back() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.roll();
    rig.write("a", 4..=4);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let file = rig.storage.open(&segment_name(1)).unwrap();
    assert!(file.bytes_len().unwrap() < 1_500);
    assert_eq!(rig.seqs("a"), [1, 2, 3, 4]);
}

#[test]
fn bytes_are_those_on_disk() {
    let mut rig = Rig::new();
    rig.write("a", 1..=400);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let sizes = |end: &str| {
        let names = rig.storage.list().unwrap();
        let files = names.iter().filter(|name| name.ends_with(end));
        let length = |name: &String| rig.storage.open(name).unwrap().bytes_len().unwrap();
        files.map(length).sum::<u64>()
    };
    let (bytes, indices) = (rig.log.catalog.bytes_len(), sizes(".idx"));
    assert!(indices > 0 && bytes > indices);
    let open = SEGMENT_BYTES;
    assert!(bytes <= sizes(".log") + indices && bytes + open > sizes(".log") + indices);
}

#[test]
fn an_erased_user_is_gone_from_disk_and_nobody_else_is() {
    let mut rig = Rig::new();
    for seq in 1..=100 {
        let user = if seq % 3 == 0 { "forgetme" } else { "stays" };
        push_both(&mut rig, user, seq);
    }
    rig.settle();
    rig.write("other", 1..=3);
    rig.log.writer.roll();
    rig.write("other", [4]);
    let mut chores = Chores::new(SEGMENT_BYTES);
    rig.do_chores(&mut chores);
    assert!(has(&rig.storage, "forgetme"));
    chores.erase(&rig.log.catalog, "forgetme");
    assert!(chores.is_erasing());
    rig.do_chores(&mut chores);
    assert!(!chores.is_erasing());
    assert_eq!(chores.erased(), 66, "in both streams");
    assert!(!has(&rig.storage, "forgetme"));
    let check = |rig: &mut Rig| {
        assert!(rig.read("forgetme").0.is_empty());
        assert_eq!(rig.read("other").0, [1, 2, 3, 4]);
        assert_eq!(rig.read("stays").0.len(), 67);
        let project = Stream::project("p");
        let bounds = rig.log.catalog.bounds(&project).unwrap().unwrap();
        assert_eq!((bounds.first, bounds.last), (Seq(1), Seq(100)));
        let (seqs, missing) = rig.read_stream(&project);
        assert_eq!(seqs.len(), 67);
        assert!(missing.is_empty(), "{missing:?}");
    };
    check(&mut rig);
    rig.do_chores(&mut chores);
    let mut rig = rig.again(SimStorage::power_cut);
    check(&mut rig);
}

#[test]
fn no_part_of_a_snapshot_that_may_tell_of_an_erased_user_is_left() {
    let mut rig = Rig::new();
    push_both(&mut rig, "forgetme", 1);
    let secret = "of forgetme".repeat(2 * SNAPSHOT_PART_BYTES / 11);
    let streams = [
        Stream::user("forgetme"),
        Stream::user("stays"),
        Stream::project("p"),
    ];
    for stream in &streams {
        let mut batch = RecordBatch::default();
        let payload = match &*stream.id {
            "stays" => b"hers",
            _ => secret.as_bytes(),
        };
        batch
            .push_snapshot(&rig.log.codec, stream, Seq(1), payload)
            .unwrap();
        rig.push_batch(batch);
    }
    rig.settle();
    rig.roll();
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    assert_eq!(chores.erased(), 2, "the event in both streams");
    assert!(!has(&rig.storage, "forgetme"));
    let mut latest = |stream: &Stream| {
        let found = rig.log.catalog.snapshot(stream).unwrap();
        found.map(|(seq, payload)| (seq.0, payload))
    };
    assert_eq!(latest(&streams[0]), None);
    assert_eq!(latest(&streams[1]), Some((1, "hers".into())));
    assert_eq!(latest(&streams[2]), None);
}

#[test]
fn erased_events_are_neither_missing_nor_lost() {
    let mut rig = Rig::new();
    for seq in 1..=9 {
        let user = if (4..=6).contains(&seq) {
            "stays"
        } else {
            "forgetme"
        };
        push_both(&mut rig, user, seq);
    }
    rig.settle();
    rig.roll();
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    let project = Stream::project("p");
    assert_eq!(rig.read_stream(&project), (vec![4, 5, 6], Vec::new()));
    // A viewer that saw them is told of no loss.
    for seq in 1..=9 {
        let point = ResumePoint {
            epoch: Some(rig.log.catalog.epoch()),
            seq: Seq(seq),
        };
        let resumed = rig.log.catalog.resume(&project, point, Seq(9)).unwrap();
        let expected = Outcome::Replay {
            missing: None,
            lost: None,
        };
        assert_eq!(resumed.outcome, expected, "{seq}");
    }
}

#[test]
fn an_erased_user_who_saw_some_of_it_is_told_of_no_loss_either() {
    let mut rig = Rig::new();
    rig.write("forgetme", 1..=9);
    rig.settle();
    rig.roll();
    rig.write("stays", 1..=1);
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    rig.write("forgetme", 10..=11);
    rig.settle();
    // Twice: what stands for them stays.
    rig.roll();
    rig.write("stays", 2..=2);
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    assert_eq!(chores.erased(), 11);
    let mut rig = rig.closed();
    rig.push("forgetme", 12..=13);
    rig.settle();
    let stream = Stream::user("forgetme");
    let head = rig.log.report.start.max(Seq(13));
    let outcome = |rig: &mut Rig, seq| {
        let point = ResumePoint {
            epoch: Some(rig.log.catalog.epoch()),
            seq: Seq(seq),
        };
        let resumed = rig.log.catalog.resume(&stream, point, head).unwrap();
        resumed.outcome
    };
    let whole = Outcome::Replay {
        missing: None,
        lost: None,
    };
    for seq in 0..=13 {
        assert_eq!(outcome(&mut rig, seq), whole, "{seq}");
    }
    assert_eq!(rig.read_stream(&stream), (vec![12, 13], Vec::new()));
    // What an unclean stop took is still told.
    let lost = outcome(&mut rig, 15);
    assert!(matches!(lost, Outcome::Replay { lost: Some(range), .. } if range.from == Seq(14)));
}

#[test]
fn what_retention_took_before_the_erased_is_still_told() {
    let mut rig = Rig::new();
    // Of the first four nothing is held.
    rig.write("forgetme", 5..=9);
    rig.roll();
    rig.write("stays", 1..=1);
    let mut chores = Chores::new(SEGMENT_BYTES);
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    let mut check = |seq, missing| {
        let point = ResumePoint {
            epoch: Some(rig.log.catalog.epoch()),
            seq: Seq(seq),
        };
        let stream = Stream::user("forgetme");
        let resumed = rig.log.catalog.resume(&stream, point, Seq(9)).unwrap();
        let expected = Outcome::Replay {
            missing,
            lost: None,
        };
        assert_eq!(resumed.outcome, expected, "{seq}");
    };
    let (from, to) = (Seq(3), Seq(4));
    check(2, Some(SeqRange { from, to }));
    for seq in 4..=9 {
        check(seq, None);
    }
}

#[test]
fn an_erased_user_is_not_in_what_was_garbage_either() {
    let mut rig = Rig::new();
    rig.write("forgetme", 1..=200);
    rig.roll();
    rig.write("stays", 1..=3);
    let mut chores = Chores::new(SEGMENT_BYTES);
    rig.do_chores(&mut chores);
    let first = rig.log.catalog.newest().unwrap().number;
    // Retention takes a segment while the erasure is under way, and the power may fail at once.
    chores.erase(&rig.log.catalog, "forgetme");
    rig.log.catalog.forget_before(first, Seq(200));
    while chores.is_erasing() {
        chores.step(&mut rig.log.catalog).unwrap();
    }
    for seed in 0..20 {
        let storage = rig.storage.with_chances(seed);
        storage.power_cut();
        assert!(!has(&storage, "forgetme"), "{seed}");
    }
}

#[test]
fn what_an_opening_takes_out_goes_with_its_index() {
    let mut rig = Rig::new();
    rig.write("gone", 1..=3);
    rig.roll();
    rig.write("a", 1..=3);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    rig.log.writer.set_floor(2, Seq(3));
    rig.settle();
    // It died before it had unlinked anything.
    let mut rig = rig.again(SimStorage::kill);
    assert!(has(&rig.storage, "gone"));
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    assert!(!has(&rig.storage, "gone"));
}

#[test]
fn a_segment_has_its_index_only_when_nothing_follows_its_end() {
    for after in 0..20 {
        let mut rig = Rig::new();
        rig.write("a", 1..=3);
        rig.roll();
        let dies_after_changes = Some(after);
        rig.storage.set_faults(Faults {
            dies_after_changes,
            ..Faults::default()
        });
        let mut chores = Chores::new(SEGMENT_BYTES);
        while matches!(chores.step(&mut rig.log.catalog), Ok(ChoreStep::Worked)) {}
        let length = rig
            .storage
            .open(&segment_name(1))
            .unwrap()
            .bytes_len()
            .unwrap();
        let names = rig.storage.list().unwrap();
        assert!(length < 1_000 || !names.contains(&index_name(1)), "{after}");
    }
}

#[test]
fn damage_is_told_after_an_erasure_too() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.write("forgetme", 1..=3);
    rig.write("a", 4..=6);
    rig.roll();
    rig.write("b", 1..=1);
    let mut chores = Chores::new(SEGMENT_BYTES);
    rig.do_chores(&mut chores);
    let key = rig.log.catalog.key(&Stream::user("a"));
    for seq in [3, 6] {
        let place = rig.log.catalog.last_up_to(key, Seq(seq)).unwrap().unwrap();
        let at = u64::from(place.cell.offset) + 40;
        rig.storage.corrupt(&segment_name(1), at, 1);
    }
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    assert_eq!(chores.erased(), 5, "damage may have been the user's");
    let check = |rig: &mut Rig| {
        let (seqs, missing) = rig.read("a");
        assert_eq!(seqs, [1, 2, 4, 5]);
        let is_stated = |seq| missing.iter().any(|m| m.from <= seq && seq <= m.to);
        assert!(is_stated(Seq(3)) && is_stated(Seq(6)), "{missing:?}");
        let verification = Inspection::new(rig.storage.clone()).unwrap().verify();
        let verification = verification.unwrap();
        assert_eq!(verification.damaged.len(), 2);
        assert_eq!(verification.indices, [""; 0]);
    };
    check(&mut rig);
    // What is told does not hang on the index.
    rig.storage.unlink(&index_name(1)).unwrap();
    let mut rig = rig.again(SimStorage::power_cut);
    let mut chores = Chores::new(SEGMENT_BYTES);
    rig.do_chores(&mut chores);
    check(&mut rig);
    // And what an erasure left is nobody's any more.
    chores.erase(&rig.log.catalog, "forgetme");
    rig.do_chores(&mut chores);
    assert_eq!(chores.erased(), 0);
}

#[test]
fn a_death_while_erasing_costs_nobody_else_an_event() {
    for after in 0..40 {
        let mut rig = Rig::new();
        for seq in 1..=60 {
            let user = if seq % 3 == 0 { "forgetme" } else { "stays" };
            push_both(&mut rig, user, seq);
        }
        rig.settle();
        rig.log.writer.roll();
        rig.write("other", 1..=3);
        let mut chores = Chores::new(SEGMENT_BYTES);
        rig.do_chores(&mut chores);
        chores.erase(&rig.log.catalog, "forgetme");
        let dies_after_changes = Some(after);
        rig.storage.set_faults(Faults {
            dies_after_changes,
            ..Faults::default()
        });
        while chores.is_erasing() && chores.step(&mut rig.log.catalog).is_ok() {}
        rig.storage.set_faults(Faults::default());
        let mut rig = rig.again(SimStorage::power_cut);
        assert_eq!(rig.read("stays").0.len(), 40, "{after}");
        assert_eq!(rig.read("other").0.len(), 3, "{after}");
        assert_eq!(rig.log.catalog.damaged_len(), 0, "{after}");
    }
}

#[test]
fn garbage_goes() {
    let mut rig = Rig::new();
    rig.write("a", 1..=3);
    rig.log.writer.roll();
    rig.write("a", 4..=6);
    rig.storage.create("0000000000000044.idx").unwrap();
    rig.storage.create("half.new").unwrap();
    rig.storage.create("readme.txt").unwrap();
    let mut rig = rig.again(SimStorage::kill);
    rig.do_chores(&mut Chores::new(SEGMENT_BYTES));
    let mut names = rig.storage.list().unwrap();
    names.sort();
    let expected = [
        &index_name(1),
        &segment_name(1),
        &segment_name(3),
        "newest",
        "readme.txt",
    ];
    assert_eq!(names, expected, "and what is none of ours stays");
}
