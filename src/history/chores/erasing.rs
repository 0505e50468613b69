//! Taking a user's events out of a segment that is no longer written. A first pass looks whether it
//! has any; only then the rest is copied, and the copy takes the segment's place in one step. An
//! event in a project's stream leaves a tombstone, and all of the user's own stream leaves one record
//! that names it by its key: that they were there is known, so that nobody takes them for lost.

use std::io::{self, IoSlice};
use std::ops::Range;

use crate::event::record::{ALIGNMENT, ErasureView, RecordView, TombstoneView};
use crate::event::{RecordCodec, Seq, StreamKind};
use crate::history::catalog::Catalog;
use crate::history::index::{IndexBuilder, SealedIndex};
use crate::history::segment::{
    Found, HEADER_BYTES, Scanner, SegmentHeader, index_name, segment_name,
};
use crate::history::storage::SPARE_END;
use crate::history::storage::{Storage, StorageFile, read_exact};
use crate::limits::{CHORE_BYTES, RECORD_BYTES_MAX};

/// One segment and the user that goes.
#[derive(Debug)]
pub(super) struct Erasing<F> {
    number: u64,
    user: String,
    // Where the reading has come to.
    at: u64,
    // None: nothing that goes was found so far.
    copy: Option<SegmentCopy<F>>,
}

/// What becomes of the segment.
#[derive(Debug)]
struct SegmentCopy<F> {
    file: F,
    name: String,
    // Up to where it is written, and what follows.
    end: u64,
    bytes: Vec<u8>,
    builder: IndexBuilder,
    removed: u64,
    // The last event of the user's own stream that went.
    own: Option<OwnRange>,
}

impl<F: StorageFile> Erasing<F> {
    /// Of the segment with this number.
    pub(super) fn new(number: u64, user: String) -> Self {
        Self {
            number,
            user,
            at: HEADER_BYTES,
            copy: None,
        }
    }

    /// Reads some records. Returns how many went when all are through, `None` before.
    /// Errors: of the storage; then the segment is as it was, and it is to be begun anew.
    pub(super) fn step<S: Storage<File = F>>(
        &mut self,
        catalog: &mut Catalog<S>,
    ) -> io::Result<Option<u64>> {
        if !catalog.has(self.number) {
            // Retention took it.
            catalog
                .garbage
                .extend(self.copy.take().map(|copy| copy.name));
            return Ok(Some(0));
        }
        match self.copy.take() {
            None => self.search(catalog),
            Some(copy) => self.go_on_copying(catalog, copy),
        }
    }

    fn search<S: Storage<File = F>>(
        &mut self,
        catalog: &mut Catalog<S>,
    ) -> io::Result<Option<u64>> {
        let (segment, codec, end) = catalog.file(self.number)?;
        let range = self.at..end.min(segment.bytes_len()?);
        let mut scanner = Scanner::new(segment, codec, range);
        let (mut has_any, mut is_through) = (false, true);
        while let Some(found) = scanner.read_next() {
            has_any = fate(&found, &self.user, segment) != RecordFate::Kept;
            is_through = scanner.offset() < self.at + CHORE_BYTES;
            if has_any || !is_through {
                break;
            }
        }
        self.at = scanner.offset();
        if has_any || (is_through && !is_blank(segment, self.at..end)) {
            self.at = HEADER_BYTES;
            self.copy = Some(SegmentCopy::begin(&catalog.storage, self.number)?);
        } else if is_through {
            return Ok(Some(0));
        }
        Ok(None)
    }

    fn go_on_copying<S: Storage<File = F>>(
        &mut self,
        catalog: &mut Catalog<S>,
        mut copy: SegmentCopy<F>,
    ) -> io::Result<Option<u64>> {
        let (segment, codec, end) = catalog.file(self.number)?;
        let range = self.at..end.min(segment.bytes_len()?);
        let mut scanner = Scanner::new(segment, codec, range);
        let mut is_through = true;
        while let Some(found) = scanner.read_next() {
            let fate = fate(&found, &self.user, segment);
            copy.take(codec, &found, fate);
            is_through = scanner.offset() < self.at + CHORE_BYTES;
            if !is_through {
                break;
            }
        }
        self.at = scanner.offset();
        if is_through && self.at < end {
            copy.removed += u64::from(!is_blank(segment, self.at..end));
            copy.put_damage();
        }
        if is_through {
            copy.put_erasure(codec, &self.user);
        }
        copy.write()?;
        if !is_through {
            self.copy = Some(copy);
            return Ok(None);
        }
        let removed = copy.removed;
        copy.take_place(catalog, self.number)?;
        Ok(Some(removed))
    }
}

impl<F: StorageFile> SegmentCopy<F> {
    fn begin<S: Storage<File = F>>(storage: &S, number: u64) -> io::Result<Self> {
        let name = format!("{}{SPARE_END}", segment_name(number));
        // Left over from an attempt that failed.
        let _ = storage.unlink(&name);
        Ok(Self {
            file: storage.create(&name)?,
            name,
            end: HEADER_BYTES,
            bytes: Vec::new(),
            builder: IndexBuilder::new(number),
            removed: 0,
            own: None,
        })
    }

    /// Takes in what is left of what was found.
    fn take(&mut self, codec: &RecordCodec, found: &Found<'_>, fate: RecordFate<'_>) {
        let is_counted = fate != RecordFate::Kept && !is_snapshot(found);
        self.removed += u64::from(is_counted);
        match (fate, found) {
            (RecordFate::Tombstone(tombstone), _) => {
                let start = self.bytes.len();
                let encoded = codec.encode_tombstone(&tombstone, &mut self.bytes);
                debug_assert_eq!(encoded, Ok(()), "the event was longer");
                let length = self.bytes.len() - start;
                let view = RecordView::Tombstone(tombstone);
                let at = self.end + start as u64;
                self.builder.add(codec, at, length, &view);
            }
            // That they were is still told.
            (_, Found::Damage(_)) => self.put_damage(),
            (RecordFate::Gone, _) => {}
            (RecordFate::Own(range), _) => match &mut self.own {
                Some(own) => own.last = range.last,
                None => self.own = Some(range),
            },
            // It says where records were that are elsewhere now.
            (
                _,
                Found::Record {
                    view: RecordView::Mark(_),
                    ..
                },
            ) => {}
            (_, Found::Record { bytes, view, .. }) => {
                let at = self.end + self.bytes.len() as u64;
                self.builder.add(codec, at, bytes.len(), view);
                self.bytes.extend_from_slice(bytes);
            }
        }
    }

    /// In place of bytes of nobody knows whom: the least that is no record.
    fn put_damage(&mut self) {
        let at = self.end + self.bytes.len() as u64;
        self.builder.add_damage(at..at + ALIGNMENT as u64);
        self.bytes.extend_from_slice(&[0; ALIGNMENT]);
    }

    /// In place of what went of the user's own stream.
    fn put_erasure(&mut self, codec: &RecordCodec, user: &str) {
        let Some(own) = self.own else { return };
        let erasure = ErasureView {
            key: codec.stream_key(StreamKind::User, user),
            previous: own.previous,
            seq: own.last,
        };
        let start = self.bytes.len();
        codec.encode_erasure(&erasure, &mut self.bytes);
        let length = self.bytes.len() - start;
        let view = RecordView::Erasure(erasure);
        self.builder
            .add(codec, self.end + start as u64, length, &view);
    }

    fn write(&mut self) -> io::Result<()> {
        self.file
            .write_at(self.end, &mut [IoSlice::new(&self.bytes)])?;
        self.end += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }

    fn take_place<S: Storage<File = F>>(
        mut self,
        catalog: &mut Catalog<S>,
        number: u64,
    ) -> io::Result<()> {
        let end = self.end;
        self.builder.end_at(end, end);
        let Some(header) = catalog.header(number) else {
            return Ok(());
        };
        let header = SegmentHeader {
            rewritten_end: end,
            ..*header
        };
        self.file
            .write_at(0, &mut [IoSlice::new(&header.encode())])?;
        self.file.sync()?;
        // An index that says where records were would make them look damaged.
        match catalog.storage.unlink(&index_name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => catalog.storage.sync_dir()?,
        }
        catalog.storage.rename(&self.name, &segment_name(number))?;
        catalog.forget_files(number, end);
        let index = SealedIndex::from_bytes(number, self.builder.finish())?;
        catalog.set_index(number, index);
        catalog.storage.sync_dir()
    }
}

/// Events of the user's own stream, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnRange {
    /// The stream's head before the first.
    previous: Seq,
    last: Seq,
}

/// What becomes of something in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordFate<'b> {
    /// It is the user's, or bytes of nobody knows whom.
    Gone,
    Kept,
    /// An event of the user's own stream.
    Own(OwnRange),
    /// The user's, in a project's stream.
    Tombstone(TombstoneView<'b>),
}

fn fate<'b>(found: &Found<'b>, user: &str, segment: &impl StorageFile) -> RecordFate<'b> {
    let is_gone = match found {
        Found::Damage(range) => !is_blank(segment, range.clone()),
        Found::Record { view, .. } => match view {
            RecordView::Event(event) if event.user() == Some(user) => {
                let own = OwnRange {
                    previous: event.previous,
                    last: event.seq,
                };
                return event
                    .to_tombstone()
                    .map_or(RecordFate::Own(own), RecordFate::Tombstone);
            }
            // A project's may tell of the user, and is made anew from what is left.
            RecordView::Snapshot(snapshot) => {
                snapshot.kind == StreamKind::Project || snapshot.id == user
            }
            RecordView::Erasure(_)
            | RecordView::Event(_)
            | RecordView::Mark(_)
            | RecordView::Revocation(_)
            | RecordView::Tombstone(_)
            | RecordView::Unknown(_) => false,
        },
    };
    if is_gone {
        RecordFate::Gone
    } else {
        RecordFate::Kept
    }
}

/// A snapshot is no event: what it tells was told by those.
fn is_snapshot(found: &Found<'_>) -> bool {
    matches!(
        found,
        Found::Record {
            view: RecordView::Snapshot(_),
            ..
        }
    )
}

/// Whether bytes that are no record say nothing, as those that an earlier erasing left. What is not
/// in the file, or cannot be read, may have said something.
fn is_blank(segment: &impl StorageFile, range: Range<u64>) -> bool {
    let length = range.end.saturating_sub(range.start);
    let bytes = usize::try_from(length)
        .ok()
        .filter(|length| *length <= RECORD_BYTES_MAX)
        .and_then(|length| read_exact(segment, range.start, length).ok());
    bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
}
