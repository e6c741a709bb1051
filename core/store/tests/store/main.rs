//! Tests of the store: golden conversations, and properties against a small model.

mod commands;
mod golden;
mod model;
mod properties;
mod script;
mod traps;
mod watchers;
