//! What the event log costs: appending with a sync for every thousand events, reading a stream
//! back, opening. On the disk of the system's temporary folder, or of `TMPDIR`.

use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sightline::event::{
    Epoch, Event, LogIdentity, NumberedEvent, RecordBatch, RecordCodec, Seq, Stream, StreamKind,
};
use sightline::history::catalog::Catalog;
use sightline::history::chores::{ChoreStep, Chores};
use sightline::history::log::{EpochRule, Log, OpenOptions, open};
use sightline::history::storage::DiskStorage;
use sightline::history::writer::{Change, Step, Writer, WriterOptions};
use sightline::limits::SEGMENT_BYTES;

const EVENTS_A_SYNC: u64 = 1_000;
const STREAMS: u64 = 10_000;

/// Events of random users, as a core hands them over.
struct Core {
    codec: RecordCodec,
    users: Vec<Event>,
    heads: Vec<u64>,
    dice: u64,
}

impl Core {
    fn new(log: &Log<DiskStorage>, streams: u64) -> Self {
        let data = Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(489)));
        let user = |id: u64| Event {
            event_type: "tool_execution".into(),
            user: Some(format!("user-{id}").into()),
            project: None,
            session: Some("session-0123456789".into()),
            event_id: None,
            timestamp_ms: 1_795_341_600_000,
            data: data.clone(),
            message_type: None,
            tool_name: Some("bash".into()),
        };
        Self {
            codec: log.codec.clone(),
            users: (0..streams).map(user).collect(),
            heads: vec![log.report.start.0; streams as usize],
            dice: 7,
        }
    }

    fn batch(&mut self, events: u64) -> RecordBatch {
        let mut batch = RecordBatch::default();
        for _ in 0..events {
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let user = ((self.dice >> 33) % self.users.len() as u64) as usize;
            let previous = Seq(self.heads[user]);
            let seq = previous.next();
            self.heads[user] = seq.0;
            let numbered = NumberedEvent {
                kind: StreamKind::User,
                seq,
                previous,
                received_ms: 1_795_341_600_000,
                fingerprint: None,
                event: &self.users[user],
            };
            batch.push_event(&self.codec, &numbered).expect("short");
        }
        batch
    }
}

fn open_log(folder: &Path) -> Log<DiskStorage> {
    let storage = DiskStorage::create(folder).expect("a folder");
    let fresh = LogIdentity {
        epoch: Epoch(1),
        secret: [2, 3],
    };
    let options = OpenOptions {
        writer: WriterOptions::default(),
        fresh,
        epoch: EpochRule::Keep,
    };
    open(&storage, options).expect("a disk")
}

/// Writes a batch and syncs it, at whatever pace. Returns how many segments were begun.
fn write(writer: &mut Writer<DiskStorage>, now_ns: &mut u64, batch: RecordBatch) -> u64 {
    let through = writer.stats().records + batch.entries.len() as u64;
    writer.push(0, through, batch);
    let mut begun = 0;
    while writer.progress(0).durable < through {
        *now_ns += 1_000_000;
        let step = writer.poll(*now_ns);
        assert_ne!(step, Step::Failed, "the disk fails");
        begun += u64::from(step == Step::Began);
    }
    begun
}

/// The log's steps one after the other.
struct Bench {
    log: Log<DiskStorage>,
    core: Core,
    now_ns: u64,
}

impl Bench {
    fn open(folder: &Path, streams: u64) -> Self {
        let log = open_log(folder);
        let core = Core::new(&log, streams);
        Self {
            log,
            core,
            now_ns: 0,
        }
    }

    /// Encodes, writes, syncs and indexes events. Returns how many segments were begun.
    fn append(&mut self, events: u64) -> u64 {
        let batch = self.core.batch(events);
        let begun = write(&mut self.log.writer, &mut self.now_ns, batch);
        while let Some(change) = self.log.writer.poll_change() {
            self.log.catalog.handle_change(change);
        }
        begun
    }

    fn seal(&mut self) {
        let mut chores = Chores::new(SEGMENT_BYTES);
        let step = |chores: &mut Chores<_>, log: &mut Log<_>| chores.step(&mut log.catalog);
        while !matches!(
            step(&mut chores, &mut self.log).expect("a disk"),
            ChoreStep::Idle
        ) {}
    }
}

/// The log's threads, as the gateway has them: this one encodes like a core, one writes and syncs,
/// and one indexes and takes old segments away. Every batch has a sync of its own.
struct Threads {
    core: Core,
    writer: SyncSender<RecordBatch>,
    indexed: Receiver<()>,
    under_way: u64,
}

impl Threads {
    fn start(folder: &Path) -> Self {
        let log = open_log(folder);
        let core = Core::new(&log, STREAMS);
        // A core, too, is ahead of the disk by a bounded number of bytes.
        let (to_writer, batches) = sync_channel(2);
        let (to_reader, changes) = channel();
        let (to_core, indexed) = channel();
        let folder = folder.to_owned();
        thread::spawn(move || run_writer(log.writer, &batches, &to_reader));
        thread::spawn(move || run_reader(log.catalog, &changes, &to_core, &folder));
        Self {
            core,
            writer: to_writer,
            indexed,
            under_way: 0,
        }
    }

    fn append(&mut self, events: u64) {
        let batch = self.core.batch(events);
        self.writer.send(batch).expect("a writer");
        self.under_way += 1;
    }

    /// Waits until all batches are on disk and indexed.
    fn settle(&mut self) {
        for _ in 0..std::mem::take(&mut self.under_way) {
            self.indexed.recv().expect("a reader");
        }
    }
}

fn run_writer(
    mut writer: Writer<DiskStorage>,
    batches: &Receiver<RecordBatch>,
    reader: &Sender<Change>,
) {
    let mut now_ns = 0;
    for batch in batches {
        write(&mut writer, &mut now_ns, batch);
        while let Some(change) = writer.poll_change() {
            // Nobody needs it any more where the bench has ended.
            let _ = reader.send(change);
        }
    }
}

fn run_reader(
    mut catalog: Catalog<DiskStorage>,
    changes: &Receiver<Change>,
    core: &Sender<()>,
    folder: &Path,
) {
    for change in changes {
        let is_kept = matches!(change, Change::Kept { .. });
        catalog.handle_change(change);
        if is_kept {
            // As above.
            let _ = core.send(());
        } else {
            drop_old_segments(folder);
        }
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("history/append");
    group.throughput(Throughput::Elements(EVENTS_A_SYNC));
    group.bench_function("1,000 events of 500 B and a sync", |b| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut threads = Threads::start(folder.path());
        b.iter_custom(|times| {
            let begin = Instant::now();
            for _ in 0..times {
                threads.append(EVENTS_A_SYNC);
            }
            threads.settle();
            begin.elapsed()
        });
    });
    group.bench_function("1,000 events of 500 B and a sync, on one thread", |b| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bench = Bench::open(folder.path(), STREAMS);
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let begin = Instant::now();
                let begun = bench.append(EVENTS_A_SYNC);
                spent += begin.elapsed();
                if begun > 0 {
                    drop_old_segments(folder.path());
                    thread::sleep(Duration::from_millis(20));
                }
            }
            spent
        });
    });
    group.bench_function("1,000 events of 500 B encoded only", |b| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut core = Core::new(&open_log(folder.path()), STREAMS);
        b.iter(|| black_box(core.batch(EVENTS_A_SYNC)));
    });
    group.finish();
}

/// Keeps the disk from filling up.
fn drop_old_segments(folder: &Path) {
    let names = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut logs: Vec<_> = names.map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|end| end == "log"));
    logs.sort();
    for path in logs.iter().rev().skip(2) {
        let _ = std::fs::remove_file(path);
    }
}

fn read(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bench = Bench::open(folder.path(), 100);
    for _ in 0..220 {
        bench.append(EVENTS_A_SYNC);
    }
    bench.seal();
    let mut group = c.benchmark_group("history/read");
    group.throughput(Throughput::Elements(1_000));
    for (name, back) in [("sealed", 2_000), ("open", 1_000)] {
        group.bench_function(format!("1,000 events of a stream, {name} segment"), |b| {
            let stream = Stream::user("user-5");
            let after = Seq(bench.core.heads[5].saturating_sub(back));
            b.iter(|| {
                let up_to = Seq(after.0 + 1_000);
                let mut replay = bench.log.catalog.replay(&stream, after, up_to);
                let mut events = 0;
                loop {
                    let batch = bench
                        .log
                        .catalog
                        .read(&mut replay, 256 * 1024)
                        .expect("a disk");
                    events += batch.events.len();
                    if batch.is_done {
                        break;
                    }
                }
                assert!(events > 900, "{events}");
            });
        });
    }
    group.finish();
    c.bench_function("history/bounds of a stream", |b| {
        b.iter(|| {
            bench
                .log
                .catalog
                .bounds(&Stream::user("user-7"))
                .expect("a disk")
        });
    });
    c.bench_function("history/bounds of nobody's stream", |b| {
        b.iter(|| {
            bench
                .log
                .catalog
                .bounds(&Stream::user("nobody"))
                .expect("a disk")
        });
    });
    c.bench_function("history/seal a segment", |b| {
        b.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                bench.log.writer.roll();
                for _ in 0..90 {
                    bench.append(EVENTS_A_SYNC);
                }
                let begin = Instant::now();
                bench.seal();
                spent += begin.elapsed();
            }
            spent
        });
    });
}

fn reopen(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bench = Bench::open(folder.path(), STREAMS);
    for _ in 0..500 {
        bench.append(EVENTS_A_SYNC);
    }
    bench.seal();
    drop(bench);
    c.bench_function("history/open 300 MB after an unclean stop", |b| {
        b.iter(|| {
            let mut bench = Bench::open(folder.path(), 1);
            bench.append(1);
            bench.seal();
        });
    });
}

criterion_group!(benches, append, read, reopen);
criterion_main!(benches);
