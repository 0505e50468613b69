//! Taking a user's events out of a segment that is no longer written. A first pass looks whether it
//! has any; only then the rest is copied, and the copy takes the segment's place in one step.

use std::io::{self, IoSlice};

use crate::event::StreamKind;
use crate::event::record::RecordView;
use crate::history::catalog::Catalog;
use crate::history::index::{IndexBuilder, SealedIndex};
use crate::history::segment::{
    Found, HEADER_BYTES, Scanner, SegmentHeader, index_name, segment_name,
};
use crate::history::storage::{Storage, StorageFile};
use crate::history::writer::SPARE_END;
use crate::limits::CHORE_BYTES;

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
    end: u64,
    builder: IndexBuilder,
    removed: u64,
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
            has_any = goes(&found, &self.user);
            is_through = scanner.offset() < self.at + CHORE_BYTES;
            if has_any || !is_through {
                break;
            }
        }
        self.at = scanner.offset();
        // What is no record at the end may be anybody's.
        if has_any || (is_through && self.at < end) {
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
        let (mut kept, mut is_through) = (Vec::new(), true);
        while let Some(found) = scanner.read_next() {
            let at = copy.end + kept.len() as u64;
            match found {
                Found::Damage(_) => copy.leave_out_damage(at),
                found if goes(&found, &self.user) => copy.removed += 1,
                // It says where records were that are elsewhere now.
                Found::Record {
                    view: RecordView::Mark(_),
                    ..
                } => {}
                Found::Record { bytes, view, .. } => {
                    copy.builder.add(codec, at, bytes.len(), &view);
                    kept.extend_from_slice(bytes);
                }
            }
            is_through = scanner.offset() < self.at + CHORE_BYTES;
            if !is_through {
                break;
            }
        }
        self.at = scanner.offset();
        copy.file.write_at(copy.end, &mut [IoSlice::new(&kept)])?;
        copy.end += kept.len() as u64;
        if !is_through {
            self.copy = Some(copy);
            return Ok(None);
        }
        if self.at < end {
            copy.leave_out_damage(copy.end);
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
            builder: IndexBuilder::new(number),
            removed: 0,
        })
    }

    /// Nobody knows whose these bytes were; that they were is still told.
    fn leave_out_damage(&mut self, at: u64) {
        self.builder.add_damage(at..at);
        self.removed += 1;
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

/// Whether what was found is not to be kept: the user's, or nobody knows whose.
fn goes(found: &Found<'_>, user: &str) -> bool {
    match found {
        Found::Damage(_) => true,
        Found::Record { view, .. } => match view {
            RecordView::Event(event) => event.user() == Some(user),
            RecordView::Snapshot(snapshot) => {
                snapshot.kind == StreamKind::User && snapshot.id == user
            }
            RecordView::Mark(_) | RecordView::Revocation(_) | RecordView::Unknown(_) => false,
        },
    }
}
