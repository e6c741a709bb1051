//! The checkpoint thread: takes deltas, encodes and writes them, reports what is durable.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use coracle_store::checkpoint::RowSource;

use super::{Checkpoint, Error, Position};
use crate::priority;
use crate::types::LogId;

/// How long to wait before a write that found the disk full is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);
const FULL_RETRY_STEP: Duration = Duration::from_millis(50);

struct Job {
    rows: Box<dyn RowSource + Send>,
    position: Position,
    done: Box<dyn FnOnce(Result<Option<LogId>, Error>) + Send>,
}

/// Handle of the checkpoint thread. Submitting never blocks. A full disk is waited out; after any other failure the
/// thread writes nothing more, because the rows that failed would be missing below later ones.
pub struct Checkpointer {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    pending: AtomicUsize,
    full: AtomicBool,
    stopping: AtomicBool,
}

impl Checkpointer {
    /// Start the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(checkpoint: Arc<Checkpoint>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(&checkpoint, &queue, &seen))?;
        Ok(Self { jobs, shared, thread })
    }

    /// Write rows (they are made, and let go, on the checkpoint thread) and move to `position`. `done` runs on that
    /// thread too, must be short, and hears the durable applied log id. Jobs are written in the order of submission.
    pub fn submit(
        &self,
        rows: impl RowSource + Send + 'static,
        position: Position,
        done: impl FnOnce(Result<Option<LogId>, Error>) + Send + 'static,
    ) {
        self.shared.pending.fetch_add(1, Ordering::AcqRel);
        let job = Job { rows: Box::new(rows), position, done: Box::new(done) };
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            self.shared.pending.fetch_sub(1, Ordering::AcqRel);
            (job.done)(Err(Error::Stopped));
        }
    }

    /// Jobs submitted and not yet reported. Take the next delta when this is zero: what changes meanwhile is
    /// written once instead of twice.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::Acquire)
    }

    /// The last write found the disk full and is being tried again.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire)
    }

    /// Write what has been submitted and end the thread. Blocks; a write that waits for space is given up.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Release);
        drop(self.jobs);
        let _ = self.thread.join();
    }
}

fn run(checkpoint: &Checkpoint, queue: &mpsc::Receiver<Job>, shared: &Shared) {
    // On a busy machine a checkpoint takes longer, instead of everybody else.
    priority::give_way();
    let mut failed = false;
    for job in queue {
        let result =
            if failed { Err(Error::Stopped) } else { write(checkpoint, &*job.rows, &job.position, shared) };
        // Rows outdated by an installed snapshot are no failure: their effects are in it.
        failed |= matches!(&result, Err(e) if !matches!(e, Error::Backwards { .. }));
        shared.pending.fetch_sub(1, Ordering::AcqRel);
        (job.done)(result);
        job.rows.discard(&mut priority::rest);
    }
}

fn write(
    checkpoint: &Checkpoint,
    rows: &dyn RowSource,
    position: &Position,
    shared: &Shared,
) -> Result<Option<LogId>, Error> {
    loop {
        let result = checkpoint.write(rows, position);
        let full = matches!(result, Err(Error::Full { .. }));
        // A reader (a snapshot being spooled) may still hold the file that has to be opened again.
        let held = matches!(result, Err(Error::Locked { .. }));
        shared.full.store(full, Ordering::Release);
        if !full && !held {
            return result.map(|()| position.applied);
        }
        tracing::warn!(full, "the checkpoint waits for the disk");
        let mut waited = Duration::ZERO;
        while waited < FULL_RETRY {
            if shared.stopping.load(Ordering::Acquire) {
                return result.map(|()| position.applied);
            }
            thread::sleep(FULL_RETRY_STEP);
            waited += FULL_RETRY_STEP;
        }
    }
}
