//! The data plane: bytes of KV blocks, where they are kept and how they move.
//!
//! A crate of its own, because this is the one place that touches raw memory: in every other crate
//! `unsafe` is denied, but for a prefetch in the brain's index, and each use of it here says why it
//! holds. It decides nothing about
//! requests: where a prompt's blocks should be is the brain's business.
//!
//! The rooms, each of which imports only those listed above it.

pub mod memory;

pub mod transfer;

pub mod kv;

pub mod ep;
