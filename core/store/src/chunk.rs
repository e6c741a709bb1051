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
use crate::history::event_bytes;
use crate::ids::{Key, Revision, Timestamp};
use crate::record::{Change, Event, Record};

/// A chunk is closed when it has so many bytes, by estimate.
const CHUNK_BYTES: usize = 256 * 1024;

/// Cut changes into chunks: the number of changes in each.
pub(crate) fn cut<'a>(changes: impl Iterator<Item = &'a Arc<Change>>) -> Vec<usize> {
    let mut chunks = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for change in changes {
        count += 1;
        bytes += change.events.iter().map(event_bytes).sum::<usize>();
        if bytes >= CHUNK_BYTES {
            chunks.push(count);
            (count, bytes) = (0, 0);
        }
    }
    if count > 0 {
        chunks.push(count);
    }
    chunks
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

pub(crate) fn encode(changes: &[Arc<Change>]) -> Vec<u8> {
    let first = changes.first().map_or(Revision(0), |change| change.revision);
    let mut e = Encoder::new(vec![FORMAT]);
    write(&mut e, first, changes).expect("writing to memory cannot fail");
    hash::seal(e.into_writer())
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn write(e: &mut Encoder<Vec<u8>>, first: Revision, changes: &[Arc<Change>]) -> Written {
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
