//! Latency models: what a decision costs, in milliseconds, before it is made.

mod profile;

pub use profile::{EngineProfile, PROFILES};
