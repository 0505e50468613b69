//! What a snapshot's record holds beside its bytes: one record where these are few, and otherwise
//! parts of it, each a record of its own.

use super::u32_at;
use crate::event::{Seq, StreamKind};

/// A snapshot's record, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotView<'b> {
    /// Whether it is of a user or of a project.
    pub kind: StreamKind,
    /// Whose it is.
    pub id: &'b str,
    /// All events up to this seq of the stream are in it.
    pub seq: Seq,
    /// Which part of it this is.
    pub part: SnapshotPart,
    /// Opaque.
    pub payload: &'b [u8],
}

/// One of the records that a snapshot is cut into. Each has an index key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// From 0. The first one is written last: where it is, the others are before it.
    pub index: u32,
    /// How many there are.
    pub count: u32,
    /// Of the whole payload, the same in each: parts of two snapshots at one seq do not mix.
    pub checksum: u32,
}

impl SnapshotPart {
    /// The only one.
    pub const WHOLE: Self = Self {
        index: 0,
        count: 1,
        checksum: 0,
    };

    pub(super) fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; 12]) -> Self {
        Self {
            index: u32_at(&bytes, 0),
            count: u32_at(&bytes, 4),
            checksum: u32_at(&bytes, 8),
        }
    }
}
