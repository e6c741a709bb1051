//! A disk in memory that behaves as badly as a real one may.
