//! Settings of turns, and what they say of one request.

use crate::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a token of the answer costs, in tokens of the prompt (Sheng et al., OSDI 2024).
const OUTPUT_TOKEN_COST: f64 = 2.0;

/// When requests wait for their turn, and in which order. Only requests that may be held do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnConfig {
    /// Whether they wait at the router while every engine has enough to do.
    pub wait: WaitWhen,
    /// Tenants or priorities contend where two were seen within this time, seconds.
    pub contended_s: f64,
    /// An engine whose queued prefill takes longer than this has enough to do, milliseconds.
    pub queue_ms: f64,
    /// An engine has enough to do where so much of its KV cache is asked for.
    pub kv_share: f64,
    /// Order of one tenant's requests.
    pub order: Order,
    /// By how much a token more lets others go before it, with `shortest-first`: milliseconds.
    pub short_first_ms_per_token: f64,
    /// Whoever has waited so long, in seconds, is aged.
    pub age_s: f64,
    /// Every so many turns one is that of the longest waiting, if it is aged.
    pub aged_every: u32,
    /// Shares of tenants, by name, where they are not 1.
    pub tenant_weights: BTreeMap<String, f64>,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            wait: WaitWhen::Contended,
            contended_s: 60.0,
            queue_ms: 25.0,
            kv_share: 0.95,
            order: Order::Fcfs,
            short_first_ms_per_token: 1.0,
            age_s: 30.0,
            aged_every: 8,
            tenant_weights: BTreeMap::new(),
        }
    }
}

impl TurnConfig {
    /// The place of a request among those of its tenant that came at other times: the least is first.
    pub(super) fn rank(&self, since: Time, due_ms: f64, uncached_tokens: u32) -> u64 {
        let after_ms = match self.order {
            Order::Fcfs => 0.0,
            Order::Deadline => due_ms,
            Order::ShortestFirst => f64::from(uncached_tokens) * self.short_first_ms_per_token,
        };
        since.as_nanos().saturating_add(Time::from_millis_f64(after_ms).as_nanos())
    }

    /// What a request costs its tenant, in tokens over the tenant's weight.
    pub(super) fn cost(
        &self,
        tenant: Option<&str>,
        uncached_tokens: u32,
        output_tokens: f64,
    ) -> f64 {
        let weight = tenant.and_then(|name| self.tenant_weights.get(name)).unwrap_or(&1.0);
        (f64::from(uncached_tokens) + OUTPUT_TOKEN_COST * output_tokens) / weight
    }
}

/// Whether requests wait at the router while every engine has enough to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitWhen {
    /// They queue in the engines, first come first served.
    Never,
    /// Where tenants or priorities contend: otherwise there is nothing to decide, and a request that
    /// is bound late finds its engine idle for a moment.
    #[default]
    Contended,
    /// Always.
    Always,
}

/// The order of one tenant's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// First come, first served.
    #[default]
    Fcfs,
    /// What is due first goes first: by `deadline_ms`, else by the objective of the time to first
    /// token, else by how long it may be held.
    Deadline,
    /// What has the fewest tokens to compute goes first, but for those that came so much earlier:
    /// the order of `arrival + tokens * short_first_ms_per_token`, which ages everybody alike.
    ShortestFirst,
}
