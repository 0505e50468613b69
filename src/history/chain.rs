//! Which segments are part of the log: the newest, and what each says was before it. Files that
//! nobody in this chain speaks of were left behind by a failed write or an interrupted retention.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use super::log::{NewEpoch, OpenError};
use super::segment::{
    Found, HEADER_BYTES, HeaderError, Scanner, SegmentHeader, file_names, parse_index_name,
    parse_segment_name, segment_name,
};
use super::storage::SPARE_END;
use super::storage::{Storage, StorageFile};
use super::tail::Tail;
use super::writer::LogEnd;
use crate::event::{LogIdentity, RecordCodec, Seq};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The oldest first, each with a place that it does not end after.
    pub links: Vec<(SegmentHeader, u64)>,
    /// What was last written of the newest segment in a file of its own.
    pub known: Option<SegmentHeader>,
    /// Segments whose header cannot be read.
    pub headless: u64,
    /// Files that are no part of the log.
    pub garbage: Vec<String>,
    number_max: u64,
    // Segments that should be there, unless retention took them.
    gaps: Vec<u64>,
}

impl Chain {
    /// Reads all headers and follows them from the newest segment back. Changes nothing.
    /// Errors: `Io`, `Version`.
    pub(super) fn follow<S: Storage>(storage: &S) -> Result<Self, OpenError> {
        let mut chain = Self {
            known: read_newest(storage)?,
            ..Self::default()
        };
        let headers = chain.read_headers(storage)?;
        let mut headers = chain.adopt_headless(storage, &headers)?;
        let newest = headers.last_key_value().map(|(_, header)| *header);
        let known = chain.known.map_or(0, |known| known.number);
        chain.number_max = chain.number_max.max(known);
        let mut next = newest.map(|newest| (newest, u64::MAX));
        while let Some((header, end)) = next {
            headers.remove(&header.number);
            let is_rewritten = header.rewritten_end != 0;
            let end = if is_rewritten {
                header.rewritten_end
            } else {
                end
            };
            chain.links.push((header, end));
            next = chain.previous(&headers, &header);
        }
        chain.links.reverse();
        chain
            .garbage
            .extend(headers.keys().map(|number| segment_name(*number)));
        chain.find_strays(storage)?;
        Ok(chain)
    }

    /// Why the log needs a new epoch, where none before `first` is kept.
    pub(super) fn new_epoch(&self, first: u64) -> Option<NewEpoch> {
        let known = self.known.map_or(0, |known| known.number);
        match self.newest() {
            None if known == 0 => Some(NewEpoch::First),
            None => Some(NewEpoch::Lost),
            Some(newest) if newest.number < known => Some(NewEpoch::Backwards),
            Some(_) => self
                .gaps
                .iter()
                .any(|gap| *gap >= first)
                .then_some(NewEpoch::Lost),
        }
    }

    /// The newest segment that there is.
    pub(super) fn newest(&self) -> Option<&SegmentHeader> {
        self.links.last().map(|(header, _)| header)
    }

    /// Whose log this is, where anything says so.
    pub(super) fn identity(&self) -> Option<LogIdentity> {
        let header = self.newest().or(self.known.as_ref());
        header.map(|header| header.identity)
    }

    /// Takes in what the last segment was found to hold, and that none before `first` is kept.
    /// Returns where the log ends.
    pub(super) fn take_in<F>(&mut self, tail: &Tail<F>, first: u64) -> LogEnd {
        let number_max = self.number_max;
        let mut log_end = LogEnd {
            number_max,
            ..LogEnd::default()
        };
        if let Some((newest, _)) = self.links.last() {
            log_end.number = newest.number;
            log_end.end = tail.end;
            // What follows its end goes into the next segment. Empty ones would be as many as there
            // were starts, and be kept as long as all others.
            if tail.is_empty && newest.previous_end != u64::MAX {
                self.garbage.extend(file_names(newest.number));
                self.links.pop();
                let last = self.links.last();
                (log_end.number, log_end.end) =
                    last.map_or((0, 0), |(header, end)| (header.number, *end));
            }
        }
        let kept = self
            .links
            .partition_point(|(header, _)| header.number < first);
        let gone = self.links.drain(..kept);
        self.garbage
            .extend(gone.flat_map(|(header, _)| file_names(header.number)));
        log_end
    }

    /// Takes away files that never became part of the log, as far as that can be done.
    pub(super) fn unlink_spares<S: Storage>(&mut self, storage: &S) {
        let (spares, others): (Vec<_>, _) = std::mem::take(&mut self.garbage)
            .into_iter()
            .partition(|name| name.ends_with(SPARE_END));
        self.garbage = others;
        for name in spares {
            let _ = storage.unlink(&name);
        }
    }

    /// The segment before one, and where it ends.
    fn previous(
        &mut self,
        headers: &BTreeMap<u64, SegmentHeader>,
        header: &SegmentHeader,
    ) -> Option<(SegmentHeader, u64)> {
        let (newest, _) = self.links.first()?;
        if header.previous < newest.first || header.previous == 0 {
            return None;
        }
        if let Some(previous) = headers.get(&header.previous) {
            return Some((*previous, header.previous_end));
        }
        // What an earlier opening found to be lost has had its new epoch.
        if header.identity.epoch == newest.identity.epoch {
            self.gaps.push(header.previous);
        }
        // Those between were begun and left: what they have is in later ones too.
        let (_, older) = headers.range(newest.first..header.previous).next_back()?;
        Some((*older, u64::MAX))
    }

    /// The headers of all segments of this log; `None` where one cannot be read.
    fn read_headers<S: Storage>(
        &mut self,
        storage: &S,
    ) -> Result<BTreeMap<u64, Option<SegmentHeader>>, OpenError> {
        let mut headers = BTreeMap::new();
        for name in storage.list()? {
            let Some(number) = parse_segment_name(&name) else {
                continue;
            };
            let file = match storage.open(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            match SegmentHeader::read(&file)? {
                Ok(header) if header.number == number => headers.insert(number, Some(header)),
                // A file that was given another name is none of ours.
                Ok(_) => None,
                Err(HeaderError::Damaged) => headers.insert(number, None),
                Err(error) => return Err(OpenError::Version { name, error }),
            };
        }
        let newest = headers.values().rev().flatten().next();
        let secret = self
            .known
            .as_ref()
            .or(newest)
            .map(|header| header.identity.secret);
        headers
            .retain(|_, header| header.is_none_or(|header| Some(header.identity.secret) == secret));
        Ok(headers)
    }

    /// Gives segments whose header is damaged another that will do, where they have records.
    fn adopt_headless<S: Storage>(
        &mut self,
        storage: &S,
        headers: &BTreeMap<u64, Option<SegmentHeader>>,
    ) -> Result<BTreeMap<u64, SegmentHeader>, OpenError> {
        let mut whole: BTreeMap<u64, SegmentHeader> = BTreeMap::new();
        for (&number, header) in headers {
            if let Some(header) = header {
                whole.insert(number, *header);
                continue;
            }
            let older = whole.last_key_value().map(|(_, header)| *header);
            let newer = || headers.range(number..).find_map(|(_, header)| *header);
            let Some(neighbour) = older.or_else(newer).or(self.known) else {
                continue;
            };
            if has_records(storage, number, neighbour.identity)? {
                self.headless += 1;
                let previous = older.map_or(0, |older| older.number);
                let header = SegmentHeader {
                    identity: neighbour.identity,
                    number,
                    previous,
                    previous_end: u64::MAX,
                    first: 0,
                    floor: Seq(0),
                    start: Seq(0),
                    reserve: Seq(0),
                    rewritten_end: 0,
                };
                whole.insert(number, header);
            }
        }
        // What has neither header nor records is left alone: whatever its name says, the log does not
        // go on from there.
        let number_max = whole.last_key_value().map_or(0, |(number, _)| *number);
        self.number_max = self.number_max.max(number_max);
        Ok(whole)
    }

    /// Indices of segments that are not there, and files that never became segments.
    fn find_strays<S: Storage>(&mut self, storage: &S) -> Result<(), OpenError> {
        for name in storage.list()? {
            let is_stray = parse_index_name(&name).is_some_and(|number| {
                self.links
                    .binary_search_by_key(&number, |(link, _)| link.number)
                    .is_err()
            });
            if is_stray || name.ends_with(SPARE_END) {
                self.garbage.push(name);
            }
        }
        Ok(())
    }
}

fn has_records<S: Storage>(storage: &S, number: u64, identity: LogIdentity) -> io::Result<bool> {
    let file = storage.open(&segment_name(number))?;
    let codec = RecordCodec::new(identity);
    let mut scanner = Scanner::new(&file, &codec, HEADER_BYTES..file.bytes_len()?);
    while let Some(found) = scanner.read_next() {
        if matches!(found, Found::Record { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file that says which segment is the newest: a copy of that one's header. Without it a log
/// whose newest segments are gone would go on as if they had never been.
pub(super) const NEWEST_NAME: &str = "newest";

fn read_newest<S: Storage>(storage: &S) -> io::Result<Option<SegmentHeader>> {
    match storage.open(NEWEST_NAME) {
        Ok(file) => Ok(SegmentHeader::read(&file)?.ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes which segment is the newest. Errors: of the storage.
pub(super) fn write_newest<S: Storage>(storage: &S, header: &SegmentHeader) -> io::Result<()> {
    let spare = format!("{NEWEST_NAME}{SPARE_END}");
    match storage.unlink(&spare) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = storage.create(&spare)?;
    file.write_at(0, &mut [IoSlice::new(&header.encode())])?;
    file.sync()?;
    storage.rename(&spare, NEWEST_NAME)?;
    storage.sync_dir()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::sim_storage::SimStorage;
    use super::*;
    use crate::event::Epoch;

    fn put(storage: &SimStorage, number: u64, previous: u64) {
        let header = SegmentHeader {
            identity: LogIdentity {
                epoch: Epoch(1),
                secret: [2, 3],
            },
            number,
            previous,
            previous_end: HEADER_BYTES,
            first: 1,
            floor: Seq(0),
            start: Seq(0),
            reserve: Seq(1 << 20),
            rewritten_end: 0,
        };
        let file = storage.create(&segment_name(number)).unwrap();
        file.write_at(0, &mut [IoSlice::new(&header.encode())])
            .unwrap();
    }

    #[test]
    fn what_an_interrupted_opening_left_stays_out_of_the_log() {
        let check = |segments: &[(u64, u64)], expected: &[u64], garbage: &[u64], is_lost: bool| {
            let storage = SimStorage::new(1);
            for (number, previous) in segments {
                put(&storage, *number, *previous);
            }
            let chain = Chain::follow(&storage).unwrap();
            let links: Vec<_> = chain.links.iter().map(|(link, _)| link.number).collect();
            assert_eq!(links, expected, "{segments:?}");
            let names: Vec<_> = garbage.iter().copied().map(segment_name).collect();
            assert_eq!(chain.garbage, names, "{segments:?}");
            let lost = is_lost.then_some(NewEpoch::Lost);
            assert_eq!(chain.new_epoch(1), lost, "{segments:?}");
        };
        check(&[(1, 0), (2, 1), (3, 2)], &[1, 2, 3], &[], false);
        check(&[(1, 0), (2, 1), (3, 2), (4, 2)], &[1, 2, 4], &[3], false);
        // Nor does it stand in for a segment that is gone.
        check(&[(1, 0), (3, 2), (4, 2)], &[1, 4], &[3], true);
        check(&[(3, 2), (4, 2)], &[4], &[3], true);
    }
}
