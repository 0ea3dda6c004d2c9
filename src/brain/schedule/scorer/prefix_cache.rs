//! `prefix-cache-scorer`: the more of the prompt is cached, the better.
//!
//! Source: llm-d's `prefix-cache-scorer` (`matched / total` blocks) and, for the tiers, its KV
//! index (gpu 1.0, cpu 0.8); storage and remote continue the series as vllm-router's `kv_aware`
//! does (0.6, 0.3). Formula: `sum over tiers of weight * matched / total`, over the blocks that
//! have a key.
//!
//! Inputs: matched tokens by tier. Defaults: `tier_weights` `{gpu = 1, cpu = 0.8, storage = 0.6,
//! remote = 0.3}`.
//! Limits: with the max-score picker and nothing else, one hot prefix goes to one endpoint whatever
//! its load.

use super::{Degraded, Scorer};
use crate::lanes::vectorised;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin, SHARE, in_range};
use crate::schedule::rows::LowerTiers;
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "prefix-cache-scorer",
    build: |params| {
        let scorer: PrefixCache = registry::read(params)?;
        scorer.tier_weights.validate()?;
        Ok(Box::new(scorer))
    },
};

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct PrefixCache {
    tier_weights: TierWeights,
}

/// What a cached token is worth by where it lies, 0 (as if not cached) to 1.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TierWeights {
    gpu: f64,
    cpu: f64,
    storage: f64,
    remote: f64,
}

impl Default for TierWeights {
    fn default() -> Self {
        Self { gpu: 1.0, cpu: 0.8, storage: 0.6, remote: 0.3 }
    }
}

impl TierWeights {
    pub(super) fn validate(&self) -> Result<(), String> {
        in_range("tier_weights.gpu", self.gpu, SHARE)?;
        in_range("tier_weights.cpu", self.cpu, SHARE)?;
        in_range("tier_weights.storage", self.storage, SHARE)?;
        in_range("tier_weights.remote", self.remote, SHARE)
    }

    /// Matched tokens of one candidate, each at its worth.
    #[inline(always)]
    pub(super) fn credit_tokens(&self, tokens: f64, lower_tiers: LowerTiers) -> f64 {
        let [cpu, storage, remote] = lower_tiers;
        let gpu = tokens - cpu - storage - remote;
        self.gpu * gpu + self.cpu * cpu + self.storage * storage + self.remote * remote
    }
}

impl Scorer for PrefixCache {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let rows = cx.features;
        let (tokens, lower_tiers) = (rows.matched_tokens(), rows.lower_tiers());
        let weights = &self.tier_weights;
        vectorised(
            #[inline(always)]
            || {
                for (out, &tokens) in out.iter_mut().zip(tokens) {
                    *out = rows.share_of_keyed(weights.credit_tokens(tokens, [0.0; 3]));
                }
            },
        );
        for (out, (&tokens, &lower_tiers)) in out.iter_mut().zip(tokens.iter().zip(lower_tiers)) {
            *out = rows.share_of_keyed(weights.credit_tokens(tokens, lower_tiers));
        }
        Ok(())
    }
}
