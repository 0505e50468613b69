//! Looking at a log without opening it: for operators, on a running server's directory too. Changes
//! nothing, takes no lock, and passes over segments that retention takes away meanwhile.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Range;

use super::catalog::reading::build_index;
use super::chain::Chain;
use super::index::{IndexBuilder, SealedIndex, Summary};
use super::log::{NewEpoch, OpenError};
use super::segment::{Found, HEADER_BYTES, Scanner, SegmentHeader, index_name, segment_name};
use super::storage::{Storage, StorageFile};
use super::tail::Tail;
use crate::event::record::RecordView;
use crate::event::{Epoch, RecordCodec, Seq, Stream, StreamKey};

/// A log that is looked at.
#[derive(Debug)]
pub struct Inspection<S> {
    storage: S,
    // The oldest first, each with the place where its records end.
    segments: Vec<(SegmentHeader, u64)>,
    /// What the newest segment says about itself; `None` where there is no log.
    pub newest: Option<SegmentHeader>,
    /// Whether the log was closed; a running server's is not.
    pub is_clean: bool,
    /// Why the next opening will begin a new life.
    pub new_epoch: Option<NewEpoch>,
    /// Segments whose header cannot be read.
    pub headless: u64,
}

/// A record that is no longer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRecord {
    /// The file.
    pub segment: String,
    /// Where it is, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Whose it was, where the index tells.
    pub stream: Option<Stream>,
    /// Its number, where the index tells.
    pub seq: Option<Seq>,
}

/// What a look at every byte has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Events that are as they were written.
    pub events: u64,
    /// What is not.
    pub damaged: Vec<DamagedRecord>,
    /// Indices of sealed segments that are not what the segment says: they will be made again.
    pub indices: Vec<String>,
}

impl<S: Storage> Inspection<S> {
    /// Reads the headers and the last segment. Errors: `Io`, `Version`.
    pub fn new(storage: S) -> Result<Self, OpenError> {
        let mut chain = Chain::follow(&storage)?;
        let tail = Tail::scan(&storage, &chain)?;
        let newest = chain.newest().copied();
        let headers = chain.known.iter().chain(&newest);
        let first = headers.map(|header| header.first).max().unwrap_or_default();
        let first = first.max(tail.marks.first);
        if let Some((_, end)) = chain.links.last_mut() {
            *end = tail.whole_end();
        }
        chain.links.retain(|(header, _)| header.number >= first);
        Ok(Self {
            new_epoch: chain.new_epoch(first),
            headless: chain.headless,
            is_clean: tail.is_clean,
            segments: chain.links,
            newest,
            storage,
        })
    }

    /// The present life of the log.
    pub fn epoch(&self) -> Option<Epoch> {
        self.newest.map(|newest| newest.identity.epoch)
    }

    /// What each segment holds, the oldest first, by its index or, where that is missing, by its
    /// records. Errors: of the storage.
    pub fn summaries(&self) -> io::Result<Vec<Summary>> {
        let mut summaries = Vec::with_capacity(self.segments.len());
        for at in 0..self.segments.len() {
            if let Some(summary) = unless_gone(self.summary(at))? {
                summaries.push(summary);
            }
        }
        Ok(summaries)
    }

    /// Calls `each` with every record of segments that may have events that arrived within
    /// `received_ms`, in the order of the log. Errors: of the storage, and of `each`.
    pub fn each_record<E: From<io::Error>>(
        &self,
        received_ms: Range<i64>,
        mut each: impl FnMut(&SegmentHeader, RecordView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (at, (header, end)) in self.segments.iter().enumerate() {
            if self.is_outside(at, &received_ms) {
                continue;
            }
            let Some(file) = unless_gone(self.storage.open(&segment_name(header.number)))? else {
                continue;
            };
            let codec = RecordCodec::new(header.identity);
            let end = (*end).min(file.bytes_len()?);
            let mut scanner = Scanner::new(&file, &codec, HEADER_BYTES..end);
            while let Some(found) = scanner.read_next() {
                if let Found::Record { view, .. } = found {
                    each(header, view)?;
                }
            }
        }
        Ok(())
    }

    /// Reads every byte. Errors: of the storage.
    pub fn verify(&self) -> io::Result<Verification> {
        let mut verification = Verification::default();
        let mut keys = Vec::new();
        for (header, end) in &self.segments {
            let Some(file) = unless_gone(self.storage.open(&segment_name(header.number)))? else {
                continue;
            };
            let built = build(&file, header, *end)?;
            verification.segments += 1;
            verification.events += built.summary().events;
            let index = unless_gone(self.open_index(header.number)).unwrap_or(None);
            let is_open = self
                .newest
                .is_some_and(|newest| newest.number == header.number);
            match &index {
                Some(index) if index.is_of(&built).unwrap_or(false) => {}
                _ if is_open => {}
                _ => verification.indices.push(index_name(header.number)),
            }
            for range in &built.summary().damage {
                let known = index
                    .as_ref()
                    .and_then(|index| index.cells_within(range).ok());
                let known = known.unwrap_or_default();
                let of_nobody = known.is_empty().then_some((None, None, range.clone()));
                let records = known.into_iter().map(|(key, cell)| {
                    let start = u64::from(cell.offset);
                    let has_stream = key != StreamKey::REVOCATIONS;
                    (
                        has_stream.then_some(key),
                        has_stream.then_some(cell.seq),
                        start..start + u64::from(cell.length),
                    )
                });
                for (key, seq, range) in records.chain(of_nobody) {
                    keys.push(key);
                    verification.damaged.push(DamagedRecord {
                        segment: segment_name(header.number),
                        offset: range.start,
                        length: range.end - range.start,
                        stream: None,
                        seq,
                    });
                }
            }
        }
        self.name_streams(&mut verification.damaged, &keys)?;
        Ok(verification)
    }

    /// Finds out whose damaged records were: a stream's other records say its name.
    fn name_streams(
        &self,
        damaged: &mut [DamagedRecord],
        keys: &[Option<StreamKey>],
    ) -> io::Result<()> {
        let wanted: HashSet<StreamKey> = keys.iter().flatten().copied().collect();
        let mut names = HashMap::new();
        if wanted.is_empty() {
            return Ok(());
        }
        self.each_record(i64::MIN..i64::MAX, |header, view| {
            if let RecordView::Event(event) = view {
                let codec = RecordCodec::new(header.identity);
                let key = codec.stream_key(event.kind, event.stream_id());
                if wanted.contains(&key) {
                    let stream = Stream {
                        kind: event.kind,
                        id: event.stream_id().into(),
                    };
                    names.insert(key, stream);
                }
            }
            Ok::<(), io::Error>(())
        })?;
        for (record, key) in damaged.iter_mut().zip(keys) {
            record.stream = key.and_then(|key| names.get(&key).cloned());
        }
        Ok(())
    }

    fn summary(&self, at: usize) -> io::Result<Summary> {
        let (header, end) = &self.segments[at];
        match self.open_index(header.number) {
            Ok(index) if index.summary().end <= *end => Ok(index.summary().clone()),
            _ => {
                let file = self.storage.open(&segment_name(header.number))?;
                let bytes = build(&file, header, *end)?.finish();
                let index = SealedIndex::<S::File>::from_bytes(header.number, bytes)?;
                Ok(index.summary().clone())
            }
        }
    }

    /// Whether the index of a segment says that nothing in it arrived within `received_ms`.
    fn is_outside(&self, at: usize, received_ms: &Range<i64>) -> bool {
        let is_all = *received_ms == (i64::MIN..i64::MAX);
        let (header, end) = &self.segments[at];
        let index = if is_all {
            None
        } else {
            self.open_index(header.number).ok()
        };
        index.is_some_and(|index| {
            let (first, last) = index.summary().received_ms;
            let is_whole = index.summary().end == *end;
            is_whole && (last < received_ms.start || first >= received_ms.end)
        })
    }

    fn open_index(&self, number: u64) -> io::Result<SealedIndex<S::File>> {
        SealedIndex::open(number, self.storage.open(&index_name(number))?)
    }
}

/// What an index of a segment would be made of.
fn build(file: &impl StorageFile, header: &SegmentHeader, end: u64) -> io::Result<IndexBuilder> {
    build_index(file, &RecordCodec::new(header.identity), header.number, end)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;
