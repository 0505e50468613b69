//! The thread that writes the log: moves the writer on, and tells the reader and the cores.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::counters::CoreStats;
use crate::event::{RecordBatch, RecordContent};
use crate::history::storage::Storage;
use crate::history::writer::{Change, Levels, LogStatus, Progress, Step, Writer};

use super::bell::Sleeper;
use super::marks::Marks;
use super::{Clock, Control, Letter, ToReader, ToWriter, weight};

/// See the module.
pub(super) struct LogWriter<S: Storage> {
    writer: Writer<S>,
    inbox: Receiver<ToWriter<S::File>>,
    sleeper: Sleeper,
    // Of all records that were taken in.
    weight: u64,
    reader: Sender<ToReader>,
    marks: Arc<Marks>,
    mailboxes: Arc<Control<Letter>>,
    stats: Arc<CoreStats>,
    // What was told last.
    progress: Vec<Progress>,
    levels: Levels,
    status: LogStatus,
    // Decisions about tokens that were taken in.
    decisions: u64,
    roll: Roll,
}

/// How far a segment that was asked for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Roll {
    // What came before is written first.
    Flushing,
    None,
    Wanted,
}

/// How long the writer has nothing to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pause {
    None,
    UntilMail,
    UntilNs(u64),
}

impl<S: Storage> LogWriter<S> {
    pub fn new(
        writer: Writer<S>,
        (inbox, sleeper): (Receiver<ToWriter<S::File>>, Sleeper),
        reader: Sender<ToReader>,
        marks: Arc<Marks>,
        mailboxes: Arc<Control<Letter>>,
        stats: Arc<CoreStats>,
    ) -> Self {
        Self {
            progress: vec![Progress::default(); mailboxes.cores()],
            levels: writer.levels_kept(),
            status: writer.status(),
            decisions: 0,
            roll: Roll::None,
            writer,
            inbox,
            sleeper,
            weight: 0,
            reader,
            marks,
            mailboxes,
            stats,
        }
    }

    /// Writes until it is told to close. Errors: the log could not be closed.
    pub fn run(mut self, clock: Clock) -> io::Result<()> {
        while self.take_mail() {
            let pause = self.step(clock.monotonic_ns());
            self.sleep(pause, clock);
        }
        self.writer.close()
    }

    /// Makes the writer's next step and tells what came of it. Returns how long it has nothing to do.
    pub fn step(&mut self, now_ns: u64) -> Pause {
        let mut pause = match self.writer.poll(now_ns) {
            Step::Idle(None) => Pause::UntilMail,
            Step::Idle(Some(at_ns)) => Pause::UntilNs(at_ns),
            Step::Began | Step::Failed | Step::Synced | Step::Wrote => Pause::None,
        };
        // Whoever hears of an erasure has heard before that the erased was kept.
        self.tell();
        if self.advance_roll() {
            pause = Pause::None;
        }
        pause
    }

    fn sleep(&self, pause: Pause, clock: Clock) {
        let now_ns = clock.monotonic_ns();
        let time = match pause {
            Pause::None => return,
            Pause::UntilMail => None,
            Pause::UntilNs(at_ns) => Some(Duration::from_nanos(at_ns.saturating_sub(now_ns))),
        };
        let lacking = self.writer.lacking(now_ns) as u64;
        self.sleeper
            .sleep(self.weight.saturating_add(lacking), time);
    }

    /// Takes what has come. Returns `false` where nothing more comes.
    pub fn take_mail(&mut self) -> bool {
        while !self.is_flushing()
            && let Ok(mail) = self.inbox.try_recv()
        {
            if !self.handle_mail(mail) {
                return false;
            }
        }
        true
    }

    // What fails may take long: the cores are heard meanwhile.
    fn is_flushing(&self) -> bool {
        self.roll == Roll::Flushing && self.status == LogStatus::Writing
    }

    fn handle_mail(&mut self, mail: ToWriter<S::File>) -> bool {
        match mail {
            ToWriter::Append { core, append } => {
                self.decisions += decisions(&append.batch);
                self.weight += weight(&append.batch);
                self.writer.push(core, append.through, append.batch);
            }
            ToWriter::Carry { batch, known } => {
                // Or a decision would be overtaken by the older one that it undid.
                let is_latest = known == self.decisions;
                if is_latest {
                    self.decisions += decisions(&batch);
                    if !batch.is_empty() {
                        self.writer.push_own(batch);
                    }
                }
                self.tell_reader(ToReader::Carried(is_latest));
            }
            ToWriter::Close => return false,
            ToWriter::Floor { first, floor } => self.writer.set_floor(first, floor),
            ToWriter::Roll => self.roll = Roll::Flushing,
            ToWriter::Spare(name, file) => self.writer.offer_spare(name, file),
        }
        true
    }

    // Begins a segment once all before is kept; tells whether the writer has something to do now.
    fn advance_roll(&mut self) -> bool {
        if self.roll != Roll::Flushing || self.writer.queued_bytes() > 0 {
            return false;
        }
        self.roll = Roll::Wanted;
        if !self.writer.roll() {
            self.finish_roll();
        }
        true
    }

    fn finish_roll(&mut self) {
        self.roll = Roll::None;
        self.tell_reader(ToReader::Rolled);
    }

    fn tell_reader(&self, mail: ToReader) {
        // It is there as long as this thread is.
        let _ = self.reader.send(mail);
    }

    // The reader first: whoever sees a mark may ask it.
    fn tell(&mut self) {
        while let Some(change) = self.writer.poll_change() {
            let has_begun = matches!(change, Change::Began(_));
            if let Change::Kept { entries, .. } = &change {
                let kept = &self.stats.counters.log_records_kept;
                kept.add(entries.len() as u64);
            }
            self.tell_reader(ToReader::Change(change));
            if has_begun && self.roll == Roll::Wanted {
                self.finish_roll();
            }
        }
        let is_general = self.tell_levels() | self.tell_status();
        for core in 0..self.progress.len() {
            if self.tell_progress(core) || is_general {
                self.mailboxes.wake(core);
            }
        }
        self.publish_stats();
    }

    fn tell_levels(&mut self) -> bool {
        let levels = self.writer.levels_kept();
        if levels == self.levels {
            return false;
        }
        self.tell_reader(ToReader::Levels(levels));
        let before = std::mem::replace(&mut self.levels, levels);
        self.marks.set_reserve(levels.reserve);
        levels.reserve != before.reserve
    }

    fn tell_status(&mut self) -> bool {
        let status = self.writer.status();
        let failure = self.writer.take_failure();
        if std::mem::replace(&mut self.status, status) == status {
            return false;
        }
        self.marks.set_status(status);
        let error = failure.map(|failure| failure.to_string());
        match status {
            LogStatus::Failing => error!(error, "the event log cannot be written: trying again"),
            LogStatus::Full => warn!(
                error,
                "the event log's disk is full: events are refused until there is room"
            ),
            LogStatus::Writing => info!("the event log is written again"),
        }
        true
    }

    // Whether a core has reason to look.
    fn tell_progress(&mut self, core: usize) -> bool {
        let progress = self.writer.progress(core);
        let before = std::mem::replace(&mut self.progress[core], progress);
        let kept = |progress: Progress| progress.durable.min(progress.written);
        if kept(progress) != kept(before) {
            let through = kept(progress);
            self.tell_reader(ToReader::Kept { core, through });
        }
        if progress != before {
            self.marks.set_progress(core, progress);
        }
        kept(progress) != kept(before) || progress.durable != before.durable
    }

    fn publish_stats(&self) {
        let (stats, counters) = (self.writer.stats(), &self.stats.counters);
        counters.log_records.set(stats.records);
        counters.log_bytes_written.set(stats.bytes_written);
        counters.log_commits.set(stats.commits);
        counters.log_syncs.set(stats.syncs);
        counters.log_failures.set(stats.failures);
        counters.log_queued.set(self.writer.queued_bytes() as u64);
        let is_refusing = u64::from(self.status != LogStatus::Writing);
        counters.log_refusing.set(is_refusing);
    }
}

fn decisions(batch: &RecordBatch) -> u64 {
    let entries = batch.entries.iter();
    let decisions = entries.filter(|entry| entry.content == RecordContent::Revocation);
    decisions.count() as u64
}
