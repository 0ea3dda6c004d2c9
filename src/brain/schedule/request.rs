//! What scheduling needs to know about a request, besides its block keys.

use crate::fleet::Topology;
use crate::{BlockKey, EndpointId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A request to be placed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Model asked for; empty matches endpoints of any model.
    pub model: String,
    /// LoRA adapter asked for.
    pub lora: Option<String>,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Tokens a block key stands for (for text prompts: of the estimate).
    pub block_tokens: u32,
    /// Whether the keys are of text: no engine's events can confirm those, so what is booked for
    /// them is believed for as long as for an endpoint without events.
    pub is_text: bool,
    /// Limit on the output that the client gave.
    pub max_output_tokens: Option<u32>,
    /// Conversation that it belongs to.
    pub session_id: Option<String>,
    /// Higher is more important; negative may be shed.
    pub priority: i32,
    /// Latency that the client asks for.
    pub slo: Slo,
    /// Only these endpoints, where given.
    pub allowed: Option<Vec<EndpointId>>,
    /// Labels that an endpoint must have.
    pub required_labels: BTreeMap<String, String>,
    /// Where the client or the data stands, for topology scoring.
    pub origin: Topology,
    /// How long it may be held when no endpoint can take it, in milliseconds; 0 is not at all.
    pub hold_ms: u64,
    /// Who pays for it: tenants share what there is fairly. Requests of nobody are one tenant.
    pub tenant: Option<String>,
    /// When its whole answer is due, milliseconds after it came; an answer that comes later is worth
    /// nothing, so it is held no longer.
    pub deadline_ms: Option<u64>,
    /// How long its answer will be, where the client knows; otherwise the mean of recent ones.
    pub expected_output_tokens: Option<u32>,
    /// Nobody will tell of its end: it counts as over when the latency model or its engine's page says so.
    pub end_is_untold: bool,
    /// Not these endpoints: they were tried. Unlike [`allowed`](Self::allowed) this leaves out nobody who
    /// joins meanwhile.
    pub excluded: Vec<EndpointId>,
    /// Nobody will tell when its answer began, as of one that comes all at once at its end: it counts as
    /// begun when the latency model says so.
    pub first_token_is_untold: bool,
}

/// What is asked for: a request, and the keys of its prompt's full blocks.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The request.
    pub request: &'a Request,
    /// The keys, in order; none where only its size is known.
    pub keys: &'a [BlockKey],
}

impl<'a> From<&'a Request> for Ask<'a> {
    /// One of whose prompt only the size is known.
    fn from(request: &'a Request) -> Self {
        Self { request, keys: &[] }
    }
}

/// Latency objectives, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slo {
    /// Time to first token.
    pub ttft_ms: Option<f64>,
    /// Time per output token after the first.
    pub tpot_ms: Option<f64>,
}

/// Scores that code outside the brain gave, one a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForeignScore {
    /// Name of the scorer, as the profile lists it.
    pub name: String,
    /// Where the profile does not list it: its weight in the sum, after all others. `None` where
    /// it counts only if it is listed.
    pub weight: Option<f64>,
    /// The candidates that were scored, in slot order.
    pub candidates: Vec<EndpointId>,
    /// A score for each of them; clamped to `[0, 1]`.
    pub values: Vec<f64>,
}
