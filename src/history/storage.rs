//! The little that the log asks of a file system, so that tests can stand in for a failing one.
//! All calls block. Names are plain file names within the log's directory.
//!
//! What a caller may rely on, and no more: bytes are kept once `sync` has succeeded, names once
//! `sync_dir` has. After a failed `sync` nothing since the last good one is known to be kept, and
//! a second `sync` of that file proves nothing (PostgreSQL's "fsyncgate").

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FallocateFlags, fallocate};

/// A directory of the log's own.
pub trait Storage: Clone + Debug + Send + 'static {
    /// An open file.
    type File: StorageFile;
    /// What keeps other processes out as long as it lives.
    type Lock: Debug + Send + 'static;

    /// Keeps other processes out; `None` where one is already inside.
    fn lock(&self) -> io::Result<Option<Self::Lock>>;
    /// The names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a file that was not there, to be read and written.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file to be read.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, in one step, in place of any file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Cuts a file off after `bytes` bytes, and makes sure that it stays so.
    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()>;
    /// Takes a name away; the file goes with its last user.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// Makes sure that names made, changed and taken away so far stay so.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One file of a [`Storage`].
pub trait StorageFile: Debug + Send + 'static {
    /// Its length in bytes.
    fn bytes_len(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset` on. Returns how many bytes there were: fewer than asked for only
    /// at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `slices`, one after the other, from `offset` on. After an error any part of
    /// them may have been written.
    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Takes room for `bytes` bytes, which read as zeros; the file is that long then. Where the file
    /// system knows no such thing nothing happens.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes sure that what was written stays, and the length with it.
    fn sync(&self) -> io::Result<()>;
}

/// Reads exactly `length` bytes. Errors: `UnexpectedEof`, and those of the file.
pub fn read_exact(file: &impl StorageFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    match file.read_at(offset, &mut buffer)? {
        read if read == length => Ok(buffer),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A directory of a real file system.
#[derive(Clone, Debug)]
pub struct DiskStorage {
    folder: PathBuf,
    // The folder, from its first sync on: a failed write of names is told to a file that was open.
    opened: Arc<OnceLock<File>>,
}

impl DiskStorage {
    /// The directory `folder`, made where it is not there, with all above it. Errors: of the file
    /// system.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let mut unsynced = unsynced_parents(folder);
        fs::create_dir_all(folder)?;
        // A name is kept once the directory that has it is synced.
        unsynced.try_for_each(|parent| File::open(parent)?.sync_all())?;
        Ok(Self::existing(folder))
    }

    /// The directory `folder`, which is there; nothing is made.
    pub fn existing(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            opened: Arc::default(),
        }
    }
}

impl Storage for DiskStorage {
    type File = DiskFile;
    type Lock = File;

    fn lock(&self) -> io::Result<Option<File>> {
        let path = self.folder.join(LOCK_NAME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.folder)?;
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        entries
            .filter_map(|entry| name(entry).transpose())
            .collect()
    }

    fn create(&self, name: &str) -> io::Result<DiskFile> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        options.open(self.folder.join(name)).map(DiskFile)
    }

    fn open(&self, name: &str) -> io::Result<DiskFile> {
        File::open(self.folder.join(name)).map(DiskFile)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .open(self.folder.join(name))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let folder = match self.opened.get() {
            Some(folder) => folder,
            None => {
                let folder = File::open(&self.folder)?;
                self.opened.get_or_init(|| folder)
            }
        };
        folder.sync_all()
    }
}

/// The directories whose names of others may not be kept yet once `folder` was made: its parent,
/// which another process may have left unsynced, and the parent of each level that is not there.
fn unsynced_parents(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let is_made = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let made = folder.ancestors().skip(1).take_while(is_made).count();
    let parent = |folder: &Path| match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let levels = folder.ancestors().take(1 + made);
    let parents: Vec<_> = levels.map(parent).collect();
    parents.into_iter()
}

/// The lock's file; it is never taken away, or two processes could hold two files of that name.
const LOCK_NAME: &str = "lock";

/// A file of a real file system.
#[derive(Debug)]
pub struct DiskFile(File);

impl StorageFile for DiskFile {
    fn bytes_len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.0.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, mut offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut rest = slices;
        // Empty slices in front would look like a write that wrote nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let some = rest.len().min(SLICES_MAX);
            match rustix::io::pwritev(&self.0, &rest[..some], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Slices of one vectored write (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1_024;

/// Makes an empty file with room for a segment; it gets a segment's name when it is one.
/// Errors: of the storage; then there is no file.
pub fn create_spare<S: Storage>(storage: &S, name: &str, bytes: u64) -> io::Result<S::File> {
    // Left over from an attempt that failed.
    let _ = storage.unlink(name);
    let file = storage.create(name)?;
    if let Err(error) = file.allocate(bytes) {
        let _ = storage.unlink(name);
        return Err(error);
    }
    Ok(file)
}

/// How files end that are not part of the log yet.
pub const SPARE_END: &str = ".new";

/// Whether the storage says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), QuotaExceeded | StorageFull)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_second_process_is_kept_out_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::create(&folder.path().join("log")).unwrap();
        let lock = storage.lock().unwrap();
        assert!(lock.is_some());
        assert!(storage.lock().unwrap().is_none());
        drop(lock);
        assert!(storage.lock().unwrap().is_some());
    }

    #[test]
    fn every_level_that_is_made_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let check = |path: &str, expected: &[&str]| {
            let parents = unsynced_parents(&folder.path().join(path));
            let expected = expected.iter().map(|path| folder.path().join(path));
            assert!(parents.eq(expected), "{path}");
        };
        check("a/b/c", &["a/b", "a", ""]);
        check("a", &[""]);
        DiskStorage::create(&folder.path().join("a/b/c")).unwrap();
        check("a/b/c", &["a/b"]);
        check("a/b/d/e", &["a/b/d", "a/b"]);
        assert!(unsynced_parents(Path::new("log")).eq([PathBuf::from(".")]));
    }

    #[test]
    fn slices_are_written_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::existing(folder.path());
        let file = storage.create("a").unwrap();
        let many: Vec<u8> = (0..=255).cycle().take(SLICES_MAX + 500).collect();
        let mut slices: Vec<_> = many.chunks(1).map(IoSlice::new).collect();
        slices.insert(0, IoSlice::new(&[]));
        file.write_at(3, &mut slices).unwrap();
        file.sync().unwrap();
        storage.rename("a", "b").unwrap();
        storage.sync_dir().unwrap();
        let file = storage.open("b").unwrap();
        assert_eq!(file.bytes_len().unwrap(), 3 + many.len() as u64);
        assert_eq!(read_exact(&file, 3, many.len()).unwrap(), many);
        assert!(read_exact(&file, 4, many.len()).is_err());
        storage.unlink("b").unwrap();
        assert!(storage.list().unwrap().is_empty());
    }

    #[test]
    fn allocated_room_reads_as_zeros_and_is_not_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let storage = DiskStorage::existing(folder.path());
        let file = storage.create("a").unwrap();
        file.allocate(1 << 20).unwrap();
        let length = file.bytes_len().unwrap();
        assert!(length == 0 || length == 1 << 20, "{length}");
        let twice = storage.create("a").map(drop).map_err(|error| error.kind());
        assert_eq!(twice, Err(io::ErrorKind::AlreadyExists));
    }
}
