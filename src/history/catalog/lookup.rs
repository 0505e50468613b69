//! Finding records by their stream: by filters first, then by the indices that may know it.

use std::io;

use super::reading::build_index;
use super::{Catalog, Index, Place};
use crate::event::{Seq, Stream, StreamKey};
use crate::history::index::{Cell, SealedIndex};
use crate::history::segment::index_name;
use crate::history::storage::Storage;

impl<S: Storage> Catalog<S> {
    pub(in crate::history) fn key(&self, stream: &Stream) -> StreamKey {
        self.codec.stream_key(stream.kind, &stream.id)
    }

    /// The first record of a stream.
    pub(in crate::history) fn first_of(&mut self, key: StreamKey) -> io::Result<Option<Place>> {
        for at in 0..self.segments.len() {
            if let Some((first, _)) = self.ends_in(at, key)? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// The first and the last record of a stream in one segment.
    pub(in crate::history) fn ends_in(
        &mut self,
        at: usize,
        key: StreamKey,
    ) -> io::Result<Option<(Place, Place)>> {
        let ends = self.with_index(at, key, |index| index.ends(key))?;
        let ends = ends.flatten();
        Ok(ends.map(|(first, last)| (self.place(at, first), self.place(at, last))))
    }

    /// The last record of a stream up to `seq`.
    pub(in crate::history) fn last_up_to(
        &mut self,
        key: StreamKey,
        seq: Seq,
    ) -> io::Result<Option<Place>> {
        for at in (0..self.segments.len()).rev() {
            let last = self.with_index(at, key, |index| index.last_up_to(key, seq))?;
            if let Some(cell) = last.flatten() {
                return Ok(Some(self.place(at, cell)));
            }
        }
        Ok(None)
    }

    /// The first record of a stream after `seq`.
    pub(in crate::history) fn first_after(
        &mut self,
        key: StreamKey,
        seq: Seq,
    ) -> io::Result<Option<Place>> {
        let mut found = None;
        for at in (0..self.segments.len()).rev() {
            let cells = self.with_index(at, key, |index| index.after(key, seq, 1))?;
            let Some(cells) = cells else { continue };
            if let Some(cell) = cells.first() {
                found = Some(self.place(at, *cell));
            }
            // Whatever is before a record up to `seq` is up to `seq` too.
            if self
                .with_index(at, key, |index| index.last_up_to(key, seq))?
                .flatten()
                .is_some()
            {
                break;
            }
        }
        Ok(found)
    }

    fn place(&self, at: usize, cell: Cell) -> Place {
        Place {
            segment: self.segments[at].header.number,
            cell,
        }
    }

    /// The position of the first segment with this number or a higher one.
    pub(in crate::history) fn position(&self, number: u64) -> usize {
        self.segments
            .partition_point(|segment| segment.header.number < number)
    }

    /// Asks the index of a segment that may have the stream; `None` where it has not. An index that
    /// turns out to be damaged is made again.
    pub(in crate::history) fn with_index<T>(
        &mut self,
        at: usize,
        key: StreamKey,
        ask: impl Fn(&Index<S::File>) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        if !self.segments[at].index.may_contain(key) {
            return Ok(None);
        }
        let answer = self.open_index(at);
        match answer.and_then(|()| ask(&self.segments[at].index)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.segments[at].index = Index::Missing;
                self.open_index(at)?;
                ask(&self.segments[at].index).map(Some)
            }
            answer => answer.map(Some),
        }
    }

    /// Makes sure that the index of a segment is there and can be asked.
    pub(in crate::history) fn open_index(&mut self, at: usize) -> io::Result<()> {
        self.ensure_index(at)?;
        let number = self.number_at(at);
        let Index::Sealed(index) = &mut self.segments[at].index else {
            return Ok(());
        };
        if index.is_closed() {
            match self.storage.open(&index_name(number)) {
                Ok(file) => index.attach(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.segments[at].index = Index::Missing;
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(oldest) = self.open_indices.touch(number) {
            let oldest = self.position(oldest);
            if let Some(Index::Sealed(index)) = self.segments.get_mut(oldest).map(|s| &mut s.index)
            {
                index.close();
            }
        }
        Ok(())
    }

    /// Makes the index of a segment from its records where it is missing. It is kept in memory only
    /// where it cannot be saved: there may be many.
    pub(in crate::history) fn ensure_index(&mut self, at: usize) -> io::Result<()> {
        if !matches!(self.segments[at].index, Index::Missing) {
            return Ok(());
        }
        self.open_file(at)?;
        let segment = &self.segments[at];
        if let Some(file) = &segment.file {
            let number = segment.header.number;
            let bytes = build_index(file, &segment.codec, number, segment.end)?.finish();
            if self.seal(number, &bytes).is_err() {
                let index = SealedIndex::from_bytes(number, bytes)?;
                self.segments[at].index = Index::Sealed(index);
            }
        }
        Ok(())
    }
}
