//! Opening the log: what is part of it, where it ends, and how a new process goes on.
//!
//! Every opening begins a segment; none writes into a segment of another process. Of the old ones
//! the last is scanned, up to what its marks say was on disk: that is its end now. What follows as
//! whole records is written into the new segment before that one has its name, the rest is cut off.
//! Every stream goes on above a level that no seq was ever given above: after a clean stop the one
//! above the highest, else the `reserve`.

use std::collections::VecDeque;
use std::io;

use thiserror::Error;

use super::catalog::{Catalog, Index, Segment};
use super::chain::Chain;
use super::index::SealedIndex;
use super::segment::{HeaderError, SegmentHeader, index_name, segment_name};
use super::storage::{Storage, StorageFile as _};
use super::tail::Tail;
use super::writer::{Levels, Writer, WriterOptions};
use crate::event::record::Mark;
use crate::event::{LogIdentity, RecordCodec, Seq};
use crate::limits::SEQS_RESERVED;

/// A log that was opened.
#[derive(Debug)]
pub struct Log<S: Storage> {
    /// Writes it.
    pub writer: Writer<S>,
    /// Reads it.
    pub catalog: Catalog<S>,
    /// Encodes its records.
    pub codec: RecordCodec,
    /// What was found.
    pub report: OpenReport,
    /// Keeps other processes out; to be kept as long as the writer.
    pub lock: S::Lock,
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// For the writer.
    pub writer: WriterOptions,
    /// Random: who the log is if it is a new one; of an old one the epoch of a new life.
    pub fresh: LogIdentity,
    /// Whether a new life is asked for.
    pub epoch: EpochRule,
}

/// When a log gets a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochRule {
    /// Only where history was lost or went backwards.
    Keep,
    /// Now: the log is a copy that was put back.
    Renew,
}

/// What was found at the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Whether the log was closed before.
    pub is_clean: bool,
    /// Why the epoch is a new one.
    pub new_epoch: Option<NewEpoch>,
    /// The level above which every stream goes on.
    pub start: Seq,
    /// Bytes of writes that never finished, after the last whole record.
    pub cut_bytes: u64,
    /// Records that were written and not known to be on disk, and are now.
    pub recovered: u64,
    /// Places below what was on disk that are no record any more, in the segment that was scanned.
    pub damaged: u64,
    /// Segments whose header cannot be read.
    pub headless: u64,
    /// Segments whose index must be made again.
    pub unindexed: u64,
}

/// Why a log has a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NewEpoch {
    /// It was asked for.
    #[error("it was asked for")]
    Asked,
    /// The newest segment that there was is gone.
    #[error("the newest segment is gone")]
    Backwards,
    /// There was no log.
    #[error("there was no log")]
    First,
    /// A segment that should be there is gone.
    #[error("a segment is gone")]
    Lost,
}

/// Why a log cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Another process has it.
    #[error("another process has the log open")]
    Locked,
    /// A later version wrote it; nothing was changed.
    #[error("{name}: {error}")]
    Version {
        /// The file.
        name: String,
        /// What it says.
        error: HeaderError,
    },
}

/// Opens the log in `storage`, and makes it where there is none. On return all that is held is on
/// disk, and so is a reserve of seqs above `start`. Errors: [`OpenError`].
pub fn open<S: Storage>(storage: &S, options: OpenOptions) -> Result<Log<S>, OpenError> {
    let lock = storage.lock()?.ok_or(OpenError::Locked)?;
    let mut chain = Chain::follow(storage)?;
    let tail = Tail::scan(storage, &chain)?;
    let (levels, new_epoch) = levels(&chain, &tail);
    let new_epoch = match options.epoch {
        EpochRule::Renew => Some(NewEpoch::Asked),
        EpochRule::Keep => new_epoch,
    };
    let old = chain.identity().unwrap_or(options.fresh);
    let epoch = if new_epoch.is_some() {
        options.fresh.epoch
    } else {
        old.epoch
    };
    let codec = RecordCodec::new(LogIdentity { epoch, ..old });
    let log_end = chain.take_in(&tail, levels.first);
    // They take the room that the new segment needs, and the names of files to come.
    chain.unlink_spares(storage);
    let mut writer = Writer::new(
        storage.clone(),
        options.writer,
        codec.clone(),
        levels,
        log_end,
    );
    let recovered = tail.push_rest(&mut writer, &codec)?;
    writer.start()?;
    let report = OpenReport {
        is_clean: tail.is_clean,
        new_epoch,
        start: levels.start,
        cut_bytes: tail.cut_bytes,
        recovered,
        damaged: tail.damaged,
        headless: chain.headless,
        unindexed: 0,
    };
    let segments = segments(storage, &chain, tail)?;
    let garbage = std::mem::take(&mut chain.garbage);
    let mut catalog = Catalog::new(
        storage.clone(),
        codec.clone(),
        levels.floor,
        segments,
        garbage,
    );
    let unindexed = catalog
        .summaries()
        .filter(|(_, summary)| summary.is_none())
        .count() as u64;
    while let Some(change) = writer.poll_change() {
        catalog.handle_change(change);
    }
    // If there is no room for it, the chores write it again.
    let _ = catalog.write_newest();
    let report = OpenReport {
        unindexed,
        ..report
    };
    Ok(Log {
        writer,
        catalog,
        codec,
        report,
        lock,
    })
}

/// Where the new process begins to number and what it says of the log; why it is another life.
fn levels<F>(chain: &Chain, tail: &Tail<F>) -> (Levels, Option<NewEpoch>) {
    let headers = chain.known.iter().chain(chain.newest());
    let newest = headers.fold(Mark::default(), |mark, header| Mark {
        first: mark.first.max(header.first),
        floor: mark.floor.max(header.floor),
        reserve: mark.reserve.max(header.reserve).max(header.start),
        ..mark
    });
    let mut reserve = newest
        .reserve
        .max(tail.marks.reserve)
        .max(tail.marks.highest);
    let first = newest.first.max(tail.marks.first);
    let new_epoch = chain.new_epoch(first);
    let is_whole = tail.damaged == 0 && chain.headless == 0 && new_epoch.is_none();
    if !is_whole && reserve > Seq(0) {
        // A mark with a higher one may be among what is gone.
        reserve = Seq(reserve.0 + RESERVES_MISSED * SEQS_RESERVED);
    }
    let highest = if tail.is_clean && is_whole {
        tail.marks.highest
    } else {
        reserve
    };
    let start = highest.level_above();
    let levels = Levels {
        first,
        floor: newest.floor.max(tail.marks.floor),
        start,
        reserve: reserve.level_above().max(start),
    };
    (levels, new_epoch)
}

/// Marks in a row that damage may have taken.
const RESERVES_MISSED: u64 = 16;

/// The segments of the chain with their indices, ready for the catalog.
fn segments<S: Storage>(
    storage: &S,
    chain: &Chain,
    tail: Tail<S::File>,
) -> io::Result<VecDeque<Segment<S::File>>> {
    let (scanned, scanned_end, mut index) = (tail.number, tail.end, tail.index);
    let segment = |(header, end): &(SegmentHeader, u64)| {
        let is_scanned = header.number == scanned;
        let end = if is_scanned { scanned_end } else { *end };
        let sealed = match index.take_if(|_| is_scanned) {
            Some(bytes) => SealedIndex::from_bytes(scanned, bytes),
            None => open_index(storage, header.number, end),
        };
        let index = sealed.map_or(Index::Missing, Index::Sealed);
        let end = match &index {
            Index::Sealed(index) => end.min(index.summary().end),
            _ => end,
        };
        if end == u64::MAX {
            // Nobody says what of it was on disk.
            storage.open(&segment_name(header.number))?.sync()?;
        }
        Ok(Segment::new(*header, end, index))
    };
    chain.links.iter().map(segment).collect()
}

/// The index of a sealed segment that ends at `end`. Errors: where it must be made again.
fn open_index<S: Storage>(storage: &S, number: u64, end: u64) -> io::Result<SealedIndex<S::File>> {
    let mut index = SealedIndex::open(number, storage.open(&index_name(number))?)?;
    index.close();
    if end != u64::MAX && index.summary().end != end {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(index)
}

#[cfg(test)]
mod tests;
