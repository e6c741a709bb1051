//! Members that an object names beforehand, so that it can say who is missing.
//!
//! One key each, behind the object's name and [`PART`]; none if nobody is named. Who has come is the recipe's business.

use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{ContentType, Family, Key, Refusal as StoreRefusal, Txn, Value, View};

use crate::bounded;

/// What follows the object's name in the key of a declared member.
pub(crate) const PART: u8 = b'd';
/// Declared members of one object, at most.
pub const MOST: usize = 1_000;

/// Name the members of an object that has none yet. `object` is what the keys of the object begin with, behind the
/// family.
pub(crate) fn set(
    txn: &mut Txn<'_>,
    family: Family,
    object: &[u8],
    members: &[Box<str>],
) -> Result<(), StoreRefusal> {
    bounded("members", members.len(), 0, MOST)?;
    let mut bytes = 0;
    for member in members {
        bounded("member", member.len(), 1, NAME_BYTES)?;
        bytes += KEY_OVERHEAD + object.len() + member.len();
    }
    txn.make_room(bytes)?;
    for member in members {
        txn.put(key(family, object, member), Value::from(&[][..]), ContentType::Binary, None);
    }
    Ok(())
}

/// Whether the member is named, or nobody is.
pub(crate) fn admits(view: View<'_>, family: Family, object: &[u8], member: &str) -> bool {
    view.get(&key(family, object, member)).is_some() || list(view, family, object).next().is_none()
}

/// Their names, in order.
pub(crate) fn list<'a>(
    view: View<'a>,
    family: Family,
    object: &[u8],
) -> impl Iterator<Item = String> + use<'a> {
    let prefix = [object, &[PART]].concat();
    let skip = 1 + prefix.len();
    view.scan(family, &prefix)
        .map(move |(key, _)| String::from_utf8_lossy(&key.as_bytes()[skip..]).into_owned())
}

fn key(family: Family, object: &[u8], member: &str) -> Key {
    Key::new(family, &[object, &[PART], member.as_bytes()].concat())
}
