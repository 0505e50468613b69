#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Instant;

use bytes::Bytes;

use super::bell::bell;
use super::reader::Reader;
use super::upkeep::Upkeep;
use super::*;
use crate::counters::CoreStats;
use crate::engine::mailbox::{Inbox, Wake, mesh};
use crate::event::{Epoch, Event, LogIdentity, NumberedEvent, RecordCodec, Stream, StreamKind};
use crate::history::log::{EpochRule, OpenOptions, OpenReport, open};
use crate::history::retention::RetentionOptions;
use crate::history::storage::SPARE_END;
use crate::history::storage::{DiskStorage, Storage as _};
use crate::history::writer::{Durability, WriterOptions};
use crate::hub::keyed::Keyed;
use crate::hub::reads::{LogOutcome, Read, ReadAnswer, ReadWhat};

const SEGMENT: u64 = 1 << 20;

#[derive(Clone, Default)]
struct Bell(Arc<AtomicUsize>);

impl Wake for Bell {
    fn wake(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

const KEEP_ALL: RetentionOptions = RetentionOptions {
    age_max_ms: i64::MAX,
    bytes_max: u64::MAX,
};

fn options(durability: Durability) -> OpenOptions {
    OpenOptions {
        writer: WriterOptions {
            durability,
            segment_bytes: SEGMENT,
            ..WriterOptions::default()
        },
        fresh: LogIdentity {
            epoch: Epoch(7),
            secret: [1, 2],
        },
        epoch: EpochRule::Keep,
    }
}

fn event_of(stream: &Stream, user: &str, data: &str) -> Event {
    Event {
        event_type: "a".into(),
        user: Some(user.into()),
        project: (stream.kind == StreamKind::Project).then(|| stream.id.clone()),
        session: None,
        event_id: None,
        timestamp_ms: 1,
        data: Bytes::copy_from_slice(data.as_bytes()),
        message_type: None,
        tool_name: None,
    }
}

fn numbered(kind: StreamKind, previous: Seq, seq: Seq, event: &Event) -> NumberedEvent<'_> {
    NumberedEvent {
        kind,
        seq,
        previous,
        received_ms: Clock::start().now().wall_ms,
        fingerprint: None,
        event,
    }
}

/// Both threads over a real folder, and one core's ends.
struct Harness {
    threads: LogThreads,
    codec: RecordCodec,
    report: OpenReport,
    inbox: Inbox<Letter>,
    bell: Bell,
    stats: Arc<CoreStats>,
    appended: u64,
    heads: HashMap<String, Seq>,
}

impl Harness {
    fn open(folder: &Path, durability: Durability) -> Self {
        Self::open_with(folder, durability, KEEP_ALL)
    }

    fn open_with(folder: &Path, durability: Durability, retention: RetentionOptions) -> Self {
        let storage = DiskStorage::create(folder).unwrap();
        let log = open(&storage, options(durability)).unwrap();
        let bell = Bell::default();
        let mesh = mesh(vec![Box::new(bell.clone()) as Box<dyn Wake>], 4);
        let (_, inbox) = mesh.cores.into_iter().next().unwrap();
        let (codec, report, stats) = (log.codec.clone(), log.report, Arc::default());
        let parts = LogParts {
            log,
            retention,
            segment_bytes: SEGMENT,
            cores: 1,
            mailboxes: Arc::new(mesh.control),
            stats: Arc::clone(&stats),
        };
        let threads = LogThreads::spawn(parts, Clock::start());
        Self {
            threads: threads.unwrap(),
            codec,
            heads: HashMap::new(),
            report,
            inbox,
            bell,
            stats,
            appended: 0,
        }
    }

    fn port(&self) -> &LogPort {
        &self.threads.ports()[0]
    }

    fn append(&mut self, user: &str, data: &str) -> Seq {
        self.append_to(&Stream::user(user), user, data)
    }

    fn append_to(&mut self, stream: &Stream, user: &str, data: &str) -> Seq {
        let event = event_of(stream, user, data);
        let head = self
            .heads
            .entry(stream.id.to_string())
            .or_insert(self.report.start);
        let previous = std::mem::replace(head, head.next());
        let seq = *head;
        let numbered = numbered(stream.kind, previous, seq, &event);
        let mut batch = RecordBatch::default();
        batch.push_event(&self.codec, &numbered).unwrap();
        self.hand_over(batch);
        seq
    }

    fn hand_over(&mut self, batch: RecordBatch) {
        self.appended += batch.entries.len() as u64;
        let through = self.appended;
        self.port().append(Append { through, batch });
    }

    fn wait_until_kept(&self) {
        eventually(|| (self.port().progress().durable == self.appended).then_some(()));
    }

    fn letter(&mut self) -> Letter {
        let inbox = &mut self.inbox;
        eventually(|| {
            let mut letter = None;
            inbox.drain(1, |_, found| letter = Some(found));
            letter
        })
    }

    fn read(&mut self, user: &str, what: ReadWhat) -> Read {
        self.read_of(Stream::user(user), what)
    }

    fn read_of(&mut self, stream: Stream, what: ReadWhat) -> Read {
        self.port().read(ReadRequest {
            id: 5,
            stream,
            what,
        });
        match self.letter() {
            Letter::Read(answer) => {
                let ReadAnswer { id, result } = *answer;
                assert_eq!(id, 5);
                result.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    fn events(&mut self, user: &str, kept: Option<(usize, u64)>) -> Vec<String> {
        self.events_after(user, Seq(0), kept).0
    }

    // And up to where what follows them is missing.
    fn events_after(
        &mut self,
        user: &str,
        after: Seq,
        kept: Option<(usize, u64)>,
    ) -> (Vec<String>, Option<Seq>) {
        let what = ReadWhat::Events {
            after,
            up_to: Seq::MAX,
            bytes_max: 1 << 20,
            kept,
        };
        match self.read(user, what) {
            Read::Events {
                events, missing, ..
            } => {
                let text = |data: &Bytes| String::from_utf8(data.to_vec()).unwrap();
                let texts = events.iter().map(|event| text(&event.event.data));
                (texts.collect(), missing.map(|missing| missing.to))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn eventually<T>(mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "it did not come to pass");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_kept_is_told_woken_for_read_and_there_after_a_close() {
    for durability in [Durability::Fsync, Durability::Write, Durability::None] {
        let folder = tempfile::tempdir().unwrap();
        let mut harness = Harness::open(folder.path(), durability);
        let (first, second) = (harness.append("ada", "1"), harness.append("ada", "2"));
        harness.wait_until_kept();
        eventually(|| (harness.bell.0.load(Ordering::SeqCst) > 0).then_some(()));
        let kept = Some((0, harness.appended));
        assert_eq!(harness.events("ada", kept), ["1", "2"], "{durability:?}");
        let resume = ReadWhat::Resume {
            cursor: Some((Some(Epoch(7)), first)),
            head: second,
            kept,
        };
        let Read::Resume { outcome, earliest } = harness.read("ada", resume) else {
            panic!("it was asked to resume");
        };
        let nothing_missing = LogOutcome::Replay {
            missing: None,
            lost: None,
        };
        assert_eq!((outcome, earliest), (Some(nothing_missing), Some(first)));
        assert_eq!(harness.stats.counters.log_records_kept.value(), 2);
        harness.threads.close().unwrap();
        let again = Harness::open(folder.path(), durability);
        assert!(again.report.is_clean && again.report.start > second);
        again.threads.close().unwrap();
    }
}

#[test]
fn a_request_waits_for_records_that_are_on_their_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Fsync);
    for round in 1..50 {
        harness.append("ada", "x");
        let kept = Some((0, harness.appended));
        assert_eq!(harness.events("ada", kept).len(), round);
    }
    harness.threads.close().unwrap();
}

#[test]
fn erased_events_alone_are_read_over_however_many_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Fsync);
    let project = Stream::project("p");
    for _ in 0..50 {
        harness.append_to(&project, "ada", "1");
    }
    let last = harness.append_to(&project, "bob", "2");
    let connection = Keyed::default().insert(());
    harness.port().erase(connection, "ada".into());
    assert!(matches!(harness.letter(), Letter::Erased { count: 50, .. }));
    for up_to in [Seq(last.0 - 1), last] {
        // Less than what the places of those that are gone take.
        let what = ReadWhat::Events {
            after: Seq(0),
            up_to,
            bytes_max: 500,
            kept: None,
        };
        match harness.read_of(project.clone(), what) {
            Read::Events {
                events,
                missing: None,
                is_done,
            } => assert!(events.len() == usize::from(up_to == last) && (is_done || up_to == last)),
            other => panic!("{other:?}"),
        }
    }
    harness.threads.close().unwrap();
}

#[test]
fn an_erased_user_is_gone_from_every_file_also_if_its_events_were_just_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Fsync);
    let connection = Keyed::default().insert(());
    let erase = |harness: &mut Harness| {
        harness.port().erase(connection, "ada".into());
        match harness.letter() {
            Letter::Erased {
                connection: to,
                user,
                count,
            } if to == connection && user == "ada" => count,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(erase(&mut harness), 0, "nothing is in the log yet");
    for _ in 0..20 {
        harness.append("ada", "\"a secret of hers\"");
        harness.append("bob", "\"his\"");
    }
    assert_eq!(erase(&mut harness), 20);
    let storage = DiskStorage::existing(folder.path());
    for name in storage.list().unwrap() {
        let bytes = std::fs::read(folder.path().join(&name)).unwrap();
        let has = |text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
        assert!(!has(b"a secret of hers"), "{name}");
    }
    assert_eq!(harness.events("bob", None).len(), 20);
    assert!(harness.events("ada", None).is_empty());
    let again = harness.append("ada", "\"again\"");
    let kept = Some((0, harness.appended));
    let (events, _) = harness.events_after("ada", Seq(again.0 - 1), kept);
    assert_eq!(events.len(), 1, "she may go on");
    harness.threads.close().unwrap();
}

#[test]
fn the_latest_snapshot_is_read_with_the_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Fsync);
    let read = |harness: &mut Harness, user: &str| {
        let kept = Some((0, harness.appended));
        match harness.read(user, ReadWhat::Snapshot { kept }) {
            Read::Snapshot { latest, last } => (latest, last),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&mut harness, "ada"), (None, None));
    let first = harness.append("ada", "1");
    assert_eq!(read(&mut harness, "ada"), (None, Some(first)));
    let mut batch = RecordBatch::default();
    let stream = Stream::user("ada");
    batch
        .push_snapshot(&harness.codec, &stream, first, b"all of one")
        .unwrap();
    harness.hand_over(batch);
    let latest = Some((first, Bytes::from_static(b"all of one")));
    assert_eq!(read(&mut harness, "ada"), (latest.clone(), Some(first)));
    let second = harness.append("ada", "2");
    assert_eq!(read(&mut harness, "ada"), (latest, Some(second)));
    assert_eq!(read(&mut harness, "bob"), (None, None));
    harness.threads.close().unwrap();
}

#[test]
fn segments_are_sealed_though_the_reader_is_never_silent() {
    let folder = tempfile::tempdir().unwrap();
    let storage = DiskStorage::create(folder.path()).unwrap();
    let mut log = open(&storage, options(Durability::Write)).unwrap();
    let (to_reader, inbox) = channel();
    let tell = |change| to_reader.send(ToReader::Change(change)).unwrap();
    for n in 1..=80 {
        let event = event_of(&Stream::user("ada"), "ada", &"1".repeat(100_000));
        let mut batch = RecordBatch::default();
        let numbered = numbered(StreamKind::User, Seq(n - 1), Seq(n), &event);
        batch.push_event(&log.codec, &numbered).unwrap();
        log.writer.push(0, n, batch);
        // One commit each.
        while log.writer.queued_bytes() > 0 {
            log.writer.poll(n * 10_000_000);
        }
        std::iter::from_fn(|| log.writer.poll_change()).for_each(tell);
    }
    drop(to_reader);
    let mesh = mesh(vec![Box::new(Bell::default()) as Box<dyn Wake>], 4);
    let (sender, _writer) = channel();
    let (bell, _sleeper) = bell();
    let to_writer = WriterPort { sender, bell };
    let levels = log.writer.levels_kept();
    let marks = Arc::new(Marks::new(1, levels.reserve));
    let upkeep = Upkeep::new(KEEP_ALL, SEGMENT, log.codec, levels, to_writer, marks);
    let mailboxes = Arc::new(mesh.control);
    let (stats, clock) = (Arc::default(), Clock::start());
    Reader::new(log.catalog, upkeep, inbox, 1, mailboxes, stats).run(clock);
    let names = storage.list().unwrap();
    let count = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    let (segments, sealed) = (count(".log"), count(".idx"));
    assert!(segments >= 8, "{names:?}");
    // Beside the one that is written.
    let unsealed = segments - 1 - sealed;
    assert!(
        unsealed <= crate::limits::SEGMENTS_UNSEALED_MAX,
        "{unsealed}"
    );
}

#[test]
fn an_erasure_that_the_disk_does_not_let_be_done_says_so_and_is_done_later() {
    use crate::history::segment::segment_name;
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Fsync);
    harness.append("ada", "1");
    harness.wait_until_kept();
    // Where the copy without her is to be written.
    let copy = folder.path().join(format!("{}.new", segment_name(1)));
    std::fs::create_dir_all(copy.join("in the way")).unwrap();
    harness
        .port()
        .erase(Keyed::default().insert(()), "ada".into());
    let status = |harness: &Harness| harness.port().chores_status();
    eventually(|| (status(&harness) == LogStatus::Failing).then_some(()));
    assert_eq!(harness.port().progress().status, LogStatus::Writing);
    std::fs::remove_dir_all(&copy).unwrap();
    assert!(matches!(harness.letter(), Letter::Erased { count: 1, .. }));
    eventually(|| (status(&harness) == LogStatus::Writing).then_some(()));
    harness.threads.close().unwrap();
}

#[test]
fn old_segments_go_and_decisions_about_tokens_stay() {
    use crate::auth::{Decision, Revocation, Target};
    let folder = tempfile::tempdir().unwrap();
    let retention = RetentionOptions {
        age_max_ms: i64::MAX,
        bytes_max: 3 * SEGMENT,
    };
    let mut harness = Harness::open_with(folder.path(), Durability::Write, retention);
    let revoke = |jti: &str| {
        Decision::Revoke(Revocation {
            target: Target::Jti(jti.into()),
            revoked_at_s: 1,
            expires_at_s: None,
        })
    };
    let undo = Decision::Undo(Target::Jti("undone".into()));
    for decision in [revoke("kept"), revoke("undone"), undo] {
        let mut batch = RecordBatch::default();
        let payload = decision.encode();
        batch.push_revocation(&harness.codec, &payload).unwrap();
        harness.hand_over(batch);
    }
    let data = format!("\"{}\"", "x".repeat(100_000));
    for _ in 0..60 {
        harness.append("ada", &data);
        harness.wait_until_kept();
    }
    // The reader may be behind: there are few segments before there are many.
    eventually(|| {
        let (_, missing) = harness.events_after("ada", Seq(0), None);
        let gone = missing.filter(|to| *to > Seq(10))?;
        let (events, _) = harness.events_after("ada", gone, None);
        let segments = harness.stats.counters.log_segments.value();
        (!events.is_empty() && segments < 5).then_some(())
    });
    harness.threads.close().unwrap();
    let storage = DiskStorage::existing(folder.path());
    let options = OpenOptions {
        writer: WriterOptions::default(),
        fresh: LogIdentity {
            epoch: Epoch(8),
            secret: [3, 4],
        },
        epoch: EpochRule::Keep,
    };
    let mut log = open(&storage, options).unwrap();
    let revocations = revocations_in_force(&mut log.catalog, 2).unwrap();
    let held: Vec<_> = revocations.iter().map(|one| one.target).collect();
    assert_eq!(held, [Target::Jti("kept".into())]);
}

#[test]
fn a_log_can_be_closed_while_cores_still_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Fsync);
    harness.append("ada", "1");
    harness
        .threads
        .closer()
        .close_within(Duration::from_secs(20));
    let durable = harness.port().progress().durable;
    harness.append("ada", "2");
    assert_eq!(harness.port().progress().durable, durable);
    harness.threads.close().unwrap();
    assert!(
        Harness::open(folder.path(), Durability::Fsync)
            .report
            .is_clean
    );
}

#[test]
fn room_for_a_segment_is_made_once_a_quarter_of_the_one_before_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::open(folder.path(), Durability::Write);
    let storage = DiskStorage::existing(folder.path());
    let has_spare = || {
        let names = storage.list().unwrap();
        names.iter().any(|name| name.ends_with(SPARE_END))
    };
    harness.append("ada", "1");
    harness.wait_until_kept();
    // It does its chores before it takes what is asked next.
    for _ in 0..2 {
        harness.events_after("ada", Seq(0), None);
    }
    assert!(!has_spare());
    let data = "1".repeat(SEGMENT as usize / 8);
    for _ in 0..3 {
        harness.append("ada", &data);
    }
    eventually(|| has_spare().then_some(()));
    harness.threads.close().unwrap();
}
