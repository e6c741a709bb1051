//! The disk form of history: runs of consecutive changes, each readable alone.
//!
//! The previous record of an event is left out when the same chunk has it anyway, as the new record of an earlier
//! event of that key. So a hot key is written once a change, and an old chunk can still be dropped whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use minicbor::decode::Error;
use minicbor::{Decoder, Encoder};

use crate::command::FORMAT;
use crate::hash;
use crate::ids::{Key, Revision, Timestamp};
use crate::record::{Change, Event, Record};

/// A chunk is closed before it would be longer than so many bytes, by estimate. The database gives a value a power of
/// two of pages to itself: this is just under one, with room for the key, the checksums and an estimate too low.
const CHUNK_BYTES: usize = 64 * 1024 - 512;

/// Bytes of an encoded change, event and record beside keys and values: what they are with revisions above 2^32.
const CHANGE_OVERHEAD: usize = 20;
const EVENT_OVERHEAD: usize = 6;
const RECORD_OVERHEAD: usize = 28;

/// Cuts changes into chunks as they come, while they are at hand: the state's lock is not held to look at all again.
#[derive(Default)]
pub(crate) struct Cutter {
    /// The number of changes in each chunk that is closed.
    closed: Vec<usize>,
    /// First revision, number of changes and bytes of the one that is open, if it has any.
    first: Revision,
    count: usize,
    bytes: usize,
}

impl Cutter {
    pub fn push(&mut self, change: &Change) {
        let mut bytes = encoded_bytes(change, self.first);
        if self.count > 0 && self.bytes + bytes > CHUNK_BYTES {
            self.closed.push(self.count);
            (self.count, self.bytes) = (0, 0);
        }
        if self.count == 0 {
            self.first = change.revision;
            bytes = encoded_bytes(change, self.first);
        }
        self.count += 1;
        self.bytes += bytes;
    }

    /// The number of changes in each chunk, and begin anew.
    pub fn take(&mut self) -> Vec<usize> {
        let Self { mut closed, count, .. } = std::mem::take(self);
        closed.extend((count > 0).then_some(count));
        closed
    }
}

/// About what a change takes in a chunk that begins at `first`.
fn encoded_bytes(change: &Change, first: Revision) -> usize {
    let record = |record: &Option<Arc<Record>>| {
        record.as_ref().map_or(0, |record| record.value.len() + RECORD_OVERHEAD)
    };
    let event = |event: &Event| {
        let here = event.previous.as_ref().is_some_and(|previous| previous.mod_revision < first);
        let previous = if here { record(&event.previous) } else { 0 };
        EVENT_OVERHEAD + event.key.as_bytes().len() + record(&event.record) + previous
    };
    CHANGE_OVERHEAD + change.events.iter().map(event).sum::<usize>()
}

/// How an encoded event gives its previous record.
mod previous {
    /// The key did not exist.
    pub const NONE: u8 = 0;
    /// The record follows.
    pub const HERE: u8 = 1;
    /// The newest record of the key in this chunk so far.
    pub const EARLIER: u8 = 2;
}

/// Append the disk form of a chunk to `buffer`, which must be empty.
pub(crate) fn encode(changes: &[Arc<Change>], buffer: &mut Vec<u8>) {
    let first = changes.first().map_or(Revision(0), |change| change.revision);
    buffer.push(FORMAT);
    write(&mut Encoder::new(&mut *buffer), first, changes).expect("writing to memory cannot fail");
    hash::seal(buffer);
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write(e: &mut Encoder<&mut Vec<u8>>, first: Revision, changes: &[Arc<Change>]) -> Written {
    for change in changes {
        e.u64(change.revision.0)?.u64(change.time.0)?.array(change.events.len() as u64)?;
        for event in &change.events {
            e.encode(&event.key)?.encode(event.cause)?.encode(event.record.as_deref())?;
            match &event.previous {
                None => e.u8(previous::NONE)?,
                Some(record) if record.mod_revision >= first => e.u8(previous::EARLIER)?,
                Some(record) => e.u8(previous::HERE)?.encode(&**record)?,
            };
        }
    }
    Ok(())
}

/// The changes of a chunk. `shared` may know a record already, so that it is not held twice.
pub(crate) fn decode(
    bytes: &[u8],
    shared: &dyn Fn(&Key, Revision) -> Option<Arc<Record>>,
) -> Result<Vec<Change>, Error> {
    let bytes = hash::unseal(bytes).ok_or_else(|| Error::message("checksum mismatch"))?;
    let Some((&FORMAT, bytes)) = bytes.split_first() else {
        return Err(Error::message("unknown chunk format"));
    };
    let mut d = Decoder::new(bytes);
    let mut latest: BTreeMap<Key, Option<Arc<Record>>> = BTreeMap::new();
    let mut changes = Vec::new();
    while d.position() < bytes.len() {
        let (revision, time) = (Revision(d.u64()?), Timestamp(d.u64()?));
        let count = d.array()?.ok_or_else(|| Error::message("events of unknown number"))?;
        let mut events = Vec::new();
        for _ in 0..count {
            let key: Key = d.decode()?;
            let cause = d.decode()?;
            let record = d.decode::<Option<Record>>()?;
            let record =
                record.map(|record| shared(&key, record.mod_revision).unwrap_or_else(|| Arc::new(record)));
            let previous = match d.u8()? {
                previous::NONE => None,
                previous::HERE => {
                    let record = d.decode::<Record>()?;
                    Some(shared(&key, record.mod_revision).unwrap_or_else(|| Arc::new(record)))
                }
                previous::EARLIER => latest
                    .get(&key)
                    .cloned()
                    .flatten()
                    .map(Some)
                    .ok_or_else(|| Error::message("the previous record is not in the chunk"))?,
                _ => return Err(Error::message("unknown form of a previous record")),
            };
            latest.insert(key.clone(), record.clone());
            events.push(Event { key, record, previous, cause });
        }
        changes.push(Change { revision, time, events: events.into() });
    }
    Ok(changes)
}
