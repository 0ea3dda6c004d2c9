//! A model of an inference engine: paged KV cache, continuous batching, step time.
//!
//! What vLLM's scheduler does, at the granularity that a router can see. Requests wait first come
//! first served. A step runs one token of everything that decodes, goes on with an unfinished
//! prefill, then admits from the queue until `max_batch_tokens` or `max_sequences`. Admission
//! reserves the blocks of the whole prompt or does not happen; its hit is the run of resident,
//! computed blocks from the first on, of which the last token is always left to compute. Blocks
//! are hittable at the end of the step that computed them (vLLM registers them as the step begins:
//! there a request admitted in the same step can share them, here it computes a copy). Blocks that
//! nobody references stay, least recently released first to go, and of one request the tail before
//! the head. When decode finds no block, the request admitted last is preempted and recomputed
//! later. A step lasts what [`EngineProfile::step_ms`](crate::predict::EngineProfile::step_ms)
//! says, plus what loading blocks from the host tier costs.
//!
//! Guaranteed: never more blocks in use than there are; the oldest request always progresses; the
//! same inputs give the same outputs; every change of residency is reported, one removal for
//! each copy stored, as in vLLM. The time is whatever the caller says: [`EngineModel`] runs at
//! virtual time in the simulator and at wall time behind the embedded server.
//!
//! Not here: tokens. Blocks have identities (any `Copy + Eq + Hash`; by default [`BlockKey`]),
//! and a request says how many tokens it will generate. Nor sampling, speculative decoding,
//! multimodal encoding or pipeline bubbles.

mod config;
mod event;
mod host_tier;
mod kv_cache;
mod lru;
mod memory;
mod model;
mod run;
mod sequence;
mod shared_cache;
mod submit_error;
#[cfg(test)]
mod tests;
mod work;

pub use config::{EngineConfig, EngineConfigError};
pub use event::{Admission, KvChange, Step};
pub use model::{Counters, EngineModel, Load};
pub use run::Planned;
pub use shared_cache::SharedCache;
pub use submit_error::SubmitError;

use crate::BlockKey;
use serde::{Deserialize, Serialize};

/// What can name a block: two blocks of one name have the same content and the same prefix.
pub trait BlockIdentity: Copy + Eq + std::hash::Hash + std::fmt::Debug {}

impl<K: Copy + Eq + std::hash::Hash + std::fmt::Debug> BlockIdentity for K {}

/// A request as one engine knows it, unique among those that it has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Work for the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineRequest<K = BlockKey> {
    /// Its name in everything that the engine reports.
    pub id: RequestId,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Tokens that it will generate.
    pub output_tokens: u32,
    /// Identities of its full blocks from the first on: those of the prompt and, where known, those
    /// that the output will fill. Blocks past the end are never cached.
    pub keys: Vec<K>,
}
