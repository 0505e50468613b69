//! An event log as a plain list, and the answers that a reader of it gives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::agents::activity::Tally;
use crate::agents::{Folded, StateOptions, StreamState};
use crate::event::record::{RecordView, read_verified};
use crate::event::{
    Epoch, Known, KnownType, Parser, RecordBatch, Seq, SeqRange, SnapshotPart, StoredEvent, Stream,
    StreamKind,
};
use crate::hub::reads::{LogOutcome, Read, ReadAnswer, ReadFailed, ReadRequest, ReadWhat};

use super::EPOCH;

/// What was given to the logs of all cores.
#[derive(Default)]
pub struct PlainLog {
    /// Whether reading fails.
    pub is_broken: bool,
    /// Nothing is answered.
    pub is_silent: bool,
    /// Bytes of records that one read brings at most, whatever was asked for.
    pub read_bytes_max: Option<usize>,
    /// The records of each core that are kept.
    pub kept: Vec<u64>,
    streams: BTreeMap<Stream, Vec<StoredEvent>>,
    snapshots: BTreeMap<Stream, (Seq, Bytes)>,
    taken: BTreeMap<Stream, Seq>,
    damaged: BTreeSet<(Stream, Seq)>,
}

impl PlainLog {
    /// An empty one for so many cores.
    pub fn new(cores: usize) -> Self {
        Self {
            kept: vec![0; cores],
            ..Self::default()
        }
    }

    /// Takes in what a core has handed over.
    pub fn take_in(&mut self, batch: &RecordBatch) {
        for entry in &batch.entries {
            let range = entry.offset as usize..(entry.offset + entry.length) as usize;
            let record = Bytes::copy_from_slice(&batch.bytes[range]);
            match read_verified(&record) {
                Ok(RecordView::Event(event)) => {
                    let stream = Stream {
                        kind: event.kind,
                        id: event.stream_id().into(),
                    };
                    let stored = event.to_stored(&record);
                    self.streams.entry(stream).or_default().push(stored);
                }
                Ok(RecordView::Snapshot(snapshot)) => {
                    assert_eq!(snapshot.part, SnapshotPart::WHOLE, "small in tests");
                    let stream = Stream {
                        kind: snapshot.kind,
                        id: snapshot.id.into(),
                    };
                    let payload = record.slice_ref(snapshot.payload);
                    self.snapshots.insert(stream, (snapshot.seq, payload));
                }
                _ => {}
            }
        }
    }

    /// The seq of a stream's latest snapshot, where there is one.
    pub fn snapshot(&self, stream: &Stream) -> Option<u64> {
        self.snapshots.get(stream).map(|(seq, _)| seq.0)
    }

    /// The events of a stream.
    pub fn stored(&self, stream: &Stream) -> &[StoredEvent] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    /// What they lead to, one after the other.
    pub fn fold(&self, stream: &Stream, options: &StateOptions) -> StreamState {
        let mut state = StreamState::new(stream.kind, options);
        let mut parser = Parser::new();
        for stored in self.stored(stream) {
            let (event, folded) = (&stored.event, Folded::from(stored));
            let known_type = KnownType::find(&event.event_type);
            let known_type = known_type.filter(|known_type| state.reads(*known_type));
            let applied = known_type.and_then(|known_type| {
                let take = |known: &Known<'_>| state.apply(folded, Some(known));
                parser.with_known(known_type, &event.data, take)
            });
            applied.unwrap_or_else(|| state.apply(folded, None));
        }
        state
    }

    /// A user's events and all snapshots go.
    pub fn erase(&mut self, user: &str) {
        for events in self.streams.values_mut() {
            events.retain(|event| event.event.user.as_deref() != Some(user));
        }
        self.snapshots.clear();
    }

    /// The seqs of a stream.
    pub fn seqs(&self, stream: &Stream) -> Vec<u64> {
        let events = self.streams.get(stream).into_iter().flatten();
        events.map(|event| event.seq.0).collect()
    }

    /// The highest seq of all.
    pub fn highest(&self) -> Seq {
        let events = self.streams.values().flatten();
        events.map(|event| event.seq).max().unwrap_or_default()
    }

    /// Retention takes a stream's events up to a seq.
    pub fn take_up_to(&mut self, stream: &Stream, up_to: Seq) {
        self.taken.insert(stream.clone(), up_to);
        let events = self.streams.entry(stream.clone()).or_default();
        events.retain(|event| event.seq > up_to);
    }

    /// What came after a seq never reached the disk.
    pub fn lose_after(&mut self, stream: &Stream, after: Seq) {
        let events = self.streams.entry(stream.clone()).or_default();
        events.retain(|event| event.seq <= after);
    }

    /// One event cannot be read any more.
    pub fn damage(&mut self, kind: StreamKind, id: &str, seq: Seq) {
        let stream = Stream {
            kind,
            id: id.into(),
        };
        self.damaged.insert((stream, seq));
    }

    /// The answer, where the log has what it must have before.
    pub fn answer(&self, request: &ReadRequest) -> Option<ReadAnswer> {
        let kept = request.what.kept();
        if self.is_silent || kept.is_some_and(|(core, through)| self.kept[core] < through) {
            return None;
        }
        let stream = &request.stream;
        let read = match request.what {
            // One event at a time, so that nothing is counted at once.
            ReadWhat::Count {
                range,
                after,
                up_to,
                ..
            } => {
                let mut tally = Box::new(Tally::new(range));
                let left = |event: &&StoredEvent| event.seq > after && event.seq <= up_to;
                let next = self.readable(stream).find(left);
                if let Some(StoredEvent { event, .. }) = next {
                    tally.add(&event.event_type, event.timestamp_ms, 1);
                }
                Read::Count {
                    tally,
                    last: next.map_or(after, |next| next.seq),
                    is_done: next.is_none(),
                }
            }
            ReadWhat::Events {
                after,
                up_to,
                bytes_max,
                ..
            } => self.events(stream, (after, up_to), bytes_max),
            ReadWhat::Resume { cursor, head, .. } => Read::Resume {
                outcome: cursor.map(|(epoch, seq)| self.outcome(stream, epoch, seq, head)),
                earliest: self.readable(stream).next().map(|event| event.seq),
            },
            ReadWhat::Snapshot { .. } => Read::Snapshot {
                latest: self.snapshots.get(stream).cloned(),
                last: self.readable(stream).last().map(|event| event.seq),
            },
        };
        let result = if self.is_broken {
            Err(ReadFailed)
        } else {
            Ok(read)
        };
        let id = request.id;
        Some(ReadAnswer { id, result })
    }

    fn readable<'a>(&'a self, stream: &'a Stream) -> impl Iterator<Item = &'a StoredEvent> {
        let events = self.streams.get(stream).into_iter().flatten();
        events.filter(|event| !self.is_damaged(stream, event.seq))
    }

    fn is_damaged(&self, stream: &Stream, seq: Seq) -> bool {
        self.damaged.contains(&(stream.clone(), seq))
    }

    fn outcome(&self, stream: &Stream, epoch: Option<Epoch>, cursor: Seq, head: Seq) -> LogOutcome {
        let is_foreign = epoch.map_or(cursor > Seq(0), |epoch| epoch != EPOCH);
        if is_foreign || cursor > head {
            return LogOutcome::Reset;
        }
        let taken = self.taken.get(stream).copied().unwrap_or_default();
        let damaged = self.damaged.iter().filter(|(name, _)| name == stream);
        let damaged = damaged.map(|(_, seq)| *seq).filter(|seq| *seq > cursor);
        let hole = (cursor < taken).then(|| (Seq(cursor.0 + 1), taken));
        let holes = damaged.map(|seq| (seq, seq)).chain(hole);
        let missing = holes.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let held = self.streams.get(stream).into_iter().flatten();
        let mut before = held.map(|event| event.seq).filter(|seq| *seq <= cursor);
        let last = before.next_back().unwrap_or_default().max(taken);
        let is_lost = !cursor.is_level() && last < cursor;
        LogOutcome::Replay {
            missing: missing.map(|(from, to)| SeqRange { from, to }),
            lost: is_lost.then_some(SeqRange {
                from: Seq(last.0 + 1),
                to: cursor,
            }),
        }
    }

    fn events(&self, stream: &Stream, (after, up_to): (Seq, Seq), bytes_max: usize) -> Read {
        let mut bytes_left = self.read_bytes_max.unwrap_or(bytes_max).min(bytes_max);
        let (mut events, mut missing, mut at) = (Vec::new(), None, after);
        let held = self.streams.get(stream).into_iter().flatten();
        for event in held.filter(|event| event.seq > after && event.seq <= up_to) {
            let is_damaged = self.is_damaged(stream, event.seq);
            let hole_end = match is_damaged {
                true => event.seq,
                false => event.previous,
            };
            if hole_end > at && (is_damaged || !hole_end.is_level()) {
                let from = Seq(at.0 + 1);
                missing = Some(SeqRange { from, to: hole_end });
                break;
            }
            let bytes = event.event.data.len() + 100;
            if !events.is_empty() && bytes > bytes_left {
                break;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            at = event.seq;
            events.push(event.clone());
        }
        let last = self.readable(stream).filter(|event| event.seq <= up_to);
        let is_done = missing.is_none() && last.last().is_none_or(|last| last.seq <= at);
        Read::Events {
            events,
            missing,
            is_done,
        }
    }
}
