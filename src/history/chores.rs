//! Work on the log that may take its time, in bounded steps, on the thread of the catalog: the
//! indices of segments that are no longer written, room for the next one, filled with zeros,
//! unlinking, and taking a user's events out.
//!
//! Any step may be the last one before the power fails. An index can be made again; a segment is
//! replaced in one step, after its old index is gone.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use super::catalog::Catalog;
use super::catalog::reading::known_end;
use super::index::IndexBuilder;
use super::segment::{HEADER_BYTES, Scanner};
use super::storage::{SPARE_END, Storage, StorageFile, create_spare};
use crate::limits::{CHORE_BYTES, FILL_BYTES};

mod erasing;

use erasing::Erasing;

/// What waits to be done, and what is under way. See the module.
#[derive(Debug)]
pub struct Chores<S: Storage> {
    segment_bytes: u64,
    is_spare_wanted: bool,
    spares: u64,
    erasures: VecDeque<(u64, String)>,
    // Until all that was garbage meanwhile is gone too.
    is_erasing: bool,
    // Names were taken away, and may come back.
    has_unlinked: bool,
    running: Option<Running<S>>,
    filling: Option<Filling<S::File>>,
    // Up to where it may be at present.
    fill_max: u64,
    newest: u64,
    erased: u64,
}

#[derive(Debug)]
enum Running<S: Storage> {
    Erasing(Erasing<S::File>),
    Sealing(Sealing),
}

/// A spare that is being filled with zeros, up to `at`.
#[derive(Debug)]
struct Filling<F> {
    name: String,
    file: F,
    at: u64,
}

/// A segment whose index is being made.
#[derive(Debug)]
struct Sealing {
    number: u64,
    at: u64,
    builder: IndexBuilder,
}

/// What a step did.
#[derive(Debug)]
pub enum ChoreStep<F> {
    /// There is nothing to do.
    Idle,
    /// Room for a segment: for the writer, see `Writer::offer_spare`.
    Spare(String, F),
    /// Some of it was done.
    Worked,
}

impl<S: Storage> Chores<S> {
    /// For a log whose segments have so many bytes.
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            is_spare_wanted: false,
            spares: 0,
            erasures: VecDeque::new(),
            is_erasing: false,
            has_unlinked: false,
            running: None,
            filling: None,
            fill_max: u64::MAX,
            newest: 0,
            erased: 0,
        }
    }

    /// Asks for room for the next segment; `step` returns it, unless the storage refuses.
    pub fn want_spare(&mut self) {
        self.is_spare_wanted = self.filling.is_none();
    }

    /// Lets room be filled up to so many bytes for the present; without a word, all of it.
    pub fn set_fill_max(&mut self, bytes: u64) {
        self.fill_max = bytes;
    }

    /// Whether room is being filled.
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// Takes all events that name `user` out of the segments that are no longer written. Those of
    /// the open one follow once the writer has rolled. What is left says that they were there, and
    /// nothing of the user.
    pub fn erase(&mut self, catalog: &Catalog<S>, user: &str) {
        let numbers = catalog.numbers();
        let closed = numbers.len().saturating_sub(1);
        self.is_erasing = true;
        self.erasures
            .extend(numbers.take(closed).map(|number| (number, user.to_owned())));
    }

    /// How many records were taken out by `erase` so far, damaged ones of nobody knows whom included.
    pub fn erased(&self) -> u64 {
        self.erased
    }

    /// Whether an `erase` is under way: nothing of the user is in any file of the log once it is not,
    /// but for what is written since.
    pub fn is_erasing(&self) -> bool {
        self.is_erasing
    }

    /// Does the next bit of what is to be done. Errors: of the storage; what was under way is begun
    /// anew by a later step.
    pub fn step(&mut self, catalog: &mut Catalog<S>) -> io::Result<ChoreStep<S::File>> {
        if let Some(running) = self.running.take() {
            self.running = match running {
                Running::Erasing(erasing) => self.go_on_erasing(catalog, erasing)?,
                Running::Sealing(sealing) => go_on_sealing(catalog, sealing)?,
            };
            return Ok(ChoreStep::Worked);
        }
        // First of all: everything else takes room, which a full disk has not.
        if let Some(name) = catalog.garbage.last() {
            match catalog.storage.unlink(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => catalog.garbage.pop(),
            };
            self.has_unlinked = true;
            return Ok(ChoreStep::Worked);
        }
        if self.has_unlinked {
            catalog.storage.sync_dir()?;
            self.has_unlinked = false;
            return Ok(ChoreStep::Worked);
        }
        if let Some(step) = self.step_spare(catalog) {
            return Ok(step);
        }
        let newest = catalog.newest().map_or(0, |newest| newest.number);
        if self.newest != newest {
            catalog.write_newest()?;
            self.newest = newest;
            return Ok(ChoreStep::Worked);
        }
        if let Some(number) = catalog.unsealed() {
            self.running = begin_sealing(catalog, number)?;
            return Ok(ChoreStep::Worked);
        }
        if let Some((number, user)) = self.erasures.front().cloned() {
            self.running = Some(Running::Erasing(Erasing::new(number, user)));
            return Ok(ChoreStep::Worked);
        }
        self.is_erasing = false;
        Ok(ChoreStep::Idle)
    }

    /// Room for the next segment, if it is wanted. Where the storage refuses there is none: the writer
    /// can do without, and says itself what ails the disk.
    fn step_spare(&mut self, catalog: &Catalog<S>) -> Option<ChoreStep<S::File>> {
        if std::mem::take(&mut self.is_spare_wanted) {
            self.spares += 1;
            let name = format!("spare-{}{SPARE_END}", self.spares);
            let file = create_spare(&catalog.storage, &name, self.segment_bytes).ok();
            self.filling = file.map(|file| Filling { name, file, at: 0 });
            return Some(ChoreStep::Worked);
        }
        let mut filling = self.filling.take()?;
        // Who is to be taken out does not wait for zeros.
        if filling.at >= self.segment_bytes || !self.erasures.is_empty() {
            return Some(ChoreStep::Spare(filling.name, filling.file));
        }
        if filling.at >= self.fill_max {
            self.filling = Some(filling);
            return None;
        }
        if filling.go_on(self.segment_bytes).is_ok() {
            self.filling = Some(filling);
        } else {
            // If it stays, the next opening takes it away.
            let _ = catalog.storage.unlink(&filling.name);
        }
        Some(ChoreStep::Worked)
    }

    fn go_on_erasing(
        &mut self,
        catalog: &mut Catalog<S>,
        mut erasing: Erasing<S::File>,
    ) -> io::Result<Option<Running<S>>> {
        let Some(removed) = erasing.step(catalog)? else {
            return Ok(Some(Running::Erasing(erasing)));
        };
        self.erased += removed;
        self.erasures.pop_front();
        Ok(None)
    }
}

impl<F: StorageFile> Filling<F> {
    /// Writes some zeros. Room that was only allocated becomes part of the file when it is written:
    /// in ext4 a kernel thread sees to that before a sync succeeds, and where all CPUs are busy a
    /// commit would wait some 3 ms until it has one. Errors: of the storage.
    fn go_on(&mut self, segment_bytes: u64) -> io::Result<()> {
        let bytes = FILL_BYTES.min(segment_bytes - self.at);
        let zeros = vec![0; bytes as usize];
        self.file.write_at(self.at, &mut [IoSlice::new(&zeros)])?;
        self.file.sync()?;
        self.at += bytes;
        Ok(())
    }
}

fn begin_sealing<S: Storage>(
    catalog: &mut Catalog<S>,
    number: u64,
) -> io::Result<Option<Running<S>>> {
    if let Some(bytes) = catalog.unsaved_index(number) {
        let bytes = bytes.to_vec();
        catalog.seal(number, &bytes)?;
        return Ok(None);
    }
    let builder = IndexBuilder::new(number);
    Ok(Some(Running::Sealing(Sealing {
        number,
        at: HEADER_BYTES,
        builder,
    })))
}

/// Reads some records; at the end the index is saved.
fn go_on_sealing<S: Storage>(
    catalog: &mut Catalog<S>,
    mut sealing: Sealing,
) -> io::Result<Option<Running<S>>> {
    let number = sealing.number;
    if !catalog.has(number) {
        return Ok(None);
    }
    let (file, codec, end) = catalog.file(number)?;
    let range = sealing.at..end.min(file.bytes_len()?);
    let mut scanner = Scanner::new(file, codec, range);
    while let Some(found) = scanner.read_next() {
        sealing.builder.add_found(codec, &found);
        if scanner.offset() >= sealing.at + CHORE_BYTES {
            sealing.at = scanner.offset();
            return Ok(Some(Running::Sealing(sealing)));
        }
    }
    let reached = scanner.offset();
    sealing
        .builder
        .end_at(reached, known_end(file, reached, end)?);
    catalog.seal(number, &sealing.builder.finish())?;
    Ok(None)
}

#[cfg(test)]
mod tests;
