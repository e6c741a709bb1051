//! What is configured of a lock, and the time it is closed for.

use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{Cause, ContentType, Millis, Refusal as StoreRefusal, Timestamp, Txn, View};

use super::{Config, DELAY_MS, FAMILY, HOLD_MS, Hold, Lock, Mode, Outcome, advance};
use crate::line::{self, decoded};
use crate::{bounded, names, row, timer};

pub(super) const CONFIG: u8 = b's';
pub(super) const CLOSED: u8 = b'd';
/// What a timer says at the end of the longest time of a hold.
const OVERDUE: u8 = b'o';

impl Default for Config {
    fn default() -> Self {
        Self { lock_delay: Millis(0), min_hold: Millis(0), max_hold: Millis(0) }
    }
}

/// What is configured, if anything is.
pub(super) fn of(lock: &Lock, view: View<'_>) -> Option<Config> {
    view.get(&lock.part(CONFIG)).map(|record| decoded(&record.value))
}

/// Until when nothing is granted.
pub(super) fn closed(lock: &Lock, view: View<'_>) -> Option<Timestamp> {
    view.get(&lock.part(CLOSED)).map(|record| decoded(&record.value))
}

pub(super) fn configure(txn: &mut Txn<'_>, name: &str, config: Config) -> Result<Outcome, StoreRefusal> {
    bounded("lock", name.len(), 1, NAME_BYTES)?;
    let most = |what: &str, Millis(actual): Millis, most: u64| {
        if actual <= most { Ok(()) } else { Err(StoreRefusal::OutOfBounds(what.into(), most, actual)) }
    };
    most("lock_delay", config.lock_delay, DELAY_MS)?;
    most("min_hold", config.min_hold, HOLD_MS)?;
    most("max_hold", config.max_hold, HOLD_MS)?;
    let lock = Lock::new(name);
    let key = lock.part(CONFIG);
    let is_new = txn.get(&key).is_none();
    if config == Config::default() {
        txn.delete(&key, Cause::Command);
    } else {
        if is_new {
            txn.make_room(KEY_OVERHEAD + name.len() + 32)?;
        }
        txn.put(key, row(&config), ContentType::Binary, None);
    }
    Ok(Outcome::Configured(config, is_new))
}

/// Grant nothing until then, unless it is closed for longer already.
pub(super) fn close(txn: &mut Txn<'_>, lock: &Lock, until: Timestamp) {
    let before = closed(lock, txn.view());
    if until <= txn.now() || before.is_some_and(|before| before >= until) {
        return;
    }
    let what = lock.timer(&[CLOSED]);
    if let Some(before) = before {
        timer::clear(txn, before, FAMILY, &what);
    }
    timer::set(txn, until, FAMILY, &what);
    txn.put(lock.part(CLOSED), row(&until), ContentType::Binary, None);
}

/// A hold has ended by itself: how long the lock has to be closed for it.
pub(super) fn close_after(txn: &mut Txn<'_>, lock: &Lock, hold: &Hold, cause: Cause) {
    let config = of(lock, txn.view()).unwrap_or_default();
    clear_overdue(txn, lock, hold);
    if cause == Cause::SessionExpired {
        let asked = hold.lock_delay.unwrap_or(Millis(0));
        close(txn, lock, after(txn.now(), asked.max(config.lock_delay)));
    }
    if hold.terms == Mode::Exclusive {
        close(txn, lock, after(hold.since, config.min_hold));
    }
}

/// A hold begins: have it looked at when it has become too long.
pub(super) fn watch_over(txn: &mut Txn<'_>, lock: &Lock, hold: Hold) -> Hold {
    let Some(Config { max_hold, .. }) = of(lock, txn.view()).filter(|config| config.max_hold.0 > 0) else {
        return hold;
    };
    let at = after(hold.since, max_hold);
    timer::set(txn, at, FAMILY, &overdue(lock, &hold));
    let hold = Hold { overdue_at: Some(at), ..hold };
    lock.set_hold(txn, &hold);
    hold
}

/// A hold ends: its timer with it.
pub(super) fn clear_overdue(txn: &mut Txn<'_>, lock: &Lock, hold: &Hold) {
    if let Some(at) = hold.overdue_at {
        timer::clear(txn, at, FAMILY, &overdue(lock, hold));
    }
}

pub(super) fn due(txn: &mut Txn<'_>, what: &[u8]) {
    let Some((name, rest)) = names::split(what) else { return };
    let lock = Lock::new(&name);
    match rest.split_first() {
        Some((&CLOSED, _)) if closed(&lock, txn.view()).is_some_and(|until| until <= txn.now()) => {
            txn.delete(&lock.part(CLOSED), Cause::Command);
            advance::advance(txn, lock);
        }
        Some((&OVERDUE, numbers)) => {
            let key = lock.key(b'h', numbers);
            let hold = txn.get(&key).map(|record| decoded::<Hold>(&record.value));
            if let Some(hold) = hold.filter(|hold| !hold.overdue) {
                lock.set_hold(txn, &Hold { overdue: true, ..hold });
            }
        }
        Some((&line::BROKEN, _)) => line::forget_reason(txn, FAMILY, what),
        _ => {}
    }
}

fn overdue(lock: &Lock, hold: &Hold) -> Vec<u8> {
    lock.timer(&[&[OVERDUE], &hold.numbers()[..]].concat())
}

fn after(Timestamp(at): Timestamp, Millis(time): Millis) -> Timestamp {
    Timestamp(at.saturating_add(time))
}
