#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn codec() -> RecordCodec {
    RecordCodec::new(LogIdentity {
        epoch: Epoch(0x0bad_cafe),
        secret: [7, 9],
    })
}

fn arbitrary_event() -> impl Strategy<Value = Event> {
    let id = || proptest::option::of("[a-z\u{e9}\x00-\x1f]{1,20}");
    let texts = (id(), id(), id(), id(), id());
    let data = proptest::collection::vec(any::<u8>(), 0..200);
    ("[a-z]{1,20}", id(), id(), texts, any::<i64>(), data).prop_map(
        |(event_type, user, project, texts, timestamp_ms, data)| {
            let text = |text: Option<String>| text.map(CompactString::from);
            let is_nobodys = user.is_none() && project.is_none();
            Event {
                event_type: event_type.into(),
                user: text(user),
                project: text(project.or(is_nobodys.then(|| "7".into()))),
                session: text(texts.0),
                event_id: text(texts.1),
                timestamp_ms,
                data: data.into(),
                message_type: text(texts.2),
                tool_name: text(texts.3.or(texts.4)),
            }
        },
    )
}

prop_compose! {
    fn arbitrary_stored()(
        event in arbitrary_event(),
        prefers_user in any::<bool>(),
        seq in 1..=Seq::MAX.0,
        previous in 0..=Seq::MAX.0,
        received_ms in any::<i64>(),
        fingerprint in any::<Option<u128>>(),
    ) -> StoredEvent {
        let is_users = event.project.is_none() || (prefers_user && event.user.is_some());
        StoredEvent {
            kind: if is_users { StreamKind::User } else { StreamKind::Project },
            seq: Seq(seq),
            previous: Seq(previous),
            received_ms,
            fingerprint,
            event,
        }
    }
}

fn encoded(stored: &StoredEvent) -> Bytes {
    let mut out = Vec::new();
    let numbered = NumberedEvent {
        kind: stored.kind,
        seq: stored.seq,
        previous: stored.previous,
        received_ms: stored.received_ms,
        fingerprint: stored.fingerprint,
        event: &stored.event,
    };
    codec().encode_event(&numbered, &mut out).unwrap();
    out.into()
}

fn decoded(bytes: &Bytes) -> StoredEvent {
    match codec().decode(bytes).unwrap() {
        (RecordView::Event(view), length) if length == bytes.len() => view.to_stored(bytes),
        other => panic!("{other:?}"),
    }
}

fn sample() -> StoredEvent {
    StoredEvent {
        kind: StreamKind::User,
        seq: Seq(42),
        previous: Seq(41),
        received_ms: 1_795_341_600_001,
        fingerprint: Some(7),
        event: Event {
            event_type: "tool_execution".into(),
            user: Some("alice".into()),
            project: Some("7".into()),
            session: None,
            event_id: Some("e-1".into()),
            timestamp_ms: 1_795_341_600_000,
            data: Bytes::from_static(br#"{"b":1.0, "a":[]}"#),
            message_type: None,
            tool_name: Some("bash".into()),
        },
    }
}

#[test]
fn an_event_without_that_audience_is_not_kept() {
    let mut stored = sample();
    stored.event.project = None;
    let mut out = Vec::new();
    let numbered = NumberedEvent {
        kind: StreamKind::Project,
        seq: Seq(1),
        previous: Seq(0),
        received_ms: 0,
        fingerprint: None,
        event: &stored.event,
    };
    let refused = codec().encode_event(&numbered, &mut out);
    assert_eq!((refused, out.len()), (Err(Unstorable::NoAudience), 0));
}

#[test]
fn what_is_too_long_is_refused_and_leaves_nothing_behind() {
    let check = |change: &dyn Fn(&mut Event)| {
        let mut event = sample().event;
        change(&mut event);
        let mut out = vec![0; 8];
        let numbered = NumberedEvent {
            kind: StreamKind::User,
            seq: Seq(1),
            previous: Seq(0),
            received_ms: 0,
            fingerprint: None,
            event: &event,
        };
        let refused = codec().encode_event(&numbered, &mut out);
        assert_eq!((refused, out.len()), (Err(Unstorable::TooLong), 8));
    };
    check(&|event| event.data = vec![b'1'; RECORD_BYTES_MAX].into());
    check(&|event| event.session = Some("s".repeat(65_536).into()));
    check(&|event| {
        event.session = Some("s".repeat(40_000).into());
        event.event_id = Some("s".repeat(40_000).into());
    });
}

#[test]
fn what_is_no_event_comes_back() {
    let tombstone = TombstoneView {
        project: "7",
        seq: Seq(5),
        previous: Seq(4),
    };
    let mut out = Vec::new();
    codec().encode_tombstone(&tombstone, &mut out).unwrap();
    let expected = Ok((RecordView::Tombstone(tombstone), out.len()));
    assert_eq!(codec().decode(&out), expected);
    let erasure = ErasureView {
        key: StreamKey(u64::MAX - 1),
        previous: Seq(2),
        seq: Seq(5),
    };
    let mut out = Vec::new();
    codec().encode_erasure(&erasure, &mut out);
    let expected = Ok((RecordView::Erasure(erasure), out.len()));
    assert_eq!(codec().decode(&out), expected);
    let mark = Mark {
        synced: 512,
        first: 3,
        floor: Seq(9),
        reserve: Seq(1 << 20),
        highest: Seq(77),
        is_clean: true,
    };
    let stream = Stream::project("7");
    let mut out = Vec::new();
    codec().encode_mark(&mark, &mut out);
    assert_eq!(out.len(), MARK_BYTES);
    codec().encode_revocation(b"odd", &mut out).unwrap();
    codec()
        .encode_snapshot(&stream, Seq(5), SnapshotPart::WHOLE, b"tree", &mut out)
        .unwrap();
    let part = SnapshotPart {
        index: 1,
        count: 3,
        checksum: 0xfeed_beef,
    };
    codec()
        .encode_snapshot(&stream, Seq(5), part, b"tree", &mut out)
        .unwrap();
    let mut rest = &out[..];
    let mut next = || {
        let (record, length) = codec().decode(rest).unwrap();
        rest = &rest[length..];
        record
    };
    assert_eq!(next(), RecordView::Mark(mark));
    assert_eq!(next(), RecordView::Revocation(b"odd"));
    let snapshot = SnapshotView {
        kind: StreamKind::Project,
        id: "7",
        seq: Seq(5),
        part: SnapshotPart::WHOLE,
        payload: b"tree",
    };
    assert_eq!(next(), RecordView::Snapshot(snapshot));
    assert_eq!(
        next(),
        RecordView::Snapshot(SnapshotView { part, ..snapshot })
    );
    assert!(rest.is_empty());
}

#[test]
fn what_a_minor_version_adds_is_skipped() {
    let mut out = Vec::new();
    Draft::begin(&mut out, 0)
        .end(&codec(), 200, 0, Seq(1))
        .unwrap();
    let length = out.len();
    assert_eq!(codec().decode(&out), Ok((RecordView::Unknown(200), length)));

    let mut out = Vec::new();
    let mut draft = Draft::begin(&mut out, 0);
    draft.put(&[0; EVENT_FIXED_BYTES]);
    draft.field(tag::EVENT_TYPE, b"note");
    draft.field(tag::USER, b"alice");
    draft.field(250, b"from the future");
    draft.put(b"{}");
    draft
        .end(&codec(), kind::EVENT, flag::USER_STREAM, Seq(1))
        .unwrap();
    let Ok((RecordView::Event(event), _)) = codec().decode(&out) else {
        panic!("not an event");
    };
    assert_eq!((event.stream_id(), event.data), ("alice", &b"{}"[..]));
}

#[test]
fn another_log_s_records_are_none_of_ours() {
    let bytes = encoded(&sample());
    let check = |identity| {
        let other = RecordCodec::new(identity).decode(&bytes);
        assert_eq!(other, Err(RecordError::Checksum));
    };
    let own = codec().identity();
    check(LogIdentity {
        epoch: Epoch(1),
        ..own
    });
    check(LogIdentity {
        secret: [7, 10],
        ..own
    });
}

#[test]
fn a_length_is_bounded_before_anything_is_read() {
    let mut head = [0; HEAD_BYTES];
    assert_eq!(codec().decode(&head), Err(RecordError::Empty));
    head[0] = 23;
    assert_eq!(codec().decode(&head), Err(RecordError::Length(23)));
    head[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(codec().decode(&head), Err(RecordError::Length(u32::MAX)));
    head[..4].copy_from_slice(&(RECORD_BYTES_MAX as u32).to_le_bytes());
    assert_eq!(
        codec().decode(&head),
        Err(RecordError::Partial(RECORD_BYTES_MAX))
    );
    assert_eq!(
        codec().decode(&head[..3]),
        Err(RecordError::Partial(HEAD_BYTES))
    );
}

#[test]
fn hashes_are_the_same_for_the_life_of_a_log() {
    // They are on disk: another hash function would be another format.
    let codec = codec();
    let key = codec.stream_key(StreamKind::User, "alice");
    assert_eq!(key, StreamKey(0x9702_91a2_429b_1cd9), "{key:x?}");
    let print = codec.fingerprint(&["svc", "e-1"]);
    assert_eq!(
        print, 0x43fc_e635_bf6a_1910_edeb_e2fe_e7ff_100c,
        "{print:x}"
    );
    assert_ne!(key, codec.stream_key(StreamKind::Project, "alice"));
    assert_ne!(key, codec.snapshot_key(StreamKind::User, "alice", 0));
    assert_ne!(
        codec.fingerprint(&["ab", "c"]),
        codec.fingerprint(&["a", "bc"])
    );
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(stored in arbitrary_stored()) {
        let bytes = encoded(&stored);
        prop_assert_eq!(bytes.len() % ALIGNMENT, 0);
        let again = decoded(&bytes);
        prop_assert_eq!(encoded(&again), &bytes);
        prop_assert_eq!(again, stored);
    }

    #[test]
    fn any_corruption_is_detected(
        stored in arbitrary_stored(),
        at in any::<prop::sample::Index>(),
        other in 1..=255_u8,
        length in any::<prop::sample::Index>(),
    ) {
        let good = encoded(&stored);
        let mut bad = good.to_vec();
        let at = at.index(bad.len());
        bad[at] ^= other;
        prop_assert!(codec().decode(&bad).is_err());
        let cut = &good[..length.index(good.len())];
        prop_assert!(matches!(codec().decode(cut), Err(RecordError::Partial(_))));
        // Sectors that never reached the disk.
        let mut torn = good.to_vec();
        torn[at..].fill(0);
        prop_assert!(torn == good || codec().decode(&torn).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec().decode(&bytes);
        // And those that pass the checksum, whatever they hold.
        bytes.resize(aligned(bytes.len().max(HEAD_BYTES)), 0);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[8] %= 8;
        bytes[12..16].copy_from_slice(&codec().identity().epoch.0.to_le_bytes());
        let checksum = codec().checksum(&bytes);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        let read = codec().decode(&bytes);
        prop_assert!(!matches!(read, Err(RecordError::Checksum)));
    }
}
