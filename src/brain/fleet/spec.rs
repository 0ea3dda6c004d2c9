//! What an endpoint is, as its owner describes it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An endpoint as it joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// Where requests go: a base URL, or any name that the body understands. Unique together with
    /// `dp_rank`.
    pub address: String,
    /// Data-parallel rank behind that address.
    #[serde(default)]
    pub dp_rank: u32,
    /// Which phases it serves.
    #[serde(default)]
    pub role: Role,
    /// Model that it serves.
    #[serde(default)]
    pub model: String,
    /// LoRA adapters that it can serve without loading.
    #[serde(default)]
    pub loras: Vec<String>,
    /// Where it stands.
    #[serde(default)]
    pub topology: Topology,
    /// What it can hold.
    #[serde(default)]
    pub capacity: Capacity,
    /// How its KV residency is known.
    #[serde(default)]
    pub kv_source: KvSource,
    /// Free labels, for label filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl EndpointSpec {
    /// An endpoint with defaults for everything but its address and model.
    #[must_use]
    pub fn new(address: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            dp_rank: 0,
            role: Role::default(),
            model: model.into(),
            loras: Vec::new(),
            topology: Topology::default(),
            capacity: Capacity::default(),
            kv_source: KvSource::default(),
            labels: BTreeMap::new(),
        }
    }
}

/// Which phases of a request an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Prefill and decode.
    #[default]
    Both,
    /// Prefill only.
    Prefill,
    /// Decode only.
    Decode,
    /// Multimodal encoding only.
    Encode,
}

/// Where an endpoint stands; empty strings are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Machine.
    pub host: String,
    /// Rack or NVLink domain.
    pub rack: String,
    /// Availability zone.
    pub zone: String,
    /// Region.
    pub region: String,
}

/// What an endpoint can hold; zeros are unknown and learned from its metrics where they say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// KV cache blocks on the GPU.
    pub kv_blocks: u64,
    /// Tokens a KV cache block.
    pub block_size: u32,
    /// Most requests run at once.
    pub max_running_requests: u32,
    /// Most tokens in one engine step.
    pub max_batch_tokens: u32,
    /// Longest prompt plus output, in tokens.
    pub max_model_len: u32,
}

/// How the router knows what an endpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvSource {
    /// From our own decisions.
    #[default]
    Approximate,
    /// From its KV events.
    Events,
}

/// Whether an endpoint may be given new requests. What is in flight goes on in every state but
/// the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Gets requests.
    #[default]
    Ready,
    /// Gets none until uncordoned.
    Cordoned,
    /// Gets none, and leaves once nothing is in flight.
    Draining,
    /// Not answering; gets none until it does.
    Unreachable,
}

impl Health {
    /// Whether new requests may go there.
    #[must_use]
    pub fn is_schedulable(self) -> bool {
        matches!(self, Self::Ready)
    }
}
