//! The format on disk, held to files that were written once. A change of any byte of them is
//! another format: `segment::FORMAT_MAJOR` or `FORMAT_MINOR` rises, the old files stay, and what they
//! hold is still read. `SIGHTLINE_BLESS=1` writes those of the present version.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::path::PathBuf;

use super::chores::Chores;
use super::inspect::Inspection;
use super::log::open;
use super::rig::{Rig, event, options};
use super::sim_storage::SimStorage;
use super::storage::{Storage as _, StorageFile as _, read_exact};
use crate::event::record::RecordView;
use crate::event::{NumberedEvent, RecordBatch, Seq, Stream, StreamKind};

const VERSION: &str = "1.0";

fn folder(version: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/vectors/history").join(version)
}

/// A log with every kind of record: a sealed segment with its index, one that was written again
/// without a user, and one that was closed.
fn written() -> BTreeMap<String, Vec<u8>> {
    let mut rig = Rig::new();
    let mut batch = RecordBatch::default();
    let mut both = event("alice", Some("7"), r#"{"tool_name":"bash", "n":1.0}"#);
    both.session = Some("s-1".into());
    both.event_id = Some("e-1".into());
    both.tool_name = Some("bash".into());
    both.message_type = Some("assistant".into());
    for kind in [StreamKind::User, StreamKind::Project] {
        let numbered = NumberedEvent {
            kind,
            seq: Seq(1),
            previous: Seq(0),
            received_ms: 1_795_341_600_123,
            fingerprint: Some(rig.log.codec.fingerprint(&["svc", "e-1"])),
            event: &both,
        };
        batch.push_event(&rig.log.codec, &numbered).unwrap();
    }
    batch
        .push_revocation(&rig.log.codec, br#"{"target":{"jti":"x"}}"#)
        .unwrap();
    let stream = Stream::user("alice");
    batch
        .push_snapshot(&rig.log.codec, &stream, Seq(1), b"tree")
        .unwrap();
    rig.push_batch(batch);
    rig.settle();
    rig.roll();
    let erased = event("carol", Some("7"), "{}");
    let numbered = NumberedEvent {
        kind: StreamKind::Project,
        seq: Seq(2),
        previous: Seq(1),
        received_ms: 1_795_341_600_124,
        fingerprint: None,
        event: &erased,
    };
    let mut batch = RecordBatch::default();
    batch.push_event(&rig.log.codec, &numbered).unwrap();
    rig.push_batch(batch);
    rig.settle();
    rig.roll();
    rig.write("bob é", 1..=3);
    let mut chores = Chores::new(super::rig::SEGMENT_BYTES);
    chores.erase(&rig.log.catalog, "carol");
    rig.do_chores(&mut chores);
    rig.log.writer.close().unwrap();
    files(&rig.storage)
}

fn files(storage: &SimStorage) -> BTreeMap<String, Vec<u8>> {
    let content = |name: String| {
        let file = storage.open(&name).unwrap();
        let mut bytes = read_exact(&file, 0, file.bytes_len().unwrap() as usize).unwrap();
        if name.ends_with(".log") {
            // Without the room that was taken ahead.
            let used = bytes.iter().rposition(|byte| *byte != 0);
            bytes.truncate(used.map_or(0, |last| last + 1).next_multiple_of(8));
        }
        (name, bytes)
    };
    storage.list().unwrap().into_iter().map(content).collect()
}

fn stored(version: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder(version)).unwrap().map(Result::unwrap);
    let content = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(content).collect()
}

#[test]
fn the_format_is_what_it_was() {
    let written = written();
    if std::env::var_os("SIGHTLINE_BLESS").is_some() {
        fs::create_dir_all(folder(VERSION)).unwrap();
        for (name, bytes) in &written {
            fs::write(folder(VERSION).join(name), bytes).unwrap();
        }
    }
    let stored = stored(VERSION);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&stored));
    for (name, bytes) in &stored {
        let at = bytes
            .iter()
            .zip(&written[name])
            .position(|(old, new)| old != new);
        assert_eq!(at, None, "{name} differs at this byte");
        assert_eq!(bytes.len(), written[name].len(), "{name}");
    }
}

#[test]
fn every_version_is_read() {
    for version in ["1.0"] {
        let storage = SimStorage::new(1);
        for (name, bytes) in stored(version) {
            let file = storage.create(&name).unwrap();
            file.write_at(0, &mut [IoSlice::new(&bytes)]).unwrap();
        }
        let inspection = Inspection::new(storage.clone()).unwrap();
        assert!(inspection.is_clean && inspection.new_epoch.is_none());
        let verification = inspection.verify().unwrap();
        assert_eq!(
            (verification.damaged, verification.indices),
            (vec![], vec![])
        );
        let mut lines = Vec::new();
        inspection
            .each_record(i64::MIN..i64::MAX, |header, view| {
                if let RecordView::Event(event) = view {
                    let data = String::from_utf8_lossy(event.data).into_owned();
                    lines.push((
                        header.number,
                        event.stream_id().to_owned(),
                        event.seq.0,
                        data,
                    ));
                }
                Ok::<(), std::io::Error>(())
            })
            .unwrap();
        let line = |segment, id: &str, seq, data: &str| (segment, id.to_owned(), seq, data.into());
        let expected = [
            line(1, "alice", 1, r#"{"tool_name":"bash", "n":1.0}"#),
            line(1, "7", 1, r#"{"tool_name":"bash", "n":1.0}"#),
            line(3, "bob é", 1, r#"{"n":1}"#),
            line(3, "bob é", 2, r#"{"n":2}"#),
            line(3, "bob é", 3, r#"{"n":3}"#),
        ];
        assert_eq!(lines, expected);
        let mut log = open(&storage, options()).unwrap();
        assert_eq!(log.report.unindexed, 0);
        assert_eq!(log.catalog.epoch(), options().fresh.epoch);
        let project = log.catalog.bounds(&Stream::project("7")).unwrap();
        assert_eq!(project.map(|bounds| bounds.last), Some(Seq(2)));
        let snapshot = log.catalog.snapshot(&Stream::user("alice")).unwrap();
        assert_eq!(snapshot, Some((Seq(1), "tree".into())));
        assert_eq!(log.catalog.revocations().unwrap().len(), 1);
        let mut seen = 0;
        log.catalog.seen_since(0, 9, |_| seen += 1).unwrap();
        assert_eq!(seen, 5);
    }
}
