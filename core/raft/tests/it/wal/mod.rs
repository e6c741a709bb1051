//! Proof of the write-ahead log.

mod codec;
mod crash;
mod damage;
mod faults;
mod fixture;
mod model;
mod suite;
