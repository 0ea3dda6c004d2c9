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
//!      + miss_ms * objectives that will be missed because of it     see `misses`
//! score = (least cost + 1) / (cost + 1)
//! ```
//!
//! with `own_tokens` the uncached ones plus, of those cached on a lower tier, the share that loading
//! them costs (1 - tier weight), and the two terms before the last at the endpoint's prefill time a token. A
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
//! - *Misses* price the objectives of everybody in flight there and of the newcomer; where nobody
//!   has any, or there are no latency models, nothing is added.
//!
//! Inputs: predicted time to first token, uncached and matched tokens by tier, booked load, reported
//! queue and KV usage, booked context, KV capacity. It remembers the turnover of each endpoint and
//! two running means.
//! Defaults: `interference` 0.1, `eviction` 10, `kv_wait` 1, `miss_ms` 20,000, `patience_objectives` 12,
//! `long_weight` 2, `churn_window_s` 60, `tier_weights` as `prefix-cache-scorer`.
//! Limits: an endpoint of unknown capacity pays for no eviction and no KV wait. What other routers have
//! in flight is in its queue where it reports one, and known in sums where they tell each other.
//!
//! NOTE(perf): tried on simulated chats and shared prefixes, with KV for 0.2 to 4 times the working
//! set. Pricing whole batches, `(queue + own) * (1 + n)`, and counting decodes beside the queue,
//! `+ 50 tokens * n`, raised no hits and lowered no latency once evictions were priced. A constant
//! part in `youth` won a percent of hits where caches are tight and kept a prefix that everybody
//! shares on two endpoints of four where they are ample. A KV wait of 3 and more flees full caches
//! and loses hits. Eviction prices from 6 to 18, windows from 20 s to 180 s and half-young
//! turnovers from 0.05 to 0.3 are within one percent of hits of each other.
//!
//! NOTE(perf): tried against latencies that say little (steps of lognormal length, first tokens
//! 40 ms late in the mean). Discounting a predicted gain by the variance of the models' residuals
//! (James and Stein), for an endpoint that holds less, changed hits by less than 0.5 %; that in the
//! place of the error above which a model is not used lost 1 to 7 %. So what holds sessions where
//! they are under noise is that queues and evictions are then counted in tokens, which are exact.
//! Pooled models of endpoints that are alike changed nothing. The candidates' mean turnover in the
//! place of each one's own, in whole or for as long as it had few requests, kept prefixes together
//! at a cold start of two small caches (1 to 2 % of hits), lost as much over four, and left one of
//! four unused where caches were ample.

mod misses;
mod prices;
mod work;

use self::misses::{Newcomer, expected_misses};
use self::prices::{InTokens, Pricing};
use self::work::{AllOnGpu, Each, Same, Work, Works};
use super::churn::Churn;
use super::prefix_cache::TierWeights;
use super::{Degraded, Scorer};
use crate::lanes::{least, sum, vectorised};
use crate::predict::Prefill;
use crate::schedule::Feature;
use crate::schedule::candidates::Run;
use crate::schedule::context::{Context, Placed};
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::rows::{FEW, LowerTiers, holders, matching};
use crate::{Slot, Time};
use serde::Deserialize;
use smallvec::SmallVec;
use std::cmp::Ordering;
use std::ops::Range;
use std::time::Duration;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "predicted-cost-scorer",
    build: |params| {
        let params: Params = registry::read(params)?;
        in_range("interference", params.interference, AMOUNT)?;
        in_range("eviction", params.eviction, AMOUNT)?;
        in_range("kv_wait", params.kv_wait, AMOUNT)?;
        in_range("miss_ms", params.miss_ms, AMOUNT)?;
        in_range("patience_objectives", params.patience_objectives, AMOUNT)?;
        in_range("long_weight", params.long_weight, 1.0..=1_000.0)?;
        in_range("churn_window_s", params.churn_window_s, 0.1..=86_400.0)?;
        params.tier_weights.validate()?;
        let churn = Churn::new(Duration::from_secs_f64(params.churn_window_s));
        let placed = Churn::new(PLACED_WINDOW);
        Ok(Box::new(PredictedCost {
            params,
            churn,
            placed,
            reuse: 0.5,
            mean_uncached_tokens: 512.0,
        }))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    interference: f64,
    eviction: f64,
    kv_wait: f64,
    miss_ms: f64,
    patience_objectives: f64,
    long_weight: f64,
    churn_window_s: f64,
    tier_weights: TierWeights,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            interference: 0.1,
            eviction: 10.0,
            kv_wait: 1.0,
            miss_ms: 20_000.0,
            patience_objectives: 12.0,
            long_weight: 2.0,
            churn_window_s: 60.0,
            tier_weights: TierWeights::default(),
        }
    }
}

/// Over this time prefills are counted as recent.
const PLACED_WINDOW: Duration = Duration::from_secs(30);
/// Most candidates whose missed objectives are counted, the cheapest without them.
const MOST_COUNTED: usize = 16;
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
    /// Milliseconds of prefill placed on each endpoint.
    placed: Churn,
    /// Matched share of recent prompts, by the best of their candidates.
    reuse: f64,
    mean_uncached_tokens: f64,
}

/// What is the same for all candidates of one decision.
#[derive(Clone, Copy)]
struct Moment {
    now_ms: f64,
    /// What stored turnovers are worth now.
    faded: f64,
    /// Share of the context in flight that takes KV of its own.
    distinct: f64,
    prompt_tokens: f64,
}

/// A run of candidates, and what its costs depend on.
struct Costed<'a> {
    part: Part<'a>,
    moment: &'a Moment,
    held: &'a [f64],
    /// Empty where nobody holds anything there.
    lower_tiers: &'a [LowerTiers],
    is_reported: bool,
}

/// The columns of a run of candidates.
#[derive(Clone, Copy)]
struct Part<'a> {
    stored: &'a [f64],
    waiting: &'a [f64],
    running: &'a [f64],
    kv_usage: &'a [f64],
    kv_capacity: &'a [f64],
    inflight: &'a [f64],
    pending: &'a [f64],
    context: &'a [f64],
}

impl Part<'_> {
    /// As [`PrefillRows::first`].
    #[inline(always)]
    fn first(self, rows: usize) -> Self {
        Self {
            stored: &self.stored[..rows],
            waiting: &self.waiting[..rows],
            running: &self.running[..rows],
            kv_usage: &self.kv_usage[..rows],
            kv_capacity: &self.kv_capacity[..rows],
            inflight: &self.inflight[..rows],
            pending: &self.pending[..rows],
            context: &self.context[..rows],
        }
    }
}

/// `value`, 0 where `signal` is unknown.
#[inline(always)]
fn known_or_zero(signal: f64, value: f64) -> f64 {
    if signal.is_nan() { 0.0 } else { value }
}

/// KV in use over context in flight, by the endpoints that report the former.
fn distinct_share(cx: &Context<'_>) -> f64 {
    if !cx.is_reported(Feature::KvUsage) {
        return DISTINCT_SHARE;
    }
    let usage = cx.column(Feature::KvUsage);
    let capacities = cx.column(Feature::KvCapacityTokens);
    let contexts = cx.column(Feature::InflightContextTokens);
    let (in_use, context) = vectorised(
        #[inline(always)]
        || {
            let in_use = sum(
                [usage, capacities],
                #[inline(always)]
                |[usage, capacity]| known_or_zero(usage * capacity, usage * capacity),
            );
            let context = sum(
                [usage, capacities, contexts],
                #[inline(always)]
                |[usage, capacity, context]| known_or_zero(usage * capacity, context),
            );
            (in_use, context)
        },
    );
    if context > 0.0 { (in_use / context).clamp(0.1, 1.0) } else { DISTINCT_SHARE }
}

impl PredictedCost {
    /// The cost of a row. No branch: selections, so that a loop over rows vectorises.
    #[inline(always)]
    fn cost<const REPORTED: bool>(
        &self,
        of: &Part<'_>,
        row: usize,
        pricing: &impl Pricing,
        work: &Work,
        moment: &Moment,
    ) -> f64 {
        let by = pricing.prices(of, row, work, moment);
        let per_own_token = by.per_token + by.per_pair * work.pairs_per_own_token;

        // Queued prefill tokens that we did not send; none where either count is unknown.
        let foreign = if REPORTED {
            let reported = of.waiting[row] + of.running[row];
            let beyond = reported - of.inflight[row] - REPORT_SLACK;
            let foreign = beyond * of.waiting[row] / reported * self.mean_uncached_tokens;
            if beyond > 0.0 { foreign } else { 0.0 }
        } else {
            0.0
        };

        // Nothing stored yet, or a capacity that is unknown: no youth.
        let capacity = of.kv_capacity[row];
        let stored = of.stored[row] * moment.faded;
        let young = stored / (HALF_YOUNG * capacity + stored);
        let youth = if young > 0.0 { young } else { 0.0 };

        // Tokens by which the KV that is asked for passes what fits; what is unknown is passed over.
        let in_flight = moment.distinct * (of.context[row] + moment.prompt_tokens);
        let demand = if REPORTED {
            let queued = of.kv_usage[row] * capacity + of.pending[row] + work.own_tokens;
            if queued > in_flight { queued } else { in_flight }
        } else {
            in_flight
        };
        let overflow = demand - KV_FULL * capacity;
        let overflow = if overflow > 0.0 { overflow } else { 0.0 };

        let pushed_out = self.params.eviction * self.reuse * work.own_tokens * youth;
        let others_wait = self.params.interference * work.own_tokens * of.inflight[row];
        let at_rate = work.loaded_tokens
            + foreign
            + pushed_out
            + others_wait
            + self.params.kv_wait * overflow;
        by.ttft + per_own_token * at_rate
    }

    /// Costs of all candidates: first as if nobody held anything, then those who do.
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let prompt_tokens = f64::from(cx.request.prompt_tokens);
        let moment = Moment {
            now_ms: cx.now.as_millis_f64(),
            faded: self.churn.faded(cx.now),
            distinct: distinct_share(cx),
            prompt_tokens,
        };
        let by_models = can_be_trusted(cx);
        let is_reported =
            cx.is_reported(Feature::WaitingRequests) || cx.is_reported(Feature::KvUsage);
        let (held, lower_tiers) = (cx.features.matched_tokens(), cx.features.lower_tiers());
        for run in cx.features.runs() {
            let rows = run.rows();
            let models = cx.predictor.prefill_rows(run.slots(), cx.fleet.columns());
            let of = Costed {
                part: self.part(cx, rows.clone(), run.slots()),
                moment: &moment,
                held: &held[rows.clone()],
                lower_tiers: lower_tiers.get(rows.clone()).unwrap_or_default(),
                is_reported,
            };
            match models.filter(|_| by_models) {
                Some(models) => self.costs_of_run(&of, models, &mut out[rows]),
                None => self.costs_of_run(&of, InTokens, &mut out[rows]),
            }
        }
    }

    fn costs_of_run<P: Pricing>(&self, of: &Costed<'_>, by: P, out: &mut [f64]) {
        let tiers = self.params.tier_weights;
        let (held, lower_tiers) = (&of.held[..out.len()], of.lower_tiers);
        let prompt_tokens = of.moment.prompt_tokens;
        let matching = matching(held);
        if matching * FEW < out.len() {
            let cold = Work::of(prompt_tokens, 0.0, [0.0; 3], &tiers);
            let work = Same(cold);
            match of.is_reported {
                true => self.costs_by::<true, _, _>(&of.part, by, work, of.moment, out),
                false => self.costs_by::<false, _, _>(&of.part, by, work, of.moment, out),
            }
            for row in holders(held).take(matching) {
                let lower = lower_tiers.get(row).copied().unwrap_or_default();
                let work = Work::of(prompt_tokens, held[row], lower, &tiers);
                out[row] = self.cost::<true>(&of.part, row, &by, &work, of.moment);
            }
        } else if lower_tiers.is_empty() {
            let work = Each { prompt_tokens, held, lower_tiers: AllOnGpu, tiers };
            match of.is_reported {
                true => self.costs_by::<true, _, _>(&of.part, by, work, of.moment, out),
                false => self.costs_by::<false, _, _>(&of.part, by, work, of.moment, out),
            }
        } else {
            let work = Each { prompt_tokens, held, lower_tiers, tiers };
            self.costs_by::<true, _, _>(&of.part, by, work, of.moment, out);
        }
    }

    /// `REPORTED` is whether any engine has reported a queue or its KV.
    fn costs_by<const REPORTED: bool, P: Pricing, W: Works>(
        &self,
        part: &Part<'_>,
        by: P,
        work: W,
        moment: &Moment,
        out: &mut [f64],
    ) {
        // A function, so that `out` is known to overlap with nothing.
        #[inline(always)]
        fn fill<const REPORTED: bool>(
            scorer: &PredictedCost,
            part: Part<'_>,
            (by, work): (impl Pricing, impl Works),
            moment: Moment,
            out: &mut [f64],
        ) {
            let (part, by, work) =
                (part.first(out.len()), by.first(out.len()), work.first(out.len()));
            for (row, out) in out.iter_mut().enumerate() {
                *out = scorer.cost::<REPORTED>(&part, row, &by, &work.of(row), &moment);
            }
        }
        vectorised(
            #[inline(always)]
            || fill::<REPORTED>(self, *part, (by, work), *moment, out),
        );
    }

    fn part<'a>(&'a self, cx: &Context<'a>, rows: Range<usize>, slots: Range<usize>) -> Part<'a> {
        let column = |feature| &cx.column(feature)[rows.clone()];
        Part {
            stored: self.churn.scaled(slots),
            waiting: column(Feature::WaitingRequests),
            running: column(Feature::RunningRequests),
            kv_usage: column(Feature::KvUsage),
            kv_capacity: column(Feature::KvCapacityTokens),
            inflight: column(Feature::InflightRequests),
            pending: column(Feature::PendingPrefillTokens),
            context: column(Feature::InflightContextTokens),
        }
    }
}

impl PredictedCost {
    /// Adds what the expected misses of objectives cost, where anybody has objectives: to the
    /// cheapest candidates, until no other can become the cheapest, or 16 have been. Misses only add, so
    /// the costs of those left out are lower bounds that are not the least; past 16 they are taken to
    /// miss as many as the worst of those.
    fn add_misses(&self, cx: &Context<'_>, out: &mut [f64]) {
        let has_objectives = cx.request.slo.ttft_ms.is_some() || cx.request.slo.tpot_ms.is_some();
        if self.params.miss_ms == 0.0 || !has_objectives || !can_be_trusted(cx) {
            return;
        }
        let matched = cx.column(Feature::MatchedTokens);
        let faded = self.placed.faded(cx.now) / (PLACED_WINDOW.as_secs_f64() * 1e3);
        // Added at the end, so that costs and rows say who has been counted.
        let mut counted: SmallVec<[(usize, f64); MOST_COUNTED]> = SmallVec::new();
        let mut best = f64::INFINITY;
        let mut last = (f64::NEG_INFINITY, 0);
        while counted.len() < MOST_COUNTED {
            let Some(row) = next_cheapest(out, last).filter(|row| out[*row] < best) else { break };
            last = (out[row], row);
            let slot = cx.ids()[row].slot;
            let work = Prefill::of(cx.request.prompt_tokens, matched[row] as u32);
            let newcomer = Newcomer {
                tokens: work.uncached_tokens.max(1.0),
                pairs: work.pairs,
                recent_share: faded * self.placed.scaled(slot.index()..slot.index() + 1)[0],
                patience_objectives: self.params.patience_objectives,
                long_weight: self.params.long_weight,
            };
            // Who cannot be counted would seem the cheapest.
            let Some(misses) = expected_misses(cx, slot, &newcomer) else { return };
            counted.push((row, self.params.miss_ms * misses));
            best = best.min(out[row] + self.params.miss_ms * misses);
        }
        if counted.len() == MOST_COUNTED {
            // Of the others none is looked at, and none may seem cheaper for that.
            let most = counted.iter().map(|(_, added)| *added).fold(0.0, f64::max);
            out.iter_mut().for_each(|cost| *cost += most);
            counted.iter_mut().for_each(|(_, added)| *added -= most);
        }
        for (row, added) in counted {
            out[row] += added;
        }
    }
}

/// The row of the least cost behind one of a cost and row, in the order of both.
fn next_cheapest(costs: &[f64], (past, past_row): (f64, usize)) -> Option<usize> {
    let mut next = None;
    let mut least = f64::INFINITY;
    for (row, cost) in costs.iter().enumerate() {
        let is_behind = match cost.total_cmp(&past) {
            Ordering::Greater => true,
            Ordering::Equal => row > past_row,
            Ordering::Less => false,
        };
        if is_behind && *cost < least {
            (next, least) = (Some(row), *cost);
        }
    }
    next
}

/// Whether every candidate has a latency model, and none is off by too much. Under overload the
/// waits that no queue explains teach a model nonsense, and endpoints that are alike are then told
/// apart.
fn can_be_trusted(cx: &Context<'_>) -> bool {
    let trusted = |run: &Run| {
        let rows = cx.predictor.prefill_rows(run.slots(), cx.fleet.columns());
        rows.is_some_and(|rows| {
            // False for a NaN, which is no model.
            let all = |all, error: &f64| all & (*error <= MOST_ERROR);
            vectorised(
                #[inline(always)]
                || rows.errors().iter().fold(true, all),
            )
        })
    };
    cx.features.runs().iter().all(trusted)
}

impl Scorer for PredictedCost {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        self.costs(cx, out);
        self.add_misses(cx, out);
        vectorised(
            #[inline(always)]
            || {
                let best = least(out) + 1.0;
                for out in out.iter_mut() {
                    *out = best / (*out + 1.0);
                }
            },
        );
        Ok(())
    }

    fn weighs_evictions(&self) -> bool {
        true
    }

    fn make_room(&mut self, slots: usize) {
        self.churn.make_room(slots);
        self.placed.make_room(slots);
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        let prompt_tokens = f64::from(placed.request.prompt_tokens).max(1.0);
        let uncached_tokens = prompt_tokens - f64::from(placed.matched_tokens);
        let hit = f64::from(placed.best_matched_tokens) / prompt_tokens;
        self.reuse += (hit - self.reuse) / MEMORY_REQUESTS;
        self.mean_uncached_tokens +=
            (uncached_tokens - self.mean_uncached_tokens) / MEMORY_REQUESTS;
        self.churn.add(placed.now, placed.endpoint.slot, uncached_tokens);
        self.placed.add(placed.now, placed.endpoint.slot, placed.prefill_ms);
    }

    fn placed_by_peers(&mut self, now: Time, slot: Slot, uncached_tokens: f64, prefill_ms: f64) {
        self.churn.add(now, slot, uncached_tokens);
        self.placed.add(now, slot, prefill_ms);
    }

    fn left(&mut self, slot: Slot) {
        self.churn.clear(slot);
        self.placed.clear(slot);
    }
}
