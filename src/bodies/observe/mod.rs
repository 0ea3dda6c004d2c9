//! What engines tell us: KV events, metrics, and where to find both.
//!
//! - [`vllm`] and [`sglang`] decode event payloads: pure functions on bytes.
//! - [`Subscriber`] follows one engine's and rank's events and hands them to a [`KvSink`] once and
//!   in order, or tells it that what it believes is void. [`Recovery`] makes those decisions
//!   without sockets.
//! - [`scraper`] reads metrics pages at intervals, [`metrics`] says what is on them.
//! - [`discovery`] asks an engine what it serves and where its events are.
//!
//! Guarantees: bytes from engines are untrusted. Every length is bounded, nothing panics, and what
//! is dropped is counted.
//!
//! Not here: what is done with events and metrics (the brain's business).

mod backoff;
mod cursor;
mod decoded;
pub mod discovery;
mod exposition;
mod lost;
pub mod metrics;
mod msgpack;
mod recovery;
mod replay;
mod runs;
pub mod scraper;
pub mod sglang;
mod subscriber;
pub mod vllm;
mod wire;

#[cfg(test)]
mod tests;

pub use backoff::BackoffConfig;
pub use cursor::{Bookmark, Digest, EventCursor, Verdict};
pub use decoded::{DecodeError, DecodeLimits, Decoded, Skipped};
pub use lost::{LostReason, RestartSign};
pub use msgpack::MsgpackError;
pub use recovery::{Recovery, RecoveryConfig, RecoveryCounts, ReplayEnd, Step};
pub use subscriber::{
    EventFormat, GoOn, Subscriber, SubscriberConfig, SubscriberStatus, SyncError,
};

pub(crate) use backoff::Backoff;
use llmd_brain::EndpointId;
use llmd_brain::index::KvEventBatch;

/// Who wants the events. Called from the subscriber's task, so it must not block for long; calls
/// for one endpoint come one after another.
pub trait KvSink: Send + Sync {
    /// The next batch of an endpoint.
    fn events(&self, endpoint: EndpointId, sequence: u64, batch: KvEventBatch);
    /// Nothing that was said about the endpoint's cache holds any more.
    fn lost(&self, endpoint: EndpointId, reason: &LostReason);
}
