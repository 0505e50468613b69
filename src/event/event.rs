//! The nouns that every other module speaks of: event, stream, seq, epoch, dialect, owner core.
//! Pure data; parsing is in `parse`, matching in `filter`, envelopes in `dialect`.

use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// An immutable fact, as a producer published it and after validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// 1 to 64 bytes, `[a-z][a-z0-9_.-]*`.
    pub event_type: CompactString,
    /// Audience: the user, 1 to 128 bytes. Never sent to a client.
    pub user: Option<CompactString>,
    /// Audience: the project, as text, 1 to 64 bytes. At least one of `user` and `project` is there.
    pub project: Option<CompactString>,
    /// 1 to 128 bytes.
    pub session: Option<CompactString>,
    /// The producer's own name for this event, 1 to 64 bytes.
    pub event_id: Option<CompactString>,
    /// Milliseconds since the Unix epoch: the producer's time, else the time of arrival.
    pub timestamp_ms: i64,
    /// The JSON text of `data`, byte for byte as published; `{}` where it was absent.
    pub data: Bytes,
    /// `data.message.type`, for filters.
    pub message_type: Option<CompactString>,
    /// `data.tool_name`, else `data.toolName`, for filters.
    pub tool_name: Option<CompactString>,
}

impl Event {
    /// The id of its user or its project, where it has one.
    pub fn audience(&self, kind: StreamKind) -> Option<&str> {
        match kind {
            StreamKind::Project => self.project.as_deref(),
            StreamKind::User => self.user.as_deref(),
        }
    }

    /// Bytes of memory that it takes beside its own place: `data`, and names too long for theirs.
    pub fn heap_bytes(&self) -> usize {
        let optional = [
            &self.user,
            &self.project,
            &self.session,
            &self.event_id,
            &self.message_type,
            &self.tool_name,
        ];
        let names = optional.into_iter().flatten().chain([&self.event_type]);
        self.data.len() + names_heap_bytes(names)
    }
}

/// Bytes of memory that names take beside their own places.
pub(super) fn names_heap_bytes<'n>(names: impl Iterator<Item = &'n CompactString>) -> usize {
    let on_heap = names.filter(|name| name.is_heap_allocated());
    on_heap.map(CompactString::capacity).sum()
}

/// The shape of the messages: one engine, two envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// `{"event_type":…}`, times as ISO 8601 text.
    Keen,
    /// `{"type":…}`, times as integer milliseconds.
    Observatory,
}

impl Dialect {
    /// Both, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Keen, Self::Observatory];

    /// Position in tables that have one place for each dialect.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name used in configuration, paths and subprotocols.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keen => "keen",
            Self::Observatory => "observatory",
        }
    }
}

/// An event's number in its stream, from 1 and below 2^53. 0 is the place before the first event.
///
/// Multiples of `LEVEL_STEP` are levels: no event has one. A stream whose last number is not known
/// goes on above a level that is known to be above it, and a viewer of such a stream is told the
/// level as its head. So a cursor at a level never stands for an event that could have been lost.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Seq(pub u64);

impl Seq {
    /// The largest seq: every JSON reader holds it exactly.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// How far levels are apart.
    pub const LEVEL_STEP: u64 = 1 << 16;

    /// The next number that an event may have.
    #[must_use]
    pub fn next(self) -> Self {
        debug_assert!(self < Self::MAX);
        let next = Self(self.0 + 1);
        if next.is_level() {
            Self(next.0 + 1)
        } else {
            next
        }
    }

    /// Whether this is the place before or between events, never an event's own.
    pub fn is_level(self) -> bool {
        self.0.is_multiple_of(Self::LEVEL_STEP)
    }

    /// This level, or the first one above.
    #[must_use]
    pub fn level_above(self) -> Self {
        Self(self.0.next_multiple_of(Self::LEVEL_STEP))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Seqs of one stream, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    /// The first.
    pub from: Seq,
    /// The last; at least `from`.
    pub to: Seq,
}

impl SeqRange {
    /// The part of it up to `to`, where there is one.
    #[must_use]
    pub fn up_to(self, to: Seq) -> Option<Self> {
        let to = self.to.min(to);
        (self.from <= to).then_some(Self { to, ..self })
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

/// One life of the event log; written as 8 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// Reads exactly 8 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits =
            text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        digits
            .then(|| u32::from_str_radix(text, 16).ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamKind {
    /// One project's events.
    Project,
    /// One user's events.
    User,
}

/// The unit of order and of replay: `user/<id>` or `project/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// Whose it is.
    pub kind: StreamKind,
    /// The user's or project's id, unescaped.
    pub id: CompactString,
}

impl Stream {
    /// The stream of user `id`.
    pub fn user(id: &str) -> Self {
        Self {
            kind: StreamKind::User,
            id: id.into(),
        }
    }

    /// The stream of project `id`.
    pub fn project(id: &str) -> Self {
        Self {
            kind: StreamKind::Project,
            id: id.into(),
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            StreamKind::Project => write!(f, "project/{}", self.id),
            StreamKind::User => write!(f, "user/{}", self.id),
        }
    }
}

/// Which core owns which stream: a keyed hash, so that nobody outside can choose ids that crowd
/// one core.
#[derive(Clone, Debug)]
pub struct Partition {
    cores: usize,
    hasher: ahash::RandomState,
}

impl Partition {
    /// For `cores` cores (at least 1), with a secret `seed` drawn once per process.
    pub fn new(cores: usize, seed: u64) -> Self {
        assert!(cores > 0, "a server has at least one core");
        let hasher =
            ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(21), seed ^ 0x5bd1_e995);
        Self { cores, hasher }
    }

    /// The owner core of a stream, below `cores()`.
    pub fn core_of(&self, kind: StreamKind, id: &str) -> usize {
        (self.hasher.hash_one((kind, id)) % self.cores as u64) as usize
    }

    /// How many cores there are.
    pub fn cores(&self) -> usize {
        self.cores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORES: usize = 8;

    /// Row A31 of the attack table: ids that all meet on one core of a process are spread by the
    /// seed of the next as any others are.
    #[test]
    fn a31_ids_mined_against_one_seed_are_spread_by_another() {
        let known = Partition::new(CORES, 1);
        let is_mined = |id: &String| known.core_of(StreamKind::User, id) == 0;
        let ids = (0..).map(|n| format!("mined-{n}"));
        let mined: Vec<String> = ids.filter(is_mined).take(20_000).collect();
        for seed in [2, 3, 1 << 63, u64::MAX] {
            let partition = Partition::new(CORES, seed);
            let mut loads = [0_usize; CORES];
            for id in &mined {
                loads[partition.core_of(StreamKind::User, id)] += 1;
            }
            let mean = mined.len() / CORES;
            let bounds = mean * 8 / 10..mean * 12 / 10;
            assert!(loads.iter().all(|load| bounds.contains(load)), "{loads:?}");
        }
    }
}
