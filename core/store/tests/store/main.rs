//! Tests of the store: golden conversations, and properties against a small model.

use coracle_store::{Delta, Row, RowSource};

mod commands;
mod golden;
mod model;
mod properties;
mod script;
mod traps;
mod watchers;
mod words;

/// The rows of a delta, all at once.
fn rows_of(delta: &Delta) -> Vec<Row> {
    let mut cursor = delta.rows(&mut || ());
    let mut rows = Vec::new();
    while let Some((table, key, value)) = cursor.next() {
        rows.push(Row { table, key: key.to_vec(), value: value.map(<[u8]>::to_vec) });
    }
    rows
}
