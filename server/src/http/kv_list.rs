//! ① The key-value family: ranges of keys.

use coracle_api::{Code, Problem};
use coracle_store::command::DeleteRange;
use coracle_store::{
    Family, HistoryError, Key, Operation, Order, Outcome, Range, Revision, Selection, Store,
};
use http::{Method, StatusCode};

use super::call::{Call, outcome, unexpected};
use super::list::{ITEMS_DEFAULT, ITEMS_MAX, Listing};
use super::problem::{Answer, bad_query};
use super::read::Format;
use super::{json, kv, respond, watch};

/// A page ends early rather than grow beyond this.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Every request for `/v1/kv` without a key.
pub async fn serve(call: Call) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => list(call).await,
        Method::DELETE => delete(call).await,
        _ => Err(kv::method_not_allowed("GET, HEAD, DELETE")),
    }
}

/// The keys a request is about: names in [start, end).
struct Names {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    /// Was asked for as a prefix.
    prefix: Option<Vec<u8>>,
}

impl Names {
    /// `prefix`, or `start` and `end`; everything if there is neither.
    fn of(call: &mut Call) -> Answer<Option<Self>> {
        let prefix = call.query.bytes("prefix");
        let start = call.query.bytes("start");
        let end = call.query.bytes("end");
        for (name, value) in [("prefix", &prefix), ("start", &start), ("end", &end)] {
            if value.as_ref().is_some_and(|v| v.len() > coracle_store::limits::KEY_BYTES) {
                return Err(bad_query(name, "longer than a key may be"));
            }
        }
        match (prefix, start, end) {
            (None, None, None) => Ok(None),
            (Some(prefix), None, None) => Ok(Some(Self::prefix(prefix))),
            (None, start, end) => Ok(Some(Self { start: start.unwrap_or_default(), end, prefix: None })),
            (Some(_), ..) => Err(bad_query("prefix", "not together with start or end")),
        }
    }

    fn prefix(prefix: Vec<u8>) -> Self {
        Self { end: successor(&prefix), start: prefix.clone(), prefix: Some(prefix) }
    }

    fn selection(&self) -> Selection {
        match &self.prefix {
            Some(prefix) => Selection::Prefix([&[Family::KV.0], prefix.as_slice()].concat()),
            None => Selection::Range(
                Key::new(Family::KV, &self.start),
                match &self.end {
                    Some(end) => Key::new(Family::KV, end),
                    None => Key::new(Family(Family::KV.0 + 1), &[]),
                },
            ),
        }
    }
}

/// The first name after all names with this prefix; `None` at the end of the family.
pub fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

async fn list(mut call: Call) -> Answer {
    let names = Names::of(&mut call)?.unwrap_or_else(|| Names::prefix(Vec::new()));
    if let Some(watching) = watch::asked(&mut call)? {
        let scope = watch::Scope::kv(names.selection());
        return watch::open(call, watching, scope).await;
    }
    let keys_only = call.query.flag("keys_only")?.unwrap_or(false);
    let count_only = call.query.flag("count_only")?.unwrap_or(false);
    let order = call.query.word("order", &[("asc", Order::Ascending), ("desc", Order::Descending)])?;
    let order = order.unwrap_or(Order::Ascending);
    let delimiter = call.query.bytes("delimiter");
    if delimiter.as_ref().is_some_and(Vec::is_empty) {
        return Err(bad_query("delimiter", "empty"));
    }
    let direction: &[u8] = if order == Order::Ascending { b"asc" } else { b"desc" };
    let end = names.end.as_deref().unwrap_or(b"\xff\xff");
    let parts = [&names.start, end, direction, delimiter.as_deref().unwrap_or_default()];
    let listing = Listing::of(&mut call, &parts)?;
    if let Some(unchanged) = listing.ready(&mut call, names.selection()).await? {
        return Ok(unchanged);
    }
    let page = Page { names: &names, order, delimiter: delimiter.as_deref(), keys_only, listing: &listing };
    let (revision, body) =
        listing.read(&call, |store| if count_only { page.count(store) } else { page.body(store) })?;
    Ok(respond::json_bytes(StatusCode::OK, revision, body))
}

/// One page of a list.
struct Page<'a> {
    names: &'a Names,
    order: Order,
    delimiter: Option<&'a [u8]>,
    keys_only: bool,
    listing: &'a Listing,
}

impl Page<'_> {
    fn range(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Range {
        Range {
            start: Key::new(Family::KV, start),
            end: end.map(|end| Key::new(Family::KV, end)),
            order: self.order,
            limit,
            at: self.listing.pinned(),
        }
    }

    fn count(&self, store: &Store) -> Result<(Revision, Vec<u8>), HistoryError> {
        let range = self.range(&self.names.start, self.names.end.as_deref(), 1);
        let count = store.count(&range)? as u64;
        let revision = self.listing.pinned().unwrap_or_else(|| store.revision());
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(b"{\"items\":[]");
        json::number_member(&mut out, "count", count);
        json::member(&mut out, "next_cursor");
        out.extend_from_slice(b"null");
        json::number_member(&mut out, "revision", revision.0);
        out.push(b'}');
        Ok((revision, out))
    }

    fn body(&self, store: &Store) -> Result<(Revision, Vec<u8>), HistoryError> {
        let revision = self.listing.pinned().unwrap_or_else(|| store.revision());
        let (mut start, mut end) = (self.names.start.clone(), self.names.end.clone());
        if let Some(last) = self.listing.after() {
            self.skip(last, &mut start, &mut end);
        }
        let mut items = Vec::with_capacity(512);
        let mut prefixes = Vec::new();
        let mut left = self.listing.limit;
        let mut last: Option<Vec<u8>> = None;
        let mut more = false;
        'pages: loop {
            let chunk = left.min(if self.delimiter.is_some() { 32 } else { self.listing.limit });
            if end.as_ref().is_some_and(|end| *end <= start) {
                break;
            }
            let page = store.range(&self.range(&start, end.as_deref(), chunk.max(1)))?;
            let mut jumped = false;
            for (key, record) in &page.items {
                if left == 0 || items.len() > PAGE_BYTES {
                    more = true;
                    break 'pages;
                }
                left -= 1;
                if let Some(folder) = self.folder(key.name()) {
                    comma(&mut prefixes);
                    prefixes.push(b'{');
                    json::bytes_member(&mut prefixes, "prefix", folder);
                    prefixes.push(b'}');
                    last = Some(folder.to_vec());
                    self.skip(folder, &mut start, &mut end);
                    jumped = true;
                    break;
                }
                comma(&mut items);
                json::entry(&mut items, key, record, !self.keys_only);
                last = Some(key.name().to_vec());
                self.skip(key.name(), &mut start, &mut end);
            }
            if !jumped && !page.more {
                break;
            }
        }
        let cursor = self.listing.next(revision, last.filter(|_| more));
        let mut out = Vec::with_capacity(items.len() + prefixes.len() + 128);
        out.extend_from_slice(b"{\"items\":[");
        out.append(&mut items);
        out.push(b']');
        if !prefixes.is_empty() {
            json::member(&mut out, "prefixes");
            out.push(b'[');
            out.append(&mut prefixes);
            out.push(b']');
        }
        json::member(&mut out, "next_cursor");
        json::to_json(&mut out, &cursor);
        json::number_member(&mut out, "revision", revision.0);
        out.push(b'}');
        Ok((revision, out))
    }

    /// The part of a name up to and with the first delimiter after the prefix.
    fn folder<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let delimiter = self.delimiter?;
        let from = self.names.prefix.as_ref().map_or(0, Vec::len);
        let found = name[from..].windows(delimiter.len()).position(|window| window == delimiter)?;
        Some(&name[..from + found + delimiter.len()])
    }

    /// Go on behind a key, or behind all keys of a folder.
    fn skip(&self, last: &[u8], start: &mut Vec<u8>, end: &mut Option<Vec<u8>>) {
        let is_folder = self.folder(last).is_some_and(|folder| folder.len() == last.len());
        match self.order {
            Order::Descending => *end = Some(last.to_vec()),
            Order::Ascending if is_folder => *start = successor(last).unwrap_or_else(|| vec![0xff; 513]),
            Order::Ascending => *start = [last, b"\0"].concat(),
        }
    }
}

fn comma(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
}

async fn delete(mut call: Call) -> Answer {
    let all = call.query.flag("all")?.unwrap_or(false);
    let Some(names) = Names::of(&mut call)? else {
        return Err(bad_query("prefix", "required, or start and end"));
    };
    if names.start.is_empty() && names.end.is_none() && !all {
        return Err(bad_query("all", "to delete every key say all=true"));
    }
    let bytes = call.no_body().await?;
    let mutation = call.mutation(&bytes)?;
    let (mut deleted, mut part, mut was_replayed) = (0, 0, false);
    // A range starts at a key, and the empty name is none: the first key that can be is one zero byte.
    let start = if names.start.is_empty() { vec![0] } else { names.start };
    loop {
        let range = DeleteRange {
            start: Key::new(Family::KV, &start),
            end: names.end.as_ref().map(|end| Key::new(Family::KV, end)),
        };
        call.deadline = call.fresh_deadline();
        let reply = call.propose(mutation.part(part), Operation::DeleteRange(range)).await?;
        let (revision, replayed, outcome) = outcome(reply)?;
        let Outcome::Deleted(slice) = outcome else { return Err(unexpected(&outcome)) };
        deleted += slice.deleted;
        was_replayed |= replayed;
        part += 1;
        if !slice.more {
            let body = coracle_api::Deleted { deleted, revision: revision.0, previous: None };
            return Ok(respond::replayed(respond::json(StatusCode::OK, revision, &body), was_replayed));
        }
    }
}

/// `GET /v1/kv?key=K&history=true`: the versions of one key that history still has, newest last.
pub async fn history(mut call: Call, key: Key) -> Answer {
    let reading = call.reading()?;
    let limit = call.query.number("limit", 1..=ITEMS_MAX)?.unwrap_or(ITEMS_DEFAULT);
    call.format(&[("json", Format::Json)])?;
    call.query.done()?;
    call.settle(reading).await?;
    let keep = usize::try_from(limit).unwrap_or(usize::MAX);
    let (revision, compacted, versions) = call.edge.node.read(|store| {
        let newest =
            store.key_history(&key).take(keep).map(|(at, time, event)| (at, time, event.record.clone()));
        (store.revision(), store.compact_revision(), newest.collect::<Vec<_>>())
    });
    if versions.is_empty() && call.edge.node.read(|store| store.get(&key).is_none()) {
        let detail = format!("no such key in history key={}", key.name().escape_ascii());
        return Err(Problem::new(Code::KeyNotFound, detail).at_revision(revision.0).into());
    }
    let mut items = Vec::with_capacity(512);
    for (at, time, record) in versions.iter().rev() {
        comma(&mut items);
        items.extend_from_slice(b"{\"revision\":");
        json::number(&mut items, at.0);
        json::member(&mut items, "time");
        json::to_json(&mut items, &coracle_api::Instant::from_unix_ms(time.0));
        json::member(&mut items, "entry");
        match record {
            Some(record) => json::entry(&mut items, &key, record, true),
            None => items.extend_from_slice(b"null"),
        }
        items.push(b'}');
    }
    let mut out = Vec::with_capacity(items.len() + 96);
    out.extend_from_slice(b"{\"items\":[");
    out.append(&mut items);
    out.extend_from_slice(b"],\"next_cursor\":null");
    json::number_member(&mut out, "compact_revision", compacted.0);
    json::number_member(&mut out, "revision", revision.0);
    out.push(b'}');
    Ok(respond::json_bytes(StatusCode::OK, revision, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(successor(b"app/"), Some(b"app0".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
        assert_eq!(successor(b""), None);
    }
}
