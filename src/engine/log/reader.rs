//! The thread that reads the log for the cores, and does the chores between.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::agents::activity::{Tally, TimeRange};
use crate::counters::CoreStats;
use crate::event::{Epoch, RecordContent, Seq, StoredEvent, Stream};
use crate::history::catalog::Catalog;
use crate::history::replay::ReplayBatch;
use crate::history::resume::{Outcome, ResumePoint};
use crate::history::storage::Storage;
use crate::history::writer::Change;
use crate::hub::Now;
use crate::hub::reads::{LogOutcome, Read, ReadAnswer, ReadFailed, ReadRequest, ReadWhat};

use super::upkeep::{Erasure, Upkeep};
use super::{Clock, Control, Letter, ToReader};

/// See the module.
pub(super) struct Reader<S: Storage> {
    catalog: Catalog<S>,
    upkeep: Upkeep<S>,
    inbox: Receiver<ToReader>,
    // How many of each core's records the catalog knows.
    kept: Vec<u64>,
    // Requests that wait for more of them.
    early: Vec<(usize, ReadRequest)>,
    // Letters that found a mailbox full.
    unsent: VecDeque<(usize, Letter)>,
    mailboxes: Arc<Control<Letter>>,
    stats: Arc<CoreStats>,
    // When the next chore is due though cores ask, in milliseconds of the monotonic clock.
    chore_at_ms: u64,
    // The last read failed, and that was logged.
    is_failing: bool,
}

/// How long those who ask hold up the chores, unless too many segments wait for them.
const CHORE_INTERVAL_MS: u64 = 100;
/// How long it works on end where a core may want the CPU, in nanoseconds.
const WORK_ON_END_NS: u64 = 100_000;
/// How long a full mailbox is waited for.
const FULL_MAILBOX_MS: u64 = 1;

impl<S: Storage> Reader<S> {
    pub fn new(
        catalog: Catalog<S>,
        upkeep: Upkeep<S>,
        inbox: Receiver<ToReader>,
        cores: usize,
        mailboxes: Arc<Control<Letter>>,
        stats: Arc<CoreStats>,
    ) -> Self {
        Self {
            catalog,
            upkeep,
            inbox,
            kept: vec![0; cores],
            early: Vec::new(),
            unsent: VecDeque::new(),
            mailboxes,
            stats,
            chore_at_ms: 0,
            is_failing: false,
        }
    }

    /// Reads until nobody can ask any more.
    pub fn run(mut self, clock: Clock) {
        let mut gave_way_ns = clock.now().monotonic_ns;
        loop {
            let now_ns = clock.now().monotonic_ns;
            if now_ns.saturating_sub(gave_way_ns) >= WORK_ON_END_NS {
                // A core that wants this CPU would wait for it until the scheduler's next tick, 4 ms.
                thread::yield_now();
                gave_way_ns = now_ns;
            }
            let is_silent = match self.inbox.recv_timeout(self.pause(clock.now())) {
                Ok(mail) => {
                    self.handle_mail(mail);
                    false
                }
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.finish_step(clock.now(), is_silent);
        }
    }

    /// Takes one letter that has come; does a chore where there is none.
    pub fn step(&mut self, now: Now) {
        let mail = self.inbox.try_recv().ok();
        let is_silent = mail.is_none();
        if let Some(mail) = mail {
            self.handle_mail(mail);
        }
        self.finish_step(now, is_silent);
    }

    fn finish_step(&mut self, now: Now, is_silent: bool) {
        self.send_unsent();
        // Each commit is a letter: so the chores keep up with what is written.
        if is_silent || now.ms() >= self.chore_at_ms || self.catalog.is_behind() {
            self.chore_at_ms = now.ms() + CHORE_INTERVAL_MS;
            self.do_chore(now);
            self.publish_stats();
        }
    }

    fn pause(&self, now: Now) -> Duration {
        let idle_ms = self.upkeep.idle_ms(now);
        Duration::from_millis(match self.unsent.is_empty() {
            true => idle_ms,
            false => idle_ms.min(FULL_MAILBOX_MS),
        })
    }

    fn handle_mail(&mut self, mail: ToReader) {
        match mail {
            ToReader::Carried(is_taken) => self.upkeep.handle_carried(is_taken),
            ToReader::Change(change) => self.handle_change(change),
            ToReader::Erase(erasure) => self.upkeep.handle_erasure(erasure),
            ToReader::Kept { core, through } => {
                self.kept[core] = through;
                for (core, request) in std::mem::take(&mut self.early) {
                    self.handle_request(core, request);
                }
            }
            ToReader::Levels(levels) => self.upkeep.handle_levels(levels),
            ToReader::Read { core, request } => {
                let what = request.what.index();
                self.stats.counters.log_reads.at(what).add(1);
                self.handle_request(core, request);
            }
            ToReader::Rolled => self.upkeep.handle_rolled(&self.catalog),
        }
    }

    fn handle_change(&mut self, change: Change) {
        match &change {
            Change::Began(_) => self.upkeep.handle_began(),
            Change::Kept { entries, .. } => {
                let entries = entries.iter();
                let decisions = entries.filter(|entry| entry.content == RecordContent::Revocation);
                self.upkeep.handle_decisions(decisions.count() as u64);
            }
        }
        self.catalog.handle_change(change);
    }

    fn handle_request(&mut self, core: usize, request: ReadRequest) {
        let is_early = |(owner, through): (usize, u64)| self.kept[owner] < through;
        if request.what.kept().is_some_and(is_early) {
            return self.early.push((core, request));
        }
        let id = request.id;
        let result = catch_unwind(AssertUnwindSafe(|| self.read(request)));
        let result = result.unwrap_or_else(|_| {
            self.stats.counters.log_panics.add(1);
            error!("a panic while reading the event log: whoever asked is told");
            Err(ReadFailed)
        });
        if result.is_err() {
            self.stats.counters.log_reads_failed.add(1);
        }
        self.send(core, Letter::Read(Box::new(ReadAnswer { id, result })));
    }

    fn read(&mut self, request: ReadRequest) -> Result<Read, ReadFailed> {
        let ReadRequest { stream, what, .. } = request;
        let read = match what {
            ReadWhat::Count {
                range,
                after,
                up_to,
                bytes_max,
                ..
            } => self.count(&stream, range, (after, up_to), bytes_max),
            ReadWhat::Events {
                after,
                up_to,
                bytes_max,
                ..
            } => self.read_events(&stream, after, up_to, bytes_max),
            ReadWhat::Resume { cursor, head, .. } => self.resume(&stream, cursor, head),
            ReadWhat::Snapshot { .. } => self.snapshot(&stream),
        };
        let was_failing = std::mem::replace(&mut self.is_failing, read.is_err());
        match &read {
            Err(error) if !was_failing => warn!(%error, "the event log cannot be read"),
            Ok(_) if was_failing => info!("the event log is read again"),
            _ => {}
        }
        read.map_err(|_| ReadFailed)
    }

    fn read_events(
        &mut self,
        stream: &Stream,
        after: Seq,
        up_to: Seq,
        bytes_max: usize,
    ) -> io::Result<Read> {
        let batch = self.read_batch(stream, (after, up_to), bytes_max)?;
        Ok(Read::Events {
            events: batch.events,
            missing: batch.missing,
            is_done: batch.is_done,
        })
    }

    fn resume(
        &mut self,
        stream: &Stream,
        cursor: Option<(Option<Epoch>, Seq)>,
        head: Seq,
    ) -> io::Result<Read> {
        let Some((epoch, seq)) = cursor else {
            let bounds = self.catalog.bounds(stream)?;
            return Ok(Read::Resume {
                outcome: None,
                earliest: bounds.map(|bounds| bounds.first),
            });
        };
        let point = ResumePoint { epoch, seq };
        let resumed = self.catalog.resume(stream, point, head)?;
        Ok(Read::Resume {
            outcome: Some(match resumed.outcome {
                Outcome::Reset => LogOutcome::Reset,
                Outcome::Replay { missing, lost } => LogOutcome::Replay { missing, lost },
            }),
            earliest: resumed.earliest,
        })
    }

    fn read_batch(
        &mut self,
        stream: &Stream,
        (after, up_to): (Seq, Seq),
        bytes_max: usize,
    ) -> io::Result<ReplayBatch> {
        let mut replay = self.catalog.replay_from(stream, after, up_to);
        let mut batch = self.catalog.read(&mut replay, bytes_max)?;
        // Erased events alone are no answer: whoever asks goes on after the last event that comes.
        while batch.events.is_empty() && batch.missing.is_none() && !batch.is_done {
            batch = self.catalog.read(&mut replay, bytes_max)?;
        }
        let events_read = &self.stats.counters.log_events_read;
        events_read.add(batch.events.len() as u64);
        Ok(batch)
    }

    fn count(
        &mut self,
        stream: &Stream,
        range: TimeRange,
        (after, up_to): (Seq, Seq),
        bytes_max: usize,
    ) -> io::Result<Read> {
        let batch = self.read_batch(stream, (after, up_to), bytes_max)?;
        let mut tally = Box::new(Tally::new(range));
        for StoredEvent { event, .. } in &batch.events {
            tally.add(&event.event_type, event.timestamp_ms, 1);
        }
        let last = batch.events.last().map_or(after, |last| last.seq);
        Ok(Read::Count {
            tally,
            last: batch.missing.map_or(last, |hole| hole.to),
            is_done: batch.is_done,
        })
    }

    fn snapshot(&mut self, stream: &Stream) -> io::Result<Read> {
        let latest = self.catalog.snapshot(stream)?;
        let bounds = self.catalog.bounds(stream)?;
        let last = bounds.map(|bounds| bounds.last);
        Ok(Read::Snapshot { latest, last })
    }

    fn do_chore(&mut self, now: Now) {
        if let Some((erasure, count)) = self.upkeep.step(now, &mut self.catalog) {
            self.stats.counters.log_events_erased.add(count);
            let Erasure {
                core,
                connection,
                user,
            } = erasure;
            self.send(
                core,
                Letter::Erased {
                    connection,
                    user,
                    count,
                },
            );
        }
    }

    fn send(&mut self, core: usize, letter: Letter) {
        self.unsent.push_back((core, letter));
        self.send_unsent();
    }

    // In order for each core; one that does not read holds up no other.
    fn send_unsent(&mut self) {
        let mut full = vec![false; self.kept.len()];
        for _ in 0..self.unsent.len() {
            let Some((core, letter)) = self.unsent.pop_front() else {
                return;
            };
            let left = match full[core] {
                true => Some(letter),
                false => self.mailboxes.try_send(core, letter).err(),
            };
            if let Some(letter) = left {
                full[core] = true;
                self.unsent.push_back((core, letter));
            }
        }
    }

    fn publish_stats(&self) {
        let (catalog, counters) = (&self.catalog, &self.stats.counters);
        counters.log_segments.set(catalog.segments_len() as u64);
        counters.log_bytes.set(catalog.bytes_len());
        counters.log_damaged.set(catalog.damaged_len() as u64);
        let earliest_ms = catalog.earliest_ms().unwrap_or(0);
        let earliest_s = u64::try_from(earliest_ms / 1_000).unwrap_or(0);
        counters.log_earliest_s.set(earliest_s);
    }
}
