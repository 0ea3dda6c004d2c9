//! What goes into the brain and what comes out: the vocabulary of every body.

use crate::fleet::{EndpointChange, EndpointSpec, MetricsSample, PeerTotals};
use crate::index::KvEventBatch;
use crate::predict::SavedModels;
use crate::schedule::{Decision, ForeignScore, NoCandidate, Request, ScheduleConfig};
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
    /// Latency models that another brain had learned.
    LearnedModels(Box<SavedModels>),
    /// Time passed.
    Tick,
    /// Requests are placed by another profile from now on.
    Schedule(Box<ScheduleConfig>),
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
        /// Where others are in its way: after how many milliseconds it may have more luck. `None`
        /// where nobody could serve it even if nothing else was asked.
        #[serde(default)]
        retry_after_ms: Option<u64>,
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
    /// An engine restarted, as its metrics show: what it holds has to be learned again from the
    /// start of its events.
    Resync(EndpointId),
}

/// Why a request has no place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RejectReason {
    /// There is nobody.
    #[error("no endpoint in the fleet: add one first")]
    EmptyFleet,
    /// Nobody who is there can serve it.
    #[error("no endpoint can serve the request: {0}")]
    NoCandidate(String),
    /// The load could not be booked.
    #[error("the request cannot be booked: {0}")]
    NotBooked(String),
    /// Its session has no room in any KV cache, and it may not wait.
    #[error("no KV cache has room for its session now")]
    NoRoom,
    /// It waited as long as it may.
    #[error("held for {0} ms without an endpoint becoming available")]
    HoldExpired(u64),
    /// It could not be held either.
    #[error("no endpoint can take it now, and it cannot wait: {0}")]
    NotHeld(String),
    /// Every engine that could take it has enough to do, and it may not wait.
    #[error("every endpoint that can serve it has enough to do")]
    Saturated,
    /// Its answer was due before it had a place.
    #[error("its answer was due after {0} ms (deadline_ms), and it still waited")]
    DeadlinePassed(u64),
    /// Too many wait, and it was the least important one that may be shed, or the last of the tenant
    /// that has the most waiting.
    #[error("{0} requests wait (max_held_requests), and it made room for another")]
    Shed(usize),
}

impl RejectReason {
    /// Whether others are in its way, as far as the reason alone says.
    pub(super) fn is_contention(&self) -> bool {
        match self {
            Self::NotBooked(_) | Self::NoRoom | Self::Saturated | Self::Shed(_) => true,
            Self::EmptyFleet
            | Self::NoCandidate(_)
            | Self::HoldExpired(_)
            | Self::NotHeld(_)
            | Self::DeadlinePassed(_) => false,
        }
    }
}

/// A request without a place, as the body that asked is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Rejected {
    /// Why.
    pub why: RejectReason,
    /// As in [`Action::Reject`].
    pub retry_after_ms: Option<u64>,
}

impl Rejected {
    /// The HTTP status: 429 where others are in its way, with `Retry-After`, 503 where nobody can
    /// serve it.
    #[must_use]
    pub fn status(&self) -> u16 {
        if self.retry_after_ms.is_some() { 429 } else { 503 }
    }
}

impl From<RejectReason> for Rejected {
    /// Of a request that nothing was tried for, such as an explanation.
    fn from(why: RejectReason) -> Self {
        Self { why, retry_after_ms: None }
    }
}

impl From<NoCandidate> for RejectReason {
    fn from(why: NoCandidate) -> Self {
        match why {
            NoCandidate::EmptyFleet => Self::EmptyFleet,
            NoCandidate::Excluded(by) => Self::NoCandidate(by.to_string()),
        }
    }
}
