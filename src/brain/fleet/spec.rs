//! What an endpoint is, as its owner describes it.

use super::FleetError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bounds on what a spec may say: it may come from a discovery service.
const MAX_ADDRESS_BYTES: usize = 2_048;
const MAX_NAME_BYTES: usize = 512;
const MAX_LORAS: usize = 4_096;
const MAX_LABELS: usize = 256;
pub(super) const MAX_KV_BLOCKS: u64 = 1 << 40;
pub(super) const MAX_BLOCK_TOKENS: u32 = 1 << 20;

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

    /// Whether it can join; the error names the first field that cannot be, and the remedy.
    ///
    /// # Errors
    /// [`FleetError::Invalid`].
    pub fn validate(&self) -> Result<(), FleetError> {
        let check = |good: bool, field, value: &dyn ToString, remedy| {
            if good {
                return Ok(());
            }
            let cut = |text: String| match text.char_indices().nth(80) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            };
            let (address, value) = (cut(self.address.clone()), cut(value.to_string()));
            Err(FleetError::Invalid { address, field, value, remedy })
        };
        let name = |field, text: &String| {
            let good = text.len() <= MAX_NAME_BYTES && !text.chars().any(char::is_control);
            check(good, field, text, "give it at most 512 bytes without control characters")
        };
        let address_is_good = !self.address.trim().is_empty()
            && self.address.len() <= MAX_ADDRESS_BYTES
            && !self.address.chars().any(char::is_control);
        let remedy = "give a base URL or another name, at most 2048 bytes, no control characters";
        check(address_is_good, "address", &self.address, remedy)?;
        name("model", &self.model)?;
        name("topology.host", &self.topology.host)?;
        name("topology.rack", &self.topology.rack)?;
        name("topology.zone", &self.topology.zone)?;
        name("topology.region", &self.topology.region)?;
        let many = "list at most 4096 adapters";
        check(self.loras.len() <= MAX_LORAS, "loras", &self.loras.len(), many)?;
        for lora in &self.loras {
            name("loras", lora)?;
            check(!lora.is_empty(), "loras", &"\"\"", "leave nameless adapters out")?;
        }
        let many = "give at most 256 labels";
        check(self.labels.len() <= MAX_LABELS, "labels", &self.labels.len(), many)?;
        for (label, value) in &self.labels {
            name("labels", label)?;
            name("labels", value)?;
        }
        let capacity = &self.capacity;
        let blocks = "give the engine's number of GPU KV blocks, or 0 to learn it";
        let good = capacity.kv_blocks <= MAX_KV_BLOCKS;
        check(good, "capacity.kv_blocks", &capacity.kv_blocks, blocks)?;
        let tokens = "give the engine's tokens a block, at most 1048576, or 0 to learn it";
        let good = capacity.block_size <= MAX_BLOCK_TOKENS;
        check(good, "capacity.block_size", &capacity.block_size, tokens)
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
    /// Most LoRA adapters that fit at once.
    pub max_loras: u32,
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
