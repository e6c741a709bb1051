//! Checkpoint and snapshots as the machine and the node use them, off the runtime's threads.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use coracle_store::{Delta, Loader, Program, Store};

use crate::checkpoint::{self, Checkpoint, Checkpointer, Position};
use crate::network;
use crate::priority;
use crate::snapshot::{self, Spool};
use crate::types::{LogId, SnapshotMeta};

/// The directory of this node's state, its checkpoint thread and its snapshot files.
pub struct Disk {
    checkpoint: Arc<Checkpoint>,
    spool: Spool,
    thread: Mutex<Option<Checkpointer>>,
    program: fn() -> Box<dyn Program>,
    pub figures: Arc<SnapshotFigures>,
}

/// Counters of snapshots since the start.
#[derive(Debug, Default)]
pub struct SnapshotFigures {
    /// Made for peers that lack log we no longer have.
    pub spooled: AtomicU64,
    /// Received, and put in place of everything here.
    pub installed: AtomicU64,
}

impl Disk {
    /// Open the state below `data` and load the store from it. Blocks.
    ///
    /// # Errors
    /// If anything on disk is damaged, foreign, newer or unreadable; the message says which file.
    pub fn open(
        data: &Path,
        program: fn() -> Box<dyn Program>,
    ) -> Result<(Arc<Self>, Store, Position), String> {
        let state = data.join("state");
        std::fs::create_dir_all(&state)
            .map_err(|error| format!("cannot create {}: {error}", state.display()))?;
        let (checkpoint, position) =
            Checkpoint::open(&state, checkpoint::Options::default()).map_err(|error| error.to_string())?;
        let store = if position.applied.is_some() {
            let mut loader = Loader::new(program());
            checkpoint
                .load(|table, key, value| loader.row(table, key, value))
                .map_err(|error| error.to_string())?;
            loader
                .finish()
                .map_err(|error| format!("checkpoint in {} is damaged: {error}", state.display()))?
        } else {
            Store::new(program())
        };
        let spool = Spool::open(&data.join("snapshots")).map_err(|error| error.to_string())?;
        let checkpoint = Arc::new(checkpoint);
        let thread = Checkpointer::start(checkpoint.clone()).map_err(|error| error.to_string())?;
        let (thread, figures) = (Mutex::new(Some(thread)), Arc::default());
        Ok((Arc::new(Self { checkpoint, spool, thread, program, figures }), store, position))
    }

    /// Write what changed. Answers when it is durable, with the log id it reaches.
    ///
    /// # Errors
    /// As the checkpoint thread says; nothing later may be written after that.
    pub async fn write(&self, delta: Delta, position: Position) -> Result<Option<LogId>, checkpoint::Error> {
        let (done, written) = tokio::sync::oneshot::channel();
        {
            let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(thread) = thread.as_ref() else { return Err(checkpoint::Error::Stopped) };
            thread.submit(delta, position, move |result| {
                let _ = done.send(result);
            });
        }
        written.await.unwrap_or(Err(checkpoint::Error::Stopped))
    }

    /// How far the durable checkpoint reaches, as a snapshot that is spooled only if somebody reads it.
    #[must_use]
    pub fn snapshot(self: &Arc<Self>) -> Option<(SnapshotMeta, SnapshotData)> {
        let position = self.checkpoint.position();
        position.applied?;
        let data = SnapshotData::Lazy(Arc::new(Lazy { disk: self.clone(), spooled: OnceLock::new() }));
        Some((position.snapshot_meta(), data))
    }

    /// Replace everything by a received snapshot: a new database file and a new store.
    ///
    /// # Errors
    /// If the snapshot is damaged or older than the checkpoint; nothing is replaced then.
    pub async fn install(self: &Arc<Self>, snapshot: SnapshotData) -> io::Result<(Store, Position)> {
        let disk = self.clone();
        let install = move || priority::in_background("install", || disk.install_blocking(&snapshot))?;
        tokio::task::spawn_blocking(install).await.map_err(io::Error::other)?
    }

    fn install_blocking(&self, snapshot: &SnapshotData) -> io::Result<(Store, Position)> {
        let file = snapshot.file()?;
        let mut loader = Loader::new((self.program)());
        let staged =
            snapshot::stage(&self.checkpoint, &file, |table, key, value| loader.row(table, key, value))
                .map_err(io::Error::other)?;
        let store = loader.finish().map_err(io::Error::other)?;
        let position = staged.commit().map_err(io::Error::other)?;
        self.figures.installed.fetch_add(1, Ordering::Relaxed);
        Ok((store, position))
    }

    /// Begin to receive a snapshot of so many bytes.
    ///
    /// # Errors
    /// As the file system says.
    pub fn incoming(&self, bytes: u64) -> io::Result<Incoming> {
        let file = self.spool.receive(bytes).map_err(io::Error::other)?;
        Ok(Incoming { file, offset: 0 })
    }

    /// Write what was submitted and end the checkpoint thread. Blocks.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.stop();
        }
    }
}

/// A snapshot as openraft hands it around: on its way out (and perhaps not spooled yet), or received.
#[derive(Clone)]
pub enum SnapshotData {
    /// The durable checkpoint at the time of the first read: at or after the position that was announced.
    Lazy(Arc<Lazy>),
    Received(snapshot::SnapshotData),
}

/// A snapshot that is spooled when it is first read. Most are announced only so that openraft may purge its log.
pub struct Lazy {
    disk: Arc<Disk>,
    spooled: OnceLock<Result<snapshot::SnapshotData, String>>,
}

impl Lazy {
    fn spool(&self) -> Result<snapshot::SnapshotData, String> {
        let disk = &self.disk;
        let build = || disk.spool.build(&disk.checkpoint, None);
        let file = priority::in_background("spool", build).map_err(|error| error.to_string())?;
        disk.figures.spooled.fetch_add(1, Ordering::Relaxed);
        file.map_err(|error| error.to_string())
    }
}

impl SnapshotData {
    /// The file, spooled now if need be. Blocks.
    fn file(&self) -> io::Result<snapshot::SnapshotData> {
        match self {
            Self::Received(file) => Ok(file.clone()),
            Self::Lazy(lazy) => lazy.spooled.get_or_init(|| lazy.spool()).clone().map_err(io::Error::other),
        }
    }

    /// Where its rows really stand: for a spooled one, possibly later than what was announced.
    ///
    /// # Errors
    /// If it cannot be spooled. Blocks if it is not yet.
    pub fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(self.file()?.meta())
    }
}

impl network::Outgoing for SnapshotData {
    type Chunks = Box<dyn Iterator<Item = io::Result<Bytes>> + Send>;

    /// Zero if it cannot be spooled; then [`Self::chunks`] says why.
    fn bytes(&self) -> u64 {
        self.file().map_or(0, |file| file.length())
    }

    fn chunks(&self) -> io::Result<Self::Chunks> {
        let pieces = self.file()?.pieces()?;
        Ok(Box::new(pieces.map(|piece| piece.map(|(_, bytes)| bytes))))
    }
}

/// A snapshot being received.
pub struct Incoming {
    file: snapshot::Incoming,
    offset: u64,
}

impl network::Incoming for Incoming {
    type Snapshot = SnapshotData;

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write(self.offset, chunk).map_err(io::Error::other)?;
        self.offset += chunk.len() as u64;
        Ok(())
    }

    fn finish(self) -> io::Result<SnapshotData> {
        self.file.finish().map(SnapshotData::Received).map_err(io::Error::other)
    }
}
