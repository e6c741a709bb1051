//! Types of the store as types of the API.

use coracle_api as api;
use coracle_recipes::lock::Mode;
use coracle_store::{Cause, Key, Session, SessionId};

/// The name of a KV key as JSON text or, if it is not UTF-8, in percent-encoding.
pub fn key_text(key: &Key) -> String {
    name_text(key.name())
}

pub fn name_text(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_owned(),
        Err(_) => percent_encoding::percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string(),
    }
}

/// # Panics
/// Never for ids that came from the store or from a parsed request: both are 63 bits and not zero.
pub fn session(id: SessionId) -> api::SessionId {
    api::SessionId::new(id.0 & (u64::MAX >> 1))
        .unwrap_or_else(|| api::SessionId::new(1).expect("one is an id"))
}

pub fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub fn mode(mode: Mode) -> api::Mode {
    match mode {
        Mode::Exclusive => api::Mode::Exclusive,
        Mode::Shared => api::Mode::Shared,
    }
}

/// How many there are in all, if not all are listed.
pub fn rest(all: usize, listed: usize) -> Option<u64> {
    (all > listed).then_some(all as u64)
}

/// Why something happened that nobody asked for by name.
pub fn cause(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::Command => None,
        Cause::SessionExpired => Some("session_expired"),
        Cause::SessionClosed => Some("session_closed"),
        Cause::Broken => Some("broken"),
    }
}

/// How a living session is, as far as the log knows.
pub fn session_state(session: &Session) -> api::SessionState {
    if session.suspect.is_some() {
        api::SessionState::Suspect
    } else if session.stalled.is_some() {
        api::SessionState::Stalled
    } else {
        api::SessionState::Active
    }
}

/// How far a session says it is. A note without a number is a beginning.
pub fn progress(session: &Session) -> Option<api::Progress> {
    if session.progress.is_none() && session.note.is_none() {
        return None;
    }
    let note = session.note.as_deref().map(str::to_owned);
    Some(api::Progress { percent: session.progress.unwrap_or(0), note })
}
