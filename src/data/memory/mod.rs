//! Memory that processes share, and copies of it.

pub mod copying;
