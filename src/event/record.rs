//! A record of the event log: the bytes in which an event, or what the log needs to know about
//! itself, is kept. Pure codec; which bytes are a file's is `history`'s business.
//!
//! All numbers are little-endian, a record begins at a multiple of 8 bytes and is filled up to one
//! with zeros:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | length, without the filling; 0 where nothing was written |
//! | 4 | 4 | CRC32C of the log's secret, the length, and all from byte 8 to the end of the filling |
//! | 8 | 1 | kind: 1 event, 2 mark, 3 revocation, 4 snapshot, 5 tombstone, 6 erasure |
//! | 9 | 1 | flags: 1 the stream is a user's; 2 of a mark: the log was closed here |
//! | 10 | 2 | bytes of the fields |
//! | 12 | 4 | epoch |
//! | 16 | 8 | seq |
//! | 24 | | what the kind has of fixed size, then the fields, then the payload |
//!
//! A field is a tag (1 byte), a length (2 bytes) and that many bytes. A reader skips tags and kinds
//! that it does not know: a minor version may add both. The secret keeps what a producer can put
//! into an event from ever passing for a record.

mod snapshot;

use std::hash::Hasher as _;

use bytes::Bytes;
use compact_str::CompactString;
use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128 as _, SipHasher13 as SipHasher128};
use thiserror::Error;

use super::{Epoch, Event, Seq, Stream, StreamKind};
use crate::limits::RECORD_BYTES_MAX;

pub use snapshot::{SnapshotPart, SnapshotView};

/// What tells one log's records from all other bytes. Drawn at random; the secret is never told
/// outside and stays the same through all epochs of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The present life of the log.
    pub epoch: Epoch,
    /// The key of every hash that the log keeps.
    pub secret: [u64; 2],
}

/// A hash that stands for a stream in the log's indices; the same for the life of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(pub u64);

impl StreamKey {
    /// Stands for the decisions about tokens, which belong to no stream. A stream that has it by
    /// chance, one in 2^64, does no harm: records say whose they are.
    pub const REVOCATIONS: Self = Self(u64::MAX);
}

/// Encodes and decodes the records of one log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RecordCodec {
    identity: LogIdentity,
    crc_seed: u32,
}

/// An event with its number, on its way into the log.
#[derive(Clone, Copy, Debug)]
pub struct NumberedEvent<'e> {
    /// Which of the event's audiences this copy is for.
    pub kind: StreamKind,
    /// Its number in that stream.
    pub seq: Seq,
    /// The stream's head before it. With it a reader knows whether anything is missing between.
    pub previous: Seq,
    /// When it arrived, in milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// Names (token's `sub`, `event_id`), where the event has an id: what makes a duplicate.
    pub fingerprint: Option<u128>,
    /// The event as delivered, enrichment included.
    pub event: &'e Event,
}

/// An event as the log has it. Encoding its `event` gives the very bytes that were sent live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// See [`NumberedEvent::kind`].
    pub kind: StreamKind,
    /// See [`NumberedEvent::seq`].
    pub seq: Seq,
    /// See [`NumberedEvent::previous`].
    pub previous: Seq,
    /// See [`NumberedEvent::received_ms`].
    pub received_ms: i64,
    /// See [`NumberedEvent::fingerprint`].
    pub fingerprint: Option<u128>,
    /// The event.
    pub event: Event,
}

impl StoredEvent {
    /// Whether the event has two audiences, so that the other stream has, or should have, a copy.
    pub fn is_half(&self) -> bool {
        self.event.user.is_some() && self.event.project.is_some()
    }
}

/// What the log says about itself, once in every commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Everything before this offset of the segment was on disk when the mark was written.
    pub synced: u64,
    /// The oldest segment that is kept.
    pub first: u64,
    /// The highest seq that retention took, of any stream.
    pub floor: Seq,
    /// No seq above it is given before a mark or header with a higher one is on disk.
    pub reserve: Seq,
    /// The highest seq that was given to a record, of any stream.
    pub highest: Seq,
    /// Nothing follows: the log was closed, with all of it on disk.
    pub is_clean: bool,
}

/// A record, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordView<'b> {
    /// What stands for all of a user's own stream that was erased.
    Erasure(ErasureView),
    /// An event.
    Event(EventView<'b>),
    /// A mark.
    Mark(Mark),
    /// A decision about tokens, opaque here.
    Revocation(&'b [u8]),
    /// What a stream's events had led to at a seq, opaque here.
    Snapshot(SnapshotView<'b>),
    /// The place of an erased event in a project's stream.
    Tombstone(TombstoneView<'b>),
    /// A kind that a later minor version has added.
    Unknown(u8),
}

/// An event's record, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventView<'b> {
    /// See [`NumberedEvent::kind`].
    pub kind: StreamKind,
    /// See [`NumberedEvent::seq`].
    pub seq: Seq,
    /// See [`NumberedEvent::previous`].
    pub previous: Seq,
    /// See [`NumberedEvent::received_ms`].
    pub received_ms: i64,
    /// See [`NumberedEvent::fingerprint`].
    pub fingerprint: Option<u128>,
    /// See [`Event::timestamp_ms`].
    pub timestamp_ms: i64,
    /// See [`Event::data`].
    pub data: &'b [u8],
    fields: Fields<'b>,
}

/// A tombstone's record, read in place. It stands for a project's copy of an event, and says nothing
/// of whose event it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TombstoneView<'b> {
    /// The project.
    pub project: &'b str,
    /// See [`NumberedEvent::seq`].
    pub seq: Seq,
    /// See [`NumberedEvent::previous`].
    pub previous: Seq,
}

/// An erasure's record. It says that a user's own stream had events up to a seq, and that these were
/// erased: so they are neither missing nor lost. The stream is named by its key, and by nothing of
/// the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasureView {
    /// The stream.
    pub key: StreamKey,
    /// The stream's head before the first of its events that went with this record's segment.
    pub previous: Seq,
    /// The last of these.
    pub seq: Seq,
}

impl<'b> EventView<'b> {
    /// What takes the place of this copy when its user is erased; `None` where nothing does, as the
    /// stream is the user's own.
    pub fn to_tombstone(&self) -> Option<TombstoneView<'b>> {
        let project = self.project().filter(|_| self.kind == StreamKind::Project);
        Some(TombstoneView {
            project: project?,
            seq: self.seq,
            previous: self.previous,
        })
    }

    /// The id of the stream that this copy belongs to.
    pub fn stream_id(&self) -> &'b str {
        let id = match self.kind {
            StreamKind::Project => self.fields.project,
            StreamKind::User => self.fields.user,
        };
        id.unwrap_or_default()
    }

    /// See [`Event::event_type`].
    pub fn event_type(&self) -> &'b str {
        self.fields.event_type.unwrap_or_default()
    }

    /// The producer's own name for the event, where it gave one.
    pub fn event_id(&self) -> Option<&'b str> {
        self.fields.event_id
    }

    /// The event's user, where it has one.
    pub fn user(&self) -> Option<&'b str> {
        self.fields.user
    }

    /// The event's project, where it has one.
    pub fn project(&self) -> Option<&'b str> {
        self.fields.project
    }

    /// The event's session, where it has one.
    pub fn session(&self) -> Option<&'b str> {
        self.fields.session
    }

    /// The event with its own memory. `data` is a slice of `source` where the record was read from
    /// it, a copy otherwise.
    pub fn to_stored(&self, source: &Bytes) -> StoredEvent {
        let owned = |text: Option<&str>| text.map(CompactString::from);
        let fields = &self.fields;
        StoredEvent {
            kind: self.kind,
            seq: self.seq,
            previous: self.previous,
            received_ms: self.received_ms,
            fingerprint: self.fingerprint,
            event: Event {
                event_type: fields.event_type.unwrap_or_default().into(),
                user: owned(fields.user),
                project: owned(fields.project),
                session: owned(fields.session),
                event_id: owned(fields.event_id),
                timestamp_ms: self.timestamp_ms,
                data: slice_of(source, self.data),
                message_type: owned(fields.message_type),
                tool_name: owned(fields.tool_name),
            },
        }
    }
}

/// `part` as a slice of `source`, or as a copy where it is no part of it.
fn slice_of(source: &Bytes, part: &[u8]) -> Bytes {
    let range = source.as_ptr_range();
    let is_within =
        part.as_ptr_range().start >= range.start && part.as_ptr_range().end <= range.end;
    if is_within {
        source.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The checksum is not that of these bytes.
    #[error("the checksum does not fit")]
    Checksum,
    /// Nothing was written here.
    #[error("nothing was written here")]
    Empty,
    /// A length that no record has.
    #[error("no record is {0} bytes long")]
    Length(u32),
    /// The checksum fits, but what is inside does not: our fault, or a forger's.
    #[error("the fields do not fit")]
    Malformed,
    /// The record goes on after the bytes that were given.
    #[error("the record ends after {0} bytes")]
    Partial(usize),
}

/// An event that cannot be kept. Not for an event that `event::Parser` accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unstorable {
    /// The stream's kind is none of the event's audiences.
    #[error("the event has no such audience")]
    NoAudience,
    /// More than `limits::RECORD_BYTES_MAX`, or a field of more than 65,535 bytes.
    #[error("the record would be too long")]
    TooLong,
}

impl RecordCodec {
    /// For the records of one log.
    pub fn new(identity: LogIdentity) -> Self {
        let [low, high] = identity.secret.map(u64::to_le_bytes);
        let crc_seed = crc32c::crc32c_append(crc32c::crc32c(&low), &high);
        Self { identity, crc_seed }
    }

    /// Whose records these are.
    pub fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// What stands for a stream in the indices.
    pub fn stream_key(&self, kind: StreamKind, id: &str) -> StreamKey {
        self.key(kind as u8, id)
    }

    /// What stands for one part of a stream's snapshots in the indices.
    pub fn snapshot_key(&self, kind: StreamKind, id: &str, part: u32) -> StreamKey {
        let space = SNAPSHOT_SPACE | kind as u8;
        match part {
            0 => self.key(space, id),
            // An id may look like this too: what is found is compared with what the record says.
            part => self.key(space, &format!("{id}\n{part}")),
        }
    }

    /// A hash of `parts` that is the same for the life of the log and cannot be foreseen outside:
    /// for what must be recognised after a restart.
    pub fn fingerprint(&self, parts: &[&str]) -> u128 {
        let [low, high] = self.identity.secret;
        let mut hasher = SipHasher128::new_with_keys(low, high);
        for part in parts {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part.as_bytes());
        }
        hasher.finish128().as_u128()
    }

    fn key(&self, space: u8, id: &str) -> StreamKey {
        let [low, high] = self.identity.secret;
        let mut hasher = SipHasher13::new_with_keys(low, high);
        hasher.write_u8(space);
        hasher.write(id.as_bytes());
        StreamKey(hasher.finish())
    }

    /// Appends an event's record. `out` is a multiple of 8 bytes long, before and after.
    /// Errors: [`Unstorable`]; then nothing is appended.
    pub fn encode_event(
        &self,
        numbered: &NumberedEvent<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unstorable> {
        let event = numbered.event;
        let audience = match numbered.kind {
            StreamKind::Project => &event.project,
            StreamKind::User => &event.user,
        };
        if audience.as_deref().unwrap_or_default().is_empty() {
            return Err(Unstorable::NoAudience);
        }
        let mut draft = Draft::begin(out, event.data.len());
        draft.put(&numbered.previous.0.to_le_bytes());
        draft.put(&numbered.received_ms.to_le_bytes());
        draft.put(&event.timestamp_ms.to_le_bytes());
        let texts = [
            (tag::EVENT_TYPE, Some(&event.event_type)),
            (tag::USER, event.user.as_ref()),
            (tag::PROJECT, event.project.as_ref()),
            (tag::SESSION, event.session.as_ref()),
            (tag::EVENT_ID, event.event_id.as_ref()),
            (tag::MESSAGE_TYPE, event.message_type.as_ref()),
            (tag::TOOL_NAME, event.tool_name.as_ref()),
        ];
        for (tag, text) in texts {
            if let Some(text) = text {
                draft.field(tag, text.as_bytes());
            }
        }
        if let Some(fingerprint) = numbered.fingerprint {
            draft.field(tag::FINGERPRINT, &fingerprint.to_le_bytes());
        }
        draft.put(&event.data);
        draft.end(self, kind::EVENT, stream_flag(numbered.kind), numbered.seq)
    }

    /// Appends a mark's record, which is `MARK_BYTES` long.
    pub fn encode_mark(&self, mark: &Mark, out: &mut Vec<u8>) {
        let mut draft = Draft::begin(out, 0);
        let Mark {
            synced,
            first,
            floor,
            reserve,
            highest,
            is_clean,
        } = *mark;
        for value in [synced, first, floor.0, reserve.0, highest.0] {
            draft.put(&value.to_le_bytes());
        }
        let flags = if is_clean { flag::CLEAN } else { 0 };
        let ended = draft.end(self, kind::MARK, flags, Seq(0));
        debug_assert_eq!(ended, Ok(()), "a mark is short");
    }

    /// Appends the record of a decision about tokens. Errors: `TooLong`.
    pub fn encode_revocation(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Unstorable> {
        let mut draft = Draft::begin(out, payload.len());
        draft.put(payload);
        draft.end(self, kind::REVOCATION, 0, Seq(0))
    }

    /// Appends the record of one part of what a stream's events up to `seq` had led to.
    /// Errors: `TooLong`.
    pub fn encode_snapshot(
        &self,
        stream: &Stream,
        seq: Seq,
        part: SnapshotPart,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unstorable> {
        let mut draft = Draft::begin(out, payload.len());
        let tag = match stream.kind {
            StreamKind::Project => tag::PROJECT,
            StreamKind::User => tag::USER,
        };
        draft.field(tag, stream.id.as_bytes());
        if part != SnapshotPart::WHOLE {
            draft.field(tag::PART, &part.to_bytes());
        }
        draft.put(payload);
        draft.end(self, kind::SNAPSHOT, stream_flag(stream.kind), seq)
    }

    /// Appends what takes the place of an erased event. Errors: `TooLong`, not for one that was read
    /// from a record.
    pub fn encode_tombstone(
        &self,
        tombstone: &TombstoneView<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unstorable> {
        let mut draft = Draft::begin(out, 0);
        draft.put(&tombstone.previous.0.to_le_bytes());
        draft.field(tag::PROJECT, tombstone.project.as_bytes());
        draft.end(self, kind::TOMBSTONE, 0, tombstone.seq)
    }

    /// Appends what takes the place of all that was erased of a user's own stream.
    pub fn encode_erasure(&self, erasure: &ErasureView, out: &mut Vec<u8>) {
        let mut draft = Draft::begin(out, 0);
        draft.put(&erasure.key.0.to_le_bytes());
        draft.put(&erasure.previous.0.to_le_bytes());
        let ended = draft.end(self, kind::ERASURE, flag::USER_STREAM, erasure.seq);
        debug_assert_eq!(ended, Ok(()), "an erasure is short");
    }

    /// Reads the record at the front of `bytes`. Returns it with its length, the filling included.
    /// Errors: [`RecordError`]; `Partial` says how many bytes it takes, at most
    /// `limits::RECORD_BYTES_MAX`, and is returned before anything but the head is looked at.
    pub fn decode<'b>(&self, bytes: &'b [u8]) -> Result<(RecordView<'b>, usize), RecordError> {
        let whole = self.verify(bytes)?;
        Ok((read_verified(&bytes[..whole])?, whole))
    }

    /// As `decode`, without reading what is inside: the record's length, the filling included.
    /// Errors: as `decode`, but never `Malformed`.
    pub fn verify(&self, bytes: &[u8]) -> Result<usize, RecordError> {
        let head: &[u8; HEAD_BYTES] = bytes
            .first_chunk()
            .ok_or(RecordError::Partial(HEAD_BYTES))?;
        let whole = aligned(record_length(head)?);
        let record = bytes.get(..whole).ok_or(RecordError::Partial(whole))?;
        let is_ours = u32_at(head, 12) == self.identity.epoch.0;
        if !is_ours || self.checksum(record) != u32_at(head, 4) {
            return Err(RecordError::Checksum);
        }
        Ok(whole)
    }

    /// Makes a whole record of another epoch one of this.
    pub fn reseal(&self, record: &mut [u8]) {
        record[12..16].copy_from_slice(&self.identity.epoch.0.to_le_bytes());
        let checksum = self.checksum(record);
        record[4..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Whether a record may begin with these bytes: for the search after damage.
    pub fn is_plausible(&self, head: &[u8; HEAD_BYTES]) -> bool {
        u32_at(head, 12) == self.identity.epoch.0 && record_length(head).is_ok()
    }

    fn checksum(&self, record: &[u8]) -> u32 {
        let length = crc32c::crc32c_append(self.crc_seed, &record[..4]);
        crc32c::crc32c_append(length, &record[8..])
    }
}

/// Bytes of what every record begins with.
pub const HEAD_BYTES: usize = 24;
/// Bytes of a mark's record.
pub const MARK_BYTES: usize = HEAD_BYTES + 40;
/// Records begin at multiples of this.
pub const ALIGNMENT: usize = 8;

/// `length`, filled up.
pub fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

mod kind {
    pub const EVENT: u8 = 1;
    pub const MARK: u8 = 2;
    pub const REVOCATION: u8 = 3;
    pub const SNAPSHOT: u8 = 4;
    pub const TOMBSTONE: u8 = 5;
    pub const ERASURE: u8 = 6;
}

mod flag {
    pub const USER_STREAM: u8 = 1;
    pub const CLEAN: u8 = 2;
}

mod tag {
    pub const EVENT_TYPE: u8 = 1;
    pub const USER: u8 = 2;
    pub const PROJECT: u8 = 3;
    pub const SESSION: u8 = 4;
    pub const EVENT_ID: u8 = 5;
    pub const MESSAGE_TYPE: u8 = 6;
    pub const TOOL_NAME: u8 = 7;
    pub const FINGERPRINT: u8 = 8;
    pub const PART: u8 = 9;
}

/// Keeps the keys of snapshots apart from those of streams.
const SNAPSHOT_SPACE: u8 = 0x80;
/// Bytes that an event's record has of fixed size after the head.
const EVENT_FIXED_BYTES: usize = 24;

fn stream_flag(kind: StreamKind) -> u8 {
    match kind {
        StreamKind::Project => 0,
        StreamKind::User => flag::USER_STREAM,
    }
}

/// A record being written at the end of a buffer.
struct Draft<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    fields_bytes: usize,
    is_too_long: bool,
}

impl<'o> Draft<'o> {
    fn begin(out: &'o mut Vec<u8>, payload_bytes: usize) -> Self {
        let start = out.len();
        debug_assert_eq!(start % ALIGNMENT, 0);
        out.reserve(payload_bytes + BYTES_USUAL);
        out.extend_from_slice(&[0; HEAD_BYTES]);
        Self {
            out,
            start,
            fields_bytes: 0,
            is_too_long: false,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn field(&mut self, tag: u8, bytes: &[u8]) {
        let Ok(length) = u16::try_from(bytes.len()) else {
            self.is_too_long = true;
            return;
        };
        self.out.push(tag);
        self.out.extend_from_slice(&length.to_le_bytes());
        self.out.extend_from_slice(bytes);
        self.fields_bytes += 3 + bytes.len();
    }

    fn end(self, codec: &RecordCodec, kind: u8, flags: u8, seq: Seq) -> Result<(), Unstorable> {
        let length = self.out.len() - self.start;
        let fields_bytes = u16::try_from(self.fields_bytes);
        let (Ok(fields_bytes), false, true) =
            (fields_bytes, self.is_too_long, length <= RECORD_BYTES_MAX)
        else {
            self.out.truncate(self.start);
            return Err(Unstorable::TooLong);
        };
        self.out.resize(self.start + aligned(length), 0);
        let record = &mut self.out[self.start..];
        record[..4].copy_from_slice(&(length as u32).to_le_bytes());
        record[8] = kind;
        record[9] = flags;
        record[10..12].copy_from_slice(&fields_bytes.to_le_bytes());
        record[12..16].copy_from_slice(&codec.identity.epoch.0.to_le_bytes());
        record[16..24].copy_from_slice(&seq.0.to_le_bytes());
        let checksum = codec.checksum(record);
        record[4..8].copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }
}

/// Bytes around a payload with ids of ordinary length: one growth of the buffer serves most.
const BYTES_USUAL: usize = 192;

/// The length in a head, without the filling.
fn record_length(head: &[u8; HEAD_BYTES]) -> Result<usize, RecordError> {
    match u32_at(head, 0) {
        0 => Err(RecordError::Empty),
        length if (HEAD_BYTES..=RECORD_BYTES_MAX).contains(&(length as usize)) => {
            Ok(length as usize)
        }
        length => Err(RecordError::Length(length)),
    }
}

/// Reads a record whose checksum was verified. Errors: `Malformed`, and others where it was not.
pub fn read_verified(record: &[u8]) -> Result<RecordView<'_>, RecordError> {
    let head = record.first_chunk().ok_or(RecordError::Malformed)?;
    let inside = record.get(HEAD_BYTES..record_length(head)?);
    inside
        .and_then(|inside| view(head, inside))
        .ok_or(RecordError::Malformed)
}

/// Reads what follows the head; `None` where it does not fit.
fn view<'b>(head: &[u8; HEAD_BYTES], rest: &'b [u8]) -> Option<RecordView<'b>> {
    let (kind, flags, fields_bytes) = (head[8], head[9], usize::from(u16_at(head, 10)));
    let seq = Seq(u64_at(head, 16));
    let stream_kind = match flags & flag::USER_STREAM {
        0 => StreamKind::Project,
        _ => StreamKind::User,
    };
    Some(match kind {
        kind::EVENT => {
            let (fixed, rest) = rest.split_first_chunk::<EVENT_FIXED_BYTES>()?;
            let (fields, data) = rest.split_at_checked(fields_bytes)?;
            let fields = Fields::read(fields)?;
            let event = EventView {
                kind: stream_kind,
                seq,
                previous: Seq(u64_at(fixed, 0)),
                received_ms: u64_at(fixed, 8).cast_signed(),
                timestamp_ms: u64_at(fixed, 16).cast_signed(),
                fingerprint: fields.fingerprint,
                data,
                fields,
            };
            let is_whole = fields.event_type.is_some() && !event.stream_id().is_empty();
            RecordView::Event(is_whole.then_some(event)?)
        }
        kind::MARK => {
            let fixed = rest.first_chunk::<40>()?;
            RecordView::Mark(Mark {
                synced: u64_at(fixed, 0),
                first: u64_at(fixed, 8),
                floor: Seq(u64_at(fixed, 16)),
                reserve: Seq(u64_at(fixed, 24)),
                highest: Seq(u64_at(fixed, 32)),
                is_clean: flags & flag::CLEAN != 0,
            })
        }
        kind::REVOCATION => RecordView::Revocation(rest.get(fields_bytes..)?),
        kind::SNAPSHOT => {
            let (fields, payload) = rest.split_at_checked(fields_bytes)?;
            let fields = Fields::read(fields)?;
            let id = match stream_kind {
                StreamKind::Project => fields.project?,
                StreamKind::User => fields.user?,
            };
            RecordView::Snapshot(SnapshotView {
                kind: stream_kind,
                id,
                seq,
                part: fields.part.unwrap_or(SnapshotPart::WHOLE),
                payload,
            })
        }
        kind::TOMBSTONE => {
            let (previous, rest) = rest.split_first_chunk::<8>()?;
            let fields = Fields::read(rest.get(..fields_bytes)?)?;
            RecordView::Tombstone(TombstoneView {
                project: fields.project.filter(|project| !project.is_empty())?,
                seq,
                previous: Seq(u64_at(previous, 0)),
            })
        }
        kind::ERASURE => {
            let body = rest.first_chunk::<16>()?;
            RecordView::Erasure(ErasureView {
                key: StreamKey(u64_at(body, 0)),
                previous: Seq(u64_at(body, 8)),
                seq,
            })
        }
        other => RecordView::Unknown(other),
    })
}

/// The known fields of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fields<'b> {
    event_type: Option<&'b str>,
    user: Option<&'b str>,
    project: Option<&'b str>,
    session: Option<&'b str>,
    event_id: Option<&'b str>,
    message_type: Option<&'b str>,
    tool_name: Option<&'b str>,
    fingerprint: Option<u128>,
    part: Option<SnapshotPart>,
}

impl<'b> Fields<'b> {
    fn read(mut bytes: &'b [u8]) -> Option<Self> {
        let mut fields = Self::default();
        while let Some((&[tag, low, high], rest)) = bytes.split_first_chunk::<3>() {
            let length = usize::from(u16::from_le_bytes([low, high]));
            let (value, rest) = rest.split_at_checked(length)?;
            fields.set(tag, value)?;
            bytes = rest;
        }
        bytes.is_empty().then_some(fields)
    }

    fn set(&mut self, tag: u8, value: &'b [u8]) -> Option<()> {
        let place = match tag {
            tag::EVENT_TYPE => &mut self.event_type,
            tag::USER => &mut self.user,
            tag::PROJECT => &mut self.project,
            tag::SESSION => &mut self.session,
            tag::EVENT_ID => &mut self.event_id,
            tag::MESSAGE_TYPE => &mut self.message_type,
            tag::TOOL_NAME => &mut self.tool_name,
            tag::FINGERPRINT => {
                self.fingerprint = Some(u128::from_le_bytes(value.try_into().ok()?));
                return Some(());
            }
            tag::PART => {
                self.part = Some(SnapshotPart::from_bytes(value.try_into().ok()?));
                return Some(());
            }
            _ => return Some(()),
        };
        *place = Some(std::str::from_utf8(value).ok()?);
        Some(())
    }
}

// Callers give places that are within `bytes`; what is not reads as zeros.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u16::from_le_bytes(*field))
}

#[cfg(test)]
mod tests;
