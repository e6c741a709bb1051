//! Tests of the generator itself.
