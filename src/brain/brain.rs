//! Composes the rooms into one contract: [`step`](Brain::step)`(now, Input) -> Actions` and
//! [`next_wakeup`](Brain::next_wakeup)`() -> Option<Time>`.

pub use crate::fleet::{EndpointChange, PeerLoad, PeerTotals};

use crate::fleet::{EndpointSpec, MetricsSample};
use crate::index::KvEventBatch;
use crate::schedule::{Decision, ForeignScore, Request};
use crate::{BlockKey, EndpointId, ReservationId, Ticket};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// A request wants a place.
    Arrive {
        /// What it is.
        request: Request,
        /// The keys of its full blocks, in order.
        keys: Vec<BlockKey>,
        /// Scores from outside, for the foreign scorers of the profile.
        foreign: Vec<ForeignScore>,
    },
    /// The first output token of a routed request came.
    FirstToken(ReservationId),
    /// Output grew to this many tokens in all.
    Progress(ReservationId, u32),
    /// The request finished, with this many output tokens.
    Finished(ReservationId, u32),
    /// The client went away, or the request failed; held or routed.
    Cancelled(Ticket),
    /// An engine's KV cache changed.
    KvEvents(EndpointId, KvEventBatch),
    /// What an engine holds is no longer known (a restart, a gap that cannot be replayed).
    KvLost(EndpointId),
    /// An engine's metrics page was read.
    Metrics(EndpointId, MetricsSample),
    /// An endpoint joins.
    Join(EndpointSpec),
    /// An endpoint changes.
    Change(EndpointId, EndpointChange),
    /// An endpoint leaves.
    Leave(EndpointId),
    /// A peer router's totals.
    PeerTotals(PeerTotals),
    /// Time passed.
    Tick,
}

/// Something for the body to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send the request there.
    Route(Box<Decision>),
    /// Keep it; a `Release` or `Reject` for the ticket follows.
    Hold(Ticket),
    /// A held request has its place now.
    Release(Box<Decision>),
    /// It cannot be served.
    Reject {
        /// Which.
        ticket: Ticket,
        /// Why.
        why: RejectReason,
    },
    /// Abort what was sent: the client is gone, or the endpoint left.
    Cancel {
        /// Which.
        ticket: Ticket,
        /// Where it runs.
        endpoint: EndpointId,
    },
    /// An endpoint joined.
    Joined(EndpointId),
    /// An endpoint left; what was in flight on it is released.
    Left(EndpointId),
}

/// Why a request has no place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RejectReason {
    /// There is nobody.
    #[error("no endpoint in the fleet: add one first")]
    EmptyFleet,
    /// Everybody was filtered out.
    #[error("no endpoint can serve the request: {0}")]
    NoCandidate(String),
    /// It waited as long as it may.
    #[error("held for {0} ms without an endpoint becoming available")]
    HoldExpired(u64),
    /// The hold queue is at its bound.
    #[error("{0} requests are held already, the limit (max_held_requests)")]
    HoldQueueFull(usize),
}
