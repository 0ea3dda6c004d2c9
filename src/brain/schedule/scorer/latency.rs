//! `latency-scorer`: the best fit to the request's latency objectives, by prediction.
//!
//! Source: llm-d. Formula: headroom is objective minus prediction. Candidates are classed: both
//! objectives met; else (if nobody meets them) idle; else by what is missed, time per output token
//! only, time to first token only, both. Only the best class that has members is scored, the others
//! get 0. Within it `|headroom|` is scaled to `[0, 1]` for each of the two latencies and blended
//! with `ttft_weight` and `tpot_weight`; the score is `0.01 + 0.99 * (1 - blend)` (`least`: best
//! fit, which keeps the emptier endpoints for stricter requests) or `0.01 + 0.99 * blend` (`most`,
//! where objectives are met). A latency that is equal for all drops out of the blend.
//!
//! Inputs: predicted latencies, the request's objectives (none given: both are 0, so the lowest
//! latency wins), `inflight_requests`. Defaults: `ttft_weight` 0.8, `tpot_weight` 0.2,
//! `headroom_selection` `least`.
//! Limits: without any prediction it is the mean of free KV, relative queue and prefix hit ratio;
//! a candidate that alone has none is neutral. llm-d rounds to hundredths; this does not.

use super::{Degraded, NEUTRAL, Scorer, less_is_better};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::headroom::Headroom;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "latency-scorer",
    build: |params| {
        let scorer: Latency = registry::read(params)?;
        in_range("ttft_weight", scorer.ttft_weight, AMOUNT)?;
        in_range("tpot_weight", scorer.tpot_weight, AMOUNT)?;
        in_range(
            "ttft_weight + tpot_weight",
            scorer.ttft_weight + scorer.tpot_weight,
            1e-9..=f64::MAX,
        )?;
        Ok(Box::new(scorer))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Latency {
    ttft_weight: f64,
    tpot_weight: f64,
    headroom_selection: HeadroomSelection,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum HeadroomSelection {
    Least,
    Most,
}

impl Default for Latency {
    fn default() -> Self {
        Self { ttft_weight: 0.8, tpot_weight: 0.2, headroom_selection: HeadroomSelection::Least }
    }
}

/// From the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Met,
    Idle,
    TpotMissed,
    TtftMissed,
    BothMissed,
}

fn class_of(headroom: Headroom, idle: bool) -> Class {
    match (headroom.ttft_ms < 0.0, headroom.tpot_ms < 0.0) {
        (false, false) => Class::Met,
        _ if idle => Class::Idle,
        (false, true) => Class::TpotMissed,
        (true, false) => Class::TtftMissed,
        (true, true) => Class::BothMissed,
    }
}

/// The span of a latency's `|headroom|` within a class.
#[derive(Clone, Copy)]
struct Span {
    min: f64,
    max: f64,
}

impl Span {
    const EMPTY: Self = Self { min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn add(&mut self, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn is_flat(self) -> bool {
        self.max - self.min <= 1e-9
    }

    fn share(self, value: f64) -> f64 {
        if self.is_flat() { 0.5 } else { (value - self.min) / (self.max - self.min) }
    }
}

impl Latency {
    /// The weights within a class: a latency that is equal for all says nothing.
    fn weights(&self, ttft: Span, tpot: Span) -> (f64, f64) {
        match (ttft.is_flat(), tpot.is_flat()) {
            (true, false) => (0.0, 1.0),
            (false, true) => (1.0, 0.0),
            _ => {
                let sum = self.ttft_weight + self.tpot_weight;
                (self.ttft_weight / sum, self.tpot_weight / sum)
            }
        }
    }

    fn score_class(&self, cx: &Context<'_>, class: Class, out: &mut [f64]) {
        let inflight = cx.column(Feature::InflightRequests);
        let member = |row: usize| {
            Headroom::of(cx, row)
                .map(|headroom| (headroom, class_of(headroom, inflight[row] <= 0.0)))
        };
        let (mut ttft, mut tpot) = (Span::EMPTY, Span::EMPTY);
        for (headroom, _) in (0..out.len()).filter_map(member).filter(|(_, of)| *of == class) {
            ttft.add(headroom.ttft_ms.abs());
            tpot.add(headroom.tpot_ms.abs());
        }
        let (ttft_weight, tpot_weight) = self.weights(ttft, tpot);
        let most = class == Class::Met && self.headroom_selection == HeadroomSelection::Most;
        for (row, out) in out.iter_mut().enumerate() {
            *out = match member(row) {
                None => NEUTRAL,
                Some((_, other)) if other != class => 0.0,
                Some((headroom, _)) => {
                    let blend = ttft_weight * ttft.share(headroom.ttft_ms.abs())
                        + tpot_weight * tpot.share(headroom.tpot_ms.abs());
                    0.01 + 0.99 * if most { blend } else { 1.0 - blend }
                }
            };
        }
    }

    /// What llm-d falls back to without predictions.
    fn score_without_predictions(cx: &Context<'_>, out: &mut [f64]) {
        less_is_better(cx.column(Feature::WaitingRequests), out);
        for (row, out) in out.iter_mut().enumerate() {
            let kv_usage = cx.column(Feature::KvUsage)[row];
            let free = if kv_usage.is_nan() { NEUTRAL } else { 1.0 - kv_usage.clamp(0.0, 1.0) };
            *out = (*out + free + cx.features.hit_ratio(row)) / 3.0;
        }
    }
}

impl Scorer for Latency {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let inflight = cx.column(Feature::InflightRequests);
        let classes = (0..out.len()).filter_map(|row| {
            Headroom::of(cx, row).map(|headroom| class_of(headroom, inflight[row] <= 0.0))
        });
        match classes.min() {
            Some(best) => self.score_class(cx, best, out),
            None => Self::score_without_predictions(cx, out),
        }
        Ok(())
    }
}
