//! What this core has handed to the event log, and what waits until it is kept there: receipts,
//! orders of administrators, and events that no viewer may see before.
//!
//! Records are counted per core, and the log says up to which count they are kept. What waits does
//! so in order, so that one comparison decides. A core that has too much on its way to the disk, or
//! would pass the seqs that the log has reserved, numbers nothing more until the log has moved.

use std::collections::VecDeque;

use compact_str::CompactString;

use crate::event::{Event, NumberedEvent, RecordBatch, RecordCodec, Seq, Stream};
use crate::history::writer::LogStatus;
use crate::limits::LOG_WAITING_MAX;

use super::keyed::Key;
use super::mail::Receipt;
use super::streams::StreamSlot;

/// When viewers see an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// Only once it is kept.
    Durable,
    /// At once; a viewer may see what an unclean stop then loses.
    Eager,
}

impl Deliver {
    /// Both, for reading.
    pub const ALL: [Self; 2] = [Self::Durable, Self::Eager];

    /// The name used in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Eager => "eager",
        }
    }
}

/// How far the log is with one core's records, in the core's own count of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogProgress {
    /// Handed to the operating system.
    pub written: u64,
    /// To be acknowledged as durable.
    pub durable: u64,
    /// Whether new events may be taken in.
    pub status: LogStatus,
    /// No seq above it may be given.
    pub reserve: Seq,
}

/// Records of one turn, for the log.
#[derive(Debug)]
pub struct Append {
    /// How many records this core has handed over with these.
    pub through: u64,
    /// The records.
    pub batch: RecordBatch,
}

/// What the log's word makes due.
#[derive(Debug)]
pub(super) enum Due {
    /// An administrator's order is kept.
    Ask(Key),
    /// An event may be seen.
    Event(HeldEvent),
    /// All that the log has erased of a user was seen.
    Forget(CompactString),
    /// A receipt for the publisher's core.
    Receipt(usize, Receipt),
}

/// An event that has its number and waits to be seen.
#[derive(Debug)]
pub(super) struct HeldEvent {
    pub slot: StreamSlot,
    pub seq: Seq,
    pub event: Event,
    pub received_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    codec: RecordCodec,
    batch: RecordBatch,
    // Records of this core so far, and of these handed over.
    appended: u64,
    handed: u64,
    unkept: VecDeque<Unkept>,
    // Bytes in `batch` and `unkept`.
    unkept_bytes: usize,
    unkept_bytes_max: usize,
    progress: LogProgress,
    // The highest seq given, of any stream.
    highest: Seq,
    waiting: VecDeque<(u64, Due)>,
    // Users whose events the log has erased, since it last said how far it is.
    erased: Vec<CompactString>,
}

/// What was handed over at once.
#[derive(Clone, Copy, Debug)]
struct Unkept {
    through: u64,
    records: u64,
    bytes: usize,
    handed_ns: u64,
}

impl Ledger {
    /// Of a core that numbers above `start`, with at most about `unkept_bytes_max` bytes of records
    /// on their way.
    pub fn new(codec: RecordCodec, start: Seq, unkept_bytes_max: usize) -> Self {
        Self {
            codec,
            batch: RecordBatch::default(),
            appended: 0,
            handed: 0,
            unkept: VecDeque::new(),
            unkept_bytes: 0,
            unkept_bytes_max,
            progress: LogProgress {
                written: 0,
                durable: 0,
                status: LogStatus::Writing,
                reserve: start,
            },
            highest: start,
            waiting: VecDeque::new(),
            erased: Vec::new(),
        }
    }

    /// Makes the records of the log.
    pub fn codec(&self) -> &RecordCodec {
        &self.codec
    }

    /// Whether the log takes new events.
    pub fn status(&self) -> LogStatus {
        self.progress.status
    }

    /// Records of this core so far.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// How many of them the log can be asked for, whatever an acknowledgement means.
    pub fn readable(&self) -> u64 {
        self.progress.durable.min(self.progress.written)
    }

    /// Whether one more event may be numbered.
    pub fn has_room(&self) -> bool {
        // A stream goes on at most a level above the highest, and two may do so at once.
        let next = self.highest.level_above().0 + Seq::LEVEL_STEP;
        self.progress.status == LogStatus::Writing
            && self.unkept_bytes < self.unkept_bytes_max
            && self.waiting.len() < LOG_WAITING_MAX
            && next <= self.progress.reserve.0
    }

    /// Whether records wait to be taken by `poll_append`.
    pub fn has_records(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Whether an event waits to be seen.
    pub fn holds_events(&self) -> bool {
        self.waiting
            .iter()
            .any(|(_, due)| matches!(due, Due::Event(_)))
    }

    /// Bytes that are not known to be kept.
    pub fn unkept_bytes(&self) -> usize {
        self.unkept_bytes
    }

    /// Takes an event that has its number into the log.
    pub fn append(&mut self, numbered: &NumberedEvent<'_>) {
        let before = self.batch.bytes.len();
        self.batch
            .push_event(&self.codec, numbered)
            .expect("limits: a record holds whatever the parser lets through");
        self.highest = self.highest.max(numbered.seq);
        self.note_appended(1, before);
    }

    /// Takes a decision about tokens into the log.
    pub fn append_decision(&mut self, payload: &[u8]) {
        let before = self.batch.bytes.len();
        self.batch
            .push_revocation(&self.codec, payload)
            .expect("limits: a decision is small");
        self.note_appended(1, before);
    }

    /// Takes what a stream's events up to `seq` have led to into the log.
    pub fn append_snapshot(&mut self, stream: &Stream, seq: Seq, payload: &[u8]) {
        let before = self.batch.bytes.len();
        let records = self
            .batch
            .push_snapshot(&self.codec, stream, seq, payload)
            .expect("limits: a record holds a part, and the parser bounds ids");
        self.note_appended(records, before);
    }

    fn note_appended(&mut self, records: u64, bytes_before: usize) {
        self.appended += records;
        self.unkept_bytes += self.batch.bytes.len() - bytes_before;
    }

    /// The records since the last call, if there are any.
    pub fn poll_append(&mut self, now_ns: u64) -> Option<Append> {
        if self.batch.is_empty() {
            return None;
        }
        let batch = std::mem::take(&mut self.batch);
        let through = self.appended;
        let records = through - std::mem::replace(&mut self.handed, through);
        self.unkept.push_back(Unkept {
            through,
            records,
            bytes: batch.bytes.len(),
            handed_ns: now_ns,
        });
        Some(Append { through, batch })
    }

    /// The log has moved. Calls `kept` for each batch that it now keeps, with the number of its
    /// records and when it was handed over, in monotonic nanoseconds.
    pub fn handle_progress(&mut self, progress: LogProgress, mut kept: impl FnMut(u64, u64)) {
        while let Some(oldest) = self.unkept.front().copied() {
            // What is acknowledged from memory alone still takes up that memory.
            if oldest.through > progress.durable.min(progress.written) {
                break;
            }
            self.unkept.pop_front();
            self.unkept_bytes -= oldest.bytes;
            kept(oldest.records, oldest.handed_ns);
        }
        self.progress = progress;
        for user in self.erased.drain(..) {
            // What was erased was kept before, and may still wait to be seen.
            let durable = progress.durable;
            let at = self
                .waiting
                .partition_point(|(through, _)| *through <= durable);
            self.waiting.insert(at, (durable, Due::Forget(user)));
        }
    }

    /// The log has erased all of a user: `Due::Forget` comes behind what was erased.
    pub fn note_erased(&mut self, user: CompactString) {
        self.erased.push(user);
    }

    /// Makes `due` wait until all that was appended so far is kept.
    pub fn wait(&mut self, due: Due) {
        if let Some((through, Due::Receipt(last_from, last))) = self.waiting.back_mut()
            && let Due::Receipt(from, receipt) = &due
            && (*last_from, last.ticket) == (*from, receipt.ticket)
            && (*through > self.handed || *through == self.appended)
        {
            // Receipts of one request and one turn are one.
            *through = self.appended;
            if let Due::Receipt(_, receipt) = due {
                last.absorb(receipt);
            }
            return;
        }
        self.waiting.push_back((self.appended, due));
    }

    /// Whether something that waited is due.
    pub fn has_due(&self) -> bool {
        let durable = self.progress.durable;
        self.waiting
            .front()
            .is_some_and(|(through, _)| *through <= durable)
    }

    /// The next thing that waited, if it is due.
    pub fn poll_due(&mut self) -> Option<Due> {
        if !self.has_due() {
            return None;
        }
        self.waiting.pop_front().map(|(_, due)| due)
    }
}

#[cfg(test)]
mod tests;
