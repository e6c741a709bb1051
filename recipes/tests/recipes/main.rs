//! Tests of the recipes: golden conversations, and properties against small models.

mod barrier_model;
mod barrier_words;
mod counter_model;
mod counter_words;
mod driver;
mod fence_model;
mod fence_words;
mod golden;
mod group_model;
mod group_words;
mod latch_model;
mod latch_words;
mod lock_model;
mod lock_traps;
mod lock_words;
mod meeting_model;
mod queue_list;
mod queue_model;
mod queue_words;
mod script;
mod service_model;
mod service_picks;
mod service_words;
mod topic_model;
mod topic_properties;
mod topic_words;
