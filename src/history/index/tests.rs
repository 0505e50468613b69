#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::open_index::OpenIndex;
use super::super::sim_storage::{SimFile, SimStorage};
use super::super::storage::{Storage as _, StorageFile as _};
use super::*;
use crate::event::{Epoch, Event, LogIdentity, NumberedEvent, RecordBatch};

fn codec() -> RecordCodec {
    RecordCodec::new(LogIdentity {
        epoch: Epoch(1),
        secret: [3, 4],
    })
}

fn batch(records: &[(u32, u64)]) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for &(user, seq) in records {
        let event = Event {
            event_type: "note".into(),
            user: Some(user.to_string().into()),
            project: None,
            session: None,
            event_id: None,
            timestamp_ms: 0,
            data: Bytes::from_static(b"{}"),
            message_type: None,
            tool_name: None,
        };
        let numbered = NumberedEvent {
            kind: StreamKind::User,
            seq: Seq(seq),
            previous: Seq(seq - 1),
            received_ms: 1_000 + seq as i64,
            fingerprint: seq.is_multiple_of(2).then_some(u128::from(seq)),
            event: &event,
        };
        batch.push_event(&codec(), &numbered).unwrap();
    }
    batch
}

/// The same records in an index of either kind.
fn indices(records: &[(u32, u64)]) -> (OpenIndex, Vec<u8>) {
    let batch = batch(records);
    let mut open = OpenIndex::new(9);
    open.add(HEADER_BYTES, &batch.entries);
    let mut builder = IndexBuilder::new(9);
    for entry in &batch.entries {
        let bytes = &batch.bytes[entry.offset as usize..][..entry.length as usize];
        let view = crate::event::record::read_verified(bytes).unwrap();
        let offset = HEADER_BYTES + u64::from(entry.offset);
        builder.add(&codec(), offset, bytes.len(), &view);
    }
    let end = HEADER_BYTES + batch.bytes.len() as u64;
    builder.end_at(end, end);
    (open, builder.finish())
}

fn sealed(bytes: Vec<u8>) -> SealedIndex<SimFile> {
    SealedIndex::from_bytes(9, bytes).unwrap()
}

fn many() -> Vec<(u32, u64)> {
    // More streams than a block has rows, and one with more records than a block has cells.
    let quiet = (0..600).map(|user| (user, 1));
    let busy = (2..900).map(|seq| (7, seq * 3));
    quiet.chain(busy).collect()
}

#[test]
fn the_summary_says_what_is_in_the_segment() {
    let (open, bytes) = indices(&many());
    let sealed = sealed(bytes);
    let summary = sealed.summary();
    assert_eq!((summary.events, summary.streams), (1_498, 600));
    assert_eq!(summary.seq_max, Seq(899 * 3));
    assert_eq!(summary.received_ms, (1_001, 1_000 + 899 * 3));
    assert_eq!(open.summary().events, summary.events);
    assert_eq!(open.summary().streams, summary.streams);
    assert_eq!(open.summary().seq_max, summary.seq_max);
    assert_eq!(open.summary().end, summary.end);
}

#[test]
fn ids_seen_come_back_in_order() {
    let (_, bytes) = indices(&[(1, 1), (2, 2), (1, 4)]);
    let seen = sealed(bytes).seen().unwrap();
    let expected = [(2, "2"), (4, "1")].map(|(seq, user)| SeenId {
        received_ms: 1_000 + seq,
        fingerprint: seq as u128,
        stream: Stream::user(user),
    });
    assert_eq!(seen, expected);
}

#[test]
fn an_index_of_another_segment_is_refused() {
    let (_, bytes) = indices(&[(1, 1)]);
    assert!(SealedIndex::<SimFile>::from_bytes(8, bytes).is_err());
}

#[test]
fn any_damage_is_noticed_before_it_misleads() {
    let records = many();
    let (_, good) = indices(&records);
    let expected = sealed(good.clone());
    let storage = SimStorage::new(1);
    let file = storage.create("a").unwrap();
    file.write_at(0, &mut [io::IoSlice::new(&good)]).unwrap();
    file.sync().unwrap();
    for at in (0..good.len() as u64).step_by(37) {
        storage.corrupt("a", at, 0x40);
        if let Ok(index) = SealedIndex::open(9, storage.open("a").unwrap()) {
            for user in [0, 7, 8, 599, 601] {
                let key = codec().stream_key(StreamKind::User, &user.to_string());
                let (found, wanted) = (
                    index.after(key, Seq(20), 1_000),
                    expected.after(key, Seq(20), 1_000),
                );
                assert!(found.is_err() || found.unwrap() == wanted.unwrap(), "{at}");
            }
            let seen = index.seen();
            assert!(
                seen.is_err() || seen.unwrap() == expected.seen().unwrap(),
                "{at}"
            );
        }
        storage.corrupt("a", at, 0x40);
    }
    for length in 0..good.len() {
        if length % 61 == 0 {
            let cut = SealedIndex::<SimFile>::from_bytes(9, good[..length].to_vec());
            let key = codec().stream_key(StreamKind::User, "7");
            assert!(cut.is_err() || cut.unwrap().after(key, Seq(0), 9_999).is_err());
        }
    }
}

/// An index with a number of its header, or of its first row, replaced, and all checksums right.
fn forged(good: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut index = good.to_vec();
    index[at..at + bytes.len()].copy_from_slice(bytes);
    if at < CRC_AT {
        let crc = crc32c::crc32c(&index[..CRC_AT]).to_le_bytes();
        index[CRC_AT..][..4].copy_from_slice(&crc);
    } else {
        let end = BLOCK_BYTES + PER_BLOCK * size_of::<Slot>();
        let crc = block_crc(9, 0, &index[BLOCK_BYTES..end]).to_le_bytes();
        index[end..][..4].copy_from_slice(&crc);
    }
    index
}

#[test]
fn numbers_that_no_index_has_are_refused() {
    let (_, good) = indices(&[(1, 1), (2, 2), (1, 4)]);
    assert!(SealedIndex::<SimFile>::from_bytes(9, forged(&good, 16, &[9])).is_ok());
    for place in 8..15 {
        for number in [1 << 31, 1 << 60, u64::MAX, u64::MAX / 16] {
            let index = forged(&good, 16 + 8 * place, &number.to_le_bytes());
            let index = SealedIndex::<SimFile>::from_bytes(9, index);
            let is_checksum = matches!(place, 9 | 11);
            assert!(index.is_err() || is_checksum, "{place} {number}");
        }
    }
    let mut refused = 0;
    for (first, count) in [(u32::MAX, 2), (1, u32::MAX), (2, 2), (0, 4)] {
        let row: Vec<u8> = [first.to_le_bytes(), count.to_le_bytes()].concat();
        let index = sealed(forged(&good, BLOCK_BYTES + 8, &row));
        refused += u32::from(index.cells_within(&(0..u64::MAX)).is_err());
        for user in ["1", "2"] {
            let key = codec().stream_key(StreamKind::User, user);
            let _ = (index.ends(key), index.after(key, Seq(0), 9));
            let _ = index.last_up_to(key, Seq(9));
        }
    }
    assert_eq!(refused, 4);
}

proptest! {
    #[test]
    fn both_kinds_find_what_a_map_finds(
        users in proptest::collection::vec(0..40_u32, 0..900),
        after in 0..60_u64,
        count in 1..50_usize,
    ) {
        let mut model = BTreeMap::<u32, Vec<u64>>::new();
        let records: Vec<_> = users
            .iter()
            .map(|user| {
                let seqs = model.entry(*user).or_default();
                seqs.push(seqs.last().map_or(1, |last| last + 2));
                (*user, *seqs.last().unwrap())
            })
            .collect();
        let (open, bytes) = indices(&records);
        let sealed = sealed(bytes);
        for user in 0..42 {
            let key = codec().stream_key(StreamKind::User, &user.to_string());
            let seqs = model.get(&user).cloned().unwrap_or_default();
            let wanted: Vec<u64> = seqs.iter().copied().filter(|seq| *seq > after).take(count).collect();
            let seqs_of = |cells: &[Cell]| cells.iter().map(|cell| cell.seq.0).collect::<Vec<_>>();
            let found = sealed.after(key, Seq(after), count).unwrap();
            prop_assert_eq!(&seqs_of(&found), &wanted);
            prop_assert_eq!(open.after(key, Seq(after), count), found);
            let ends = seqs.first().copied().zip(seqs.last().copied());
            let of = |ends: Option<(Cell, Cell)>| ends.map(|(a, b)| (a.seq.0, b.seq.0));
            prop_assert_eq!(of(sealed.ends(key).unwrap()), ends);
            prop_assert_eq!(of(open.ends(key)), ends);
            let before = seqs.iter().copied().rfind(|seq| *seq <= after);
            let up_to = sealed.last_up_to(key, Seq(after)).unwrap();
            prop_assert_eq!(up_to.map(|cell| cell.seq.0), before);
            prop_assert_eq!(open.last_up_to(key, Seq(after)), up_to);
            let offset = HEADER_BYTES + after * 40;
            let around = sealed.around(key, offset).unwrap();
            let cells = sealed.after(key, Seq(0), usize::MAX).unwrap();
            let split = cells.partition_point(|cell| u64::from(cell.offset) < offset);
            prop_assert_eq!(around, (cells[..split].last().copied(), cells.get(split).copied()));
            prop_assert_eq!(open.around(key, offset), around);
        }
    }
}
