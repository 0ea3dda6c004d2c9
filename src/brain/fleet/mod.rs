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
//! Peers' totals are added to it and zeroed when their router falls silent. Where no peer tells, what
//! other senders have in flight is estimated from the engines' pages (`others`).
//!
//! In-flight load counts what costs: a request's uncached tokens are pending prefill from its
//! booking to its first token, its context tokens are active decode from then on.
//!
//! A reservation is a lease: any token renews it, so it outlives long requests; without news it
//! expires, so it dies with lost ones. Release is idempotent.
//!
//! Everything is bounded ([`FleetConfig`]), every ledger operation takes constant time, and the
//! same calls give the same ids and the same order on every machine. A time that goes back counts
//! as the latest that was seen.
//!
//! Not here: KV residency (see [`crate::index`]) and any preference between endpoints.

mod booking;
mod change;
mod columns;
mod config;
mod ledger;
mod links;
mod load;
mod loras;
mod meter;
mod models;
mod observe;
mod others;
mod peers;
mod predicted;
mod roster;
mod signal;
mod spec;

pub use change::EndpointChange;
pub use columns::{Columns, DEFAULT_BATCH_TOKENS};
pub use config::{FirstTokens, FleetConfig};
pub use ledger::{Booking, InFlight, Reservation};
pub use load::{Ahead, Load, MAX_PREFILL_PAIRS, PrefillHead, prefill_pairs};
pub use loras::LoraState;
pub use meter::DecodeWindow;
pub(crate) use meter::SAME_STEP;
pub use observe::{CapacityConflict, Observed};
pub use peers::{PeerHead, PeerLoad, PeerOutcome, PeerTotals, PrefillTotals};
pub use predicted::Predicted;
pub use roster::Fleet;
pub use signal::{MetricsSample, Signal, SignalColumn};
pub use spec::{Capacity, EndpointSpec, Health, KvSource, Role, Topology};

use crate::{EndpointId, ReservationId};

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
    /// The ledger is at its bound.
    #[error(
        "{0} requests are in flight, the limit (max_reservations): raise it, or report finished requests"
    )]
    TooManyReservations(usize),
    /// The peer table is at its bound.
    #[error("{0} peer routers are known and alive, the limit (max_peers): raise it")]
    TooManyPeers(usize),
    /// A peer's name that cannot be.
    #[error("peer totals name a router of {bytes} bytes: give it a name of 1 to 256")]
    RouterName {
        /// Its length.
        bytes: usize,
    },
    /// A configured value that cannot be.
    #[error("fleet: {field} is {value}: give it {low} to {high}")]
    Config {
        /// Which.
        field: &'static str,
        /// What it was.
        value: u64,
        /// Least that works.
        low: u64,
        /// Most that works.
        high: u64,
    },
}

#[cfg(test)]
mod tests;
