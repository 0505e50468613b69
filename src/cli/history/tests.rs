#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::event::{Event, NumberedEvent, RecordBatch, Seq, StreamKind};
use crate::history::segment::segment_name;

/// A log with an event of alice, one of hers in project 7 too, and one of bob.
fn log(folder: &Path) {
    let storage = DiskStorage::create(folder).unwrap();
    let fresh = LogIdentity {
        epoch: Epoch(0xabc),
        secret: [5, 6],
    };
    let writer = WriterOptions {
        segment_bytes: 64 * 1024,
        ..WriterOptions::default()
    };
    let mut log = log::open(
        &storage,
        OpenOptions {
            writer,
            fresh,
            epoch: EpochRule::Keep,
        },
    )
    .unwrap();
    let event = |user: &str, project: Option<&str>| Event {
        event_type: "note".into(),
        user: Some(user.into()),
        project: project.map(Into::into),
        session: project.map(|_| "s-1".into()),
        event_id: None,
        timestamp_ms: 1_795_341_600_000,
        data: Bytes::from_static(br#"{"b":1.0, "a":[]}"#),
        message_type: None,
        tool_name: None,
    };
    let events = [
        (StreamKind::User, 1, event("alice", None)),
        (StreamKind::User, 2, event("alice", Some("7"))),
        (StreamKind::Project, 1, event("alice", Some("7"))),
        (StreamKind::User, 1, event("bob", None)),
    ];
    let mut batch = RecordBatch::default();
    for (at, (kind, seq, event)) in events.iter().enumerate() {
        let numbered = NumberedEvent {
            kind: *kind,
            seq: Seq(*seq),
            previous: Seq(seq - 1),
            received_ms: 1_795_341_600_000 + at as i64,
            fingerprint: None,
            event,
        };
        batch.push_event(&log.codec, &numbered).unwrap();
    }
    log.writer.push(0, 1, batch);
    log.writer.close().unwrap();
}

fn inspected(folder: &Path) -> Inspection<DiskStorage> {
    Inspection::new(DiskStorage::existing(folder)).unwrap()
}

fn exported(folder: &Path, flags: &[&str]) -> Vec<String> {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: export::ExportArgs,
    }
    let words = ["export"].iter().chain(flags);
    let line = <Line as clap::Parser>::try_parse_from(words).unwrap();
    let mut out = Vec::new();
    export::run(&line.args, &inspected(folder), &mut out).unwrap();
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(Into::into)
        .collect()
}

#[test]
fn events_are_exported_in_order_and_as_they_were_published() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path());
    let lines = exported(folder.path(), &[]);
    assert_eq!(
        lines[1],
        r#"{"stream":"user/alice","epoch":"00000abc","seq":2,"received":"2026-11-22T10:00:00.001Z","event_type":"note","user_id":"alice","project_id":"7","session_id":"s-1","timestamp":"2026-11-22T10:00:00.000Z","data":{"b":1.0, "a":[]}}"#
    );
    let check = |flags: &[&str], expected: &[(&str, u64)]| {
        let lines = exported(folder.path(), flags);
        let values = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<_> = values
            .map(|value| {
                (
                    value["stream"].as_str().unwrap().to_owned(),
                    value["seq"].as_u64().unwrap(),
                )
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(s, n)| ((*s).to_owned(), *n))
            .collect();
        assert_eq!(found, expected, "{flags:?}");
    };
    let (alice, seven, bob) = ("user/alice", "project/7", "user/bob");
    check(&[], &[(alice, 1), (alice, 2), (seven, 1), (bob, 1)]);
    check(&["--user", "alice"], &[(alice, 1), (alice, 2), (seven, 1)]);
    check(&["--project", "7"], &[(alice, 2), (seven, 1)]);
    check(&["--session", "s-1", "--user", "bob"], &[]);
    check(
        &["--from", "2026-11-22T10:00:00.002Z"],
        &[(seven, 1), (bob, 1)],
    );
    check(&["--to", "1795341600001"], &[(alice, 1)]);
}

#[test]
fn damage_is_named_and_exits_with_1() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path());
    let verify = || {
        let mut out = Vec::new();
        let code = verify::run(&inspected(folder.path()), &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    };
    let (code, out) = verify();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(out, "# segments: 1, events: 4, damaged: 0\n");
    let path = folder.path().join(segment_name(1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[512 + 64 + 40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, out) = verify();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    assert!(out.starts_with("0000000000000001.log: "), "{out}");
    assert!(
        out.contains("is damaged\n") && out.contains("damaged: 1"),
        "{out}"
    );
    std::fs::remove_file(path).unwrap();
    let (code, out) = verify();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    assert!(out.contains("begins a new epoch"), "{out}");
}

#[test]
fn the_log_is_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path());
    let mut out = Vec::new();
    stats::run(&inspected(folder.path()), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    for line in [
        "epoch = \"00000abc\"",
        "closed = true",
        "segments = 1",
        "events = 4",
        "earliest = 2026-11-22T10:00:00.000Z",
        "latest = 2026-11-22T10:00:00.003Z",
        "seq_highest = 2",
        "damaged_places = 0",
    ] {
        assert!(
            out.lines().any(|found| found == line),
            "{line} is not in\n{out}"
        );
    }
    assert!(out.parse::<toml::Table>().is_ok());
}

#[test]
fn a_new_epoch_is_begun_unless_somebody_has_the_log() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path());
    let storage = DiskStorage::existing(folder.path());
    let mut out = Vec::new();
    begin_epoch(&storage, &mut out).unwrap();
    let epoch = inspected(folder.path()).epoch().unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), format!("{epoch}\n"));
    assert_ne!(epoch, Epoch(0xabc));
    assert_eq!(exported(folder.path(), &[]).len(), 4);
    let _lock = storage.lock().unwrap();
    let refused = begin_epoch(&storage, &mut Vec::new());
    assert!(matches!(
        refused,
        Err(HistoryError::Open(OpenError::Locked))
    ));
}

#[test]
fn an_erased_user_is_on_no_byte_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path());
    let has = |text: &str| {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut files = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        files.any(|bytes| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        })
    };
    let storage = DiskStorage::existing(folder.path());
    let erase = |user: &str| {
        let args = erase::EraseArgs { user: user.into() };
        let mut out = Vec::new();
        erase::run(&args, &storage, &mut out).map(|_| String::from_utf8(out).unwrap())
    };
    assert!(has("alice"));
    assert_eq!(erase("alice").unwrap(), "records erased: 3\n");
    assert!(!has("alice"));
    let lines = exported(folder.path(), &[]);
    assert!(
        lines.len() == 1 && lines[0].contains("user/bob"),
        "{lines:?}"
    );
    assert_eq!(erase("nobody").unwrap(), "records erased: 0\n");
    let _lock = storage.lock().unwrap();
    let refused = erase("b\"ob").unwrap_err().to_string();
    assert!(
        refused.ends_with(r#"POST /v1/admin/erase {"userId":"b\"ob"}"#),
        "{refused}"
    );
    assert!(has("bob"));
}

#[test]
fn what_an_unclean_stop_left_is_erased_too() {
    let storage = crate::history::sim_storage::SimStorage::new(1);
    let options = OpenOptions {
        writer: WriterOptions {
            segment_bytes: 64 * 1024,
            ..WriterOptions::default()
        },
        fresh: LogIdentity {
            epoch: Epoch(1),
            secret: [2, 3],
        },
        epoch: EpochRule::Keep,
    };
    let mut log = log::open(&storage, options).unwrap();
    let event = Event {
        event_type: "note".into(),
        user: Some("alice".into()),
        project: None,
        session: None,
        event_id: None,
        timestamp_ms: 0,
        data: Bytes::from_static(b"{}"),
        message_type: None,
        tool_name: None,
    };
    let mut batch = RecordBatch::default();
    let numbered = NumberedEvent {
        kind: StreamKind::User,
        seq: Seq(1),
        previous: Seq(0),
        received_ms: 0,
        fingerprint: None,
        event: &event,
    };
    batch.push_event(&log.codec, &numbered).unwrap();
    log.writer.push(0, 1, batch);
    while log.writer.progress(0).durable < 1 {
        log.writer.poll(1_000_000_000);
    }
    drop(log);
    storage.kill();
    let args = erase::EraseArgs {
        user: "alice".into(),
    };
    let mut out = Vec::new();
    erase::run(&args, &storage, &mut out).unwrap();
    assert_eq!(out, b"records erased: 1\n");
}
