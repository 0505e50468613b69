//! A storage that fails as real ones do, all of it from one seed.
//!
//! A file's bytes are kept by sectors of 512 bytes. What was written since the last good `sync` is
//! pending: a power cut keeps, for each sector, any of the states that it went through, and of the
//! names that changed since the last `sync_dir` any subset. A failed `sync` drops pending sectors:
//! they still read as written, but no later `sync` brings them to disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{Storage, StorageFile};

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of 100 writes so many fail, after writing a part.
    pub write_error_percent: u64,
    /// Of 100 syncs so many fail.
    pub sync_error_percent: u64,
    /// Bytes that fit; `None`: as many as are asked for.
    pub capacity_bytes: Option<u64>,
    /// Nothing may be changed.
    pub is_read_only: bool,
    /// Nanoseconds that each sync takes, see [`SimStorage::take_delay_ns`].
    pub sync_ns: u64,
    /// The process dies before the change with this number from now; later ones fail too.
    pub dies_after_changes: Option<u64>,
}

/// A simulated directory. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct SimStorage(Arc<Mutex<Disk>>);

/// An open file of a [`SimStorage`].
#[derive(Debug)]
pub struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    boot: u64,
}

/// Keeps other "processes" out.
#[derive(Debug)]
pub struct SimLock {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
}

#[derive(Clone, Debug)]
struct Disk {
    dice: u64,
    faults: Faults,
    inodes: BTreeMap<u64, Inode>,
    inodes_made: u64,
    names: BTreeMap<String, u64>,
    names_kept: BTreeMap<String, u64>,
    names_pending: Vec<Renaming>,
    // Rises with each death: what was opened before is of no use after.
    boot: u64,
    is_locked: bool,
    changes: u64,
    files_open: u64,
    delay_ns: u64,
}

/// One step of a directory; power cuts keep all of it or nothing.
#[derive(Clone, Debug)]
struct Renaming {
    gone: Option<String>,
    made: Option<(String, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    kept: Vec<u8>,
    // The states that each sector went through since the last good sync, the present one last.
    pending: BTreeMap<usize, Vec<[u8; SECTOR]>>,
}

const SECTOR: usize = 512;

impl SimStorage {
    /// An empty directory, whose chances come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            dice: seed,
            faults: Faults::default(),
            inodes: BTreeMap::new(),
            inodes_made: 0,
            names: BTreeMap::new(),
            names_kept: BTreeMap::new(),
            names_pending: Vec::new(),
            boot: 0,
            is_locked: false,
            changes: 0,
            files_open: 0,
            delay_ns: 0,
        })))
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut disk = lock(&self.0);
        disk.faults = faults;
        disk.changes = 0;
    }

    /// The process ends at once; the system goes on.
    pub fn kill(&self) {
        let mut disk = lock(&self.0);
        disk.boot += 1;
        disk.is_locked = false;
    }

    /// The power fails.
    pub fn power_cut(&self) {
        self.kill();
        lock(&self.0).power_cut();
    }

    /// A copy of the directory as it is now, all of it kept, with chances of its own.
    pub fn copied(&self, seed: u64) -> Self {
        let mut disk = lock(&self.0).clone();
        disk.dice = seed;
        disk.faults = Faults::default();
        disk.is_locked = false;
        disk.files_open = 0;
        for inode in disk.inodes.values_mut() {
            inode.keep_all();
        }
        disk.names_kept = disk.names.clone();
        disk.names_pending.clear();
        Self(Arc::new(Mutex::new(disk)))
    }

    /// A copy of the directory as it is now, what is pending included, with chances of its own.
    pub fn with_chances(&self, seed: u64) -> Self {
        let mut disk = lock(&self.0).clone();
        disk.dice = seed;
        disk.files_open = 0;
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Changes one byte of a file behind everybody's back, on disk too. Nothing where there is none.
    pub fn corrupt(&self, name: &str, offset: u64, change: u8) {
        let mut disk = lock(&self.0);
        let inode = disk.names.get(name).copied();
        if let Some(inode) = inode.and_then(|inode| disk.inodes.get_mut(&inode)) {
            let at = offset as usize;
            for bytes in [&mut inode.bytes, &mut inode.kept] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= change;
                }
            }
        }
    }

    /// Cuts a file off behind everybody's back, on disk too. Nothing where there is none.
    pub fn cut(&self, name: &str, length: u64) {
        let mut disk = lock(&self.0);
        let inode = disk.names.get(name).copied();
        if let Some(inode) = inode.and_then(|inode| disk.inodes.get_mut(&inode)) {
            inode.cut(length as usize);
        }
    }

    /// Nanoseconds that syncs have taken since the last call.
    pub fn take_delay_ns(&self) -> u64 {
        std::mem::take(&mut lock(&self.0).delay_ns)
    }

    /// Changes so far since the last `set_faults`: what `dies_after_changes` counts.
    pub fn changes(&self) -> u64 {
        lock(&self.0).changes
    }

    /// Bytes that may still be written.
    pub fn free_bytes(&self) -> u64 {
        lock(&self.0).free_bytes()
    }

    /// Files that are open now.
    pub fn open_files(&self) -> u64 {
        lock(&self.0).files_open
    }

    /// Whether the process should be dead by now.
    pub fn has_died(&self) -> bool {
        let disk = lock(&self.0);
        disk.faults
            .dies_after_changes
            .is_some_and(|after| disk.changes > after)
    }
}

impl Storage for SimStorage {
    type File = SimFile;
    type Lock = SimLock;

    fn lock(&self) -> io::Result<Option<SimLock>> {
        let mut disk = lock(&self.0);
        if std::mem::replace(&mut disk.is_locked, true) {
            return Ok(None);
        }
        Ok(Some(SimLock {
            disk: Arc::clone(&self.0),
            boot: disk.boot,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = lock(&self.0);
        disk.change()?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if disk.free_bytes() == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.inodes_made += 1;
        let inode = disk.inodes_made;
        disk.inodes.insert(inode, Inode::default());
        disk.rename(Renaming {
            gone: None,
            made: Some((name.to_owned(), inode)),
        });
        disk.files_open += 1;
        Ok(SimFile {
            disk: Arc::clone(&self.0),
            inode,
            boot: disk.boot,
        })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut disk = lock(&self.0);
        let inode = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        disk.files_open += 1;
        Ok(SimFile {
            disk: Arc::clone(&self.0),
            inode,
            boot: disk.boot,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = lock(&self.0);
        disk.change()?;
        let inode = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        let gone = Some(from.to_owned());
        disk.rename(Renaming {
            gone,
            made: Some((to.to_owned(), inode)),
        });
        Ok(())
    }

    fn truncate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut disk = lock(&self.0);
        disk.change()?;
        let inode = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        disk.inode(inode)?.cut(bytes as usize);
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut disk = lock(&self.0);
        disk.change()?;
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.rename(Renaming {
            gone: Some(name.to_owned()),
            made: None,
        });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = lock(&self.0);
        disk.change()?;
        disk.sync_fault()?;
        disk.names_kept = disk.names.clone();
        disk.names_pending.clear();
        Ok(())
    }
}

impl StorageFile for SimFile {
    fn bytes_len(&self) -> io::Result<u64> {
        Ok(self.disk()?.inode(self.inode)?.bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk()?;
        let bytes = &disk.inode(self.inode)?.bytes;
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let mut disk = self.disk()?;
        disk.change()?;
        let end = offset as usize + bytes.len();
        let grows = end.saturating_sub(disk.inode(self.inode)?.bytes.len()) as u64;
        let lacking = grows.saturating_sub(disk.free_bytes()) as usize;
        let percent = disk.faults.write_error_percent;
        let is_failing = disk.chance(percent);
        let fitting = match (lacking, is_failing) {
            (0, false) => bytes.len(),
            (0, true) => disk.below(bytes.len() + 1),
            _ => bytes.len() - lacking.min(bytes.len()),
        };
        disk.inode(self.inode)?
            .write(offset as usize, &bytes[..fitting]);
        match (lacking, is_failing) {
            (0, false) => Ok(()),
            (0, true) => Err(io::Error::other("input/output error")),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.change()?;
        let grows = bytes.saturating_sub(disk.inode(self.inode)?.bytes.len() as u64);
        if grows > disk.free_bytes() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = disk.inode(self.inode)?;
        inode.bytes.resize(inode.bytes.len().max(bytes as usize), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.change()?;
        if let Err(error) = disk.sync_fault() {
            let mut dice = disk.dice;
            disk.inode(self.inode)?.drop_pending(&mut dice);
            disk.dice = dice;
            return Err(error);
        }
        disk.inode(self.inode)?.sync();
        Ok(())
    }
}

impl SimFile {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = lock(&self.disk);
        if disk.boot != self.boot {
            return Err(io::Error::other("opened by a process that is dead"));
        }
        Ok(disk)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        lock(&self.disk).files_open -= 1;
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        if disk.boot == self.boot {
            disk.is_locked = false;
        }
    }
}

impl Disk {
    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        let missing = || io::Error::other("the file went with the power");
        self.inodes.get_mut(&inode).ok_or_else(missing)
    }

    /// Counts a change, and refuses it where none may be made.
    fn change(&mut self) -> io::Result<()> {
        self.changes += 1;
        if self
            .faults
            .dies_after_changes
            .is_some_and(|after| self.changes > after)
        {
            return Err(io::Error::other("the process is dead"));
        }
        if self.faults.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    fn sync_fault(&mut self) -> io::Result<()> {
        self.delay_ns += self.faults.sync_ns;
        if self.chance(self.faults.sync_error_percent) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn free_bytes(&self) -> u64 {
        let Some(capacity) = self.faults.capacity_bytes else {
            return u64::MAX;
        };
        let used: usize = self
            .names
            .values()
            .map(|inode| self.inodes[inode].bytes.len())
            .sum();
        capacity.saturating_sub(used as u64)
    }

    fn rename(&mut self, renaming: Renaming) {
        apply(&mut self.names, &renaming);
        self.names_pending.push(renaming);
    }

    fn power_cut(&mut self) {
        for renaming in std::mem::take(&mut self.names_pending) {
            if self.chance(50) {
                apply(&mut self.names_kept, &renaming);
            }
        }
        self.names = self.names_kept.clone();
        let reachable: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| reachable.contains(inode));
        let mut dice = self.dice;
        for inode in self.inodes.values_mut() {
            inode.power_cut(&mut dice);
        }
        self.dice = dice;
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && roll(&mut self.dice) % 100 < percent
    }

    fn below(&mut self, count: usize) -> usize {
        (roll(&mut self.dice) % count.max(1) as u64) as usize
    }
}

fn apply(names: &mut BTreeMap<String, u64>, renaming: &Renaming) {
    if let Some(gone) = &renaming.gone {
        names.remove(gone);
    }
    if let Some((made, inode)) = &renaming.made {
        names.insert(made.clone(), *inode);
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset..end].copy_from_slice(bytes);
        if bytes.is_empty() {
            return;
        }
        for sector in offset / SECTOR..=(end - 1) / SECTOR {
            let state = sector_of(&self.bytes, sector);
            self.pending.entry(sector).or_default().push(state);
        }
    }

    fn cut(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.kept.truncate(length);
        self.pending.retain(|sector, _| sector * SECTOR < length);
    }

    fn sync(&mut self) {
        self.kept.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.pending).into_keys() {
            let state = sector_of(&self.bytes, sector);
            put_sector(&mut self.kept, sector, &state);
        }
    }

    fn keep_all(&mut self) {
        self.pending.clear();
        self.kept.clone_from(&self.bytes);
    }

    /// A failed sync: some pending sectors made it, the others are forgotten.
    fn drop_pending(&mut self, dice: &mut u64) {
        self.kept.resize(self.bytes.len(), 0);
        for (sector, states) in std::mem::take(&mut self.pending) {
            if let Some(state) = states.last().filter(|_| roll(dice).is_multiple_of(2)) {
                put_sector(&mut self.kept, sector, state);
            }
        }
    }

    fn power_cut(&mut self, dice: &mut u64) {
        if roll(dice).is_multiple_of(2) {
            self.kept.resize(self.bytes.len(), 0);
        }
        for (sector, states) in std::mem::take(&mut self.pending) {
            let choice = (roll(dice) % (states.len() as u64 + 1)) as usize;
            if let Some(state) = states.get(choice) {
                if self.kept.len() <= sector * SECTOR {
                    continue;
                }
                put_sector(&mut self.kept, sector, state);
            }
        }
        self.bytes.clone_from(&self.kept);
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> [u8; SECTOR] {
    let mut state = [0; SECTOR];
    let start = sector * SECTOR;
    let end = bytes.len().min(start + SECTOR);
    state[..end - start].copy_from_slice(&bytes[start..end]);
    state
}

fn put_sector(bytes: &mut [u8], sector: usize, state: &[u8; SECTOR]) {
    let start = sector * SECTOR;
    let end = bytes.len().min(start + SECTOR);
    bytes[start..end].copy_from_slice(&state[..end - start]);
}

/// The next number of a seed's sequence (SplitMix64).
fn roll(dice: &mut u64) -> u64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *dice;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::storage::read_exact;
    use super::*;

    fn write(file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_at(offset, &mut [IoSlice::new(bytes)])
    }

    fn content(storage: &SimStorage, name: &str) -> Option<Vec<u8>> {
        let file = storage.open(name).ok()?;
        let length = file.bytes_len().unwrap() as usize;
        Some(read_exact(&file, 0, length).unwrap())
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
        let (mut with_name, mut whole, mut partly) = (0, 0, 0);
        for seed in 0..200 {
            let storage = SimStorage::new(seed);
            let file = storage.create("a").unwrap();
            write(&file, 0, &[1; 512]).unwrap();
            file.sync().unwrap();
            if seed % 2 == 0 {
                storage.sync_dir().unwrap();
            }
            write(&file, 512, &[2; 2_048]).unwrap();
            storage.power_cut();
            assert!(write(&file, 0, &[3]).is_err(), "the writer is dead");
            let Some(bytes) = content(&storage, "a") else {
                assert_eq!(seed % 2, 1, "the name was synced");
                continue;
            };
            with_name += seed % 2;
            assert_eq!(bytes[..512], [1; 512]);
            let sectors: BTreeSet<u8> = bytes[512..].iter().copied().collect();
            whole += u32::from(sectors == BTreeSet::from([2]));
            partly += u32::from(sectors == BTreeSet::from([0, 2]));
        }
        assert!(
            with_name > 20 && whole > 2 && partly > 20,
            "{with_name} {whole} {partly}"
        );
    }

    #[test]
    fn after_a_failed_sync_a_second_one_proves_nothing() {
        let mut lost = 0;
        for seed in 0..50 {
            let storage = SimStorage::new(seed);
            let file = storage.create("a").unwrap();
            storage.sync_dir().unwrap();
            write(&file, 0, &[1; 512]).unwrap();
            storage.set_faults(Faults {
                sync_error_percent: 100,
                ..Faults::default()
            });
            assert!(file.sync().is_err());
            storage.set_faults(Faults::default());
            file.sync().unwrap();
            assert_eq!(content(&storage, "a"), Some(vec![1; 512]));
            storage.power_cut();
            lost += u32::from(content(&storage, "a") != Some(vec![1; 512]));
        }
        assert!(lost > 10, "{lost}");
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let storage = SimStorage::new(1);
        let file = storage.create("a").unwrap();
        let capacity_bytes = Some(1_000);
        storage.set_faults(Faults {
            capacity_bytes,
            ..Faults::default()
        });
        let full = write(&file, 0, &[1; 1_500]).map_err(|error| error.kind());
        assert_eq!(full, Err(io::ErrorKind::StorageFull));
        assert_eq!(file.bytes_len().unwrap(), 1_000);
        assert!(storage.create("b").is_err());
        write(&file, 0, &[2; 1_000]).unwrap();
    }
}
