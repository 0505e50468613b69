//! What is held: the segments in order, with their indices. Knows of the open segment what the
//! writer says, and of the sealed ones what their filters say; everything else is read from disk
//! when it is asked for, so that memory does not grow with streams.
//!
//! One thread owns it and calls it: the one that replays and does the chores. All calls may read
//! files.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::damage::DamagedRecords;
use super::index::{Cell, Neighbours, SealedIndex, SeenId, Summary};
use super::open_index::OpenIndex;
use super::segment::{Found, HEADER_BYTES, Scanner, SegmentHeader};
use super::storage::{Storage, StorageFile};
use super::writer::Change;
use crate::event::record::{RecordView, read_verified};
use crate::event::{Epoch, RecordCodec, Seq, SnapshotPart, Stream, StreamKey};
use crate::limits::SEGMENT_FILES_MAX;

mod lookup;
pub(super) mod reading;
mod upkeep;

/// See the module.
#[derive(Debug)]
pub struct Catalog<S: Storage> {
    pub(super) storage: S,
    pub(super) segments: VecDeque<Segment<S::File>>,
    codec: RecordCodec,
    floor: Seq,
    pub(super) damaged: DamagedRecords,
    open_files: RecentlyUsed,
    open_indices: RecentlyUsed,
    // Files that are no part of the log.
    pub(super) garbage: Vec<String>,
}

/// One segment as the catalog knows it.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub header: SegmentHeader,
    // Where its records end; beyond all of them while it is open.
    pub end: u64,
    pub index: Index<F>,
    codec: RecordCodec,
    file: Option<F>,
}

/// Segments of which something is open, the one used last at the end.
#[derive(Debug, Default)]
struct RecentlyUsed(VecDeque<u64>);

impl RecentlyUsed {
    /// Takes note of a segment that is used now. Returns the one to be closed, where there are too
    /// many.
    fn touch(&mut self, number: u64) -> Option<u64> {
        if self.0.back() != Some(&number) {
            self.0.retain(|other| *other != number);
            self.0.push_back(number);
        }
        if self.0.len() > SEGMENT_FILES_MAX {
            return self.0.pop_front();
        }
        None
    }
}

/// What is known of where a segment's records are.
#[derive(Debug)]
pub(super) enum Index<F> {
    /// It must be made from the segment.
    Missing,
    /// In memory, from what the writer said.
    Open(OpenIndex),
    /// From a scan, in memory or in a file.
    Sealed(SealedIndex<F>),
}

/// The first and the last event that are held of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The earliest that can be had.
    pub first: Seq,
    /// The stream's last event.
    pub last: Seq,
}

/// A place in the log: by segment, then by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub segment: u64,
    pub cell: Cell,
}

/// What the index says to be part of a snapshot.
#[derive(Debug)]
struct FoundPart {
    seq: Seq,
    // Which one, and its bytes, where the record can be read and is the stream's.
    record: Option<(SnapshotPart, Bytes)>,
}

/// What a cell leads to.
#[derive(Debug)]
pub(super) enum Held {
    /// The record.
    Record(Bytes),
    /// It cannot be read any more.
    Damaged,
}

impl<F: StorageFile> Segment<F> {
    pub(super) fn new(header: SegmentHeader, end: u64, index: Index<F>) -> Self {
        let codec = RecordCodec::new(header.identity);
        Self {
            header,
            end,
            index,
            codec,
            file: None,
        }
    }

    /// Its bytes, and those of its index.
    pub(super) fn bytes_len(&self) -> u64 {
        match &self.index {
            Index::Missing if self.end == u64::MAX => 0,
            Index::Missing => self.end,
            Index::Open(index) => index.summary().end,
            Index::Sealed(index) => index.summary().end + index.bytes_len(),
        }
    }

    /// What is known as a whole; nothing while the index is missing.
    pub(super) fn summary(&self) -> Option<&Summary> {
        match &self.index {
            Index::Missing => None,
            Index::Open(index) => Some(index.summary()),
            Index::Sealed(index) => Some(index.summary()),
        }
    }
}

impl<F: StorageFile> Index<F> {
    pub(super) fn may_contain(&self, key: StreamKey) -> bool {
        match self {
            Self::Missing => true,
            Self::Open(index) => index.contains(key),
            Self::Sealed(index) => index.may_contain(key),
        }
    }

    pub(super) fn ends(&self, key: StreamKey) -> io::Result<Option<(Cell, Cell)>> {
        match self {
            Self::Missing => Err(io::ErrorKind::InvalidData.into()),
            Self::Open(index) => Ok(index.ends(key)),
            Self::Sealed(index) => index.ends(key),
        }
    }

    pub(super) fn last_up_to(&self, key: StreamKey, seq: Seq) -> io::Result<Option<Cell>> {
        match self {
            Self::Missing => Err(io::ErrorKind::InvalidData.into()),
            Self::Open(index) => Ok(index.last_up_to(key, seq)),
            Self::Sealed(index) => index.last_up_to(key, seq),
        }
    }

    /// The records of a stream next to a place, before and after.
    pub(super) fn around(&self, key: StreamKey, offset: u64) -> io::Result<Neighbours> {
        match self {
            Self::Missing => Err(io::ErrorKind::InvalidData.into()),
            Self::Open(index) => Ok(index.around(key, offset)),
            Self::Sealed(index) => index.around(key, offset),
        }
    }

    pub(super) fn after(&self, key: StreamKey, seq: Seq, count: usize) -> io::Result<Vec<Cell>> {
        match self {
            Self::Missing => Err(io::ErrorKind::InvalidData.into()),
            Self::Open(index) => Ok(index.after(key, seq, count)),
            Self::Sealed(index) => index.after(key, seq, count),
        }
    }
}

impl<S: Storage> Catalog<S> {
    /// Of a log whose records, from now on, are in `codec`.
    pub(super) fn new(
        storage: S,
        codec: RecordCodec,
        floor: Seq,
        segments: VecDeque<Segment<S::File>>,
        garbage: Vec<String>,
    ) -> Self {
        Self {
            storage,
            segments,
            codec,
            floor,
            damaged: DamagedRecords::default(),
            open_files: RecentlyUsed::default(),
            open_indices: RecentlyUsed::default(),
            garbage,
        }
    }

    /// The present life of the log.
    pub fn epoch(&self) -> Epoch {
        self.codec.identity().epoch
    }

    /// The highest seq that retention took, of any stream.
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// How many segments are held.
    pub fn segments_len(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of all segments and their indices.
    pub fn bytes_len(&self) -> u64 {
        self.segments.iter().map(Segment::bytes_len).sum()
    }

    /// Bytes of the segment that is written.
    pub fn newest_bytes_len(&self) -> u64 {
        self.segments.back().map_or(0, Segment::bytes_len)
    }

    /// Each segment as a whole, the oldest first; `None` where its index is missing.
    pub fn summaries(&self) -> impl Iterator<Item = (u64, Option<&Summary>)> {
        let summary = |segment: &'_ Segment<S::File>| segment.header.number;
        self.segments
            .iter()
            .map(move |segment| (summary(segment), segment.summary()))
    }

    /// When the earliest event arrived, in milliseconds since the Unix epoch, by what is known of
    /// sealed segments.
    pub fn earliest_ms(&self) -> Option<i64> {
        let mut summaries = self.segments.iter().filter_map(Segment::summary);
        let first = summaries.find(|summary| summary.events > 0)?;
        Some(first.received_ms.0)
    }

    /// Takes in what the writer says.
    pub fn handle_change(&mut self, change: Change) {
        match change {
            Change::Began(header) => {
                if let Some(last) = self.segments.back_mut() {
                    last.end = last.end.min(header.previous_end);
                }
                let index = Index::Open(OpenIndex::new(header.number));
                self.segments
                    .push_back(Segment::new(header, u64::MAX, index));
            }
            Change::Kept { base, entries } => {
                if let Some(Segment {
                    index: Index::Open(index),
                    ..
                }) = self.segments.back_mut()
                {
                    index.add(base, &entries);
                }
            }
        }
    }

    /// What is held of a stream; `None` where nothing is. Errors: of the storage.
    pub fn bounds(&mut self, stream: &Stream) -> io::Result<Option<Bounds>> {
        let key = self.key(stream);
        let Some(first) = self.first_of(key)? else {
            return Ok(None);
        };
        let last = self.last_up_to(key, Seq::MAX)?;
        Ok(last.map(|last| Bounds {
            first: first.cell.seq,
            last: last.cell.seq,
        }))
    }

    /// The latest snapshot of a stream that is whole: all events up to the seq are in it.
    /// Errors: of the storage.
    pub fn snapshot(&mut self, stream: &Stream) -> io::Result<Option<(Seq, Bytes)>> {
        let mut up_to = Seq::MAX;
        while let Some(FoundPart { seq, record }) = self.snapshot_part(stream, 0, up_to)? {
            if let Some((part, payload)) = record
                && let Some(whole) = self.whole_snapshot(stream, seq, part, payload)?
            {
                return Ok(Some((seq, whole)));
            }
            let Some(before) = seq.0.checked_sub(1) else {
                break;
            };
            up_to = Seq(before);
        }
        Ok(None)
    }

    /// The first part of a snapshot with those that follow it; `None` where one is not there.
    fn whole_snapshot(
        &mut self,
        stream: &Stream,
        seq: Seq,
        first: SnapshotPart,
        payload: Bytes,
    ) -> io::Result<Option<Bytes>> {
        if first.count == 1 {
            return Ok(Some(payload));
        }
        let mut whole = payload.to_vec();
        for index in 1..first.count {
            let wanted = SnapshotPart { index, ..first };
            let found = self.snapshot_part(stream, index, seq)?;
            let found = found.filter(|found| found.seq == seq);
            match found.and_then(|found| found.record) {
                Some((part, payload)) if part == wanted => whole.extend_from_slice(&payload),
                _ => return Ok(None),
            }
        }
        let is_whole = crc32c::crc32c(&whole) == first.checksum;
        Ok(is_whole.then(|| whole.into()))
    }

    /// The last such part of a stream's snapshots up to a seq.
    fn snapshot_part(
        &mut self,
        stream: &Stream,
        index: u32,
        up_to: Seq,
    ) -> io::Result<Option<FoundPart>> {
        let key = self.codec.snapshot_key(stream.kind, &stream.id, index);
        let Some(place) = self.last_up_to(key, up_to)? else {
            return Ok(None);
        };
        let mut found = FoundPart {
            seq: place.cell.seq,
            record: None,
        };
        if let Held::Record(bytes) = self.record(place)?
            && let Ok(RecordView::Snapshot(snapshot)) = read_verified(&bytes)
            && (snapshot.kind, snapshot.id) == (stream.kind, stream.id.as_str())
        {
            found.record = Some((snapshot.part, bytes.slice_ref(snapshot.payload)));
        }
        Ok(Some(found))
    }

    /// The decisions about tokens, in the order of the log. Errors: of the storage.
    pub fn revocations(&mut self) -> io::Result<Vec<Bytes>> {
        let mut found = Vec::new();
        for at in 0..self.segments.len() {
            let (key, number) = (StreamKey::REVOCATIONS, self.number_at(at));
            let cells = self.with_index(at, key, |index| index.after(key, Seq(0), usize::MAX))?;
            for cells in cells.unwrap_or_default().chunks(REVOCATIONS_AT_ONCE) {
                for (cell, held) in cells.iter().zip(self.records(number, cells)?) {
                    match held {
                        Held::Damaged => self.damaged.insert(key, cell.seq),
                        Held::Record(bytes) => found.extend(payload_of(&bytes)),
                    }
                }
            }
        }
        Ok(found)
    }

    /// Calls `each` with the ids of events that arrived at `since_ms` or later, at most the last
    /// `count` of them, in the order of the log: what makes duplicates. Never holds those of more
    /// than one segment, and therefore reads them twice. Errors: of the storage.
    pub fn seen_since(
        &mut self,
        since_ms: i64,
        count: usize,
        mut each: impl FnMut(SeenId),
    ) -> io::Result<()> {
        let is_late = |seen: &SeenId| seen.received_ms >= since_ms;
        let (mut first, mut total) = (self.segments.len(), 0);
        while total < count && first > 0 && !self.is_before(first - 1, since_ms) {
            first -= 1;
            let seen = self.seen_in(first)?;
            total += seen.iter().filter(|seen| is_late(seen)).count();
        }
        let mut too_many = total.saturating_sub(count);
        for at in first..self.segments.len() {
            for seen in self.seen_in(at)?.into_iter().filter(is_late) {
                match too_many {
                    0 => each(seen),
                    _ => too_many -= 1,
                }
            }
        }
        Ok(())
    }

    /// Whether a segment has older events only. Arrival times need not rise within one, but a whole
    /// one of older events is the end of the later ones.
    fn is_before(&self, at: usize, since_ms: i64) -> bool {
        match &self.segments[at].index {
            Index::Sealed(index) => {
                let summary = index.summary();
                summary.events > 0 && summary.received_ms.1 < since_ms
            }
            Index::Missing | Index::Open(_) => false,
        }
    }

    fn seen_in(&mut self, at: usize) -> io::Result<Vec<SeenId>> {
        if matches!(self.segments[at].index, Index::Missing) {
            return self.seen_in_records(at);
        }
        let opened = self.open_index(at);
        if let Index::Sealed(index) = &self.segments[at].index {
            match opened.and_then(|()| index.seen()) {
                // It is made again when its turn comes.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.segments[at].index = Index::Missing;
                }
                seen => return seen,
            }
        }
        self.seen_in_records(at)
    }

    fn seen_in_records(&mut self, at: usize) -> io::Result<Vec<SeenId>> {
        let mut found = Vec::new();
        self.scan(at, |view| {
            if let RecordView::Event(event) = view
                && let Some(fingerprint) = event.fingerprint
            {
                let stream = Stream {
                    kind: event.kind,
                    id: event.stream_id().into(),
                };
                found.push(SeenId {
                    received_ms: event.received_ms,
                    fingerprint,
                    stream,
                });
            }
        })?;
        Ok(found)
    }

    /// Calls `each` with every record of a segment.
    fn scan(&mut self, at: usize, mut each: impl FnMut(RecordView<'_>)) -> io::Result<()> {
        self.open_file(at)?;
        let segment = &self.segments[at];
        let end = match &segment.index {
            Index::Open(index) => index.summary().end,
            _ => segment.end,
        };
        let Some(file) = &segment.file else {
            return Ok(());
        };
        let range = HEADER_BYTES..end.min(file.bytes_len()?);
        let mut scanner = Scanner::new(file, &segment.codec, range);
        while let Some(found) = scanner.read_next() {
            if let Found::Record { view, .. } = found {
                each(view);
            }
        }
        Ok(())
    }

    /// How many records were met that cannot be read any more.
    pub fn damaged_len(&self) -> usize {
        self.damaged.len()
    }
}

fn payload_of(bytes: &Bytes) -> Option<Bytes> {
    match read_verified(bytes) {
        Ok(RecordView::Revocation(payload)) => Some(bytes.slice_ref(payload)),
        _ => None,
    }
}

/// Decisions about tokens that are read at once.
const REVOCATIONS_AT_ONCE: usize = 1_024;
