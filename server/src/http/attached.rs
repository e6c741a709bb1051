//! ⑦ What hangs on a session, of all families, and what was taken from it. The recipes tell; nothing here knows them.

use coracle_api as api;
use coracle_recipes::{self as recipes, Described, lock};
use coracle_store::{Cause, Event, Family, Key, Revision, SessionId, Store, View};

use super::wire;

/// Registrations anybody may remove, without a word to the session: that they are gone is news to it.
const REGISTRATIONS: [&str; 2] = ["services", "groups"];

/// What hangs on a session.
#[derive(Default)]
pub struct Attached {
    pub holds: Vec<api::Hold>,
    pub waits: Vec<api::Wait>,
    pub items: Vec<api::Attached>,
    pub keys: Vec<String>,
}

/// Everything that hangs on a session. The position of each wait costs the places ahead of it.
pub fn attached(view: View<'_>, id: SessionId) -> Attached {
    let mut found = Attached { holds: holds(view, id), ..Attached::default() };
    for key in view.attached(id) {
        if key.family() == Family::KV {
            found.keys.push(wire::key_text(key));
            continue;
        }
        match described(view, key) {
            None => {}
            Some(it) if is_hold(&it) => {}
            Some(Described { op: "waiting", family, name, .. }) => {
                let position = recipes::position(view, key).unwrap_or(1);
                found.waits.push(api::Wait { family: family.to_owned(), name, position });
            }
            Some(Described { op, family, name, item, .. }) => {
                let (family, state) = (family.to_owned(), op.to_owned());
                found.items.push(api::Attached { family, name, item, state });
            }
        }
    }
    found
}

/// What a session holds with a token.
pub fn holds(view: View<'_>, id: SessionId) -> Vec<api::Hold> {
    let claims = view.attached(id).filter(|key| key.family() != Family::KV);
    let found = claims.filter_map(|key| described(view, key)).filter(is_hold);
    found
        .map(|Described { family, name, token, .. }| {
            // The one thing that only locks have.
            let mode = match lock::poll(view, &name, id) {
                recipes::Turn::Granted(hold) if family == lock::NAME => Some(wire::mode(hold.terms)),
                _ => None,
            };
            api::Hold { family: family.to_owned(), name, token: token.map_or(0, |token| token.0), mode }
        })
        .collect()
}

/// Holds are what has a token and no name of its own within its object.
fn is_hold(it: &Described) -> bool {
    it.token.is_some() && it.item.is_none()
}

/// A key as what it would be told as if it had just come.
fn described(view: View<'_>, key: &Key) -> Option<Described> {
    let record = view.get(key).cloned();
    recipes::describe(&Event { key: key.clone(), record, previous: None, cause: Cause::Command })
}

/// What was taken from a session after a revision, as far as history tells.
pub struct Lost {
    /// Nothing after this revision is missing.
    pub after: Revision,
    /// Up to and including this revision.
    pub revision: Revision,
    pub items: Vec<api::Lost>,
}

pub fn lost(store: &Store, id: SessionId, after: Revision) -> Lost {
    let mut items: Vec<api::Lost> =
        store.left(id, after).filter_map(|(revision, event)| loss(revision, event)).collect();
    items.sort_by_key(|lost| lost.revision);
    Lost { after: after.max(store.compact_revision()), revision: store.revision(), items }
}

/// A key that left a living session, if the session did not give it back itself. Claims are given back by naming the
/// session, so what takes them otherwise says so; keys and registrations may be removed by anybody.
fn loss(revision: Revision, event: &Event) -> Option<api::Lost> {
    let revision = revision.0;
    if event.key.family() == Family::KV {
        let reason = match (event.cause, &event.record) {
            (Cause::SessionExpired | Cause::SessionClosed, _) => return None,
            (_, None) => "deleted",
            (_, Some(_)) => "taken",
        };
        let (family, name) = ("kv".to_owned(), wire::key_text(&event.key));
        return Some(api::Lost {
            family,
            name,
            item: None,
            token: None,
            reason: reason.to_owned(),
            revision,
        });
    }
    let it = recipes::describe(event)?;
    let reason = match event.cause {
        Cause::Broken if it.op == "broken" => "broken",
        Cause::Broken => "taken",
        // In one entry it ran out of time and was given to somebody else.
        Cause::Command if it.op == "received" => "taken",
        Cause::Command if REGISTRATIONS.contains(&it.family) => {
            if event.record.is_none() {
                "removed"
            } else {
                "taken"
            }
        }
        Cause::Command | Cause::SessionExpired | Cause::SessionClosed => return None,
    };
    let (family, name, token) = (it.family.to_owned(), it.name, it.token.map(|token| token.0));
    Some(api::Lost { family, name, item: it.item, token, reason: reason.to_owned(), revision })
}

/// What a session gave back when it was closed.
pub fn released(event: &Event) -> Option<api::Claim> {
    match event.key.family() {
        Family::SESSION => None,
        Family::KV => {
            let (family, name) = ("kv".to_owned(), wire::key_text(&event.key));
            Some(api::Claim { family, name, item: None, token: None })
        }
        _ => {
            // What it was, not what became of it.
            let (record, cause) = (event.previous.clone(), Cause::Command);
            let was = Event { key: event.key.clone(), record, previous: None, cause };
            let Described { family, name, item, token, .. } = recipes::describe(&was)?;
            let token = token.map(|token| token.0);
            Some(api::Claim { family: family.to_owned(), name, item, token })
        }
    }
}
