//! Streams: whom a write has to be told to.

use coracle_store::command::Precondition;
use coracle_store::{Attach, Key, Revision, Selection, SessionId, Watchers};

use crate::kept::{key, somewhere};
use crate::meter::Meter;
use crate::stage::Stage;

/// As many watch each its own key, its own prefix, its own range, and its own session.
pub fn streams(count: usize, meter: &mut Meter) {
    let few = meter.times(5_000);
    let mut stage = Stage::new();
    stage.often(few, |stage, number| stage.open(number as u64 + 1));
    let mut watchers = Watchers::default();
    for number in 0..count {
        watchers.insert(Selection::Key(key(10 * number)));
        watchers.insert(Selection::Prefix(key(10 * number).as_bytes().to_vec()));
        watchers.insert(Selection::Range(key(10 * number), key(10 * number + 10)));
        watchers.insert(Selection::Session(SessionId(number as u64 + 1)));
    }
    let mut told = |what, key: &dyn Fn(usize) -> Key, session: &dyn Fn(usize) -> Attach, how_many| {
        let before = stage.store.revision();
        (0..few).for_each(|number| stage.put_as(key(number), session(number), Precondition::None));
        let changes: Vec<_> = stage.store.changes_after(before).expect("kept").cloned().collect();
        meter.of(what, few, |number| {
            let mut found = 0;
            watchers.matching(&changes[number], &mut |_| found += 1);
            assert_eq!(found, how_many, "{what}");
        });
        stage.forget();
    };
    let none = |_| Attach::None;
    told(
        "a write that nobody watches",
        &|number| Key::new(coracle_store::Family::KV, &number.to_be_bytes()),
        &none,
        0,
    );
    told("a write in the range of one", &|number| key(10 * somewhere(number, count) + 5), &none, 1);
    told(
        "a write to a key, a prefix and a range of one each",
        &|number| key(10 * somewhere(number, count)),
        &none,
        3,
    );
    let own = |number| Attach::Session(SessionId((somewhere(number, few.min(count)) + 1) as u64));
    told(
        "a key that comes to a session",
        &|number| Key::new(coracle_store::Family::KV, format!("own/{number}").as_bytes()),
        &own,
        1,
    );
    for (what, selection) in [
        ("begin and end a stream of a key", Selection::Key(key(5))),
        ("begin and end a stream of a range", Selection::Range(key(5), key(6))),
    ] {
        meter.of(what, 5_000, |_| {
            let id = watchers.insert(selection.clone());
            watchers.remove(id);
        });
    }
    assert!(stage.store.revision() > Revision(0));
}
