//! Records of one core on their way to the log's writer: encoded where they arise, so that the
//! writer only copies bytes.

use super::record::{NumberedEvent, RecordCodec, RecordView, SnapshotPart, StreamKey, Unstorable};
use super::{Seq, Stream, StreamKind};
use crate::limits::SNAPSHOT_PART_BYTES;

/// Encoded records, one after the other, and where each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordBatch {
    /// The records, whole and filled up.
    pub bytes: Vec<u8>,
    /// One for each record that an index must know, in order.
    pub entries: Vec<RecordEntry>,
}

/// Where a record is, and what an index must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    /// What it is.
    pub content: RecordContent,
    /// Where it begins, in bytes from the beginning of the batch.
    pub offset: u32,
    /// Its bytes, the filling included.
    pub length: u32,
}

/// What an index must know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordContent {
    /// An event of a stream, or what is left of it.
    Event(StreamKey, Seq),
    /// A decision about tokens.
    Revocation,
    /// Part of a snapshot, under the stream's key for it.
    Snapshot(StreamKey, Seq),
}

impl RecordBatch {
    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds an event. Errors: [`Unstorable`]; then nothing is added.
    pub fn push_event(
        &mut self,
        codec: &RecordCodec,
        numbered: &NumberedEvent<'_>,
    ) -> Result<(), Unstorable> {
        let start = self.bytes.len();
        codec.encode_event(numbered, &mut self.bytes)?;
        let id = match numbered.kind {
            StreamKind::Project => &numbered.event.project,
            StreamKind::User => &numbered.event.user,
        };
        let key = codec.stream_key(numbered.kind, id.as_deref().unwrap_or_default());
        self.note(RecordContent::Event(key, numbered.seq), start);
        Ok(())
    }

    /// Adds a decision about tokens, opaque here. Errors: `TooLong`.
    pub fn push_revocation(
        &mut self,
        codec: &RecordCodec,
        payload: &[u8],
    ) -> Result<(), Unstorable> {
        let start = self.bytes.len();
        codec.encode_revocation(payload, &mut self.bytes)?;
        self.note(RecordContent::Revocation, start);
        Ok(())
    }

    /// Adds what a stream's events up to `seq` led to, opaque here: as several records where it has
    /// more than `SNAPSHOT_PART_BYTES`. Returns how many.
    /// Errors: `TooLong`, not for an id that the parser let through.
    pub fn push_snapshot(
        &mut self,
        codec: &RecordCodec,
        stream: &Stream,
        seq: Seq,
        payload: &[u8],
    ) -> Result<u64, Unstorable> {
        let count = payload.len().div_ceil(SNAPSHOT_PART_BYTES).max(1) as u32;
        let checksum = match count {
            1 => SnapshotPart::WHOLE.checksum,
            _ => crc32c::crc32c(payload),
        };
        for index in (0..count).rev() {
            let rest = &payload[index as usize * SNAPSHOT_PART_BYTES..];
            let bytes = &rest[..rest.len().min(SNAPSHOT_PART_BYTES)];
            let start = self.bytes.len();
            let part = SnapshotPart {
                index,
                count,
                checksum,
            };
            codec.encode_snapshot(stream, seq, part, bytes, &mut self.bytes)?;
            let key = codec.snapshot_key(stream.kind, &stream.id, index);
            self.note(RecordContent::Snapshot(key, seq), start);
        }
        Ok(u64::from(count))
    }

    /// Adds a copy of a record that was read, as one of `codec`'s, but not of a mark; tells whether it
    /// is one that an index must know.
    pub fn push_sealed(
        &mut self,
        codec: &RecordCodec,
        record: &[u8],
        view: &RecordView<'_>,
    ) -> bool {
        let content = match view {
            RecordView::Event(event) => {
                let key = codec.stream_key(event.kind, event.stream_id());
                RecordContent::Event(key, event.seq)
            }
            RecordView::Erasure(erasure) => RecordContent::Event(erasure.key, erasure.seq),
            RecordView::Revocation(_) => RecordContent::Revocation,
            RecordView::Snapshot(snapshot) => {
                let key = codec.snapshot_key(snapshot.kind, snapshot.id, snapshot.part.index);
                RecordContent::Snapshot(key, snapshot.seq)
            }
            RecordView::Tombstone(tombstone) => {
                let key = codec.stream_key(StreamKind::Project, tombstone.project);
                RecordContent::Event(key, tombstone.seq)
            }
            RecordView::Mark(_) => return false,
            RecordView::Unknown(_) => {
                self.copy(codec, record);
                return false;
            }
        };
        let start = self.copy(codec, record);
        self.note(content, start);
        true
    }

    fn copy(&mut self, codec: &RecordCodec, record: &[u8]) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        codec.reseal(&mut self.bytes[start..]);
        start
    }

    fn note(&mut self, content: RecordContent, start: usize) {
        // A batch is far below 4 GiB: whoever fills it sends it at the end of the turn.
        self.entries.push(RecordEntry {
            content,
            offset: start as u32,
            length: (self.bytes.len() - start) as u32,
        });
    }
}
