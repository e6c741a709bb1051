//! A disk in memory that behaves as badly as a real one may.
//!
//! What was not synced may be lost at a power cut, sector by sector and in any order; names not synced are lost
//! from the latest backwards (file systems journal them in order). A write can be cut in its middle, an operation
//! can fail, the disk can run full. After a failed sync the data stays visible but will never be written, as on
//! Linux. The same seed and the same operations give the same outcome.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{File, Files};

/// Smallest unit that is written whole or not at all.
const SECTOR: usize = 512;

/// Operations that count, can crash and can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Rename,
    Remove,
    SyncDir,
    Write,
    Allocate,
    Sync,
}

/// What a restart finds of that which was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Everything is there: only the process died.
    Nothing,
    /// A random part is there: the power failed.
    Some,
    /// None of it is there.
    All,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    random: SmallRng,
    /// Handles of an earlier generation are dead: their process died.
    generation: u64,
    files: Vec<Contents>,
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    failing: Vec<(Operation, u64, io::ErrorKind)>,
    capacity: Option<u64>,
    sync_latency: Duration,
}

#[derive(Debug, Default)]
struct Contents {
    visible: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, file) => drop(names.insert(path.clone(), *file)),
        NameChange::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        NameChange::Remove(path) => drop(names.remove(path)),
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, part: &[u8]) {
    let end = offset + part.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(part);
}

impl SimDisk {
    /// An empty, healthy disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            random: SmallRng::seed_from_u64(seed),
            generation: 0,
            files: Vec::new(),
            directories: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            locks: BTreeSet::new(),
            operations: 0,
            crash_at: None,
            crashed: false,
            failing: Vec::new(),
            capacity: None,
            sync_latency: Duration::ZERO,
        })))
    }

    /// Stop everything in the middle of the `n`-th counted operation from now (0 is the next): it takes partial
    /// effect, it and all later ones fail until [`SimDisk::restart`].
    pub fn crash_after(&self, n: u64) {
        let mut disk = self.disk();
        disk.crash_at = Some(disk.operations + n);
    }

    /// Stop everything now.
    pub fn crash(&self) {
        self.disk().crashed = true;
    }

    /// Whether the disk has crashed.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.disk().crashed
    }

    /// Counted operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Let the `n`-th operation of this sort from now (0 is the next) fail without effect; a sync that fails also
    /// forgets for good what it should have written.
    pub fn fail(&self, operation: Operation, n: u64, error: io::ErrorKind) {
        self.disk().failing.push((operation, n, error));
    }

    /// Limit the total length of all files; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Let each sync of a file take this long.
    pub fn set_sync_latency(&self, latency: Duration) {
        self.disk().sync_latency = latency;
    }

    /// Total length of all files.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Come back after a crash or a plain end of the process; what was not synced fares as `loss` says. All
    /// handles and locks are dead, all faults are gone.
    pub fn restart(&self, loss: Loss) {
        let mut disk = self.disk();
        let disk = &mut *disk;
        disk.generation += 1;
        disk.locks.clear();
        disk.failing.clear();
        disk.crash_at = None;
        disk.crashed = false;
        if loss == Loss::Nothing {
            return;
        }
        let kept = [0.0, 0.1, 0.5, 0.9][disk.random.random_range(0..4)];
        let kept = if loss == Loss::All { 0.0 } else { kept };
        for file in &mut disk.files {
            for (offset, bytes) in std::mem::take(&mut file.unsynced) {
                let mut at = 0;
                while at < bytes.len() {
                    let end = (((offset + at) / SECTOR + 1) * SECTOR - offset).min(bytes.len());
                    if disk.random.random_bool(kept) {
                        put(&mut file.durable, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
            file.visible.clone_from(&file.durable);
        }
        let changes = std::mem::take(&mut disk.unsynced_names);
        let count = if loss == Loss::All { 0 } else { disk.random.random_range(0..=changes.len()) };
        for change in &changes[..count] {
            apply_name(&mut disk.durable_names, change);
        }
        disk.names = disk.durable_names.clone();
    }

    /// The visible contents of a file.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(path).map(|file| disk.files[*file].visible.clone())
    }

    /// Replace the contents of a file, durably, behind everybody's back; create it if need be.
    pub fn set_contents(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk();
        disk.files.push(Contents { visible: bytes.to_vec(), durable: bytes.to_vec(), unsynced: Vec::new() });
        let file = disk.files.len() - 1;
        disk.names.insert(path.to_owned(), file);
        disk.durable_names.insert(path.to_owned(), file);
    }

    /// Remove a file, durably, behind everybody's back.
    pub fn forget(&self, path: &Path) {
        let mut disk = self.disk();
        disk.names.remove(path);
        disk.durable_names.remove(path);
    }

    /// A second disk with the same contents, as a backup of the image would have.
    #[must_use]
    pub fn image(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let disk = self.disk();
        disk.names.iter().map(|(path, file)| (path.clone(), disk.files[*file].visible.clone())).collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Verdict {
    Go,
    /// Crash in the middle.
    Crash,
}

impl Disk {
    fn alive(&self, generation: u64) -> io::Result<()> {
        if self.crashed || self.generation != generation {
            return Err(io::Error::other("the simulated machine has crashed"));
        }
        Ok(())
    }

    fn begin(&mut self, operation: Operation, generation: u64) -> io::Result<Verdict> {
        self.alive(generation)?;
        if self.crash_at == Some(self.operations) {
            self.crashed = true;
            return Ok(Verdict::Crash);
        }
        self.operations += 1;
        for at in 0..self.failing.len() {
            let (failing, n, error) = self.failing[at];
            if failing != operation {
                continue;
            }
            if n == 0 {
                self.failing.remove(at);
                return Err(error.into());
            }
            self.failing[at].1 -= 1;
            break;
        }
        Ok(Verdict::Go)
    }

    fn end(&self) -> io::Result<()> {
        self.alive(self.generation)
    }

    fn used(&self) -> u64 {
        let files: BTreeSet<usize> = self.names.values().copied().collect();
        files.iter().map(|file| self.files[*file].visible.len() as u64).sum()
    }

    fn room(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if more > 0 && self.used() + more > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    /// A change of names: when the machine crashes in it, it has happened or not.
    fn change_name(&mut self, operation: Operation, change: NameChange) -> io::Result<()> {
        let verdict = self.begin(operation, self.generation)?;
        if matches!(verdict, Verdict::Go) || self.random.random_bool(0.5) {
            apply_name(&mut self.names, &change);
            self.unsynced_names.push(change);
        }
        self.end()
    }
}

impl Files for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive(disk.generation)?;
        disk.directories.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.alive(disk.generation)?;
        if !disk.directories.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let disk = self.disk();
        disk.alive(disk.generation)?;
        let file = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), file, generation: disk.generation }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.disk();
        let file = disk.files.len();
        disk.files.push(Contents::default());
        disk.change_name(Operation::Create, NameChange::Set(path.to_owned(), file))?;
        Ok(Box::new(SimFile { disk: self.clone(), file, generation: disk.generation }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_name(Operation::Rename, NameChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_name(Operation::Remove, NameChange::Remove(path.to_owned()))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let generation = disk.generation;
        if let Verdict::Go = disk.begin(Operation::SyncDir, generation)? {
            let _ = dir;
            // The journal is one: syncing a directory makes every earlier change of names durable.
            for change in std::mem::take(&mut disk.unsynced_names) {
                apply_name(&mut disk.durable_names, &change);
            }
        }
        disk.end()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut disk = self.disk();
        disk.alive(disk.generation)?;
        if !disk.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.clone(), path: path.to_owned(), generation: disk.generation }))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    generation: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.disk();
        if disk.generation == self.generation {
            disk.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
    generation: u64,
}

impl SimFile {
    fn write(&self, operation: Operation, bytes: &[u8], offset: usize) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let verdict = disk.begin(operation, self.generation)?;
        let length = disk.files[self.file].visible.len();
        disk.room(((offset + bytes.len()) as u64).saturating_sub(length as u64))?;
        let count = match verdict {
            Verdict::Go => bytes.len(),
            Verdict::Crash => disk.random.random_range(0..=bytes.len()),
        };
        let file = &mut disk.files[self.file];
        put(&mut file.visible, offset, &bytes[..count]);
        file.unsynced.push((offset, bytes[..count].to_vec()));
        disk.end()
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.disk();
        disk.alive(self.generation)?;
        Ok(disk.files[self.file].visible.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.disk.disk();
        disk.alive(self.generation)?;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let from = disk.files[self.file].visible.get(offset..).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write(Operation::Write, &parts.concat(), usize::try_from(offset).unwrap_or(usize::MAX))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let now = usize::try_from(self.len()?).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.write(Operation::Allocate, &vec![0; length.saturating_sub(now)], now)
    }

    fn sync(&self) -> io::Result<()> {
        let latency = self.disk.disk().sync_latency;
        if !latency.is_zero() {
            thread::sleep(latency);
        }
        let mut disk = self.disk.disk();
        let verdict = disk.begin(Operation::Sync, self.generation);
        let file = &mut disk.files[self.file];
        match verdict {
            Ok(Verdict::Go) => {
                for (offset, bytes) in std::mem::take(&mut file.unsynced) {
                    put(&mut file.durable, offset, &bytes);
                }
                Ok(())
            }
            Ok(Verdict::Crash) => disk.end(),
            Err(e) => {
                if disk.alive(self.generation).is_ok() {
                    disk.files[self.file].unsynced.clear();
                }
                Err(e)
            }
        }
    }
}
