//! Tests of the whole program: real processes, real sockets, real signals.
