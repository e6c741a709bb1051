//! Tests of the recipes: golden conversations, and properties against small models.

mod golden;
mod lock_model;
mod lock_traps;
mod lock_words;
mod script;
