//! What engines tell: KV events, metrics and what they say of themselves.
//!
//! Everything here is foreign input: sizes are limited, what makes no sense is counted and dropped,
//! and nothing that an engine sends can stop a router.

pub mod discovery;
mod exposition;
pub mod metrics;
pub mod scraper;
