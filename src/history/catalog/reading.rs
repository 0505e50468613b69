//! Reading records where an index says that they are, many at once where they are near each other.

use std::io::{self, IoSlice};

use bytes::Bytes;

use super::{Catalog, Held, Place};
use crate::event::RecordCodec;
use crate::history::index::{Cell, IndexBuilder};
use crate::history::segment::{HEADER_BYTES, Scanner, index_name, segment_name, written_end};
use crate::history::storage::SPARE_END;
use crate::history::storage::{Storage, StorageFile, read_exact};
use crate::limits::{READ_GAP_BYTES, READ_RUN_BYTES};

impl<S: Storage> Catalog<S> {
    /// One record. Errors: of the storage, but for what cannot be read where it is.
    pub(in crate::history) fn record(&mut self, place: Place) -> io::Result<Held> {
        let mut held = self.records(place.segment, std::slice::from_ref(&place.cell))?;
        Ok(held.pop().unwrap_or(Held::Damaged))
    }

    /// The records at `cells` of one segment, each as it was written or not at all.
    pub(in crate::history) fn records(
        &mut self,
        number: u64,
        cells: &[Cell],
    ) -> io::Result<Vec<Held>> {
        let at = self.position(number);
        self.open_file(at)?;
        let segment = &self.segments[at];
        let Some(file) = &segment.file else {
            return Ok(Vec::new());
        };
        let mut held = Vec::with_capacity(cells.len());
        for run in runs(cells) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let length = (last.offset + last.length - first.offset) as usize;
            let together = read_exact(file, u64::from(first.offset), length).map(Bytes::from);
            for cell in run {
                let start = (cell.offset - first.offset) as usize;
                let own = match &together {
                    Ok(bytes) => bytes.slice(start..start + cell.length as usize),
                    // Perhaps only one of them cannot be read.
                    Err(_) => read_exact(file, u64::from(cell.offset), cell.length as usize)
                        .unwrap_or_default()
                        .into(),
                };
                let is_good = segment.codec.verify(&own) == Ok(own.len());
                held.push(if is_good {
                    Held::Record(own)
                } else {
                    Held::Damaged
                });
            }
        }
        Ok(held)
    }

    pub(in crate::history) fn open_file(&mut self, at: usize) -> io::Result<()> {
        let Some(segment) = self.segments.get_mut(at) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let number = segment.header.number;
        if segment.file.is_none() {
            segment.file = Some(self.storage.open(&segment_name(number))?);
        }
        if let Some(oldest) = self.open_files.touch(number) {
            let oldest = self.position(oldest);
            if let Some(segment) = self.segments.get_mut(oldest) {
                segment.file = None;
            }
        }
        Ok(())
    }

    /// The open file of a segment, with what reads it.
    pub(in crate::history) fn file(
        &mut self,
        number: u64,
    ) -> io::Result<(&S::File, &RecordCodec, u64)> {
        let at = self.position(number);
        self.open_file(at)?;
        let segment = &self.segments[at];
        let file = segment.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((file, &segment.codec, segment.end))
    }
}

/// Cells that are read together: in order, and with little between them.
fn runs(cells: &[Cell]) -> Vec<&[Cell]> {
    let mut runs = Vec::new();
    let mut rest = cells;
    while let Some(first) = rest.first() {
        let is_next = |pair: &&[Cell]| {
            let gap = pair[1].offset.checked_sub(pair[0].offset + pair[0].length);
            let end = pair[1].offset.saturating_add(pair[1].length);
            gap.is_some_and(|gap| gap <= READ_GAP_BYTES) && end - first.offset <= READ_RUN_BYTES
        };
        let count = 1 + rest.windows(2).take_while(is_next).count();
        let (run, after) = rest.split_at(count);
        runs.push(run);
        rest = after;
    }
    runs
}

/// What an index of a segment is made of, from its records up to `end`. Errors: of the storage.
pub(in crate::history) fn build_index(
    file: &impl StorageFile,
    codec: &RecordCodec,
    number: u64,
    end: u64,
) -> io::Result<IndexBuilder> {
    let mut builder = IndexBuilder::new(number);
    let mut scanner = Scanner::new(file, codec, HEADER_BYTES..end.min(file.bytes_len()?));
    while let Some(found) = scanner.read_next() {
        builder.add_found(codec, &found);
    }
    let reached = scanner.offset();
    builder.end_at(reached, known_end(file, reached, end)?);
    Ok(builder)
}

/// Where a segment ends that should end at `end` and whose last record ends at `reached`: where
/// nobody knows, whatever was written is taken for part of it. Errors: of the file.
pub(in crate::history) fn known_end(
    file: &impl StorageFile,
    reached: u64,
    end: u64,
) -> io::Result<u64> {
    match end {
        u64::MAX => written_end(file, reached),
        end => Ok(end),
    }
}

/// Puts an index in its file. Errors: of the storage; then the old one is still there.
pub(in crate::history) fn save_index<S: Storage>(
    storage: &S,
    number: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let spare = format!("{}{SPARE_END}", index_name(number));
    match storage.unlink(&spare) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(&spare)?;
    file.write_at(0, &mut [IoSlice::new(bytes)])?;
    file.sync()?;
    storage.rename(&spare, &index_name(number))?;
    storage.sync_dir()
}
