//! The index of the segment that is being written: in memory, added to with every commit.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::index::{Cell, Neighbours, Summary};
use super::segment::HEADER_BYTES;
use crate::event::{RecordContent, RecordEntry, Seq, StreamKey};

/// Where the records of each stream are. Each record points to the one of its stream before, and to
/// one far before, so that a place in a long stream is found in few steps.
///
/// Source of the second pointer: Eugene W. Myers, "An applicative random-access stack", 1983.
#[derive(Debug)]
pub struct OpenIndex {
    summary: Summary,
    links: Vec<Link>,
    last: HashMap<StreamKey, u32, BuildHasherDefault<KeyHasher>>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    cell: Cell,
    // How many of the stream are before it.
    rank: u32,
    // Places in `links`; its own in the first of a stream.
    before: u32,
    far_before: u32,
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
            links: Vec::new(),
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
            let cell = Cell {
                seq,
                offset,
                length: entry.length,
            };
            self.push(key, cell);
        }
        self.summary.streams = (self.last.len() - usize::from(self.summary.revocations > 0)) as u64;
    }

    /// Whether the stream is in the segment.
    pub fn contains(&self, key: StreamKey) -> bool {
        self.last.contains_key(&key)
    }

    /// The first and the last of a stream's records.
    pub fn ends(&self, key: StreamKey) -> Option<(Cell, Cell)> {
        let last = self.last_of(key)?;
        let first = self.find(last, |link| link.rank == 0)?;
        Some((first.cell, last.cell))
    }

    /// The last of a stream's records up to `seq`.
    pub fn last_up_to(&self, key: StreamKey, seq: Seq) -> Option<Cell> {
        let found = self.find(self.last_of(key)?, |link| link.cell.seq <= seq);
        found.map(|link| link.cell)
    }

    /// A stream's records after `seq`, at most `count` of them.
    pub fn after(&self, key: StreamKey, seq: Seq, count: usize) -> Vec<Cell> {
        let Some(last) = self.last_of(key) else {
            return Vec::new();
        };
        let before = self.find(last, |link| link.cell.seq <= seq);
        let start = before.map_or(0, |link| link.rank + 1);
        let end = (start as usize).saturating_add(count);
        let end = end.min(last.rank as usize + 1) as u32;
        let Some(mut link) = self.find(last, |link| link.rank < end) else {
            return Vec::new();
        };
        let mut found = Vec::with_capacity((end.saturating_sub(start)) as usize);
        while link.rank >= start {
            found.push(link.cell);
            if link.rank == 0 {
                break;
            }
            link = self.link(link.before);
        }
        found.reverse();
        found
    }

    /// The records of a stream next to a place of the segment.
    pub fn around(&self, key: StreamKey, offset: u64) -> Neighbours {
        let is_before = |link: &Link| u64::from(link.cell.offset) < offset;
        let before = self
            .last_of(key)
            .and_then(|last| self.find(last, is_before));
        let from = before.map_or(Seq(0), |link| link.cell.seq);
        let next = self.after(key, from, 1).first().copied();
        (before.map(|link| link.cell), next)
    }

    fn push(&mut self, key: StreamKey, cell: Cell) {
        let at = self.links.len() as u32;
        let link = match self.last.insert(key, at) {
            None => Link {
                cell,
                rank: 0,
                before: at,
                far_before: at,
            },
            Some(before) => {
                let last = self.link(before);
                let far = self.link(last.far_before);
                let further = self.link(far.far_before);
                // Two jumps of one length are followed by one of both.
                let is_even = last.rank - far.rank == far.rank - further.rank;
                Link {
                    cell,
                    rank: last.rank + 1,
                    before,
                    far_before: if is_even { far.far_before } else { before },
                }
            }
        };
        self.links.push(link);
    }

    /// The last link from `link` back that `is_wanted`, as all before it are.
    fn find(&self, mut link: Link, is_wanted: impl Fn(&Link) -> bool) -> Option<Link> {
        while !is_wanted(&link) {
            if link.rank == 0 {
                return None;
            }
            let far = self.link(link.far_before);
            link = if is_wanted(&far) {
                self.link(link.before)
            } else {
                far
            };
        }
        Some(link)
    }

    fn last_of(&self, key: StreamKey) -> Option<Link> {
        self.last.get(&key).map(|at| self.link(*at))
    }

    fn link(&self, at: u32) -> Link {
        self.links[at as usize]
    }
}

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
