//! Rows that were looked at, written, or passed over, counted a thread: what the curves of cost are made of.
//!
//! Only with the feature `steps`, which tests and examples turn on. Without it nothing is counted and nothing costs.

/// Steps of this thread so far.
#[cfg(feature = "steps")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// Rows, watchers and places of an index.
    pub rows: u64,
    /// Bytes of the values of those rows.
    pub bytes: u64,
}

#[cfg(feature = "steps")]
mod counter {
    #![allow(clippy::disallowed_types, reason = "it counts what is done, and nothing is done by it")]

    use std::cell::Cell;

    use super::Steps;

    thread_local! {
        static TAKEN: Cell<Steps> = const { Cell::new(Steps { rows: 0, bytes: 0 }) };
    }

    /// The steps that this thread has taken.
    #[must_use]
    pub fn taken() -> Steps {
        TAKEN.get()
    }

    pub(crate) fn step(bytes: usize) {
        let Steps { rows, bytes: before } = TAKEN.get();
        TAKEN.set(Steps { rows: rows + 1, bytes: before + bytes as u64 });
    }
}

#[cfg(feature = "steps")]
pub use counter::taken;

#[cfg(feature = "steps")]
pub(crate) use counter::step;

#[cfg(not(feature = "steps"))]
pub(crate) fn step(_: usize) {}
