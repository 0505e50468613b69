//! What a core asks of the event log for its viewers. Plain data goes out and comes in; who reads
//! the log, and where, is not known here.

use crate::dialect::SeqRange;
use crate::event::{Epoch, Seq, StoredEvent, Stream};

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

impl super::Hub {
    /// The next thing to be read from the event log.
    pub fn poll_read(&mut self) -> Option<ReadRequest> {
        None
    }

    /// The event log has answered.
    pub fn handle_read(&mut self, _now: super::Now, _answer: ReadAnswer) {}
}
