//! `kv-cache-utilization-scorer`: the emptier the KV cache, the better.
//!
//! Source: llm-d. Formula: `1 - usage`.
//!
//! Inputs: `kv_usage`, as reported. Parameters: none.
//! Limits: vLLM counts the blocks of running requests only; a cache full of reusable blocks reads
//! as empty.

use super::{Degraded, Scorer, free_share};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "kv-cache-utilization-scorer",
    build: |params| Ok(Box::new(registry::read::<KvCacheUtilization>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KvCacheUtilization {}

impl Scorer for KvCacheUtilization {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        free_share(cx.column(Feature::KvUsage), out);
        Ok(())
    }
}
