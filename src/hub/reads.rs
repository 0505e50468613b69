//! What a core asks of the event log for its viewers and its folds, and what the answers brought. Plain data goes
//! out and comes in; who reads the log, and where, is not known here.
//!
//! Of one stream one read of events is under way at a time, whoever wants it, and what it brought is
//! held for a while: viewers that have missed the same cost one read, and those who want different
//! parts of it meet at its end.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::agents::activity::{Tally, TimeRange};
use crate::event::{Epoch, Seq, SeqRange, StoredEvent, Stream};
use crate::limits::{READ_BYTES, READ_BYTES_HELD_MAX, READS_HELD_MAX, READS_UNDER_WAY_MAX};

use super::keyed::Key;
use super::ring::Chunk;
use super::streams::StreamSlot;

/// Something to be read from the event log. It is answered once, whatever becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Names the answer.
    pub id: u64,
    /// Of which stream.
    pub stream: Stream,
    /// What.
    pub what: ReadWhat,
}

/// A core, and a count of its records: the log is to be asked when it keeps that many.
pub type Kept = Option<(usize, u64)>;

/// What is to be read of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadWhat {
    /// Events after `after` up to `up_to`: at least one, then up to about so many bytes.
    Events {
        /// Where to begin.
        after: Seq,
        /// Where to end.
        up_to: Seq,
        /// Bytes of records.
        bytes_max: usize,
        /// What the log must have taken in before.
        kept: Kept,
    },
    /// What becomes of a cursor.
    Resume {
        /// The cursor and the epoch it is of; `None`: only the earliest event is asked for.
        cursor: Option<(Option<Epoch>, Seq)>,
        /// The stream's head.
        head: Seq,
        /// What the log must have taken in before.
        kept: Kept,
    },
    /// How many events of each type there are after `after` up to `up_to`, by their own time: of at
    /// least one event, and of up to about so many bytes.
    Count {
        /// Those of other times are passed over.
        range: TimeRange,
        /// Where to begin.
        after: Seq,
        /// Where to end.
        up_to: Seq,
        /// Bytes of records.
        bytes_max: usize,
        /// What the log must have taken in before.
        kept: Kept,
    },
    /// What the stream's events had led to when that was last written down.
    Snapshot {
        /// What the log must have taken in before.
        kept: Kept,
    },
}

impl ReadWhat {
    /// What the log must have taken in before it answers.
    pub fn kept(&self) -> Kept {
        match self {
            Self::Count { kept, .. }
            | Self::Events { kept, .. }
            | Self::Resume { kept, .. }
            | Self::Snapshot { kept } => *kept,
        }
    }

    /// Position in tables that have one place for each kind.
    pub fn index(&self) -> usize {
        match self {
            Self::Count { .. } => 0,
            Self::Events { .. } => 1,
            Self::Resume { .. } => 2,
            Self::Snapshot { .. } => 3,
        }
    }
}

/// What the log answered.
#[derive(Debug)]
pub struct ReadAnswer {
    /// Of the request.
    pub id: u64,
    /// What was read.
    pub result: Result<Read, ReadFailed>,
}

/// What was read.
#[derive(Debug)]
pub enum Read {
    /// The answer to `ReadWhat::Events`.
    Events {
        /// In order.
        events: Vec<StoredEvent>,
        /// What follows these and cannot be had; reading goes on after it.
        missing: Option<SeqRange>,
        /// Whether nothing follows up to the end that was asked for.
        is_done: bool,
    },
    /// The answer to `ReadWhat::Resume`.
    Resume {
        /// What becomes of the cursor, where there was one.
        outcome: Option<LogOutcome>,
        /// The first event of the stream that the log has.
        earliest: Option<Seq>,
    },
    /// The answer to `ReadWhat::Count`.
    Count {
        /// What was counted.
        tally: Box<Tally>,
        /// Counting goes on after it.
        last: Seq,
        /// Whether nothing follows up to the end that was asked for.
        is_done: bool,
    },
    /// The answer to `ReadWhat::Snapshot`.
    Snapshot {
        /// All events up to the seq are in it.
        latest: Option<(Seq, Bytes)>,
        /// The last event of the stream that the log has.
        last: Option<Seq>,
    },
}

/// What becomes of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutcome {
    /// What is held after the cursor follows.
    Replay {
        /// What of it is not held any more.
        missing: Option<SeqRange>,
        /// What the viewer saw and the log has not.
        lost: Option<SeqRange>,
    },
    /// It says nothing about this log.
    Reset,
}

/// The log could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFailed;

/// The reads of one core.
#[derive(Debug, Default)]
pub(super) struct Reads {
    last_id: u64,
    requests: VecDeque<ReadRequest>,
    facts: BTreeMap<u64, (Key, StreamSlot)>,
    events: BTreeMap<StreamSlot, UnderWay>,
    folds: BTreeMap<u64, StreamSlot>,
    counts: BTreeMap<u64, Key>,
    held: VecDeque<Held>,
}

/// A read of events that is not answered.
#[derive(Debug)]
pub(super) struct UnderWay {
    id: u64,
    after: Seq,
    up_to: Seq,
    pub viewers: Vec<Key>,
}

/// What a read has brought.
#[derive(Debug)]
pub(super) struct Held {
    stream: StreamSlot,
    pub chunk: Chunk,
    // Follows the chunk and cannot be had.
    missing: Option<SeqRange>,
}

/// Where to go on after a seq, by what was read.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// With these events.
    Chunk(&'a mut Chunk),
    /// After these, which cannot be had.
    Missing(SeqRange),
}

/// Whose answer it is.
#[derive(Debug)]
pub(super) enum Asker {
    /// The question for which the log counts.
    Count(Key),
    /// The viewer that wants to know what becomes of its cursor.
    Facts(Key, StreamSlot),
    /// Everybody who wants these events.
    Events(StreamSlot, UnderWay),
    /// The fold of this stream.
    Fold(StreamSlot),
}

impl Reads {
    /// The next request for the log.
    pub fn poll(&mut self) -> Option<ReadRequest> {
        self.requests.pop_front()
    }

    /// Whether no further read of events may be under way.
    pub fn is_full(&self) -> bool {
        self.events.len() >= READS_UNDER_WAY_MAX
    }

    /// Asks what becomes of a viewer's cursor.
    pub fn ask_facts(&mut self, viewer: Key, slot: StreamSlot, stream: Stream, what: ReadWhat) {
        let id = self.request(stream, what);
        self.facts.insert(id, (viewer, slot));
    }

    /// Asks for what a stream's fold is made of.
    pub fn ask_for_fold(&mut self, slot: StreamSlot, stream: Stream, what: ReadWhat) {
        let id = self.request(stream, what);
        self.folds.insert(id, slot);
    }

    /// Asks for counts on behalf of a question.
    pub fn ask_for_count(&mut self, question: Key, stream: Stream, what: ReadWhat) {
        let id = self.request(stream, what);
        self.counts.insert(id, question);
    }

    /// How many counts are under way.
    pub fn counts_len(&self) -> usize {
        self.counts.len()
    }

    /// Nobody waits for what this stream's fold has asked for.
    pub fn forget_fold(&mut self, slot: StreamSlot) {
        self.folds.retain(|_, asker| *asker != slot);
    }

    /// Asks for events on behalf of a viewer, unless those of the stream are being read already: then
    /// it waits for these. `false`: too many reads are under way.
    #[must_use]
    pub fn ask_events(
        &mut self,
        viewer: Key,
        slot: StreamSlot,
        stream: &Stream,
        (after, up_to): (Seq, Seq),
        kept: Kept,
    ) -> bool {
        if let Some(under_way) = self.events.get_mut(&slot) {
            under_way.viewers.push(viewer);
            return true;
        }
        if self.is_full() {
            return false;
        }
        let id = self.request(
            stream.clone(),
            ReadWhat::Events {
                after,
                up_to,
                bytes_max: READ_BYTES,
                kept,
            },
        );
        let under_way = UnderWay {
            id,
            after,
            up_to,
            viewers: vec![viewer],
        };
        self.events.insert(slot, under_way);
        true
    }

    /// Whose answer this is; `None` where nobody waits for it.
    pub fn take_asker(&mut self, id: u64) -> Option<Asker> {
        if let Some((viewer, slot)) = self.facts.remove(&id) {
            return Some(Asker::Facts(viewer, slot));
        }
        if let Some(slot) = self.folds.remove(&id) {
            return Some(Asker::Fold(slot));
        }
        if let Some(question) = self.counts.remove(&id) {
            return Some(Asker::Count(question));
        }
        let is_asked = |under_way: &&UnderWay| under_way.id == id;
        let slot = self.events.iter().find(|(_, read)| is_asked(read))?.0;
        let slot = *slot;
        let under_way = self.events.remove(&slot)?;
        Some(Asker::Events(slot, under_way))
    }

    /// Nobody waits for what this viewer has asked for of its cursors.
    pub fn forget_facts(&mut self, viewer: Key) {
        self.facts.retain(|_, (asker, _)| *asker != viewer);
    }

    /// Holds what a read has brought.
    pub fn hold(
        &mut self,
        stream: StreamSlot,
        under_way: &UnderWay,
        events: Vec<StoredEvent>,
        missing: Option<SeqRange>,
        is_done: bool,
    ) {
        let last = events.last().map_or(under_way.after, |last| last.seq);
        let last = match is_done && missing.is_none() {
            true => under_way.up_to,
            false => last,
        };
        let events = events.into_iter().map(|stored| (stored.seq, stored.event));
        let chunk = Chunk::of_events(under_way.after, last, events.collect());
        self.held.push_back(Held {
            stream,
            chunk,
            missing,
        });
        // Frames were made of some since.
        let bytes = |held: &Held| held.chunk.bytes();
        let mut held_bytes: usize = self.held.iter().map(bytes).sum();
        while self.held.len() > READS_HELD_MAX || held_bytes > READ_BYTES_HELD_MAX {
            let oldest = self.held.pop_front();
            held_bytes -= oldest.as_ref().map_or(held_bytes, bytes);
        }
    }

    /// What was read is not held any more.
    pub fn forget_held(&mut self) {
        self.held.clear();
    }

    /// What follows `after` by what was read; `None` where that was not read, or is not held any more.
    pub fn find(&mut self, stream: StreamSlot, after: Seq) -> Option<Found<'_>> {
        let held = self.held.iter_mut().find(|held| {
            let chunk = &held.chunk;
            let is_at_hole = chunk.last() == after && held.missing.is_some();
            held.stream == stream && chunk.after() <= after && (after < chunk.last() || is_at_hole)
        })?;
        Some(match held.missing {
            Some(missing) if held.chunk.last() == after => Found::Missing(missing),
            _ => Found::Chunk(&mut held.chunk),
        })
    }

    /// Forgets what was read of a stream.
    pub fn forget(&mut self, stream: StreamSlot) {
        self.held.retain(|held| held.stream != stream);
    }

    fn request(&mut self, stream: Stream, what: ReadWhat) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.requests.push_back(ReadRequest { id, stream, what });
        id
    }
}
