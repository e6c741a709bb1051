//! Tests of the whole program: real processes, real sockets, real signals.

mod bad_input;
mod bad_meetings;
mod corruption;
mod crash;
mod curl;
mod cut_off;
mod disk_full;
mod events;
mod idempotency;
mod identity;
mod junk;
mod locks;
mod locks_line;
mod many;
mod membership;
mod pause;
mod queues;
mod queues_crash;
mod scale;
mod sessions;
mod sessions_faults;
mod smuggling;
mod startup;
mod tls;
mod trio;
mod watch;
