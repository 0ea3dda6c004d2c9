//! A choice with its reasons.

use super::reasons::Reasons;
use crate::fleet::Predicted;
use crate::index::MatchSource;
use crate::{EndpointId, ReservationId, Ticket};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Where a request goes, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The request.
    pub ticket: Ticket,
    /// Who answers the client: the endpoint of the decode leg, or of the only one.
    pub endpoint: EndpointId,
    /// What is to be done, in order.
    pub legs: SmallVec<[Leg; 1]>,
    /// Prompt tokens that the endpoint is believed to hold.
    pub matched_tokens: u32,
    /// What that belief rests on.
    pub match_source: MatchSource,
    /// What the latency model expects.
    pub predicted: Predicted,
    /// The load booked for it.
    pub reservation: ReservationId,
    /// How the choice was made.
    #[serde(rename = "explanation")]
    pub reasons: Reasons,
}

impl Decision {
    /// How the choice was made, to be read.
    #[must_use]
    pub fn explanation(&self) -> Explanation {
        self.reasons.explanation()
    }
}

/// One step of serving a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// What is done.
    pub phase: Phase,
    /// By whom: one endpoint, or all of a gang.
    pub endpoints: SmallVec<[EndpointId; 2]>,
}

/// A phase of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Prefill and decode on one endpoint.
    Aggregated,
    /// Multimodal encoding.
    Encode,
    /// Prefill, whose KV another endpoint takes over.
    Prefill,
    /// Decode with KV that another endpoint prefilled.
    Decode,
}

/// What each filter removed and what each scorer gave.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// Name of the profile.
    pub profile: String,
    /// Filters in the order in which they ran.
    pub filters: Vec<FilterStep>,
    /// Who was scored, in slot order.
    pub candidates: Vec<EndpointId>,
    /// One column a scorer, in the order of the profile.
    pub scores: Vec<ScoreColumn>,
    /// Weighted sum for each candidate.
    pub totals: Vec<f64>,
    /// Matched tokens for each candidate.
    pub matched_tokens: Vec<u32>,
    /// Name of the picker.
    pub picker: String,
    /// Why the profile was not followed, where it was not (a scorer failed, say).
    pub fallback: Option<String>,
}

/// One filter's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterStep {
    /// Name of the filter.
    pub name: String,
    /// Whom it removed.
    pub removed: Vec<EndpointId>,
    /// Whether it would have removed everybody and was therefore skipped.
    pub skipped: bool,
}

/// One scorer's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreColumn {
    /// Name of the scorer.
    pub name: String,
    /// Weight in the sum.
    pub weight: f64,
    /// A score in `[0, 1]` for each candidate.
    pub values: Vec<f64>,
}
