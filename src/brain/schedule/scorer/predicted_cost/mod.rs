//! `predicted-cost-scorer`: the least predicted cost of placing the request, to it and to others.
//!
//! Formula, in milliseconds (in tokens of prefill where any candidate has no latency model, or one
//! that is off by more than half):
//!
//! ```text
//! cost = ttft + loading from lower tiers            queue, own prefill, decodes in the way
//!      + interference * own_prefill * n             n requests in flight wait while it prefills
//!      + eviction * reuse * youth * own_tokens      what it pushes out of the cache
//!      + kv_wait * max(0, kv_demand - 0.7 * kv_capacity)            waiting for KV to be freed
//! score = (least cost + 1) / (cost + 1)
//! ```
//!
//! with `own_tokens` the uncached ones plus, of those cached on a lower tier, the share that loading
//! them costs (1 - tier weight), and the last two terms at the endpoint's prefill time a token. A
//! prefill of its own is at the learned rates, without the base cost of a step.
//!
//! - *Queue*: booked tokens, so a burst does not herd and lag of the metrics does no harm; plus
//!   what the engine reports beyond them (another router's requests), at the mean uncached
//!   tokens of our own.
//! - *Interference* prices the batch as LMETRIC does (arXiv 2603.15202: (queued + new uncached
//!   tokens) * batch size), but only for what the newcomer adds.
//! - *Eviction*: a cache in use is full, so every token stored pushes one out. What that costs is
//!   what is recomputed later: the chance that the token pushed out is asked for again, taken as
//!   the hit ratio of recent requests (`reuse`), and the higher the younger it is. A cache that
//!   turned over `t` times in the last `churn_window_s` (tokens stored / capacity) pushes out
//!   blocks of an age that falls with `t`: `youth = t / (0.2 + t)`. It keeps sessions where they
//!   are while caches are tight, brings together those that share a prefix, sends new prefixes
//!   where least was stored, which spreads a cold start, and lets go where caches are ample.
//! - *KV wait*: an engine whose KV is taken by running requests admits nobody, however short its
//!   queue of tokens. `kv_demand` is the larger of what it reports in use plus what is queued, and
//!   the context of all that is in flight there, this request included, at the share of distinct
//!   blocks that the fleet reports (prefixes in common are held once).
//!
//! Inputs: predicted time to first token, uncached and matched tokens by tier, booked load, reported
//! queue and KV usage, booked context, KV capacity. It remembers the turnover of each endpoint and
//! two running means.
//! Defaults: `interference` 0.1, `eviction` 10, `kv_wait` 1, `churn_window_s` 60, `tier_weights` as
//! `prefix-cache-scorer`.
//! Limits: an endpoint of unknown capacity pays for no eviction and no KV wait; time per output
//! token counts only through interference.
//!
//! NOTE(perf): tried on simulated chats and shared prefixes, with KV for 0.2 to 4 times the working
//! set. Pricing whole batches, `(queue + own) * (1 + n)`, and counting decodes beside the queue,
//! `+ 50 tokens * n`, raised no hits and lowered no latency once evictions were priced. A constant
//! part in `youth` won a percent of hits where caches are tight and kept a prefix that everybody
//! shares on two endpoints of four where they are ample. A KV wait of 3 and more flees full caches
//! and loses hits. Eviction prices from 6 to 18, windows from 20 s to 180 s and half-young
//! turnovers from 0.05 to 0.3 are within one percent of hits of each other.

mod churn;

use self::churn::Churn;
use super::prefix_cache::TierWeights;
use super::{Degraded, Scorer};
use crate::Slot;
use crate::fleet::prefill_pairs;
use crate::schedule::Feature;
use crate::schedule::context::{Context, Placed, Predictions};
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use serde::Deserialize;
use std::time::Duration;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "predicted-cost-scorer",
    build: |params| {
        let params: Params = registry::read(params)?;
        in_range("interference", params.interference, AMOUNT)?;
        in_range("eviction", params.eviction, AMOUNT)?;
        in_range("kv_wait", params.kv_wait, AMOUNT)?;
        in_range("churn_window_s", params.churn_window_s, 0.1..=86_400.0)?;
        params.tier_weights.validate()?;
        let churn = Churn::new(Duration::from_secs_f64(params.churn_window_s));
        Ok(Box::new(PredictedCost { params, churn, reuse: 0.5, mean_uncached_tokens: 512.0 }))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    interference: f64,
    eviction: f64,
    kv_wait: f64,
    churn_window_s: f64,
    tier_weights: TierWeights,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            interference: 0.1,
            eviction: 10.0,
            kv_wait: 1.0,
            churn_window_s: 60.0,
            tier_weights: TierWeights::default(),
        }
    }
}

/// Requests over which the running means are taken.
const MEMORY_REQUESTS: f64 = 128.0;
/// Share of the KV cache that requests may hold before they are taken to wait for each other: it
/// leaves room for what they generate.
const KV_FULL: f64 = 0.7;
/// Turnovers of the cache within the window at which what it pushes out counts as half young.
const HALF_YOUNG: f64 = 0.2;
/// Share of the context in flight that is distinct, where no endpoint reports its KV usage.
const DISTINCT_SHARE: f64 = 0.5;
/// Relative error of a latency model above which it is not used.
const MOST_ERROR: f64 = 0.5;
/// Requests beyond the booked ones that an engine may report before another sender is assumed: a
/// sample lags, so it still counts some that have finished.
const REPORT_SLACK: f64 = 2.0;

struct PredictedCost {
    params: Params,
    churn: Churn,
    /// Matched share of recent prompts, by the best of their candidates.
    reuse: f64,
    mean_uncached_tokens: f64,
}

/// What prefill takes on an endpoint: milliseconds, or tokens where there is no model.
#[derive(Clone, Copy)]
struct Rate {
    per_token: f64,
    per_pair: f64,
}

const IN_TOKENS: Rate = Rate { per_token: 1.0, per_pair: 0.0 };

impl Rate {
    /// The rate of a slot's latency model, if it can be trusted. Under overload the waits that no
    /// queue explains teach it nonsense, and endpoints that are alike are then told apart.
    fn learned(cx: &Context<'_>, slot: Slot) -> Option<Self> {
        let timing = cx.predictor.timing(slot)?;
        let trusted = timing.prefill_error.is_none_or(|error| error <= MOST_ERROR);
        trusted.then_some(Self {
            per_token: timing.prefill_ms_per_token,
            per_pair: timing.prefill_ms_per_pair,
        })
    }
}

/// What is the same for all candidates of one decision.
#[derive(Clone, Copy)]
struct Moment {
    /// What stored turnovers are worth now.
    faded: f64,
    /// Share of the context in flight that takes KV of its own.
    distinct: f64,
}

/// KV in use over context in flight, by the endpoints that report the former.
fn distinct_share(cx: &Context<'_>) -> f64 {
    let capacities = cx.column(Feature::KvCapacityTokens);
    let contexts = cx.column(Feature::InflightContextTokens);
    let (mut in_use, mut context) = (0.0, 0.0);
    for (row, usage) in cx.column(Feature::KvUsage).iter().enumerate() {
        let tokens = usage * capacities[row];
        if !tokens.is_nan() {
            in_use += tokens;
            context += contexts[row];
        }
    }
    if context > 0.0 { (in_use / context).clamp(0.1, 1.0) } else { DISTINCT_SHARE }
}

impl PredictedCost {
    /// Queued prefill tokens that we did not send.
    fn foreign_tokens(&self, cx: &Context<'_>, row: usize) -> f64 {
        let waiting = cx.column(Feature::WaitingRequests)[row];
        let running = cx.column(Feature::RunningRequests)[row];
        let reported = waiting + running;
        let beyond = reported - cx.column(Feature::InflightRequests)[row] - REPORT_SLACK;
        // False where either is unknown.
        if beyond > 0.0 { beyond * waiting / reported * self.mean_uncached_tokens } else { 0.0 }
    }

    /// Tokens by which the KV that is asked for passes what fits.
    fn kv_overflow_tokens(cx: &Context<'_>, row: usize, own_tokens: f64, distinct: f64) -> f64 {
        let capacity = cx.column(Feature::KvCapacityTokens)[row];
        let in_use = cx.column(Feature::KvUsage)[row] * capacity;
        let queued = cx.column(Feature::PendingPrefillTokens)[row] + own_tokens;
        let in_flight = cx.column(Feature::InflightContextTokens)[row];
        let context = in_flight + cx.column(Feature::PromptTokens)[row];
        // `max` passes over what is unknown.
        let demand = (in_use + queued).max(distinct * context);
        (demand - KV_FULL * capacity).max(0.0)
    }

    fn cost(&self, cx: &Context<'_>, row: usize, ttft: f64, rate: Rate, moment: Moment) -> f64 {
        let matched = cx.column(Feature::MatchedTokens)[row];
        let uncached = cx.column(Feature::UncachedTokens)[row];
        let loaded = matched - self.params.tier_weights.credit_tokens(cx, row);
        let own_tokens = uncached + loaded;
        let pairs = prefill_pairs(uncached as u32, matched as u32) as f64;
        let own = rate.per_token * own_tokens + rate.per_pair * pairs;

        let capacity = cx.column(Feature::KvCapacityTokens)[row];
        let stored = self.churn.tokens(cx.ids()[row].slot, moment.faded);
        let young = stored / (HALF_YOUNG * capacity + stored);
        // Nothing stored yet, or a capacity that is unknown.
        let youth = if young > 0.0 { young } else { 0.0 };
        let overflow = Self::kv_overflow_tokens(cx, row, own_tokens, moment.distinct);
        let at_rate = loaded
            + self.foreign_tokens(cx, row)
            + self.params.eviction * self.reuse * youth * own_tokens
            + self.params.kv_wait * overflow;
        let interference =
            self.params.interference * own * cx.column(Feature::InflightRequests)[row];
        ttft + interference + own / own_tokens * at_rate
    }
}

impl PredictedCost {
    /// Costs by the latency models; false at the first candidate that none can be trusted for.
    fn in_milliseconds(&self, cx: &Context<'_>, moment: Moment, out: &mut [f64]) -> bool {
        let ttft_ms = cx.column(Feature::PredictedTtftMs);
        for (row, out) in out.iter_mut().enumerate() {
            match Rate::learned(cx, cx.ids()[row].slot) {
                Some(rate) if !ttft_ms[row].is_nan() => {
                    *out = self.cost(cx, row, ttft_ms[row], rate, moment);
                }
                _ => return false,
            }
        }
        true
    }

    fn in_tokens(&self, cx: &Context<'_>, moment: Moment, out: &mut [f64]) {
        let pending = cx.column(Feature::PendingPrefillTokens);
        let uncached = cx.column(Feature::UncachedTokens);
        for (row, out) in out.iter_mut().enumerate() {
            *out = self.cost(cx, row, pending[row] + uncached[row], IN_TOKENS, moment);
        }
    }
}

impl Scorer for PredictedCost {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let moment = Moment { faded: self.churn.faded(cx.now), distinct: distinct_share(cx) };
        if !self.in_milliseconds(cx, moment, out) {
            self.in_tokens(cx, moment, out);
        }
        let least = out.iter().copied().fold(f64::INFINITY, f64::min);
        for out in out.iter_mut() {
            *out = (least + 1.0) / (*out + 1.0);
        }
        Ok(())
    }

    fn reads(&self) -> Predictions {
        Predictions::Ttft
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        let prompt_tokens = f64::from(placed.request.prompt_tokens).max(1.0);
        let uncached_tokens = prompt_tokens - f64::from(placed.matched_tokens);
        let hit = f64::from(placed.best_matched_tokens) / prompt_tokens;
        self.reuse += (hit - self.reuse) / MEMORY_REQUESTS;
        self.mean_uncached_tokens +=
            (uncached_tokens - self.mean_uncached_tokens) / MEMORY_REQUESTS;
        self.churn.add(placed.now, placed.endpoint.slot, uncached_tokens);
    }

    fn left(&mut self, slot: Slot) {
        self.churn.clear(slot);
    }
}
