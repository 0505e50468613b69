//! What chores and retention ask of the catalog, and change in it.

use std::io;

use super::reading::save_index;
use super::{Catalog, Index, Segment};
use crate::event::Seq;
use crate::history::chain::write_newest;
use crate::history::index::SealedIndex;
use crate::history::retention::SegmentAge;
use crate::history::segment::{SegmentHeader, file_names, index_name, segment_name};
use crate::history::storage::{Storage, StorageFile};
use crate::limits::SEGMENTS_UNSEALED_MAX;

impl<F: StorageFile> Segment<F> {
    fn is_unsealed(&self) -> bool {
        match &self.index {
            Index::Missing | Index::Open(_) => true,
            Index::Sealed(index) => index.unsaved().is_some(),
        }
    }
}

impl<S: Storage> Catalog<S> {
    /// The numbers of the segments, the oldest first.
    pub(in crate::history) fn numbers(&self) -> impl ExactSizeIterator<Item = u64> {
        self.segments.iter().map(|segment| segment.header.number)
    }

    /// Whether a segment is part of the log.
    pub(in crate::history) fn has(&self, number: u64) -> bool {
        self.numbers().any(|held| held == number)
    }

    /// The header of a segment.
    pub(in crate::history) fn header(&self, number: u64) -> Option<&SegmentHeader> {
        let segment = self.segments.get(self.position(number))?;
        (segment.header.number == number).then_some(&segment.header)
    }

    /// The header of the newest segment.
    pub(in crate::history) fn newest(&self) -> Option<&SegmentHeader> {
        self.segments.back().map(|segment| &segment.header)
    }

    /// The oldest segment that is no longer written and whose index is not in a file.
    pub(in crate::history) fn unsealed(&self) -> Option<u64> {
        let closed = self.segments.len().saturating_sub(1);
        let mut closed = self.segments.iter().take(closed);
        let unsealed = closed.find(|segment| segment.is_unsealed());
        unsealed.map(|segment| segment.header.number)
    }

    /// Whether `SEGMENTS_UNSEALED_MAX` segments wait for their index to be in a file. They are sealed
    /// in their order: then the newest wait.
    pub fn is_behind(&self) -> bool {
        let closed = self.segments.iter().rev().skip(1);
        let newest = closed.take(SEGMENTS_UNSEALED_MAX);
        newest.filter(|segment| segment.is_unsealed()).count() == SEGMENTS_UNSEALED_MAX
    }

    /// What retention must know of each segment, the oldest first.
    pub(in crate::history) fn ages(&self) -> Vec<SegmentAge> {
        let mut next_ms = None;
        let mut age = |segment: &Segment<S::File>| {
            let received_ms = match &segment.index {
                Index::Sealed(index) => match index.summary() {
                    summary if summary.events > 0 => Some(summary.received_ms.1),
                    // What a stream has led to is as young as what follows.
                    summary if summary.streams > 0 => next_ms,
                    _ => None,
                },
                // Its times are known when it is sealed.
                Index::Missing | Index::Open(_) => Some(i64::MAX),
            };
            next_ms = received_ms.or(next_ms);
            SegmentAge {
                bytes: segment.bytes_len(),
                received_ms,
                is_known: !matches!(segment.index, Index::Missing),
            }
        };
        let mut ages: Vec<_> = self.segments.iter().rev().map(&mut age).collect();
        ages.reverse();
        ages
    }

    /// The number of the segment at a position.
    pub(in crate::history) fn number_at(&self, at: usize) -> u64 {
        self.segments
            .get(at)
            .map_or(0, |segment| segment.header.number)
    }

    /// A seq that nothing in the first `count` segments is above.
    pub(in crate::history) fn seq_bound_before(&self, count: usize) -> Seq {
        let bound = |at: usize, segment: &Segment<S::File>| match segment.summary() {
            Some(summary) if summary.damage.is_empty() => summary.seq_max,
            _ => self.seq_bound(at),
        };
        let segments = self.segments.iter().take(count).enumerate();
        segments
            .map(|(at, segment)| bound(at, segment))
            .max()
            .unwrap_or_default()
    }

    /// A seq that nothing in the segment at `at` was above, whatever has become of it.
    pub(in crate::history) fn seq_bound(&self, at: usize) -> Seq {
        // A header that was made up in place of a damaged one has no levels.
        let is_own = |header: &&SegmentHeader| header.reserve > Seq(0);
        let headers = |from| {
            self.segments
                .iter()
                .skip(from)
                .map(|segment| &segment.header)
        };
        let start = headers(at).take(1).find(is_own).map(|own| own.start);
        headers(at + 1).find(is_own).map_or(Seq::MAX, |later| {
            // Of a later process all seqs are above all of this one.
            let is_later_process = start.is_some_and(|start| later.start > start);
            if is_later_process {
                later.start
            } else {
                later.reserve
            }
        })
    }

    /// Decisions about tokens in the first `count` segments.
    pub(in crate::history) fn revocations_before(&self, count: usize) -> u64 {
        let summaries = self
            .segments
            .iter()
            .take(count)
            .filter_map(Segment::summary);
        summaries.map(|summary| summary.revocations).sum()
    }

    /// Gives back the room that a segment does not need, with whatever is there, and puts its index
    /// in a file: one that has its index there is not looked at again. Errors: of the storage.
    pub(in crate::history) fn seal(&mut self, number: u64, index: &[u8]) -> io::Result<()> {
        let (file, _, end) = self.file(number)?;
        let length = file.bytes_len()?;
        // Where nobody says where it ends nothing is cut off: what could not be read may be read
        // later.
        if end < length {
            self.storage.truncate(&segment_name(number), end)?;
        }
        save_index(&self.storage, number, index)?;
        let file = self.storage.open(&index_name(number))?;
        let mut index = SealedIndex::open(number, file)?;
        index.close();
        let at = self.position(number);
        if let Some(segment) = self
            .segments
            .get_mut(at)
            .filter(|s| s.header.number == number)
        {
            segment.end = segment.end.min(index.summary().end);
            segment.index = Index::Sealed(index);
        }
        Ok(())
    }

    /// Writes down which segment is the newest. Errors: of the storage.
    pub(in crate::history) fn write_newest(&self) -> io::Result<()> {
        let newest = self.newest();
        newest.map_or(Ok(()), |header| write_newest(&self.storage, header))
    }

    /// Forgets what is open of a segment whose files were replaced, and where its records were.
    pub(in crate::history) fn forget_files(&mut self, number: u64, end: u64) {
        let at = self.position(number);
        if let Some(segment) = self
            .segments
            .get_mut(at)
            .filter(|s| s.header.number == number)
        {
            segment.file = None;
            segment.index = Index::Missing;
            segment.end = end;
        }
    }

    /// An index of a segment whose files were replaced.
    pub(in crate::history) fn set_index(&mut self, number: u64, index: SealedIndex<S::File>) {
        let at = self.position(number);
        if let Some(segment) = self
            .segments
            .get_mut(at)
            .filter(|s| s.header.number == number)
        {
            segment.index = Index::Sealed(index);
        }
    }

    /// The index of a segment, where it is in memory and not in a file.
    pub(in crate::history) fn unsaved_index(&self, number: u64) -> Option<&[u8]> {
        match &self.segments.get(self.position(number))?.index {
            Index::Sealed(index) => index.unsaved(),
            Index::Missing | Index::Open(_) => None,
        }
    }

    /// Lets go of the oldest segments, up to but without `first`: their files are garbage.
    pub(in crate::history) fn forget_before(&mut self, first: u64, floor: Seq) {
        while let Some(number) = self.segments.front().map(|segment| segment.header.number)
            && number < first
        {
            self.segments.pop_front();
            self.garbage.extend(file_names(number));
        }
        self.floor = self.floor.max(floor);
    }

    /// Where bytes of a segment begin that are no record any more.
    pub(in crate::history) fn damage_starts(&self, at: usize) -> Vec<u64> {
        let summary = self.segments.get(at).and_then(Segment::summary);
        let damage = summary.map_or(&[][..], |summary| &summary.damage);
        damage.iter().map(|range| range.start).collect()
    }
}
