//! How busy an endpoint was over a stretch of time: integrals of its load, so that the mean batch
//! under which one request decoded costs two readings, however often the batch changed.

use super::Load;
use crate::Time;
use std::time::Duration;

/// First tokens that are this close came from one step: no engine steps faster.
pub(crate) const SAME_STEP: Duration = Duration::from_millis(2);

/// Integrals since the slot's tenant joined; two readings subtract to what happened between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reading {
    /// Requests decoding, times nanoseconds.
    request_nanos: u128,
    /// Context tokens decoding, times nanoseconds.
    token_nanos: u128,
    /// Uncached tokens whose prefill is done.
    prefill_tokens: u64,
    /// Their token pairs.
    prefill_pairs: u128,
    /// Engine steps that they took.
    prefill_steps: u64,
}

impl Reading {
    /// Uncached tokens and pairs that were prefilled from this reading on, until there were so many.
    pub(super) fn prefilled_until(&self, (tokens, pairs): (u64, u128)) -> (f64, f64) {
        ((tokens - self.prefill_tokens) as f64, (pairs - self.prefill_pairs) as f64)
    }
}

/// The meter of one slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    at: Time,
    requests: u32,
    tokens: u64,
    reading: Reading,
    last_prefill: Option<Time>,
}

impl Meter {
    /// A meter that has seen nothing.
    pub(super) fn starting(now: Time) -> Self {
        Self { at: now, requests: 0, tokens: 0, reading: Reading::default(), last_prefill: None }
    }

    /// The integrals up to `now`.
    pub(super) fn read(&self, now: Time) -> Reading {
        let nanos = now.since(self.at).as_nanos();
        Reading {
            request_nanos: self.reading.request_nanos + u128::from(self.requests) * nanos,
            token_nanos: self.reading.token_nanos + u128::from(self.tokens) * nanos,
            ..self.reading
        }
    }

    /// From `now` on the load is this.
    pub(super) fn set(&mut self, now: Time, load: &Load) {
        self.reading = self.read(now);
        self.at = now;
        self.requests = load.decoding_requests;
        self.tokens = load.active_decode_tokens;
    }

    /// Uncached tokens and pairs that have been prefilled in all.
    pub(super) fn prefilled_so_far(&self) -> (u64, u128) {
        (self.reading.prefill_tokens, self.reading.prefill_pairs)
    }

    /// A prefill is done that took so many steps, of which the last is that of the prefill before
    /// where both are done at once.
    pub(super) fn prefilled(&mut self, now: Time, uncached_tokens: u64, pairs: u64, steps: u64) {
        let shared = self.last_prefill.is_some_and(|last| now.since(last) <= SAME_STEP);
        self.last_prefill = Some(now);
        self.reading.prefill_tokens += uncached_tokens;
        self.reading.prefill_pairs += u128::from(pairs);
        self.reading.prefill_steps += steps.saturating_sub(shared.into());
    }
}

/// The decode of one request so far, and what its endpoint did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeWindow {
    /// From its first token until now, milliseconds.
    pub duration_ms: f64,
    /// Tokens after the first, at least one.
    pub steps: u32,
    /// Requests decoding at a time, on average, itself included.
    pub mean_batch_requests: f64,
    /// Context tokens decoding at a time, on average, its own included.
    pub mean_context_tokens: f64,
    /// Uncached tokens of others that were prefilled.
    pub prefill_tokens: f64,
    /// Their token pairs.
    pub prefill_pairs: f64,
    /// Engine steps that those took.
    pub prefill_steps: f64,
}

impl DecodeWindow {
    /// What happened from `from`, read `nanos` ago, to `to`; `None` where no time has passed.
    pub(super) fn between(from: &Reading, to: &Reading, nanos: u128, steps: u32) -> Option<Self> {
        if nanos == 0 || steps == 0 {
            return None;
        }
        let span = nanos as f64;
        Some(Self {
            duration_ms: span / 1e6,
            steps,
            mean_batch_requests: (to.request_nanos - from.request_nanos) as f64 / span,
            mean_context_tokens: (to.token_nanos - from.token_nanos) as f64 / span,
            prefill_tokens: (to.prefill_tokens - from.prefill_tokens) as f64,
            prefill_pairs: (to.prefill_pairs - from.prefill_pairs) as f64,
            prefill_steps: (to.prefill_steps - from.prefill_steps) as f64,
        })
    }
}
