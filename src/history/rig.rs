//! A log on a simulated disk, and short words for what tests do with it.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;

use super::chores::{ChoreStep, Chores};
use super::index::SeenId;
use super::log::{EpochRule, Log, OpenError, OpenOptions, open};
use super::resume::ResumePoint;
use super::sim_storage::SimStorage;
use super::writer::{Step, WriterOptions};
use crate::event::{
    Epoch, Event, LogIdentity, NumberedEvent, RecordBatch, RecordCodec, Seq, SeqRange, Stream,
    StreamKind,
};

pub const SEGMENT_BYTES: u64 = 16 * 1024;

pub struct Rig {
    pub storage: SimStorage,
    pub log: Log<SimStorage>,
    pub now_ns: u64,
    through: u64,
}

/// The options of most tests: one core, small segments.
pub fn options() -> OpenOptions {
    OpenOptions {
        writer: WriterOptions {
            segment_bytes: SEGMENT_BYTES,
            ..WriterOptions::default()
        },
        fresh: LogIdentity {
            epoch: Epoch(0xabc),
            secret: [5, 6],
        },
        epoch: EpochRule::Keep,
    }
}

/// An event of a user or, where there is one, of a project too.
pub fn event(user: &str, project: Option<&str>, data: &str) -> Event {
    Event {
        event_type: "note".into(),
        user: Some(user.into()),
        project: project.map(Into::into),
        session: None,
        event_id: None,
        timestamp_ms: 1_795_341_600_000,
        data: Bytes::copy_from_slice(data.as_bytes()),
        message_type: None,
        tool_name: None,
    }
}

/// One event of a user's stream, alone in a batch.
pub fn batch(codec: &RecordCodec, user: &str, seq: u64, previous: u64) -> RecordBatch {
    let mut batch = RecordBatch::default();
    let event = event(user, None, &format!("{{\"n\":{seq}}}"));
    let numbered = NumberedEvent {
        kind: StreamKind::User,
        seq: Seq(seq),
        previous: Seq(previous),
        received_ms: 1_000 + seq as i64,
        fingerprint: Some(u128::from(seq)),
        event: &event,
    };
    batch.push_event(codec, &numbered).unwrap();
    batch
}

impl Rig {
    pub fn new() -> Self {
        Self::on(SimStorage::new(1)).unwrap()
    }

    pub fn on(storage: SimStorage) -> Result<Self, OpenError> {
        let log = open(&storage, options())?;
        Ok(Self {
            storage,
            log,
            now_ns: 0,
            through: 0,
        })
    }

    /// The process dies; another one opens the log.
    pub fn again(self, how: impl Fn(&SimStorage)) -> Self {
        drop(self.log);
        how(&self.storage);
        Self::on(self.storage).unwrap()
    }

    /// Closes the log and opens it again.
    pub fn closed(self) -> Self {
        self.log.writer.close().unwrap();
        self.storage.kill();
        Self::on(self.storage).unwrap()
    }

    /// Hands events of a user to the writer.
    pub fn push(&mut self, user: &str, seqs: impl IntoIterator<Item = u64>) {
        for seq in seqs {
            let batch = batch(&self.log.codec, user, seq, seq - 1);
            self.push_batch(batch);
        }
    }

    pub fn push_batch(&mut self, batch: RecordBatch) {
        self.through += batch.entries.len() as u64;
        self.log.writer.push(0, self.through, batch);
    }

    /// One step of the writer, two milliseconds later.
    pub fn poll(&mut self) -> Step {
        self.now_ns += 2_000_000;
        let step = self.log.writer.poll(self.now_ns);
        while let Some(change) = self.log.writer.poll_change() {
            self.log.catalog.handle_change(change);
        }
        step
    }

    /// Hands over events and waits until they are durable.
    pub fn write(&mut self, user: &str, seqs: impl IntoIterator<Item = u64>) {
        self.push(user, seqs);
        self.settle();
    }

    /// Lets the writer work until nothing is left.
    pub fn settle(&mut self) {
        for _ in 0..1_000 {
            if matches!(self.poll(), Step::Idle(_)) {
                return;
            }
        }
        panic!("the writer does not come to rest");
    }

    /// Begins another segment with one event of somebody.
    pub fn roll(&mut self) {
        self.log.writer.roll();
        self.settle();
    }

    pub fn do_chores(&mut self, chores: &mut Chores<SimStorage>) {
        while !matches!(chores.step(&mut self.log.catalog).unwrap(), ChoreStep::Idle) {}
    }

    /// The seqs of a user's stream that can be had, and what is said to be missing or met damaged.
    pub fn read(&mut self, user: &str) -> (Vec<u64>, Vec<SeqRange>) {
        self.read_stream(&Stream::user(user))
    }

    /// The same of any stream.
    pub fn read_stream(&mut self, stream: &Stream) -> (Vec<u64>, Vec<SeqRange>) {
        let point = ResumePoint {
            epoch: Some(self.log.catalog.epoch()),
            seq: Seq(0),
        };
        let resumed = self.log.catalog.resume(stream, point, Seq::MAX).unwrap();
        let super::resume::Outcome::Replay { missing, .. } = resumed.outcome else {
            panic!("a reset");
        };
        let mut missing: Vec<_> = missing.into_iter().collect();
        let mut seqs = Vec::new();
        let Some(mut replay) = resumed.replay else {
            return (seqs, missing);
        };
        loop {
            let batch = self.log.catalog.read(&mut replay, 1_000).unwrap();
            seqs.extend(batch.events.iter().map(|event| event.seq.0));
            missing.extend(batch.missing);
            if batch.is_done {
                return (seqs, missing);
            }
        }
    }

    pub fn seqs(&mut self, user: &str) -> Vec<u64> {
        let (seqs, missing) = self.read(user);
        assert!(missing.is_empty(), "{missing:?}");
        seqs
    }

    /// The ids seen, as `Catalog::seen_since` tells them.
    pub fn seen(&mut self, since_ms: i64, count: usize) -> Vec<SeenId> {
        let mut seen = Vec::new();
        let each = |id| seen.push(id);
        self.log.catalog.seen_since(since_ms, count, each).unwrap();
        seen
    }

    pub fn durable(&self) -> u64 {
        self.log.writer.progress(0).durable
    }
}
