//! What a prefill takes, in milliseconds where models tell them, and otherwise in tokens.

use super::work::Work;
use super::{Moment, Part};
use crate::predict::PrefillRows;

/// What a prefill takes, in the unit of the decision.
#[derive(Clone, Copy)]
pub(super) struct Prices {
    pub(super) ttft: f64,
    pub(super) per_token: f64,
    pub(super) per_pair: f64,
}

/// What tells prices.
pub(super) trait Pricing: Copy {
    /// As [`PrefillRows::first`].
    fn first(self, rows: usize) -> Self;
    fn prices(&self, of: &Part<'_>, row: usize, work: &Work, moment: &Moment) -> Prices;
}

impl Pricing for PrefillRows<'_> {
    #[inline(always)]
    fn first(self, rows: usize) -> Self {
        PrefillRows::first(self, rows)
    }

    #[inline(always)]
    fn prices(&self, _: &Part<'_>, row: usize, work: &Work, moment: &Moment) -> Prices {
        Prices {
            ttft: self.ttft_ms(row, moment.now_ms, &work.own),
            per_token: self.ms_per_token(row),
            per_pair: self.ms_per_pair(row),
        }
    }
}

/// Prices in tokens of prefill, where no model tells milliseconds.
#[derive(Clone, Copy)]
pub(super) struct InTokens;

impl Pricing for InTokens {
    #[inline(always)]
    fn first(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    fn prices(&self, of: &Part<'_>, row: usize, work: &Work, _: &Moment) -> Prices {
        let ttft = of.pending[row] + work.own.uncached_tokens;
        Prices { ttft, per_token: 1.0, per_pair: 0.0 }
    }
}
