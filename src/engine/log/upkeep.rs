//! What the reader's thread does for the log when nobody asks: the chores, retention, and taking
//! users' events out.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use compact_str::CompactString;
use tracing::{info, warn};

use crate::auth::Decision;
use crate::event::{RecordBatch, RecordCodec};
use crate::history::catalog::Catalog;
use crate::history::chores::{ChoreStep, Chores};
use crate::history::retention::{Retention, RetentionOptions, RetentionStep};
use crate::history::storage::{Storage, is_full};
use crate::history::writer::Levels;
use crate::hub::keyed::Key;
use crate::hub::{LogStatus, Now};
use crate::limits::FILL_BYTES;

use super::marks::Marks;
use super::{ToWriter, WriterPort, revocations_in_force};

/// A user whose events are to go, and who asked for it.
#[derive(Clone, Debug)]
pub(super) struct Erasure {
    pub core: usize,
    pub connection: Key,
    pub user: CompactString,
}

/// See the module.
pub(super) struct Upkeep<S: Storage> {
    chores: Chores<S>,
    segment_bytes: u64,
    is_spare_wanted: bool,
    retention: Retention,
    codec: RecordCodec,
    levels: Levels,
    writer: WriterPort<S::File>,
    marks: Arc<Marks>,
    // Decisions about tokens that are kept, since the start.
    decisions: u64,
    carrying: Option<Carrying>,
    // The first is under way.
    erasures: VecDeque<Erasure>,
    erasing: Erasing,
    // When the next look at what is too old is due, and when a chore that failed is tried again, in
    // milliseconds of the monotonic clock.
    retention_at_ms: u64,
    retry_at_ms: u64,
    has_chores: bool,
    // Whether the disk lets the chores be done; that it does not was logged.
    status: LogStatus,
}

/// Decisions about tokens that are written again, before the old ones go.
#[derive(Clone, Copy, Debug)]
struct Carrying {
    // Kept when so many decisions are.
    through: u64,
    // The writer has taken them.
    is_taken: bool,
}

/// How far the first of the erasures is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Erasing {
    Idle,
    // The writer begins a segment.
    Rolling,
    // With so many events taken out before.
    Rewriting(u64),
}

/// How often retention looks.
const RETENTION_INTERVAL_MS: u64 = 1_000;
/// What part of a segment is used, one over this, when room for the next one is made.
const SPARE_AFTER: u64 = 4;
/// How much faster than the log grows its next room is filled: done when three quarters are used.
const FILL_PACE: u64 = 2;
/// How long a chore that failed waits.
const RETRY_MS: u64 = 500;

impl<S: Storage> Upkeep<S> {
    pub fn new(
        options: RetentionOptions,
        segment_bytes: u64,
        codec: RecordCodec,
        levels: Levels,
        writer: WriterPort<S::File>,
        marks: Arc<Marks>,
    ) -> Self {
        Self {
            chores: Chores::new(segment_bytes),
            segment_bytes,
            is_spare_wanted: true,
            retention: Retention::new(options),
            codec,
            levels,
            writer,
            marks,
            decisions: 0,
            carrying: None,
            erasures: VecDeque::new(),
            erasing: Erasing::Idle,
            retention_at_ms: 0,
            retry_at_ms: 0,
            has_chores: true,
            status: LogStatus::Writing,
        }
    }

    /// Milliseconds until there is something to do.
    pub fn idle_ms(&self, now: Now) -> u64 {
        let chores_at_ms = match self.has_chores {
            true => self.retry_at_ms,
            false => u64::MAX,
        };
        let next_ms = self.retention_at_ms.max(self.retry_at_ms);
        next_ms.min(chores_at_ms).saturating_sub(now.ms())
    }

    /// Does a bit of what is to be done. Returns whose events are gone, and how many.
    pub fn step(&mut self, now: Now, catalog: &mut Catalog<S>) -> Option<(Erasure, u64)> {
        if now.ms() < self.retry_at_ms {
            return None;
        }
        let done = self.do_step(now, catalog);
        let status = match &done {
            Err(error) if is_full(error) => LogStatus::Full,
            Err(_) => LogStatus::Failing,
            // What failed is begun anew: only its end tells that it can be done.
            Ok(_) if self.has_chores => self.status,
            Ok(_) => LogStatus::Writing,
        };
        self.marks.set_chores_status(status);
        let before = std::mem::replace(&mut self.status, status);
        match done {
            Ok(erased) => {
                if status != before {
                    info!("the chores of the event log go on");
                }
                erased
            }
            Err(error) => {
                if before == LogStatus::Writing {
                    warn!(%error, "a chore of the event log failed: it is tried again");
                }
                self.retry_at_ms = now.ms() + RETRY_MS;
                self.has_chores = true;
                None
            }
        }
    }

    fn do_step(
        &mut self,
        now: Now,
        catalog: &mut Catalog<S>,
    ) -> io::Result<Option<(Erasure, u64)>> {
        if now.ms() >= self.retention_at_ms {
            self.retention_at_ms = now.ms() + RETENTION_INTERVAL_MS;
            self.keep_within_bounds(now, catalog)?;
        }
        // A log that hardly grows is not made larger than it is.
        let used = catalog.newest_bytes_len();
        let quarter = self.segment_bytes / SPARE_AFTER;
        if self.is_spare_wanted && used >= quarter {
            self.is_spare_wanted = false;
            self.chores.want_spare();
            self.has_chores = true;
        }
        // Zeros all at once would keep the disk from commits for a tenth of a second.
        let fill_max = FILL_PACE * used.saturating_sub(quarter) + FILL_BYTES;
        self.chores.set_fill_max(fill_max);
        self.has_chores |= self.chores.is_filling();
        if self.has_chores {
            match self.chores.step(catalog)? {
                ChoreStep::Idle => self.has_chores = false,
                ChoreStep::Spare(name, file) => self.writer.tell(ToWriter::Spare(name, file)),
                ChoreStep::Worked => {}
            }
        }
        Ok(self.advance_erasing())
    }

    /// A segment was begun: the one before wants an index, and the next one room, in time.
    pub fn handle_began(&mut self) {
        self.is_spare_wanted = true;
        self.has_chores = true;
    }

    /// So many more decisions about tokens are kept.
    pub fn handle_decisions(&mut self, count: u64) {
        self.decisions += count;
        self.check_carried();
    }

    /// The writer has taken what was to be carried, or not: then it is tried again.
    pub fn handle_carried(&mut self, is_taken: bool) {
        self.carrying = self.carrying.take().filter(|_| is_taken);
        if let Some(carrying) = &mut self.carrying {
            carrying.is_taken = true;
        }
        self.check_carried();
    }

    /// What is on disk.
    pub fn handle_levels(&mut self, levels: Levels) {
        self.levels = levels;
        self.retention_at_ms = 0;
    }

    /// Takes a user's events out, after those of others before.
    pub fn handle_erasure(&mut self, erasure: Erasure) {
        self.erasures.push_back(erasure);
        self.begin_erasing();
    }

    /// The writer has begun the segment that an erasure asked for.
    pub fn handle_rolled(&mut self, catalog: &Catalog<S>) {
        if let Some(erasure) = self.erasures.front() {
            self.erasing = Erasing::Rewriting(self.chores.erased());
            self.chores.erase(catalog, &erasure.user);
            self.has_chores = true;
        }
    }

    fn begin_erasing(&mut self) {
        if self.erasing == Erasing::Idle && !self.erasures.is_empty() {
            self.erasing = Erasing::Rolling;
            self.writer.tell(ToWriter::Roll);
        }
    }

    fn advance_erasing(&mut self) -> Option<(Erasure, u64)> {
        let Erasing::Rewriting(before) = self.erasing else {
            self.begin_erasing();
            return None;
        };
        // Until nothing of the old files is left.
        if self.has_chores || self.chores.is_erasing() {
            return None;
        }
        self.erasing = Erasing::Idle;
        let count = self.chores.erased() - before;
        let erased = self.erasures.pop_front().map(|erasure| (erasure, count));
        self.begin_erasing();
        erased
    }

    fn keep_within_bounds(&mut self, now: Now, catalog: &mut Catalog<S>) -> io::Result<()> {
        match self.retention.poll(now.wall_ms, self.levels, catalog)? {
            RetentionStep::Idle => {}
            RetentionStep::KeepRevocations => self.carry_decisions(now, catalog)?,
            RetentionStep::SetFloor { first, floor } => {
                self.writer.tell(ToWriter::Floor { first, floor });
            }
            RetentionStep::Forgot(first) => {
                info!(first, "older segments of the event log are let go");
                self.has_chores = true;
                self.retention_at_ms = 0;
            }
        }
        Ok(())
    }

    fn carry_decisions(&mut self, now: Now, catalog: &mut Catalog<S>) -> io::Result<()> {
        if self.carrying.is_some() {
            return Ok(());
        }
        let mut batch = RecordBatch::default();
        for revocation in revocations_in_force(catalog, now.wall_s())?.iter() {
            let payload = Decision::Revoke(revocation).encode();
            batch
                .push_revocation(&self.codec, &payload)
                .map_err(io::Error::other)?;
        }
        let known = self.decisions;
        let through = known + batch.entries.len() as u64;
        self.carrying = Some(Carrying {
            through,
            is_taken: false,
        });
        self.writer.tell(ToWriter::Carry { batch, known });
        Ok(())
    }

    fn check_carried(&mut self) {
        let through = self.decisions;
        let is_kept = |carrying: &mut Carrying| carrying.is_taken && carrying.through <= through;
        if self.carrying.take_if(is_kept).is_some() {
            self.retention.handle_revocations_kept();
            self.retention_at_ms = 0;
        }
    }
}
