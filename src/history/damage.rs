//! What cannot be read any more, and which seqs of a stream may be among it.
//!
//! Of a record that an index knows the stream and the seq are known. Of bytes that were no record
//! when the index was made neither is: a stream is concerned unless the record that it has after
//! them says which one it had before.

use std::collections::{BTreeSet, HashMap};
use std::io;

use super::catalog::{Catalog, Place};
use super::index::Cell;
use super::storage::Storage;
use crate::event::{Seq, SeqRange, Stream, StreamKey};
use crate::limits::{DAMAGED_NAMED_MAX, DAMAGED_PLACES_MAX};

/// Records that were met and cannot be read any more, as far as an index knows them.
#[derive(Debug, Default)]
pub(super) struct DamagedRecords {
    seqs: HashMap<StreamKey, BTreeSet<Seq>>,
    count: usize,
}

impl DamagedRecords {
    pub(super) fn insert(&mut self, key: StreamKey, seq: Seq) {
        if self.count < DAMAGED_NAMED_MAX && self.seqs.entry(key).or_default().insert(seq) {
            self.count += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The first and the last of a stream after `seq`.
    fn after(&self, key: StreamKey, seq: Seq) -> Option<SeqRange> {
        let mut seqs = self.seqs.get(&key)?.range(Seq(seq.0 + 1)..);
        let from = *seqs.next()?;
        let to = seqs.next_back().copied().unwrap_or(from);
        Some(SeqRange { from, to })
    }
}

/// Bytes of nobody knows whom.
#[derive(Clone, Copy, Debug)]
struct DamagedPlace {
    segment: u64,
    offset: u64,
    // No event in them was above it.
    bound: Seq,
}

impl<S: Storage> Catalog<S> {
    /// A range that has every event of a stream after `seq` that is damaged, in the records after
    /// `before`; `head` is the stream's. Errors: of the storage.
    pub(super) fn damage_after(
        &mut self,
        stream: &Stream,
        seq: Seq,
        before: Option<Place>,
        head: Seq,
    ) -> io::Result<Option<SeqRange>> {
        let key = self.key(stream);
        let mut range = self.damaged.after(key, seq);
        let places = self.damaged_places(before)?;
        let widen = |range: &mut Option<SeqRange>, from: Seq, to: Seq| {
            if from <= to {
                let (first, last) = range.map_or((from, to), |range| (range.from, range.to));
                *range = Some(SeqRange {
                    from: first.min(from),
                    to: last.max(to),
                });
            }
        };
        if places.len() > DAMAGED_PLACES_MAX {
            let bound = places
                .iter()
                .map(|place| place.bound)
                .max()
                .unwrap_or_default();
            widen(&mut range, Seq(seq.0 + 1), bound.min(head));
            return Ok(range);
        }
        for place in places {
            let (last, next) = self.around(key, place)?;
            let known = last.map_or(seq, |last| last.cell.seq.max(seq));
            let previous = match next {
                Some(next) => self.previous_of(stream, next, known)?,
                None => head,
            };
            let is_told = next.is_some() && !previous.is_level();
            let to = if is_told {
                previous
            } else {
                previous.min(place.bound)
            };
            widen(&mut range, Seq(known.0 + 1), to);
        }
        Ok(range)
    }

    fn damaged_places(&mut self, after: Option<Place>) -> io::Result<Vec<DamagedPlace>> {
        let (number, offset) = after.map_or((0, 0), |place| (place.segment, place.cell.offset));
        let mut places = Vec::new();
        for at in self.position(number)..self.segments_len() {
            self.ensure_index(at)?;
            let segment = self.number_at(at);
            let bound = self.seq_bound(at);
            let starts = self.damage_starts(at).into_iter();
            let starts = starts.filter(|start| (segment, *start) > (number, u64::from(offset)));
            places.extend(starts.map(|offset| DamagedPlace {
                segment,
                offset,
                bound,
            }));
        }
        Ok(places)
    }

    /// The records of a stream next to a place, before and after.
    fn around(
        &mut self,
        key: StreamKey,
        place: DamagedPlace,
    ) -> io::Result<(Option<Place>, Option<Place>)> {
        let at = self.position(place.segment);
        let cells = self.with_index(at, key, |index| index.around(key, place.offset))?;
        let (last, next) = cells.unwrap_or_default();
        let own = |cell: Cell| Place {
            segment: place.segment,
            cell,
        };
        let (mut last, mut next) = (last.map(own), next.map(own));
        for at in (0..at).rev() {
            if last.is_some() {
                break;
            }
            last = self.ends_in(at, key)?.map(|(_, last)| last);
        }
        for at in at + 1..self.segments_len() {
            if next.is_some() {
                break;
            }
            next = self.ends_in(at, key)?.map(|(first, _)| first);
        }
        Ok((last, next))
    }
}
