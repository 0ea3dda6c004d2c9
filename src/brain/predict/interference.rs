//! What prefills do to the decodes beside them.
//!
//! A step with a prefill in it takes longer than one that only decodes, by
//!
//! ```text
//! extra_ms = max(0, a + b*(new + batch) - d) + c*pairs
//! ```
//!
//! (a prefill too small to fill the time in which the weights are read anyway adds nothing), and
//! prefills whose first tokens come at once were in one step. [`RecentPrefills`] keeps the rate of
//! that, `x = extra_ms / elapsed_ms`: a decode whose step takes `step` alone then takes
//! `step / (1 - x)`, so that `interference = step * x / (1 - x)` is to be expected for a token.
//!
//! What an answer gets of it is luck: a short one meets no prefill or a long one. [`Interference`]
//! learns how that is distributed, as met / expected, by its first two moments, and takes it for a
//! Gamma distribution (the limit of many small interruptions is narrow, of few large ones skewed),
//! whose quantiles are Wilson and Hilferty's (1931): `mean * (1 - 1/(9k) + z/(3*sqrt(k)))^3`, with
//! the shape `k = mean^2 / variance`.
//!
//! NOTE: tracking the quantiles themselves by stochastic approximation, a step up or down with
//! every answer, doubled the error on bursty traffic: answers that end together erred together.

use crate::Time;
use crate::fleet::SAME_STEP;
use serde::{Deserialize, Serialize};

/// Prefills are taken to add at most this share to the time of decodes.
const MOST_SHARE: f64 = 0.75;
/// Answers over which moments are taken.
const MEMORY_ANSWERS: f64 = 256.0;
/// Answers for which the first guess counts.
const PRIOR_ANSWERS: f64 = 8.0;
/// Interference below this share of a step is too small to divide by.
const LEAST_SHARE: f64 = 0.02;
/// More than so many times the expected interference says nothing of the next answer.
const MOST_TIMES: f64 = 30.0;
/// 90 % of a normal distribution are less than so many standard deviations above its mean.
const Z90: f64 = 1.281_551_565_544_6;

/// What a prefill added to the decodes beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrefillDone {
    /// `b*new`.
    pub(super) tokens_ms: f64,
    /// `c*pairs`.
    pub(super) pairs_ms: f64,
    /// Engine steps that it took.
    pub(super) steps: f64,
    /// `a + b*batch - d`, of each of them.
    pub(super) step_ms: f64,
}

/// Prefills of the recent past, exponentially weighted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RecentPrefills {
    at: Time,
    extra_ms: f64,
    /// Of the last step that had a prefill: when it ended, and `a + b*(new + batch) - d` so far.
    last: Option<(Time, f64)>,
}

impl RecentPrefills {
    pub(super) fn add(&mut self, at: Time, span_ms: f64, of: PrefillDone) {
        let at = at.max(self.at);
        let same = self.last.filter(|(last, _)| at.since(*last) <= SAME_STEP);
        let (before, steps) = same.map_or((0.0, of.steps), |(_, ms)| (ms, of.steps - 1.0));
        let linear = before + of.tokens_ms + steps * of.step_ms;
        let extra = linear.max(0.0) - before.max(0.0) + of.pairs_ms;
        self.extra_ms = self.fade(at, span_ms) * self.extra_ms + extra;
        self.at = at;
        self.last = Some((at, linear));
    }

    /// Share of the time that prefills add to decodes.
    pub(super) fn share(&self, now: Time, span_ms: f64) -> f64 {
        (self.fade(now, span_ms) * self.extra_ms / span_ms).clamp(0.0, MOST_SHARE)
    }

    /// What is left of the weight at `now`.
    fn fade(&self, now: Time, span_ms: f64) -> f64 {
        libm::exp(-now.millis_since(self.at) / span_ms)
    }
}

/// How interference met relates to interference expected.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Interference {
    mean: f64,
    variance: f64,
    answers: f64,
    quantiles: [f64; 2],
}

impl Default for Interference {
    /// As of single large interruptions: an exponential distribution.
    fn default() -> Self {
        Self { mean: 1.0, variance: 1.0, answers: 0.0, quantiles: quantiles(1.0, 1.0) }
    }
}

impl Interference {
    /// Learns from an answer whose tokens took `tpot_ms`, where `alone_ms` and `mean_ms` were
    /// expected without and with interference.
    pub(super) fn observe(&mut self, tpot_ms: f64, alone_ms: f64, mean_ms: f64) {
        let expected = mean_ms - alone_ms;
        let met = (tpot_ms - alone_ms) / expected;
        if expected < LEAST_SHARE * alone_ms || !met.is_finite() {
            return;
        }
        self.answers = (self.answers + 1.0).min(MEMORY_ANSWERS);
        let pace = (1.0 / (self.answers + PRIOR_ANSWERS)).max(1.0 / MEMORY_ANSWERS);
        let from_mean = met.clamp(-MOST_TIMES, MOST_TIMES) - self.mean;
        self.mean += pace * from_mean;
        self.variance += pace * (from_mean * from_mean - self.variance);
        // Half of the way to the recent mean: answers that end together had the same luck.
        self.quantiles = quantiles(0.5 + 0.5 * self.mean, self.variance);
    }

    /// The factors by which the expected interference is multiplied for the median and for the
    /// 90th percentile.
    pub(super) fn quantiles(&self) -> [f64; 2] {
        self.quantiles
    }

    /// Whether it is one that answers can lead to.
    pub(super) fn is_sound(&self) -> bool {
        let Self { mean, variance, answers, quantiles } = *self;
        mean.abs() <= MOST_TIMES
            && (0.0..=4.0 * MOST_TIMES * MOST_TIMES).contains(&variance)
            && (0.0..=MEMORY_ANSWERS).contains(&answers)
            && quantiles.iter().all(|it| (0.0..=1e6).contains(it))
    }
}

/// Median and 90th percentile of the Gamma distribution of this mean and variance.
fn quantiles(mean: f64, variance: f64) -> [f64; 2] {
    let mean = mean.max(0.05);
    let shape = mean * mean / variance.max(1e-3);
    [0.0, Z90].map(|z| {
        let root = (1.0 - 1.0 / (9.0 * shape) + z / (3.0 * libm::sqrt(shape))).max(0.0);
        mean * root * root * root
    })
}
