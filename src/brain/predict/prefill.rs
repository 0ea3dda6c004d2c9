//! The formula of the time to first token, once: for one endpoint and, inlined into a loop over
//! columns, for a fleet. Branches are selections, so that such a loop vectorises.
//!
//! NOTE(perf): a division of four numbers takes as long as ten additions, so the two that depend on
//! the load alone (a step's share of the queue, the inverse of a step's size) are columns of the
//! fleet.
//!
//! NOTE(perf): the models' own structures take 400 bytes an endpoint, which a decision over 1,024
//! endpoints read entirely; their coefficients as columns take 56.

use super::coefficients::Coefficients;
use crate::Slot;
use crate::fleet::{Columns, DEFAULT_BATCH_TOKENS, prefill_pairs};
use crate::lanes::vectorised;
use std::ops::Range;

/// Rounding of a product may pass a whole number of steps by this much.
const STEP_ROUNDING: f64 = 1e-9;

/// Steps after which errors of their length have added up, and nothing is known of when one ends.
const PHASE_STEPS: f64 = 24.0;

/// What an endpoint would compute for a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prefill {
    /// Tokens that it does not hold.
    pub uncached_tokens: f64,
    /// Token pairs that their attention visits, see [`prefill_pairs`].
    pub pairs: f64,
}

impl Prefill {
    /// The prefill of a prompt of which `matched_tokens` are held.
    #[must_use]
    pub fn of(prompt_tokens: u32, matched_tokens: u32) -> Self {
        let cached_tokens = matched_tokens.min(prompt_tokens);
        let uncached_tokens = prompt_tokens - cached_tokens;
        Self {
            uncached_tokens: uncached_tokens.into(),
            pairs: prefill_pairs(uncached_tokens, cached_tokens) as f64,
        }
    }
}

/// What predicts the time to first token on a run of slots; row 0 is the first of them.
#[derive(Debug, Clone, Copy)]
pub struct PrefillRows<'a> {
    prefill: [&'a [f64]; 3],
    prefill_error: &'a [f64],
    decode: [&'a [f64]; 3],
    pending_tokens: &'a [f64],
    pending_pairs: &'a [f64],
    decoding_requests: &'a [f64],
    decoding_tokens: &'a [f64],
    head_since_ms: &'a [f64],
    head_tokens: &'a [f64],
    head_pairs: &'a [f64],
    step_ended_ms: &'a [f64],
    steps_per_token: &'a [f64],
    step_share: &'a [f64],
}

impl<'a> PrefillRows<'a> {
    pub(super) fn new(slots: Range<usize>, of: &'a Coefficients, columns: &'a Columns) -> Self {
        let cut = |column: &'a Vec<f64>| &column[slots.clone()];
        Self {
            prefill: of.prefill.each_ref().map(cut),
            prefill_error: cut(&of.prefill_error),
            decode: of.decode.each_ref().map(cut),
            pending_tokens: cut(&columns.pending_prefill_tokens),
            pending_pairs: cut(&columns.pending_prefill_pairs),
            decoding_requests: cut(&columns.decoding_requests),
            decoding_tokens: cut(&columns.active_decode_tokens),
            head_since_ms: cut(&columns.head_since_ms),
            head_tokens: cut(&columns.head_tokens),
            head_pairs: cut(&columns.head_pairs),
            step_ended_ms: cut(&columns.step_ended_ms),
            steps_per_token: cut(&columns.steps_per_token),
            step_share: cut(&columns.step_share),
        }
    }

    /// The first `rows` of them: where a loop over as many begins with this, the compiler sees that
    /// no index can be out of range.
    #[inline(always)]
    #[must_use]
    pub fn first(self, rows: usize) -> Self {
        Self {
            prefill: self.prefill.map(
                #[inline(always)]
                |column| &column[..rows],
            ),
            prefill_error: &self.prefill_error[..rows],
            decode: self.decode.map(
                #[inline(always)]
                |column| &column[..rows],
            ),
            pending_tokens: &self.pending_tokens[..rows],
            pending_pairs: &self.pending_pairs[..rows],
            decoding_requests: &self.decoding_requests[..rows],
            decoding_tokens: &self.decoding_tokens[..rows],
            head_since_ms: &self.head_since_ms[..rows],
            head_tokens: &self.head_tokens[..rows],
            head_pairs: &self.head_pairs[..rows],
            step_ended_ms: &self.step_ended_ms[..rows],
            steps_per_token: &self.steps_per_token[..rows],
            step_share: &self.step_share[..rows],
        }
    }

    /// Time to first token on every row.
    pub fn fill(&self, now_ms: f64, own: &Prefill, out: &mut [f64]) {
        // A function, so that `out` is known to overlap with nothing.
        #[inline(always)]
        fn fill(of: PrefillRows<'_>, now_ms: f64, own: Prefill, out: &mut [f64]) {
            let of = of.first(out.len());
            for (row, out) in out.iter_mut().enumerate() {
                *out = of.ttft_ms(row, now_ms, &own);
            }
        }
        vectorised(
            #[inline(always)]
            || fill(*self, now_ms, *own, out),
        );
    }

    /// Usual relative error of each endpoint's own model: 0 where it borrows one or has only a
    /// prior, NaN where no model may speak.
    #[must_use]
    pub fn errors(&self) -> &'a [f64] {
        self.prefill_error
    }

    /// Milliseconds that a token of prefill takes, besides its pairs.
    #[inline(always)]
    #[must_use]
    pub fn ms_per_token(&self, row: usize) -> f64 {
        self.prefill[1][row]
    }

    /// Milliseconds that a token pair takes.
    #[inline(always)]
    #[must_use]
    pub fn ms_per_pair(&self, row: usize) -> f64 {
        self.prefill[2][row]
    }

    /// Time to first token, milliseconds, if the prompt is sent there at `now_ms`; NaN where no
    /// model may speak.
    #[inline(always)]
    #[must_use]
    pub fn ttft_ms(&self, row: usize, now_ms: f64, own: &Prefill) -> f64 {
        let [base, per_token, per_pair] = self.prefill.map(|column| column[row]);
        let pending = self.pending_tokens[row];
        let tokens = pending + own.uncached_tokens;
        let pairs = self.pending_pairs[row] + own.pairs;
        let work = base + per_token * tokens + per_pair * pairs;

        // What the engine works on now takes this long: the first prefill of the queue, or those
        // behind it that fit into one step with it. More progress than that it cannot have made.
        let share = self.step_share[row];
        let head = per_token * self.head_tokens[row] + per_pair * self.head_pairs[row];
        let step = per_token * (share * pending) + per_pair * (share * self.pending_pairs[row]);
        let in_hand = if step > head { step } else { head };
        // Without a head this is minus infinity.
        let since = now_ms - self.head_since_ms[row];
        let since = if since > 0.0 { since } else { 0.0 };
        let left = work - if since < in_hand { since } else { in_hand };
        // A NaN stays one.
        let left = if left < 0.0 { 0.0 } else { left };

        let beside = DecodesBeside {
            coefficients: self.decode.map(|column| column[row]),
            requests: self.decoding_requests[row],
            context_tokens: self.decoding_tokens[row],
            behind_prefill: self.head_since_ms[row] < f64::INFINITY,
            since_step_ms: now_ms - self.step_ended_ms[row],
        };
        left + beside.drag_ms(steps(tokens, self.steps_per_token[row]))
    }
}

/// Who decodes on an endpoint while it prefills.
pub(super) struct DecodesBeside {
    pub(super) coefficients: [f64; 3],
    pub(super) requests: f64,
    pub(super) context_tokens: f64,
    /// Whether they run beside a prefill already.
    pub(super) behind_prefill: bool,
    /// How long ago a step is known to have ended.
    pub(super) since_step_ms: f64,
}

impl DecodesBeside {
    /// How much they slow a prefill of so many steps: what is left of the step that runs, and their
    /// part of each step that the prefill takes. Where no step has been seen to end lately, half of
    /// one is left.
    #[inline(always)]
    pub(super) fn drag_ms(&self, steps: f64) -> f64 {
        let [base, per_request, per_token] = self.coefficients;
        let beside = per_request * self.requests + per_token * self.context_tokens;
        let step = base + beside;
        let passed = self.since_step_ms / step;
        let left = if passed < PHASE_STEPS { 1.0 - (passed - passed.floor()) } else { 0.5 };
        let current = if self.behind_prefill { 0.0 } else { step * left };
        let drag = current + steps * beside;
        if self.requests > 0.0 { drag } else { 0.0 }
    }
}

/// Engine steps, at least one, that so many tokens of prefill take.
#[inline(always)]
pub(super) fn steps(tokens: f64, steps_per_token: f64) -> f64 {
    let steps = (tokens * steps_per_token - STEP_ROUNDING).ceil();
    if steps > 1.0 { steps } else { 1.0 }
}

/// [`steps`] on the engine in a slot.
pub(super) fn steps_in(slot: Slot, columns: &Columns, tokens: f64) -> f64 {
    let assumed = 1.0 / f64::from(DEFAULT_BATCH_TOKENS);
    steps(tokens, columns.steps_per_token.get(slot.index()).copied().unwrap_or(assumed))
}
