//! The endpoints: who they are, how they feel, and what is in flight on them.
//!
//! One row a slot, stored as columns ([`Columns`]) so that scoring reads memory in order. A slot
//! is reused after its endpoint left, with the next generation: an [`EndpointId`] of the previous
//! tenant is refused everywhere.
//!
//! Load has two sources. *Reported* signals come from the engine's metrics page, each with its own
//! age ([`Signal`]); a stale one degrades to "unknown" and never stops dispatch. *Booked* load is
//! the ledger: what this router itself sent and has not seen finish. It is booked at the decision,
//! never at the response, so a burst does not herd.
//!
//! A reservation is a lease: any token renews it, so it outlives long requests; without news it
//! expires, so it dies with lost ones. Release is idempotent.
//!
//! Not here: KV residency (see [`crate::index`]) and any preference between endpoints.

mod signal;
mod spec;

pub use signal::{MetricsSample, Signal};
pub use spec::{Capacity, EndpointSpec, Health, KvSource, Role, Topology};

use crate::{EndpointId, ReservationId, Slot};

/// Why the fleet refused something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No endpoint has this id now.
    #[error("endpoint {0} is not (or no longer) in the fleet: endpoints() lists those that are")]
    Unknown(EndpointId),
    /// Two endpoints may not share (address, dp_rank).
    #[error(
        "endpoint address {address:?} with dp_rank {dp_rank} is already in the fleet as {existing}: remove that one first, or give this one its own dp_rank"
    )]
    Duplicate {
        /// Address that both claim.
        address: String,
        /// Rank that both claim.
        dp_rank: u32,
        /// Who has it.
        existing: EndpointId,
    },
    /// A field of a spec that cannot be.
    #[error("endpoint {address:?}: {field} is {value}: {remedy}")]
    Invalid {
        /// Which endpoint.
        address: String,
        /// Which field.
        field: &'static str,
        /// What it was.
        value: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The fleet is at its bound.
    #[error(
        "the fleet already has {0} endpoints, its limit (max_endpoints): raise it or remove endpoints"
    )]
    Full(usize),
    /// No such reservation.
    #[error("reservation {0:?} is unknown: it was released, or its lease expired")]
    UnknownReservation(ReservationId),
}

/// Everything that scoring reads, one row a [`Slot`]. Rows of empty slots have `occupied == false`
/// and otherwise unspecified values.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Whether the slot has a tenant.
    pub occupied: Vec<bool>,
    /// Tenant number.
    pub generation: Vec<u32>,
    /// What it can serve.
    pub role: Vec<Role>,
    /// Whether it may be given new requests.
    pub health: Vec<Health>,
    /// Index into the fleet's model names.
    pub model: Vec<u32>,

    /// Requests waiting in the engine's queue, as it reported.
    pub waiting_requests: Vec<Signal>,
    /// Requests running, as it reported.
    pub running_requests: Vec<Signal>,
    /// Share of its KV cache in use, 0 to 1, as it reported.
    pub kv_usage: Vec<Signal>,
    /// Share of time its GPU was busy, 0 to 1, by whatever process, as an exporter reported.
    pub gpu_utilization: Vec<Signal>,
    /// GPU memory in use, bytes, as an exporter reported.
    pub gpu_memory_used_bytes: Vec<Signal>,

    /// Requests that we sent and that have not finished.
    pub inflight_requests: Vec<u32>,
    /// Prompt tokens that we sent, that were not cached, and whose first token has not come.
    pub pending_prefill_tokens: Vec<u64>,
    /// Context tokens (prompt and output so far) of our requests that are being decoded.
    pub active_decode_tokens: Vec<u64>,
    /// Prompt tokens of all our requests in flight, cached or not: KV that they hold or will hold.
    pub inflight_context_tokens: Vec<u64>,

    /// KV cache capacity in tokens; 0 where unknown.
    pub kv_capacity_tokens: Vec<u64>,
    /// Most requests the engine runs at once; 0 where unknown.
    pub max_running_requests: Vec<u32>,
}

impl Columns {
    /// Number of slots, occupied or not.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.occupied.len()
    }

    /// The current tenant of a slot.
    #[must_use]
    pub fn id(&self, slot: Slot) -> Option<EndpointId> {
        let occupied = *self.occupied.get(slot.index())?;
        occupied.then(|| EndpointId { slot, generation: self.generation[slot.index()] })
    }
}
