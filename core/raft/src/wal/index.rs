//! Where each durable entry lies on the disk.
//!
//! Four bytes an entry, one list per segment; entries of a segment are consecutive because a truncation removes
//! the places of what it cuts off. The writer feeds it after each sync, recovery while reading.

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::Change;
use super::segment::Segment;

#[derive(Debug)]
struct Indexed {
    segment: Arc<Segment>,
    /// Log index of `places[0]`.
    first: u64,
    /// Offsets of the records.
    places: Vec<u32>,
    /// Bytes used by records and header.
    used: u32,
}

impl Indexed {
    /// One past the last log index.
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }
}

/// The places of all entries, oldest segment first.
#[derive(Debug, Default)]
pub struct Index {
    segments: VecDeque<Indexed>,
}

/// Entries to be read from one segment.
#[derive(Debug)]
pub struct Extent {
    pub segment: Arc<Segment>,
    /// Log index of the first.
    pub first: u64,
    /// Offsets of their records.
    pub places: Vec<u32>,
}

impl Index {
    /// Begin a new, last segment.
    pub fn push(&mut self, segment: Arc<Segment>, used: u32) {
        self.segments.push_back(Indexed { segment, first: 0, places: Vec::new(), used });
    }

    /// Record the effect of the record of the last segment that lies between `offset` and `end`.
    ///
    /// Answers `false` if it is an entry that does not follow its predecessor.
    #[must_use]
    pub fn apply(&mut self, change: &Change, offset: u32, end: u32) -> bool {
        match change {
            Change::Append(id) => {
                let previous = self.segments.iter().rev().find(|s| !s.places.is_empty()).map(Indexed::end);
                if previous.is_some_and(|next| next != id.index) {
                    return false;
                }
                let Some(last) = self.segments.back_mut() else { return false };
                if last.places.is_empty() {
                    last.first = id.index;
                }
                last.places.push(offset);
            }
            Change::Truncate(after) => {
                let keep = after.map_or(0, |id| id.index + 1);
                for segment in
                    self.segments.iter_mut().rev().take_while(|s| s.places.is_empty() || s.end() > keep)
                {
                    let left = usize::try_from(keep.saturating_sub(segment.first)).unwrap_or(usize::MAX);
                    segment.places.truncate(left);
                }
            }
            // A purge past the last entry leaves a gap between what is on disk and what comes next.
            Change::Purge(id) => {
                if self
                    .segments
                    .iter()
                    .rev()
                    .find(|s| !s.places.is_empty())
                    .is_some_and(|s| s.end() <= id.index + 1)
                {
                    self.segments.iter_mut().for_each(|s| s.places = Vec::new());
                }
            }
            Change::Vote(_) | Change::Committed(_) => {}
        }
        if let Some(last) = self.segments.back_mut() {
            last.used = end;
        }
        true
    }

    /// Take out the oldest segment, with its used bytes, if nothing in it is above `purged` and it is not the last.
    pub fn pop_purged(&mut self, purged: u64) -> Option<(Arc<Segment>, u32)> {
        let oldest = self.segments.front()?;
        if self.segments.len() == 1 || !(oldest.places.is_empty() || oldest.end() <= purged + 1) {
            return None;
        }
        self.segments.pop_front().map(|s| (s.segment, s.used))
    }

    /// The places of entries from `start` (included) to `end` (excluded), stopping before `limit` bytes are
    /// passed but never before the first entry. Empty if `start` is not on disk.
    #[must_use]
    pub fn extents(&self, start: u64, end: u64, limit: u64) -> Vec<Extent> {
        let mut extents = Vec::new();
        let (mut next, mut bytes) = (start, 0);
        for indexed in &self.segments {
            if next >= end || next < indexed.first || next >= indexed.end() {
                continue;
            }
            let mut places = Vec::new();
            let from = usize::try_from(next - indexed.first).unwrap_or(usize::MAX);
            for (at, place) in indexed.places.iter().enumerate().skip(from) {
                let after = indexed.places.get(at + 1).copied().unwrap_or(indexed.used);
                bytes += u64::from(after - place);
                if next >= end || (bytes > limit && next > start) {
                    break;
                }
                places.push(*place);
                next += 1;
            }
            let first = next - places.len() as u64;
            if places.is_empty() {
                break;
            }
            extents.push(Extent { segment: indexed.segment.clone(), first, places });
            if bytes > limit {
                break;
            }
        }
        extents
    }

    /// Log index of the oldest entry above `purged`, if any is on disk.
    #[must_use]
    pub fn first_after(&self, purged: Option<u64>) -> Option<u64> {
        let floor = purged.map_or(0, |index| index + 1);
        self.segments
            .iter()
            .filter(|s| !s.places.is_empty() && s.end() > floor)
            .map(|s| s.first.max(floor))
            .next()
    }

    /// Bytes on disk from the record of the oldest entry above `purged` to the end.
    #[must_use]
    pub fn bytes_after(&self, purged: Option<u64>) -> u64 {
        let floor = purged.map_or(0, |index| index + 1);
        let mut bytes = 0;
        for s in self.segments.iter().skip_while(|s| s.places.is_empty() || s.end() <= floor) {
            let skipped = usize::try_from(floor.saturating_sub(s.first)).unwrap_or(usize::MAX);
            let from = s.places.get(skipped).copied().filter(|_| skipped > 0);
            bytes += u64::from(s.used - from.unwrap_or(super::segment::HEADER));
        }
        bytes
    }

    /// Number of segments in use.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.len()
    }
}
