//! The event log as simulated cores have it; and one that is simulated too: of each core it keeps
//! what it is given after a while, is full or fails now and then, and looks at what it is given.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sightline::event::record::RecordView;
use sightline::event::{RecordCodec, Seq, StoredEvent, Stream, StreamKind};
use sightline::hub::reads::{ReadAnswer, ReadRequest};
use sightline::hub::{Append, LogProgress, LogStatus};

use crate::dice::Dice;
use crate::reader::Reader;

/// Seqs that are reserved ahead of what is kept.
const RESERVED: u64 = 3 * Seq::LEVEL_STEP;

/// What cores tell and ask the event log, each under its number.
pub trait EventLog {
    /// Whether it would wake this core.
    fn has_news(&self, core: usize, now_ms: u64) -> bool;
    /// How far it is with what this core has told.
    fn progress(&mut self, core: usize, now_ms: u64) -> LogProgress;
    fn handle_append(&mut self, core: usize, now_ms: u64, append: Append, dice: &mut Dice);
    fn handle_request(&mut self, core: usize, now_ms: u64, request: ReadRequest, dice: &mut Dice);
    fn poll_answer(&mut self, core: usize, now_ms: u64, dice: &mut Dice) -> Option<ReadAnswer>;
}

/// A record that can be read.
pub enum KeptRecord {
    Event(StoredEvent),
    /// What a stream's events up to a seq had led to: small here, so that it is in one piece.
    Snapshot(Stream, Seq, Bytes),
}

/// The logs of all cores, and who reads them.
pub struct Logs {
    logs: Vec<Log>,
    reader: Reader,
}

impl Logs {
    pub fn new(logs: Vec<Log>, delay_ms_max: u64) -> Self {
        let reader = Reader::new(logs.len(), delay_ms_max);
        Self { logs, reader }
    }

    /// The events of all streams that are kept.
    pub fn streams(&self) -> impl Iterator<Item = (&Stream, &[StoredEvent])> {
        self.reader.streams()
    }

    /// Whether all is kept, and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.logs.iter().all(Log::is_idle) && self.reader.is_idle()
    }

    /// No more delay, no more trouble.
    pub fn calm(&mut self) {
        self.logs.iter_mut().for_each(Log::calm);
        self.reader.calm();
    }
}

impl EventLog for Logs {
    fn has_news(&self, core: usize, now_ms: u64) -> bool {
        self.logs[core].has_news(now_ms) || self.reader.has_answer_for(core, now_ms)
    }

    fn progress(&mut self, core: usize, now_ms: u64) -> LogProgress {
        let log = &mut self.logs[core];
        let progress = log.progress(now_ms);
        self.reader.take_in(core, log.take_kept(), progress.durable);
        progress
    }

    fn handle_append(&mut self, core: usize, now_ms: u64, append: Append, dice: &mut Dice) {
        self.logs[core].handle_append(now_ms, &append, dice);
    }

    fn handle_request(&mut self, core: usize, now_ms: u64, request: ReadRequest, dice: &mut Dice) {
        self.reader.ask(now_ms, core, request, dice);
    }

    fn poll_answer(&mut self, core: usize, now_ms: u64, dice: &mut Dice) -> Option<ReadAnswer> {
        self.reader.answer(core, now_ms, dice)
    }
}

/// The log of one core.
pub struct Log {
    codec: RecordCodec,
    delay_ms_max: u64,
    // When each batch is kept, and the highest seq up to it.
    under_way: VecDeque<(u64, u64, Seq)>,
    // What is to be read, with the count of records up to the batch that it is in; once kept it goes
    // to the reader.
    records: VecDeque<(u64, KeptRecord)>,
    highest: Seq,
    heads: BTreeMap<(StreamKind, String), Seq>,
    // In trouble until then.
    trouble: (LogStatus, u64),
    progress: LogProgress,
    told: Option<LogProgress>,
}

impl Log {
    pub fn new(codec: RecordCodec, start: Seq, delay_ms_max: u64) -> Self {
        Self {
            codec,
            delay_ms_max,
            under_way: VecDeque::new(),
            records: VecDeque::new(),
            highest: start,
            heads: BTreeMap::new(),
            trouble: (LogStatus::Writing, 0),
            progress: LogProgress {
                written: 0,
                durable: 0,
                status: LogStatus::Writing,
                reserve: Seq(start.0 + RESERVED),
            },
            told: None,
        }
    }

    /// Takes in what a core has made. Panics where it does not follow what came before.
    pub fn handle_append(&mut self, now_ms: u64, append: &Append, dice: &mut Dice) {
        for entry in &append.batch.entries {
            let record = Bytes::copy_from_slice(&append.batch.bytes[entry.offset as usize..]);
            let (view, _) = self.codec.decode(&record).expect("a whole record");
            if let RecordView::Snapshot(snapshot) = view {
                let stream = Stream {
                    kind: snapshot.kind,
                    id: snapshot.id.into(),
                };
                let payload = Bytes::copy_from_slice(snapshot.payload);
                let snapshot = KeptRecord::Snapshot(stream, snapshot.seq, payload);
                self.records.push_back((append.through, snapshot));
            }
            let RecordView::Event(event) = view else {
                continue;
            };
            let stream = (event.kind, event.stream_id().to_owned());
            let head = self.heads.insert(stream, event.seq);
            let follows = match head {
                Some(head) => event.previous == head || event.previous.is_level(),
                None => event.previous.is_level(),
            };
            let is_new = event.previous < event.seq && head.is_none_or(|head| head < event.seq);
            assert!(follows && is_new, "{event:?} after {head:?}");
            assert!(!event.seq.is_level() && event.seq <= self.progress.reserve);
            self.highest = self.highest.max(event.seq);
            let stored = event.to_stored(&record);
            let stored = KeptRecord::Event(stored);
            self.records.push_back((append.through, stored));
        }
        if dice.chance(5) && self.delay_ms_max > 0 {
            let status = dice.pick(&[LogStatus::Failing, LogStatus::Full]);
            self.trouble = (status, now_ms + dice.between(1, 1_500));
        }
        let ready_ms = now_ms + dice.between(0, self.delay_ms_max);
        self.under_way
            .push_back((ready_ms, append.through, self.highest));
    }

    /// How far it is at this time.
    pub fn progress(&mut self, now_ms: u64) -> LogProgress {
        self.progress = self.progress_at(now_ms);
        while self.is_front_kept(now_ms) {
            self.under_way.pop_front();
        }
        self.told = Some(self.progress);
        self.progress
    }

    /// What is kept since the last call.
    pub fn take_kept(&mut self) -> Vec<KeptRecord> {
        let durable = self.progress.durable;
        let records = self.records.iter();
        let kept = records.take_while(|(through, _)| *through <= durable);
        let count = kept.count();
        let kept = self.records.drain(..count);
        kept.map(|(_, record)| record).collect()
    }

    /// Whether it would say something new.
    pub fn has_news(&self, now_ms: u64) -> bool {
        self.told != Some(self.progress_at(now_ms))
    }

    /// Whether all is kept.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// No more delay, no more trouble.
    pub fn calm(&mut self) {
        self.delay_ms_max = 0;
        self.trouble.1 = 0;
        for (ready_ms, ..) in &mut self.under_way {
            *ready_ms = 0;
        }
    }

    fn progress_at(&self, now_ms: u64) -> LogProgress {
        let kept = self.under_way.iter();
        let kept = kept.take_while(|(ready_ms, ..)| self.is_well(now_ms) && *ready_ms <= now_ms);
        let mut progress = self.progress;
        if let Some((_, through, highest)) = kept.last() {
            (progress.written, progress.durable) = (*through, *through);
            progress.reserve = Seq(highest.0 + RESERVED).level_above();
        }
        progress.status = match self.is_well(now_ms) {
            true => LogStatus::Writing,
            false => self.trouble.0,
        };
        progress
    }

    fn is_front_kept(&self, now_ms: u64) -> bool {
        let front = self.under_way.front();
        self.is_well(now_ms) && front.is_some_and(|(ready_ms, ..)| *ready_ms <= now_ms)
    }

    fn is_well(&self, now_ms: u64) -> bool {
        now_ms >= self.trouble.1
    }
}
