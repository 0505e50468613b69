//! The one that writes the log: takes batches of records from all cores, commits them in groups,
//! and says how far they are written and kept.
//!
//! A state machine: one thread calls `push` and `poll`, and `now_ns` (monotonic nanoseconds) is an
//! argument. Each `poll` makes at most one step: it begins a segment, writes a group, or syncs.
//!
//! Groups are paced, see `history::pace`: a sync costs as much as hundreds of records.
//!
//! After a failed sync or write nothing more goes into that file. What is not known to be on disk
//! is still in memory, and goes into a fresh segment, whose header says where the old one ends.
//!
//! A full disk is waited out. Behind everything that is written there is room for one more mark, so
//! that what retention has to write down before it may make room can be written even then. What was
//! pushed is never dropped: whoever pushes looks at `status` and takes in no more events while it is
//! not `Writing`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

pub use super::durability::Durability;

use super::pace::{Pace, Pending};
use super::segment::{HEADER_BYTES, SegmentHeader, segment_name};
use super::storage::{SPARE_END, Storage, StorageFile, create_spare, is_full};
use crate::event::record::{MARK_BYTES, Mark};
use crate::event::{RecordBatch, RecordCodec, RecordContent, RecordEntry, Seq};
use crate::limits::{
    COMMIT_BYTES_MAX, COMMIT_INTERVAL_NS, COMMIT_RECORDS_TARGET, MARK_DELAY_NS, SEGMENT_BYTES,
    SEQS_RESERVED, SYNC_DELAY_NS, WRITE_RETRY_NS,
};

/// How a writer works.
#[derive(Clone, Copy, Debug)]
pub struct WriterOptions {
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Bytes of a segment; a record that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Cores that push.
    pub cores: usize,
    /// Nanoseconds from one group to the next while few records come; `COMMIT_INTERVAL_NS` is as
    /// often as a group is ever written.
    pub sparse_interval_ns: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_bytes: SEGMENT_BYTES,
            cores: 1,
            sparse_interval_ns: COMMIT_INTERVAL_NS,
        }
    }
}

/// Whether the log takes new events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStatus {
    /// The disk fails: `OVERLOADED`; it is tried again.
    Failing,
    /// The disk is full: `STORAGE_FULL`; it is tried again.
    Full,
    /// All is well.
    Writing,
}

/// How far one core's records have come, in the numbers that the core gave to its batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// With the operating system.
    pub written: u64,
    /// As safe as `Durability` says: to be acknowledged.
    pub durable: u64,
}

/// What a `poll` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A segment was begun.
    Began,
    /// A step failed; see `status`.
    Failed,
    /// Nothing is due before this time; `None`: before the next `push`.
    Idle(Option<u64>),
    /// A group came to disk.
    Synced,
    /// A group was written.
    Wrote,
}

/// What readers of the log must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A segment was begun; the one before ends where the header says.
    Began(SegmentHeader),
    /// Records are kept, in the segment begun last.
    Kept {
        /// Where the entries' offsets begin.
        base: u64,
        /// What is there.
        entries: Vec<RecordEntry>,
    },
}

/// What the log says about itself, in headers and marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// The oldest segment that is kept.
    pub first: u64,
    /// The highest seq that retention took, of any stream.
    pub floor: Seq,
    /// The level above which this process numbers every stream.
    pub start: Seq,
    /// No seq above it is given.
    pub reserve: Seq,
}

/// Where the log ends for the one who goes on with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogEnd {
    /// The last segment; 0 where there is none.
    pub number: u64,
    /// Where that one ends.
    pub end: u64,
    /// The highest number that a segment was ever called by.
    pub number_max: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Writer<S: Storage> {
    storage: S,
    options: WriterOptions,
    codec: RecordCodec,
    // As they should be, and as they are on disk.
    levels: Levels,
    levels_kept: Levels,
    highest: Seq,
    log_end: LogEnd,
    // None: a fresh one is to be begun.
    segment: Option<OpenSegment<S::File>>,
    // A file that was prepared elsewhere, and its name.
    spare: Option<(String, S::File)>,
    pending: VecDeque<Group>,
    pending_bytes: usize,
    // Written to the present segment and not known to be on disk.
    unsynced: VecDeque<Group>,
    progress: Vec<Progress>,
    changes: VecDeque<Change>,
    status: LogStatus,
    pace: Pace,
    // When a group last came to disk.
    synced_ns: u64,
    retry_ns: Option<u64>,
    is_roll_wanted: bool,
    // Segments so far.
    begun: u64,
    failure: Option<io::Error>,
    stats: WriterStats,
}

#[derive(Debug)]
struct OpenSegment<F> {
    file: F,
    // Until its first sync: the name that it has, and what it will be.
    unnamed: Option<(String, SegmentHeader)>,
    // header <= synced <= end
    synced: u64,
    end: u64,
    // Up to where room was taken.
    room: u64,
    // The levels of the last mark in it.
    marked: Levels,
    // Whether something was written that asks for a sync.
    is_dirty: bool,
    // Whether the last mark says that all before it is on disk.
    is_marked: bool,
}

impl<F> OpenSegment<F> {
    fn is_named(&self) -> bool {
        self.unnamed.is_none()
    }
}

/// One batch on its way.
#[derive(Debug)]
struct Group {
    // None: it belongs to no core.
    origin: Option<(usize, u64)>,
    batch: RecordBatch,
    // Where it was written.
    base: u64,
}

/// What a writer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Records taken in.
    pub records: u64,
    /// Bytes written, marks included.
    pub bytes_written: u64,
    /// Groups written.
    pub commits: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Steps that failed.
    pub failures: u64,
    /// Segments begun.
    pub segments: u64,
}

impl<S: Storage> Writer<S> {
    /// Goes on with a log that ends at `log_end`. Nothing is written before the first `poll`, which
    /// begins a segment: a process never writes into a segment of another.
    pub fn new(
        storage: S,
        options: WriterOptions,
        codec: RecordCodec,
        levels: Levels,
        log_end: LogEnd,
    ) -> Self {
        let progress = vec![Progress::default(); options.cores];
        Self {
            storage,
            options,
            codec,
            levels,
            levels_kept: Levels::default(),
            highest: levels.start,
            log_end,
            segment: None,
            spare: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            unsynced: VecDeque::new(),
            progress,
            changes: VecDeque::new(),
            status: LogStatus::Writing,
            pace: Pace::new(options.sparse_interval_ns),
            synced_ns: 0,
            retry_ns: None,
            is_roll_wanted: false,
            begun: 0,
            failure: None,
            stats: WriterStats::default(),
        }
    }

    /// Takes in a batch of core `core`, which counts it as `through`, more than any before.
    pub fn push(&mut self, core: usize, through: u64, batch: RecordBatch) {
        self.push_group(Some((core, through)), batch);
    }

    /// Takes in records that no core waits for.
    pub fn push_own(&mut self, batch: RecordBatch) {
        self.push_group(None, batch);
    }

    fn push_group(&mut self, origin: Option<(usize, u64)>, batch: RecordBatch) {
        let seqs = batch.entries.iter().map(|entry| match entry.content {
            RecordContent::Event(_, seq) => seq,
            RecordContent::Revocation | RecordContent::Snapshot(..) => Seq(0),
        });
        self.highest = seqs.fold(self.highest, Seq::max);
        self.stats.records += batch.entries.len() as u64;
        self.pending_bytes += batch.bytes.len();
        self.pending.push_back(Group {
            origin,
            batch,
            base: 0,
        });
    }

    /// The oldest segment kept is `first` and the highest seq that retention took is `floor`: to be
    /// on disk before anything is unlinked, see `levels_kept`.
    pub fn set_floor(&mut self, first: u64, floor: Seq) {
        self.levels.first = self.levels.first.max(first);
        self.levels.floor = self.levels.floor.max(floor);
    }

    /// The next group begins a segment, so that the present one can be sealed. `false`: there is
    /// nothing in it nor on its way, and it stays.
    pub fn roll(&mut self) -> bool {
        let is_fresh =
            |segment: &OpenSegment<S::File>| segment.is_named() && segment.end == HEADER_BYTES;
        let is_empty = self.segment.as_ref().is_some_and(is_fresh) && self.pending.is_empty();
        self.is_roll_wanted = !is_empty;
        self.is_roll_wanted
    }

    /// Hands over an empty file, named `name`, with room for a segment that is filled with zeros. One
    /// is enough. The first segment, whose room was not filled, is left for it at once.
    pub fn offer_spare(&mut self, name: String, file: S::File) {
        if self.spare.is_none() {
            self.spare = Some((name, file));
            self.is_roll_wanted |= self.begun == 1;
        } else {
            // If it stays, the next opening takes it away.
            let _ = self.storage.unlink(&name);
        }
    }

    /// Whether an `offer_spare` would be welcome.
    pub fn wants_spare(&self) -> bool {
        self.spare.is_none()
    }

    /// Begins the first segment, with all that was pushed so far in it before it has a name: what an
    /// unclean stop left behind is in the old segment or in the new one, never in none.
    /// Errors: of the storage; then the log is as it was.
    pub fn start(&mut self) -> io::Result<()> {
        self.begin_segment()?;
        while !self.pending.is_empty() {
            self.write_group(0)?;
        }
        self.sync(0)
    }

    /// Makes the next step, if one is due.
    pub fn poll(&mut self, now_ns: u64) -> Step {
        if let Some(retry_ns) = self.retry_ns.filter(|retry_ns| now_ns < *retry_ns) {
            return Step::Idle(Some(retry_ns));
        }
        if self
            .segment
            .as_ref()
            .is_some_and(|segment| !segment.is_dirty)
        {
            self.pace.note_kept(now_ns);
        }
        let due = self.due(now_ns);
        let result = match due {
            Due::Begin => self.begin_segment().map(|()| Step::Began),
            Due::Mark => self.write(0, now_ns).map(|()| Step::Wrote),
            Due::Nothing(until_ns) => return Step::Idle(until_ns),
            Due::Sync => self.sync(now_ns).map(|()| Step::Synced),
            Due::Write => {
                self.settle_unawaited();
                self.write_group(now_ns).map(|()| Step::Wrote)
            }
        };
        let step = result.unwrap_or_else(|error| {
            self.handle_failure(now_ns, due, &error);
            self.failure = Some(error);
            Step::Failed
        });
        self.check_invariants();
        step
    }

    /// The next thing that readers of the log must know.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// Brings everything to disk and writes that nothing follows.
    /// Errors: of the storage; the next opening finds an unclean stop, and nothing worse.
    pub fn close(mut self) -> io::Result<()> {
        loop {
            if self.segment.is_none() || self.is_segment_full() {
                self.sync(0)?;
                self.begin_segment()?;
            }
            if self.pending.is_empty() {
                break;
            }
            self.write_group(0)?;
        }
        self.sync(0)?;
        let mark = Mark {
            is_clean: true,
            ..self.mark()
        };
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        self.codec.encode_mark(&mark, &mut bytes);
        let Some(segment) = &self.segment else {
            return Ok(());
        };
        segment
            .file
            .write_at(segment.end, &mut [IoSlice::new(&bytes)])?;
        segment.file.sync()?;
        // The next opening need not look through room that was never used. If it stays, no harm.
        let end = segment.end + MARK_BYTES as u64;
        let _ = self
            .storage
            .truncate(&segment_name(self.log_end.number), end);
        Ok(())
    }

    /// How far a core's records have come.
    pub fn progress(&self, core: usize) -> Progress {
        self.progress.get(core).copied().unwrap_or_default()
    }

    /// Whether new events may be taken in.
    pub fn status(&self) -> LogStatus {
        self.status
    }

    /// What is on disk: no seq above its `reserve` may be given.
    pub fn levels_kept(&self) -> Levels {
        self.levels_kept
    }

    /// Why the last step failed, once.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// How many records more are worth a `poll` before the time that the last one gave.
    pub fn lacking(&self, now_ns: u64) -> usize {
        self.pace.lacking(now_ns, self.pending())
    }

    /// Bytes taken in and not yet as safe as they should be.
    pub fn queued_bytes(&self) -> usize {
        let unsynced = self.unsynced.iter().map(|group| group.batch.bytes.len());
        self.pending_bytes + unsynced.sum::<usize>()
    }

    /// What was done so far.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    fn due(&self, now_ns: u64) -> Due {
        let Some(segment) = &self.segment else {
            return Due::Begin;
        };
        // What retention waits for: it may make room.
        if self.status == LogStatus::Full && segment.marked != self.wanted_levels() {
            return Due::Mark;
        }
        let is_rolling = self.is_rolling(segment);
        if segment.is_dirty {
            // A fresh segment's header comes to disk with its first group.
            if segment.end == HEADER_BYTES && !self.pending.is_empty() {
                return Due::Write;
            }
            let is_asked_for = self.options.durability == Durability::Fsync
                || !segment.is_named()
                || segment.marked != self.levels_kept
                || self.synced_ns + SYNC_DELAY_NS <= now_ns;
            if is_asked_for || is_rolling {
                return Due::Sync;
            }
        }
        if is_rolling {
            return Due::Begin;
        }
        if self.pending.is_empty() && segment.marked == self.wanted_levels() {
            return self.due_when_silent(now_ns, segment);
        }
        match self.pace.due_ns(now_ns, self.pending()) {
            due_ns if due_ns <= now_ns => Due::Write,
            due_ns => Due::Nothing(Some(due_ns)),
        }
    }

    fn pending(&self) -> Pending {
        // None is empty: the first ones tell whether there are enough.
        let groups = self.pending.iter().take(COMMIT_RECORDS_TARGET);
        Pending {
            records: groups.map(|group| group.batch.entries.len()).sum(),
            bytes: self.pending_bytes,
        }
    }

    fn due_when_silent(&self, now_ns: u64, segment: &OpenSegment<S::File>) -> Due {
        if segment.is_dirty {
            return Due::Nothing(Some(self.synced_ns + SYNC_DELAY_NS));
        }
        let at = self.pace.last_ns().map(|last| last + MARK_DELAY_NS);
        match at.filter(|_| !segment.is_marked) {
            Some(at) if at <= now_ns => Due::Write,
            at => Due::Nothing(at),
        }
    }

    fn is_rolling(&self, segment: &OpenSegment<S::File>) -> bool {
        (self.is_segment_full() && !self.pending.is_empty())
            || (self.is_roll_wanted && segment.end > HEADER_BYTES)
    }

    /// Whether the next batch does not fit into the segment. Any fits into an empty one.
    fn is_segment_full(&self) -> bool {
        let next = self
            .pending
            .front()
            .map_or(0, |group| group.batch.bytes.len());
        self.segment.as_ref().is_some_and(|segment| {
            let end = segment.end + (MARK_BYTES + next + MARK_BYTES) as u64;
            segment.end > HEADER_BYTES && end > self.options.segment_bytes
        })
    }

    /// The levels with a reserve that is far enough ahead.
    fn wanted_levels(&self) -> Levels {
        let ahead = Seq(self.highest.0 + SEQS_RESERVED).level_above();
        let is_near = self.highest.0 + SEQS_RESERVED / 2 > self.levels.reserve.0;
        let reserve = if is_near { ahead } else { self.levels.reserve };
        Levels {
            reserve,
            ..self.levels
        }
    }

    fn mark(&self) -> Mark {
        let levels = self.levels;
        Mark {
            synced: self.segment.as_ref().map_or(0, |segment| segment.synced),
            first: levels.first,
            floor: levels.floor,
            reserve: levels.reserve,
            highest: self.highest,
            is_clean: false,
        }
    }

    /// Makes the file of a new segment, which has its name from the first sync on, and leaves the old
    /// one. Errors: of the storage; then the old one is still there to be marked.
    fn begin_segment(&mut self) -> io::Result<()> {
        self.levels = self.wanted_levels();
        let number = self.log_end.number_max.checked_add(1);
        let number = number.ok_or_else(|| io::Error::other("there is no number left"))?;
        self.log_end.number_max = number;
        if self.levels.first == 0 {
            self.levels.first = number;
        }
        let old_end = self.segment.as_ref().map(|segment| self.end_of(segment));
        let header = SegmentHeader {
            identity: self.codec.identity(),
            number,
            previous: self.log_end.number,
            previous_end: old_end.unwrap_or(self.log_end.end),
            first: self.levels.first,
            floor: self.levels.floor,
            start: self.levels.start,
            reserve: self.levels.reserve,
            rewritten_end: 0,
        };
        let (spare_name, file) = match self.spare.take() {
            Some(spare) => spare,
            None => self.create_file(number)?,
        };
        let written = file.write_at(0, &mut [IoSlice::new(&header.encode())]);
        let room = match written.and_then(|()| file.bytes_len()) {
            Ok(room) => room,
            Err(error) => {
                let _ = self.storage.unlink(&spare_name);
                return Err(error);
            }
        };
        self.leave_segment();
        self.segment = Some(OpenSegment {
            file,
            unnamed: Some((spare_name, header)),
            synced: HEADER_BYTES,
            end: HEADER_BYTES,
            room,
            marked: self.levels,
            is_dirty: true,
            is_marked: true,
        });
        self.is_roll_wanted = false;
        self.begun += 1;
        Ok(())
    }

    /// An empty file with room for a segment or, on a disk that is nearly full, for its beginning.
    fn create_file(&self, number: u64) -> io::Result<(String, S::File)> {
        let name = format!("{number:016x}{SPARE_END}");
        let bytes = self.options.segment_bytes;
        let file = match create_spare(&self.storage, &name, bytes) {
            Err(error) if is_full(&error) => create_spare(&self.storage, &name, BEGINNING_BYTES)?,
            file => file?,
        };
        Ok((name, file))
    }

    /// Where nothing is waited for, what goes to be written is as safe as it should be.
    fn settle_unawaited(&mut self) {
        let is_awaited = self.options.durability != Durability::None;
        for group in self.pending.iter().filter(|_| !is_awaited) {
            settle(&mut self.progress, group);
        }
    }

    /// Writes a mark and what is pending, as much as fits.
    fn write_group(&mut self, now_ns: u64) -> io::Result<()> {
        let Some(segment) = &mut self.segment else {
            return Ok(());
        };
        let bytes_max = self.options.segment_bytes.max(HEADER_BYTES);
        let (mut end, mut count) = (segment.end + MARK_BYTES as u64, 0);
        for group in &self.pending {
            let next = end + group.batch.bytes.len() as u64;
            let is_too_much =
                next + MARK_BYTES as u64 > bytes_max || next - segment.end > COMMIT_BYTES_MAX;
            // Something is always written, or it would never be.
            if count > 0 && is_too_much {
                break;
            }
            (end, count) = (next, count + 1);
        }
        let room = end + MARK_BYTES as u64;
        if segment.room < room {
            segment.file.allocate(room)?;
            segment.room = room;
        }
        self.write(count, now_ns)
    }

    /// Writes a mark and the first `count` groups.
    fn write(&mut self, count: usize, now_ns: u64) -> io::Result<()> {
        self.levels = self.wanted_levels();
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        self.codec.encode_mark(&self.mark(), &mut bytes);
        let Some(segment) = &mut self.segment else {
            return Ok(());
        };
        let mut base = segment.end + bytes.len() as u64;
        let groups = self.pending.iter().take(count);
        let records = groups.clone().map(|group| group.batch.entries.len());
        let groups = groups.map(|group| IoSlice::new(&group.batch.bytes));
        let mut slices: Vec<_> = std::iter::once(IoSlice::new(&bytes))
            .chain(groups)
            .collect();
        let written: usize = slices.iter().map(|slice| slice.len()).sum();
        self.pace.note_group(now_ns, records.sum());
        segment.file.write_at(segment.end, &mut slices)?;
        self.stats.bytes_written += written as u64;
        self.stats.commits += 1;
        segment.is_marked = count == 0;
        segment.is_dirty |= count > 0 || segment.marked != self.levels;
        segment.marked = self.levels;
        segment.end += written as u64;
        for mut group in self.pending.drain(..count) {
            self.pending_bytes -= group.batch.bytes.len();
            group.base = base;
            base += group.batch.bytes.len() as u64;
            if let Some((progress, through)) = awaiting(&mut self.progress, &group) {
                progress.written = through;
            }
            self.unsynced.push_back(group);
        }
        if self.options.durability != Durability::Fsync && segment.is_named() {
            self.settle_unsynced();
        }
        Ok(())
    }

    /// Brings what was written to disk, and with the first of it the segment's name.
    fn sync(&mut self, now_ns: u64) -> io::Result<()> {
        let Some(segment) = &mut self.segment else {
            return Ok(());
        };
        segment.file.sync()?;
        if let Some((spare_name, header)) = &segment.unnamed {
            let name = segment_name(header.number);
            self.storage.rename(spare_name, &name)?;
            self.storage.sync_dir()?;
            let number = header.number;
            self.log_end = LogEnd {
                number,
                end: HEADER_BYTES,
                number_max: number,
            };
            self.changes.push_back(Change::Began(*header));
            self.stats.segments += 1;
            segment.unnamed = None;
        }
        segment.synced = segment.end;
        segment.is_dirty = false;
        self.levels_kept = segment.marked;
        self.synced_ns = now_ns;
        self.stats.syncs += 1;
        self.settle_unsynced();
        Ok(())
    }

    /// What was written is as safe as it should be, and may be read.
    fn settle_unsynced(&mut self) {
        // A mark alone says nothing about room for what waits.
        if !self.unsynced.is_empty() || self.pending.is_empty() {
            self.status = LogStatus::Writing;
            self.retry_ns = None;
        }
        for group in self.unsynced.drain(..) {
            settle(&mut self.progress, &group);
            let Group { batch, base, .. } = group;
            self.changes.push_back(Change::Kept {
                base,
                entries: batch.entries,
            });
        }
    }

    /// Writes no more into the segment. What is not known to be on disk will be written again.
    fn leave_segment(&mut self) {
        let Some(segment) = self.segment.take() else {
            return;
        };
        match segment.unnamed {
            // Whichever name it has. If it cannot be taken away either, the next opening does it:
            // no later segment says that this one is part of the log.
            Some((spare_name, header)) => {
                let _ = self.storage.unlink(&spare_name);
                let _ = self.storage.unlink(&segment_name(header.number));
            }
            None => self.log_end.end = self.end_of(&segment),
        }
        for group in self.unsynced.drain(..).rev() {
            self.pending_bytes += group.batch.bytes.len();
            self.pending.push_front(group);
        }
    }

    /// Where a segment ends if nothing more is written into it.
    fn end_of(&self, segment: &OpenSegment<S::File>) -> u64 {
        // Without `Fsync` nothing is in memory to be written again: what the operating system has is
        // all there is.
        match self.options.durability {
            Durability::Fsync => segment.synced,
            Durability::None | Durability::Write if segment.is_dirty => segment.end,
            Durability::None | Durability::Write => segment.synced,
        }
    }

    fn handle_failure(&mut self, now_ns: u64, due: Due, error: &io::Error) {
        let is_full = is_full(error);
        self.stats.failures += 1;
        // A full disk refuses bytes, and keeps those that it has; all other errors, and any of a
        // sync, may be about pages that were taken before.
        if due == Due::Sync || (due != Due::Begin && !is_full) {
            self.leave_segment();
        }
        // The first fresh segment is begun at once, unless there is no room for it.
        let is_first = self.status == LogStatus::Writing && due != Due::Begin && !is_full;
        self.retry_ns = (!is_first).then_some(now_ns + WRITE_RETRY_NS);
        self.status = if is_full {
            LogStatus::Full
        } else {
            LogStatus::Failing
        };
    }

    fn check_invariants(&self) {
        if let Some(segment) = &self.segment {
            debug_assert!(HEADER_BYTES <= segment.synced && segment.synced <= segment.end);
        }
        let pending = self.pending.iter().map(|group| group.batch.bytes.len());
        debug_assert_eq!(pending.sum::<usize>(), self.pending_bytes);
        debug_assert!(self.levels_kept.reserve <= self.levels.reserve);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Begin,
    Mark,
    Nothing(Option<u64>),
    Sync,
    Write,
}

/// The progress of the core that a group came from, and how far the group brings it.
fn awaiting<'p>(progress: &'p mut [Progress], group: &Group) -> Option<(&'p mut Progress, u64)> {
    let (core, through) = group.origin?;
    Some((progress.get_mut(core)?, through))
}

fn settle(progress: &mut [Progress], group: &Group) {
    if let Some((progress, through)) = awaiting(progress, group) {
        progress.durable = progress.durable.max(through);
    }
}

/// What a segment takes at least: its header, a mark, and room for another.
const BEGINNING_BYTES: u64 = HEADER_BYTES + 2 * MARK_BYTES as u64;

#[cfg(test)]
mod tests;
