//! The index of the segment that is being written: in memory, added to with every commit.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::index::{Cell, Summary};
use super::segment::HEADER_BYTES;
use crate::event::{RecordContent, RecordEntry, Seq, StreamKey};

/// Where the records of each stream are. Each record points to the one of its stream before.
#[derive(Debug)]
pub struct OpenIndex {
    summary: Summary,
    cells: Vec<(Cell, u32)>,
    last: HashMap<StreamKey, u32, BuildHasherDefault<KeyHasher>>,
}

impl OpenIndex {
    /// Of the segment with this number, which has no records yet.
    pub fn new(number: u64) -> Self {
        let summary = Summary {
            number,
            end: HEADER_BYTES,
            ..Summary::default()
        };
        Self {
            summary,
            cells: Vec::new(),
            last: HashMap::default(),
        }
    }

    /// What is known of the segment as a whole, but for the times.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Takes in records that begin at `base` of the segment.
    pub fn add(&mut self, base: u64, entries: &[RecordEntry]) {
        for entry in entries {
            let offset = base as u32 + entry.offset;
            self.summary.end = u64::from(offset + entry.length);
            let (key, seq) = match entry.content {
                RecordContent::Event(key, seq) => {
                    self.summary.events += 1;
                    self.summary.seq_max = self.summary.seq_max.max(seq);
                    (key, seq)
                }
                RecordContent::Snapshot(key, seq) => (key, seq),
                RecordContent::Revocation => {
                    self.summary.revocations += 1;
                    (StreamKey::REVOCATIONS, Seq(u64::from(offset)))
                }
            };
            let at = self.cells.len() as u32;
            let before = self.last.insert(key, at).unwrap_or(NO_CELL);
            let cell = Cell {
                seq,
                offset,
                length: entry.length,
            };
            self.cells.push((cell, before));
        }
        self.summary.streams = (self.last.len() - usize::from(self.summary.revocations > 0)) as u64;
    }

    /// Whether the stream is in the segment.
    pub fn contains(&self, key: StreamKey) -> bool {
        self.last.contains_key(&key)
    }

    /// The first and the last of a stream's records.
    pub fn ends(&self, key: StreamKey) -> Option<(Cell, Cell)> {
        let mut cells = self.backwards(key);
        let last = cells.next()?;
        Some((cells.last().unwrap_or(last), last))
    }

    /// The last of a stream's records up to `seq`.
    pub fn last_up_to(&self, key: StreamKey, seq: Seq) -> Option<Cell> {
        self.backwards(key).find(|cell| cell.seq <= seq)
    }

    /// A stream's records after `seq`, at most `count` of them.
    pub fn after(&self, key: StreamKey, seq: Seq, count: usize) -> Vec<Cell> {
        let cells = self.backwards(key).take_while(|cell| cell.seq > seq);
        let mut found: Vec<Cell> = cells.collect();
        found.reverse();
        found.truncate(count);
        found
    }

    fn backwards(&self, key: StreamKey) -> impl Iterator<Item = Cell> {
        let mut at = self.last.get(&key).copied().unwrap_or(NO_CELL);
        std::iter::from_fn(move || {
            let (cell, before) = *self.cells.get(at as usize)?;
            at = before;
            Some(cell)
        })
    }
}

const NO_CELL: u32 = u32::MAX;

/// Stream keys are hashes already, of a secret.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for what is no stream key, which `write_u64` takes.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
