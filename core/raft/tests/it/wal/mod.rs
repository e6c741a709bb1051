//! Proof of the write-ahead log.

mod codec;
mod crash;
mod fixture;
mod suite;
