//! `dualmap-scorer`: two endpoints by two hashes of the prefix, and the better of the two.
//!
//! Source: DualMap (arXiv 2602.06502). Formula: the key of the prompt's first `prefix_blocks` blocks is hashed twice
//! over the candidates; of the two, who holds more of the prompt, unless its predicted time to first token
//! passes the objective: then who has fewer uncached tokens queued. A prompt without a full block goes
//! to the lighter of all. Defaults: `prefix_blocks` 2 (a first block is often a system prompt that all
//! share), `ttft_ms` 1,000 where the request has no objective.

use super::{ByRule, Rule};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "dualmap-scorer",
    build: |params| {
        let rule: DualMap = registry::read(params)?;
        in_range("prefix_blocks", rule.prefix_blocks.into(), 1.0..=65_536.0)?;
        in_range("ttft_ms", rule.ttft_ms, AMOUNT)?;
        Ok(Box::new(ByRule(rule)))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct DualMap {
    prefix_blocks: u32,
    ttft_ms: f64,
}

impl Default for DualMap {
    fn default() -> Self {
        Self { prefix_blocks: 2, ttft_ms: 1_000.0 }
    }
}

impl Rule for DualMap {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let pending = cx.column(Feature::PendingPrefillTokens);
        let own = cx.column(Feature::UncachedTokens);
        let load = |row: usize| pending[row] + own[row];
        let blocks = cx.keys.len().min(self.prefix_blocks as usize);
        let Some(prefix) = cx.keys[..blocks].last() else {
            (0..out.len()).for_each(|row| out[row] = load(row));
            return;
        };
        let rows = out.len() as u64;
        let hash = |seed| (xxh3_64_with_seed(&prefix.0.to_le_bytes(), seed) % rows) as usize;
        let (one, other) = (hash(1), hash(2));
        let (more, less) = if own[other] < own[one] { (other, one) } else { (one, other) };
        let objective = cx.request.slo.ttft_ms.unwrap_or(self.ttft_ms);
        let ttft = cx.column(Feature::PredictedTtftMs)[more];
        let is_late = ttft > objective && load(less) < load(more);
        out.fill(f64::INFINITY);
        out[if is_late { less } else { more }] = 0.0;
    }
}
