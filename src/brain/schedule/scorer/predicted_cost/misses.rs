//! How many objectives a placement will make miss.
//!
//! Over everything in flight at a candidate, the rise in the probability that its time per output token
//! passes its objective because this prefill interrupts its decode; and the newcomer's own
//! probabilities that it misses either of its two. A probability is logistic in how far the expected
//! value is from the objective.
//!
//! ```text
//! step      = d + e*n + f*context                 a step that only decodes, all in flight beside it
//! share     = prefill placed lately / time        what prefills take of the endpoint's time, at most 0.8
//! growth    = share/(1 - share) * step            what those to come will add to a token
//! expected  = step + (prefills since its first token + those queued + growth*left/2) / output
//! weight    = prefill alone / 1.5 objectives, from 1 to long_weight        of each prompt's own misses
//! rise      = weight * (P(expected + own/output) - P(expected))
//! newcomer  = weight * (late + (1 - 0.27*late) * P(step + growth)),  late = P(ttft)
//! impatient = max(0, ttft / objective - patience_objectives)      where a client waits far too long
//! peers     = n_peers * (P(step + growth + own/mean) - P(step + growth))
//! ```
//!
//! What other routers have in flight there is told in sums: each of those counts as one that has the
//! newcomer's objective and the mean answer. To know each request of theirs as well as our own changed
//! less than 0.3 points. Their prefills, which interrupt our decodes, are told.
//!
//! `output` is what the request has generated (by its time, where nobody tells) and what it is likely
//! to generate still: 0.4 of the mean answer, at least the mean in all; where its client said how long its
//! answer will be, that in the place of the mean. A time to first token that the
//! prompt would miss alone on an idle endpoint is no objective: `max(objective, 1.5 * isolated)`.
//!
//! Least of all is missed where everything is lost already, so without more the waits of a few endpoints
//! grow without end, and long prompts, which would harm most elsewhere, end there. Hence the last two: past
//! `patience_objectives` (12) each further one is a miss, and a long prompt weighs more, newcomer and in decode alike.
//! Who is late already is spared a part of its second miss, since it is not in time in either case.
//!
//! NOTE(perf): tried on the conversation trace at loads of 0.8, 1.0 and 1.1, as requests in time and p99
//! of the first token over those of the best rival, and points of prompts over 20k tokens that are in
//! time behind its; at 1.1 without any of it 1.86, 1.9 and 18. Waits beyond the objective from the
//! first on, as 0.05 to 0.5 of a miss each, or squared: 24 s for a fifth of the requests in time.
//! Patience of 8 objectives: shorter, but 1.12 in place of 1.15 at 1.0. Patience counted from the
//! limit of each prompt: 1.6 times its p99, since the last percent are prompts of 10 s and more.
//! A weight of up to 3 from one objective on: 7 points behind, but 1.027 in place of 1.031 at 0.8;
//! without a bound 4 behind, and 1.06 at 1.0. A weight that grows with the mean queue: the same trade.
//! Those in decode whose first token was late counted as lost already: 1.5 in place of 1.9.
//! Half the width for a time per output token: 1.46 times its p99.
//! Of the second miss of who misses both, spared a half: 1.145 at 1.0 and 0.992 on Azure's conversations;
//! 0.3: 1.137 and 0.995; a quarter: 1.127; a fifth: 1.131 and 0.998; as it is 1.14 and 0.998.
//! The wait for KV added to `ttft` (what is asked for beyond it, over the rate at which answers free it): 1.77
//! in place of 1.90 at 1.1; by what the engine reports as waiting over running: 1.27. A weight of long prompts
//! that grows with the share of requests that miss: a point less behind at 1.1, 0.04 to 0.07 less there.
//! For peers: shares of prefill and own misses scaled by all in flight over our own, 1 to 2 points less.

use crate::Slot;
use crate::schedule::context::Context;

/// Width of the logistic around an objective of time per output token, milliseconds.
const TPOT_WIDTH_MS: f64 = 10.0;
/// The same for the time to first token, as a share of the objective.
const TTFT_WIDTH: f64 = 0.15;
/// Most of an endpoint's time that prefills are taken to need.
const MOST_SHARE: f64 = 0.8;
/// Share of the mean answer that one in decode has still to come.
const LEFT_SHARE: f64 = 0.4;
/// Times its isolated prefill that a prompt may take to its first token.
const ISOLATED_FACTOR: f64 = 1.5;

/// Objectives that a prompt takes alone from which on its misses weigh more, in proportion.
const LONG_OBJECTIVES: f64 = 1.5;
/// Share of its second miss that a request which misses both objectives is spared.
const LATE_AND_SLOW: f64 = 0.27;

/// What the placement is about.
pub(super) struct Newcomer {
    /// Its uncached tokens and their pairs, as the endpoint would compute them.
    pub(super) tokens: f64,
    pub(super) pairs: f64,
    /// Prefill milliseconds placed lately, as a share of the time.
    pub(super) recent_share: f64,
    /// Objectives that its client waits for the first token before each further one counts as a miss.
    pub(super) patience_objectives: f64,
    /// Most that the misses of a long prompt weigh, its own and those of who is in flight.
    pub(super) long_weight: f64,
}

/// Objectives expected to be missed by placing the request on a slot; `None` without its models.
pub(super) fn expected_misses(cx: &Context<'_>, slot: Slot, of: &Newcomer) -> Option<f64> {
    let columns = cx.fleet.columns();
    let at = slot.index();
    let timing = cx.predictor.rates(slot)?;
    let [a, b, c] = timing.prefill;
    let [_, e, f] = timing.decode;
    let now_ms = cx.now.as_millis_f64();
    let own_ms = a + b * of.tokens + c * of.pairs;
    let inflight = columns.inflight_requests[at];
    let step = timing.step_ms(columns, slot);
    let steps_of = |tokens: f64| libm::ceil(tokens * columns.steps_per_token[at]).max(1.0);

    let cost = |tokens: f64, pairs: f64| b * tokens + c * pairs;
    let head_ms = cost(columns.head_tokens[at], columns.head_pairs[at]);
    let passed = (now_ms - columns.head_since_ms[at]).clamp(0.0, 0.9 * head_ms);
    let pending_tokens = columns.pending_prefill_tokens[at];
    let queued = cost(pending_tokens, columns.pending_prefill_pairs[at]) - passed;
    let queued = if pending_tokens > 0.0 { queued + a } else { 0.0 };

    let share = of.recent_share.min(MOST_SHARE);
    let growth = share / (1.0 - share) * step;
    let mean_output = cx.predictor.mean_output_tokens();

    let isolated = |prompt_tokens: u32| {
        let prompt = f64::from(prompt_tokens);
        a + b * prompt + c * prompt * prompt / 2.0
    };
    let per_objective = cx.request.slo.ttft_ms.map_or(0.0, |objective| 1.0 / objective);
    let per_long = per_objective / LONG_OBJECTIVES;
    let weight = |isolated: f64| (isolated * per_long).clamp(1.0, of.long_weight);

    let (mut misses, mut own_requests) = (0.0, 0.0);
    for it in cx.fleet.in_flight(slot) {
        own_requests += 1.0;
        let Some(objective) = it.objective_ms else { continue };
        let generated = timing.generated_tokens(cx.now, &it, step);
        let interrupted = match it.first_token_at {
            Some(_) => cost(it.prefill_tokens, it.prefill_pairs) + queued,
            None => 0.0,
        };
        let usual =
            it.expected_output_tokens.map_or(mean_output, |tokens| f64::from(tokens.max(1)));
        let output = (generated + LEFT_SHARE * usual).max(usual);
        let left = output - generated;
        let expected = step + (interrupted + growth * left / 2.0) / output;
        let risen = missed(expected + own_ms / output - objective, TPOT_WIDTH_MS);
        let before = missed(expected - objective, TPOT_WIDTH_MS);
        misses += weight(isolated(it.prompt_tokens)) * (risen - before);
    }
    let (mut slow, mut late) = (0.0, 0.0);
    if let Some(objective) = cx.request.slo.tpot_ms {
        let above = step + growth - objective;
        let of_peers = (inflight - own_requests).max(0.0);
        let risen = missed(above + own_ms / mean_output, TPOT_WIDTH_MS);
        slow = missed(above, TPOT_WIDTH_MS);
        misses += of_peers * (risen - slow);
    }
    let alone_ms = isolated(cx.request.prompt_tokens);
    if let Some(objective) = cx.request.slo.ttft_ms {
        let limit = objective.max(ISOLATED_FACTOR * alone_ms);
        let steps = steps_of(pending_tokens + of.tokens);
        let beside = e * inflight + f * columns.inflight_context_tokens[at];
        let ttft = queued + own_ms + steps * beside;
        late = missed(ttft - limit, TTFT_WIDTH * limit);
        misses += (ttft * per_objective - of.patience_objectives).max(0.0);
    }
    Some(misses + weight(alone_ms) * (late + (1.0 - LATE_AND_SLOW * late) * slow))
}

/// Probability that a value which is expected to be so much above its objective misses it.
fn missed(above: f64, width: f64) -> f64 {
    1.0 / (1.0 + exp(-above / width))
}

/// `exp(x)` to 2e-7 of itself and to the same bits everywhere: `2^whole` by its bits, times Taylor's
/// polynomial of what is left. Over 512 answers a decision took 76 us with `libm`'s, and 40 with this.
fn exp(x: f64) -> f64 {
    use std::f64::consts::{LN_2, LOG2_E};
    // Numbers from here on have no fraction: it is rounded off.
    const WHOLE: f64 = 1.5 * (1_u64 << 52) as f64;
    const MOST: f64 = 700.0;
    let powers_of_two = x.clamp(-MOST, MOST) * LOG2_E;
    let whole = (powers_of_two + WHOLE) - WHOLE;
    let left = (powers_of_two - whole) * LN_2;
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let of_left = series.into_iter().fold(0.0, |sum, factor| sum * left + factor);
    of_left * f64::from_bits(((1_023 + whole as i64) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::exp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exponentials_are_those_of_libm(x in -690.0..690.0_f64) {
            let exact = libm::exp(x);
            prop_assert!((exp(x) - exact).abs() <= 2e-7 * exact);
        }
    }

    #[test]
    fn exponentials_of_the_extreme_are_finite() {
        assert!(exp(f64::INFINITY).is_finite() && exp(f64::NEG_INFINITY) > 0.0);
    }
}
