//! A router as documents: what the admin server answers, and what a notebook shows.

use super::error::RouterError;
use super::members::MemberRef;
use super::tier_blocks::TierBlocks;
use super::{LiveRouter, Prompt, Scratch};
use llmd_brain::EndpointId;
use llmd_brain::brain::EndpointView;
use llmd_brain::fleet::{Capacity, EndpointSpec, Health, KvSource, Predicted, Role, Topology};
use llmd_brain::prompt::{MultimodalItem, Scope};
use llmd_brain::schedule::{Decision, Explanation, ForeignScore, Request, Slo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Whether an endpoint gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthName {
    /// Gets requests.
    Ready,
    /// Gets none until uncordoned.
    Cordoned,
    /// Gets none, and leaves once nothing is in flight.
    Draining,
    /// Not answering.
    Unreachable,
    /// No longer in the fleet.
    Left,
}

impl HealthName {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Left => "left",
        }
    }
}

impl From<Health> for HealthName {
    fn from(health: Health) -> Self {
        match health {
            Health::Ready => Self::Ready,
            Health::Cordoned => Self::Cordoned,
            Health::Draining => Self::Draining,
            Health::Unreachable => Self::Unreachable,
        }
    }
}

/// What an endpoint has to do, and how it copes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LoadDocument {
    /// Requests in flight from this router.
    pub inflight_requests: u32,
    /// Uncached prompt tokens whose first token has not come.
    pub pending_prefill_tokens: u64,
    /// Context tokens being decoded.
    pub active_decode_tokens: u64,
    /// Requests in its queue, as last reported.
    pub waiting_requests: Option<f64>,
    /// Share of its KV cache in use, as last reported.
    pub kv_usage: Option<f64>,
    /// Latency over what it was, while that has departed for good; the larger departure of prefill
    /// and decode.
    #[serde(default)]
    pub latency_drift: Option<f64>,
}

/// An endpoint at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointDocument {
    /// `slot.generation`.
    pub id: String,
    /// Where requests go.
    pub address: String,
    /// Data-parallel rank.
    pub dp_rank: u32,
    /// Model.
    pub model: String,
    /// Phases that it serves.
    pub role: Role,
    /// LoRA adapters.
    pub loras: Vec<String>,
    /// Where it stands.
    pub topology: Topology,
    /// What it can hold, as far as known.
    pub capacity: Capacity,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How its residency is known.
    pub kv_source: KvSource,
    /// Whether it gets requests.
    pub health: HealthName,
    /// What it has to do.
    #[serde(flatten)]
    pub load: LoadDocument,
    /// Requests running, as last reported.
    pub running_requests: Option<f64>,
    /// Share of time its GPU was busy, as last reported.
    pub gpu_utilization: Option<f64>,
    /// KV blocks that it is known or believed to hold.
    pub held_blocks: u64,
    /// Those by where they lie.
    #[serde(default)]
    pub held_blocks_by_tier: TierBlocks,
}

impl From<EndpointView> for EndpointDocument {
    fn from(view: EndpointView) -> Self {
        let spec = view.spec;
        Self {
            id: view.id.to_string(),
            address: spec.address,
            dp_rank: spec.dp_rank,
            model: spec.model,
            role: spec.role,
            loras: spec.loras,
            topology: spec.topology,
            capacity: spec.capacity,
            labels: spec.labels,
            kv_source: spec.kv_source,
            health: view.health.into(),
            load: LoadDocument {
                inflight_requests: view.inflight_requests,
                pending_prefill_tokens: view.pending_prefill_tokens,
                active_decode_tokens: view.active_decode_tokens,
                waiting_requests: view.waiting_requests,
                kv_usage: view.kv_usage,
                latency_drift: view.latency.and_then(|it| it.drift()),
            },
            running_requests: view.running_requests,
            gpu_utilization: view.gpu_utilization,
            held_blocks: view.blocks.exact.iter().sum::<u64>() + view.blocks.believed,
            held_blocks_by_tier: view.blocks.into(),
        }
    }
}

/// How a request was placed, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplanationDocument {
    /// Profile.
    pub profile: String,
    /// Who was picked.
    pub chosen: Option<EndpointDocument>,
    /// Why nobody was.
    pub rejection: Option<String>,
    /// Filters, in the order in which they ran.
    pub filters: Vec<FilterDocument>,
    /// Who was scored, in slot order.
    pub candidates: Vec<EndpointDocument>,
    /// One column a scorer.
    pub scores: Vec<ScoreDocument>,
    /// Weighted sum for each candidate.
    pub totals: Vec<f64>,
    /// Matched tokens for each candidate.
    pub matched_tokens: Vec<u32>,
    /// Picker.
    pub picker: String,
    /// Why the profile was not followed, where it was not.
    pub fallback: Option<String>,
    /// What is expected of the request where it was picked to go.
    #[serde(default)]
    pub predicted: Predicted,
}

/// One filter's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterDocument {
    /// Name.
    pub name: String,
    /// Whom it removed.
    pub removed: Vec<EndpointDocument>,
    /// Whether it would have removed everybody, and was skipped.
    pub skipped: bool,
}

/// One scorer's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreDocument {
    /// Name.
    pub name: String,
    /// Weight in the sum.
    pub weight: f64,
    /// A score for each candidate.
    pub values: Vec<f64>,
}

/// A request to be explained, as it comes over HTTP.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExplainRequest {
    /// The prompt as token ids.
    pub tokens: Option<Vec<u32>>,
    /// The prompt as text.
    pub text: Option<String>,
    /// Model asked for.
    pub model: String,
    /// LoRA adapter asked for.
    pub lora: Option<String>,
    /// Cache salt.
    pub cache_salt: Option<String>,
    /// Multimodal items.
    pub multimodal: Vec<MultimodalItem>,
    /// Conversation.
    pub session_id: Option<String>,
    /// Priority.
    pub priority: i32,
    /// Latency objectives.
    pub slo: Slo,
    /// Limit on the output.
    pub max_output_tokens: Option<u32>,
    /// How long its answer will be.
    pub expected_output_tokens: Option<u32>,
    /// Only these endpoints, by address or id.
    pub allowed: Option<Vec<String>>,
    /// Labels that an endpoint must have.
    pub required_labels: BTreeMap<String, String>,
    /// Where the client stands.
    pub origin: Topology,
}

impl LiveRouter {
    /// An endpoint now; as it was said to be where it left and its slot is still free.
    #[must_use]
    pub fn document(&self, id: EndpointId) -> EndpointDocument {
        match self.spec(id) {
            Some(spec) => self.document_of(id, &spec),
            None => self.document_of(id, &EndpointSpec::new("", "")),
        }
    }

    /// An endpoint now; as `spec` says where it left.
    #[must_use]
    pub fn document_of(&self, id: EndpointId, spec: &EndpointSpec) -> EndpointDocument {
        if let Some(view) = self.endpoint(id) {
            return view.into();
        }
        let spec = spec.clone();
        EndpointDocument {
            id: id.to_string(),
            address: spec.address,
            dp_rank: spec.dp_rank,
            model: spec.model,
            role: spec.role,
            loras: spec.loras,
            topology: spec.topology,
            capacity: spec.capacity,
            labels: spec.labels,
            kv_source: spec.kv_source,
            health: HealthName::Left,
            load: LoadDocument::default(),
            running_requests: None,
            gpu_utilization: None,
            held_blocks: 0,
            held_blocks_by_tier: TierBlocks::default(),
        }
    }

    /// Everybody in the fleet, in slot order.
    #[must_use]
    pub fn documents(&self) -> Vec<EndpointDocument> {
        self.endpoints().into_iter().map(EndpointDocument::from).collect()
    }

    /// How a request was placed.
    #[must_use]
    pub fn explanation_of(&self, decision: &Decision) -> ExplanationDocument {
        self.explained(Some((decision.endpoint, decision.predicted)), &decision.explanation())
    }

    /// How a prepared request would be placed now.
    #[must_use]
    pub fn explanation(
        &self,
        request: &Request,
        foreign: &[ForeignScore],
        scratch: &mut Scratch,
    ) -> ExplanationDocument {
        match self.explain(request, foreign, scratch) {
            Ok(choice) => {
                self.explained(Some((choice.endpoint, choice.predicted)), &choice.explanation())
            }
            Err(why) => ExplanationDocument {
                rejection: Some(why.to_string()),
                ..self.explained(None, &Explanation::default())
            },
        }
    }

    /// How a request that came over HTTP would be placed now.
    ///
    /// # Errors
    /// [`RouterError`] for a request that cannot be.
    pub fn explain_remote(
        &self,
        asked: ExplainRequest,
    ) -> Result<ExplanationDocument, RouterError> {
        let scope = Scope {
            model: asked.model.clone(),
            lora: asked.lora.clone(),
            cache_salt: asked.cache_salt,
            multimodal: asked.multimodal,
        };
        let allowed = match asked.allowed {
            None => None,
            Some(names) => Some(
                names
                    .into_iter()
                    .map(|name| self.find(&MemberRef::Name(name)))
                    .collect::<Result<_, _>>()?,
            ),
        };
        let mut request = Request {
            model: asked.model,
            lora: asked.lora,
            max_output_tokens: asked.max_output_tokens,
            expected_output_tokens: asked.expected_output_tokens,
            session_id: asked.session_id,
            priority: asked.priority,
            slo: asked.slo,
            allowed,
            required_labels: asked.required_labels,
            origin: asked.origin,
            ..Request::default()
        };
        let prompt = match (&asked.tokens, &asked.text) {
            (Some(tokens), None) => Prompt::Tokens(tokens),
            (None, Some(text)) => Prompt::Text(text),
            _ => return Err(RouterError::OnePrompt),
        };
        let mut scratch = Scratch::default();
        self.prepare(prompt, &scope, &mut request, &mut scratch)?;
        Ok(self.explanation(&request, &[], &mut scratch))
    }

    fn explained(
        &self,
        chosen: Option<(EndpointId, Predicted)>,
        why: &Explanation,
    ) -> ExplanationDocument {
        let documents =
            |ids: &[EndpointId]| ids.iter().map(|&id| self.document(id)).collect::<Vec<_>>();
        ExplanationDocument {
            profile: why.profile.clone(),
            chosen: chosen.map(|(id, _)| self.document(id)),
            rejection: None,
            filters: why
                .filters
                .iter()
                .map(|step| FilterDocument {
                    name: step.name.clone(),
                    removed: documents(&step.removed),
                    skipped: step.skipped,
                })
                .collect(),
            candidates: documents(&why.candidates),
            scores: why
                .scores
                .iter()
                .map(|column| ScoreDocument {
                    name: column.name.clone(),
                    weight: column.weight,
                    values: column.values.clone(),
                })
                .collect(),
            totals: why.totals.clone(),
            matched_tokens: why.matched_tokens.clone(),
            picker: why.picker.clone(),
            fallback: why.fallback.clone(),
            predicted: chosen.map_or_else(Predicted::default, |(_, predicted)| predicted),
        }
    }
}
