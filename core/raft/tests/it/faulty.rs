//! A disk for the checkpoint that loses power or runs full when it is told to.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use coracle_raft::checkpoint::Storage;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Shared by all files that are opened on it.
#[derive(Debug)]
pub(crate) struct Faulty {
    /// Bytes that may still be written.
    pub(crate) room: AtomicU64,
    /// Operations (writes, changes of length, syncs) until the power goes.
    pub(crate) power: AtomicU64,
    pub(crate) image: Mutex<Image>,
}

/// What the disk holds of the file opened last.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// What a sync has made safe.
    durable: Vec<u8>,
    /// Everything since.
    unsynced: Vec<Operation>,
}

#[derive(Debug, Clone)]
enum Operation {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Operation {
    /// As much of it as reached the disk: a write may be torn after any sector.
    fn apply(&self, bytes: &mut Vec<u8>, sectors: usize) {
        match self {
            Self::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
            Self::Write(offset, data) => {
                let (start, data) =
                    (usize::try_from(*offset).unwrap(), &data[..data.len().min(sectors.saturating_mul(512))]);
                if bytes.len() < start + data.len() {
                    bytes.resize(start + data.len(), 0);
                }
                bytes[start..start + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Image {
    /// The file after the power has gone: what was synced, and of the rest whatever `random` picks.
    pub(crate) fn after_power_loss(&self, random: &mut impl FnMut() -> u64) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for operation in &self.unsynced {
            match random() % 4 {
                0 => {}
                1 => operation.apply(&mut bytes, usize::try_from(random() % 10).unwrap()),
                _ => operation.apply(&mut bytes, usize::MAX),
            }
        }
        bytes
    }
}

impl Faulty {
    pub(crate) fn new() -> Arc<Self> {
        let (room, power) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        Arc::new(Self { room, power, image: Mutex::default() })
    }

    fn powered(&self) -> io::Result<()> {
        let left = self.power.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other("no power"));
        }
        self.power.store(left - 1, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct Disk(pub(crate) Arc<Faulty>);

impl Storage for Disk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(true).create_new(create).open(path)?;
        *self.0.image.lock().unwrap() = Image { durable: std::fs::read(path)?, unsynced: Vec::new() };
        Ok(Box::new(File { file: FileBackend::new(file).unwrap(), disk: self.0.clone() }))
    }
}

#[derive(Debug)]
struct File {
    file: FileBackend,
    disk: Arc<Faulty>,
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.powered()?;
        self.disk.image.lock().unwrap().unsynced.push(Operation::Length(len));
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.powered()?;
        let mut image = self.disk.image.lock().unwrap();
        for operation in std::mem::take(&mut image.unsynced) {
            operation.apply(&mut image.durable, usize::MAX);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.powered()?;
        let (room, length) = (self.disk.room.load(Ordering::Relaxed), data.len() as u64);
        if room < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.room.store(room - length, Ordering::Relaxed);
        self.disk.image.lock().unwrap().unsynced.push(Operation::Write(offset, data.to_vec()));
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}
