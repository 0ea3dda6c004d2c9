//! Who follows one endpoint's KV events and metrics.

use super::LiveRouter;
use super::error::RouterError;
use llmd_brain::EndpointId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where an endpoint's own news is to be had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// ZeroMQ address of its KV events.
    pub kv_events: Option<String>,
    /// ZeroMQ address of their replay.
    pub kv_replay: Option<String>,
    /// Prefix of the topics that matter.
    pub kv_topic: String,
    /// URL of its metrics page.
    pub metrics: Option<String>,
}

/// How far an engine's KV events have been followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KvPosition {
    /// Number of the last batch in the index.
    pub sequence: Option<u64>,
    /// Whether the subscription stands.
    pub connected: bool,
    /// Batches put into the index.
    pub batches: u64,
    /// Times that numbers were missing.
    pub gaps: u64,
    /// Times that missing batches were fetched again.
    pub replays: u64,
    /// Times that the engine was found to have started anew.
    pub restarts: u64,
    /// Times that what it holds had to be forgotten.
    pub losses: u64,
    /// Messages that could not be read.
    pub bad_frames: u64,
}

/// What follows one endpoint; ends when it is dropped.
#[derive(Default)]
pub(super) struct Observers {
    observed: Observed,
}

impl Observers {
    /// Follows an endpoint.
    pub(super) fn start(
        _router: &Arc<LiveRouter>,
        _id: EndpointId,
        observed: Observed,
    ) -> Result<Self, RouterError> {
        Ok(Self { observed })
    }

    /// Learns what the endpoint holds from the start of its events.
    pub(super) fn resync(&self) {}

    /// What is followed.
    pub(super) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// How far the events have been followed; `None` where there are none.
    pub(super) fn kv_position(&self) -> Option<KvPosition> {
        None
    }
}
