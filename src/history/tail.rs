//! The last segment as another process left it: what of it is known to be on disk, what follows as
//! whole records, and what is torn.
//!
//! Each commit begins with a mark that says up to where everything was on disk before. What is no
//! record below the highest such place was damaged later: it is passed over and told. Above it, it
//! was never finished: there the log ends, whatever follows.

use std::io;
use std::ops::Range;

use super::catalog::reading::build_index;
use super::chain::Chain;
use super::segment::{Found, HEADER_BYTES, Scanner, segment_name, written_end};
use super::storage::{Storage, StorageFile};
use super::writer::Writer;
use crate::event::record::{Mark, RecordView};
use crate::event::{RecordBatch, RecordCodec};
use crate::limits::COMMIT_BYTES_TARGET;

/// See the module.
#[derive(Debug)]
pub(super) struct Tail<F> {
    /// Which segment; 0 where there is none.
    pub number: u64,
    /// The index of the segment up to `end`; `None` where there is no segment.
    pub index: Option<Vec<u8>>,
    /// Up to where everything was on disk.
    pub end: u64,
    /// The highest of everything that any mark says.
    pub marks: Mark,
    /// Whether the log was closed.
    pub is_clean: bool,
    /// Whether there is no record up to `end`, beside marks.
    pub is_empty: bool,
    /// Bytes of writes that never finished.
    pub cut_bytes: u64,
    /// Damaged places below `end`.
    pub damaged: u64,
    // The whole records after `end`.
    rest: Option<(F, RecordCodec, Range<u64>)>,
}

/// What a first look finds.
#[derive(Debug, Default)]
struct Look {
    marks: Mark,
    is_clean: bool,
    damage: Vec<Range<u64>>,
    // Where the last record ends.
    end: u64,
}

impl<F: StorageFile> Tail<F> {
    /// Looks at the newest segment of a chain. Changes nothing. Errors: of the storage.
    pub(super) fn scan<S: Storage<File = F>>(storage: &S, chain: &Chain) -> io::Result<Self> {
        let Some(header) = chain.newest() else {
            return Ok(Self::none());
        };
        let file = storage.open(&segment_name(header.number))?;
        let codec = RecordCodec::new(header.identity);
        let length = file.bytes_len()?;
        let look = Look::at(&file, &codec, length);
        let end = look
            .marks
            .synced
            .max(header.rewritten_end)
            .clamp(HEADER_BYTES, look.end.max(HEADER_BYTES));
        let torn = look.damage.iter().find(|range| range.end > end);
        let cut = torn.map_or(look.end, |range| range.start).max(end);
        let builder = build_index(&file, &codec, header.number, end)?;
        let damaged = builder.summary().damage.len() as u64;
        Ok(Self {
            number: header.number,
            is_empty: builder.is_empty() && damaged == 0,
            index: Some(builder.finish()),
            end,
            marks: look.marks,
            is_clean: look.is_clean && torn.is_none(),
            cut_bytes: written_end(&file, look.end)?.saturating_sub(cut),
            damaged,
            rest: Some((file, codec, end..cut)),
        })
    }

    /// Where its last whole record ends.
    pub(super) fn whole_end(&self) -> u64 {
        self.rest.as_ref().map_or(self.end, |(.., range)| range.end)
    }

    fn none() -> Self {
        Self {
            number: 0,
            index: None,
            end: 0,
            marks: Mark::default(),
            is_clean: true,
            is_empty: true,
            cut_bytes: 0,
            damaged: 0,
            rest: None,
        }
    }

    /// Hands the whole records after `end` to the writer, as records of `codec`. Returns how many.
    /// Errors: of the storage.
    pub(super) fn push_rest<S: Storage>(
        &self,
        writer: &mut Writer<S>,
        codec: &RecordCodec,
    ) -> io::Result<u64> {
        let Some((file, own, range)) = &self.rest else {
            return Ok(0);
        };
        let (mut batch, mut count) = (RecordBatch::default(), 0);
        let mut scanner = Scanner::new(file, own, range.clone());
        while let Some(Found::Record { bytes, view, .. }) = scanner.read_next() {
            if batch.push_sealed(codec, bytes, &view) {
                count += 1;
            }
            if batch.bytes.len() >= COMMIT_BYTES_TARGET {
                writer.push_own(std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            writer.push_own(batch);
        }
        Ok(count)
    }
}

impl Look {
    fn at(file: &impl StorageFile, codec: &RecordCodec, length: u64) -> Self {
        let mut look = Self::default();
        let mut scanner = Scanner::new(file, codec, HEADER_BYTES..length);
        while let Some(found) = scanner.read_next() {
            match found {
                Found::Damage(range) => look.damage.push(range),
                Found::Record { view, .. } => look.take_in(&view),
            }
        }
        look.end = scanner.offset();
        look
    }

    fn take_in(&mut self, view: &RecordView<'_>) {
        self.is_clean = false;
        match view {
            RecordView::Mark(mark) => {
                self.is_clean = mark.is_clean;
                let marks = &mut self.marks;
                marks.synced = marks.synced.max(mark.synced);
                marks.first = marks.first.max(mark.first);
                marks.floor = marks.floor.max(mark.floor);
                marks.reserve = marks.reserve.max(mark.reserve);
                marks.highest = marks.highest.max(mark.highest);
            }
            RecordView::Event(event) => self.marks.highest = self.marks.highest.max(event.seq),
            RecordView::Erasure(erasure) => {
                self.marks.highest = self.marks.highest.max(erasure.seq);
            }
            RecordView::Tombstone(tombstone) => {
                self.marks.highest = self.marks.highest.max(tombstone.seq);
            }
            RecordView::Revocation(_) | RecordView::Snapshot(_) | RecordView::Unknown(_) => {}
        }
    }
}
