//! The one thread that writes: drain the queue, write, sync, answer, then tidy up.
//!
//! A batch is one contiguous buffer, so one positioned write per segment is enough; the only other part of it is
//! zeros written ahead of the records into space that has never been written, because a sync that also has to
//! turn reserved blocks into written ones costs a journal commit.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::high_water::{HighWater, Mark};
use super::queue::{self, Batch, Shared, Writer as Doing};
use super::record::{self, Change};
use super::segment::{End, HEADER, Header, Segment, Spare, spare_path};
use super::{Options, Stamp, recovery};
use crate::files::{self, Files};

pub static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Everything the thread owns.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub files: Arc<dyn Files>,
    pub dir: PathBuf,
    pub options: Options,
    pub high_water: HighWater,
    pub spares: Vec<Spare>,
    /// The segment being written.
    segment: Arc<Segment>,
    /// Where the next record goes, and the last link of the chain.
    end: End,
    /// Everything before this offset is durable.
    synced: u32,
    /// Everything before this offset has been written at least once.
    filled: u32,
    /// The log as written.
    stamp: Stamp,
    /// Records written and not yet in the index: effect, offset, end.
    placed: Vec<(Change, u32, u32)>,
    marked: Instant,
    tried_spare: Option<Instant>,
}

/// Put together what recovery left: the shared half and the thread's half.
pub fn prepare(found: recovery::Opened) -> (Arc<Shared>, Writer) {
    let recovery::Opened { files, dir, options, high_water, spares, segment, end, stamp, first, tail, index } =
        found;
    let shared = Arc::new(Shared::new(stamp, first, tail, index));
    let writer = Writer {
        shared: shared.clone(),
        files,
        dir,
        options,
        high_water,
        spares,
        segment,
        end,
        synced: end.offset,
        filled: end.offset,
        stamp,
        placed: Vec::new(),
        marked: Instant::now(),
        tried_spare: None,
    };
    (shared, writer)
}

enum Step {
    Batch(u64),
    Tick,
    Close,
}

impl Writer {
    /// Work until the log is closed or fails.
    pub fn run(mut self) {
        let on_panic = FailOnPanic(self.shared.clone());
        let mut batch = Batch::default();
        if let Err(e) = self.work(&mut batch) {
            let reason = e.to_string();
            tracing::error!(reason, dir = %self.dir.display(), "the log has stopped");
            self.shared.fail(&reason);
            let mut waiters = std::mem::take(&mut batch.waiters);
            waiters.append(&mut self.shared.lock().pending.waiters);
            for waiter in waiters {
                waiter.done(Err(queue::stopped(&reason)));
            }
        }
        drop(on_panic);
    }

    fn work(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.keep_spare()?;
        loop {
            match self.next(batch) {
                Step::Batch(number) => {
                    self.write_batch(batch)?;
                    self.publish(number)?;
                    self.shared.stats.wrote(batch.records, batch.entries, batch.bytes.len() as u64);
                    for waiter in batch.waiters.drain(..) {
                        waiter.done(Ok(()));
                    }
                    self.recycle()?;
                    self.mark(batch.vote)?;
                    self.keep_spare()?;
                    batch.clear();
                }
                Step::Tick => {
                    self.mark(false)?;
                    self.keep_spare()?;
                }
                Step::Close => return self.mark(true),
            }
        }
    }

    /// Wait for something to do.
    fn next(&self, batch: &mut Batch) -> Step {
        let mut state = self.shared.lock();
        let mut ticked = false;
        loop {
            let ready = state.pending.records > 0 || state.closing || ticked;
            if ready && let Some(number) = state.take(batch) {
                state.writer = Doing::Busy;
                return Step::Batch(number);
            }
            if state.closing || ticked {
                state.writer = Doing::Busy;
                return if state.closing { Step::Close } else { Step::Tick };
            }
            let due = state.committed_changed
                || self.shared.is_full()
                || *self.high_water.mark() != self.current_mark();
            if due {
                state.writer = Doing::Dozing;
                let waited = self.shared.wake.wait_timeout(state, self.options.tick);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                state = guard;
                ticked = timeout.timed_out();
            } else {
                state.writer = Doing::Asleep;
                state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Seal the records one after the other, write them, begin new segments as needed, and sync. A record larger than
    /// a segment gets one to itself, which grows as far as it must.
    fn write_batch(&mut self, batch: &mut Batch) -> io::Result<()> {
        if let Some(last) = batch.truncated {
            self.high_water.lower(last)?;
        }
        let bytes = &mut batch.bytes[..];
        let (mut written, mut sealed) = (0, 0);
        while sealed < bytes.len() {
            let size = record::claimed_size(&bytes[sealed..]);
            let offset = self.end.offset + length(sealed - written);
            let fits = u64::from(offset) + size as u64 <= u64::from(self.options.segment_bytes);
            if !fits && offset > HEADER {
                self.write(&bytes[written..sealed])?;
                written = sealed;
                self.sync()?;
                self.rotate()?;
                continue;
            }
            let record = &mut bytes[sealed..sealed + size];
            self.end.crc = record::seal(record, self.segment.seed, self.synced, self.end.crc);
            let (kind, body) = record::contents(record);
            let change = Change::decode(kind, body)?;
            change.apply(&mut self.stamp);
            self.placed.push((change, offset, offset + length(size)));
            sealed += size;
        }
        self.write(&bytes[written..sealed])?;
        if batch.sync { self.sync() } else { Ok(()) }
    }

    /// Write at the end of the segment, and zeros ahead of it if it has never been written there. Waits while the
    /// disk is full.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.end.offset + length(bytes.len());
        let mut filled = self.filled;
        if end > filled {
            filled =
                end.next_multiple_of(self.options.fill_bytes.max(1)).min(self.options.segment_bytes).max(end);
        }
        let mut parts = vec![bytes];
        let mut ahead = if end > self.filled { (filled - end) as usize } else { 0 };
        while ahead > 0 {
            let part = &ZEROS[..ahead.min(ZEROS.len())];
            parts.push(part);
            ahead -= part.len();
        }
        while let Err(e) = self.segment.file.write_at(&parts, u64::from(self.end.offset)) {
            if !files::is_full(&e) {
                return Err(self.failure("write", &e));
            }
            self.wait_for_room(&e)?;
        }
        self.end.offset = end;
        self.filled = filled;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.segment.file.sync().map_err(|e| self.failure("sync", &e))?;
        self.shared.stats.synced(began.elapsed());
        self.synced = self.end.offset;
        Ok(())
    }

    /// Go on in a new segment. Everything in the old one is durable.
    fn rotate(&mut self) -> io::Result<()> {
        self.place()?;
        let spare = loop {
            if let Some(spare) = self.spares.pop() {
                break spare;
            }
            self.tried_spare = None;
            self.keep_spare()?;
            if self.spares.is_empty() {
                self.wait_for_room(&io::ErrorKind::StorageFull.into())?;
            }
        };
        let filled = spare.filled;
        let header = Header {
            number: self.segment.number + 1,
            identity: self.options.identity,
            previous: Some(self.end),
            stamp: self.stamp,
        };
        let segment = Segment::begin(&*self.files, &self.dir, spare, &header);
        let segment = Arc::new(segment.map_err(|e| self.failure("begin a segment after", &e))?);
        self.end = End { offset: HEADER, crc: segment.header_crc };
        self.synced = HEADER;
        self.filled = filled.max(HEADER);
        self.shared.lock().index.push(segment.clone(), HEADER);
        self.segment = segment;
        self.shared.stats.began_segment();
        Ok(())
    }

    /// Tell the index where the records went.
    fn place(&mut self) -> io::Result<()> {
        let mut state = self.shared.lock();
        for (change, offset, end) in self.placed.drain(..) {
            if !state.index.apply(&change, offset, end) {
                return Err(io::Error::other(format!("an entry out of order was queued: {change:?}")));
            }
        }
        Ok(())
    }

    fn publish(&mut self, number: u64) -> io::Result<()> {
        self.place()?;
        self.shared.lock().tail.trim(number);
        Ok(())
    }

    /// Set purged segments aside for use again, oldest first, each step durable before the next, so that a crash
    /// never leaves a gap in the numbers. The purge itself is durable by now.
    fn recycle(&mut self) -> io::Result<()> {
        let Some(purged) = self.stamp.purged else { return Ok(()) };
        loop {
            let popped = self.shared.lock().index.pop_purged(purged.index);
            let Some((segment, used)) = popped else { return Ok(()) };
            let spare = spare_path(&self.dir, segment.number);
            let path = segment.path.clone();
            let room = self.spares.len() < self.options.spares && self.spares.iter().all(|s| s.path != spare);
            // A reader may still be in it, and a file of another size (an earlier setting) is of no use.
            let ours = Arc::try_unwrap(segment).ok().filter(|_| room);
            let step = match ours {
                Some(segment) if segment.file.len()? == u64::from(self.options.segment_bytes) => {
                    let renamed = self.files.rename(&path, &spare);
                    self.spares.push(Spare { path: spare, file: segment.file, filled: used });
                    self.shared.stats.recycled();
                    self.shared.set_full(false);
                    renamed
                }
                _ => self.files.remove(&path),
            };
            step.and_then(|()| self.files.sync_dir(&self.dir)).map_err(|e| self.failure("set aside", &e))?;
        }
    }

    fn current_mark(&self) -> Mark {
        Mark { vote: self.stamp.vote, last: self.stamp.last }
    }

    /// Raise the high-water mark if it is time.
    fn mark(&mut self, now: bool) -> io::Result<()> {
        let mark = self.current_mark();
        if *self.high_water.mark() == mark
            || !(now || self.marked.elapsed() >= self.options.high_water_interval)
        {
            return Ok(());
        }
        self.marked = Instant::now();
        match self.high_water.write(mark) {
            // It only lags then, and is tried again.
            Err(e) if files::is_full(&e) => Ok(()),
            other => {
                other.map_err(|e| io::Error::new(e.kind(), format!("cannot write the high-water file: {e}")))
            }
        }
    }

    /// Have a spare segment, or say that the disk is full.
    fn keep_spare(&mut self) -> io::Result<()> {
        if !self.spares.is_empty() || self.tried_spare.is_some_and(|at| at.elapsed() < self.options.tick) {
            return Ok(());
        }
        match Spare::create(&*self.files, &self.dir, self.segment.number + 1, self.options.segment_bytes) {
            Ok(spare) => {
                self.spares.push(spare);
                self.tried_spare = None;
                if self.shared.is_full() {
                    tracing::info!(dir = %self.dir.display(), "there is room for the log again");
                }
                self.shared.set_full(false);
                Ok(())
            }
            Err(e) if files::is_full(&e) => {
                self.tried_spare = Some(Instant::now());
                self.say_full(&e);
                Ok(())
            }
            Err(e) => Err(self.failure("make a spare after", &e)),
        }
    }

    /// Nothing more fits anywhere: wait a tick. Everything queued behind waits too. Closing gives up.
    fn wait_for_room(&self, e: &io::Error) -> io::Result<()> {
        self.say_full(e);
        let state = self.shared.lock();
        if state.closing {
            return Err(self.failure("write", e));
        }
        let tick = self.options.tick.max(Duration::from_millis(1));
        drop(self.shared.wake.wait_timeout(state, tick));
        Ok(())
    }

    fn say_full(&self, e: &io::Error) {
        if !self.shared.is_full() {
            tracing::warn!(error = %e, dir = %self.dir.display(), "no room for another segment of the log");
        }
        self.shared.set_full(true);
    }

    fn failure(&self, what: &str, e: &io::Error) -> io::Error {
        io::Error::new(e.kind(), format!("cannot {what} {}: {e}", self.segment.path.display()))
    }
}

/// Offsets within a segment fit in 32 bits: records are checked against its size when they are queued.
pub fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a segment is below 4 GiB")
}

/// Says so if the thread dies of a bug, instead of leaving everybody waiting.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "the writing thread panicked";
            self.0.fail(reason);
            for waiter in std::mem::take(&mut self.0.lock().pending.waiters) {
                waiter.done(Err(queue::stopped(reason)));
            }
        }
    }
}
