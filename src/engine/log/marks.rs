//! How far the log is, as its writer tells the cores: numbers with one writer and many readers.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::event::Seq;
use crate::history::writer::{LogStatus, Progress};
use crate::hub::LogProgress;

/// See the module.
#[derive(Debug)]
pub(super) struct Marks {
    cores: Vec<CachePadded<CoreMarks>>,
    reserve: AtomicU64,
    status: AtomicU8,
    chores_status: AtomicU8,
}

#[derive(Debug, Default)]
struct CoreMarks {
    written: AtomicU64,
    durable: AtomicU64,
}

impl Marks {
    /// For `cores` cores that have handed over nothing, with seqs reserved up to `reserve`.
    pub fn new(cores: usize, reserve: Seq) -> Self {
        Self {
            cores: (0..cores).map(|_| CachePadded::default()).collect(),
            reserve: AtomicU64::new(reserve.0),
            status: AtomicU8::new(LogStatus::Writing as u8),
            chores_status: AtomicU8::new(LogStatus::Writing as u8),
        }
    }

    /// How far the log is with the records of `core`.
    pub fn progress(&self, core: usize) -> LogProgress {
        let marks = &self.cores[core];
        LogProgress {
            written: marks.written.load(Ordering::Acquire),
            durable: marks.durable.load(Ordering::Acquire),
            status: load(&self.status),
            reserve: Seq(self.reserve.load(Ordering::Acquire)),
        }
    }

    /// The log has moved with the records of `core`.
    pub fn set_progress(&self, core: usize, progress: Progress) {
        let marks = &self.cores[core];
        marks.written.store(progress.written, Ordering::Release);
        marks.durable.store(progress.durable, Ordering::Release);
    }

    /// No seq above `reserve` may be given.
    pub fn set_reserve(&self, reserve: Seq) {
        self.reserve.store(reserve.0, Ordering::Release);
    }

    /// Whether new events may be taken in.
    pub fn set_status(&self, status: LogStatus) {
        self.status.store(status as u8, Ordering::Release);
    }

    /// Whether the disk lets the chores be done.
    pub fn chores_status(&self) -> LogStatus {
        load(&self.chores_status)
    }

    /// The same, as it is now.
    pub fn set_chores_status(&self, status: LogStatus) {
        self.chores_status.store(status as u8, Ordering::Release);
    }
}

fn load(status: &AtomicU8) -> LogStatus {
    match status.load(Ordering::Acquire) {
        status if status == LogStatus::Full as u8 => LogStatus::Full,
        status if status == LogStatus::Writing as u8 => LogStatus::Writing,
        _ => LogStatus::Failing,
    }
}
