//! What a candidate would have to do for a prompt, by what it holds.

use super::TierWeights;
use crate::fleet::MAX_PREFILL_PAIRS;
use crate::predict::Prefill;
use crate::schedule::rows::LowerTiers;

/// What a candidate would do for the prompt, whoever it is: the same for all that hold nothing.
#[derive(Clone, Copy)]
pub(super) struct Work {
    pub(super) own: Prefill,
    /// Tokens of the lower tiers, by what loading them costs in tokens of prefill.
    pub(super) loaded_tokens: f64,
    pub(super) own_tokens: f64,
    pub(super) pairs_per_own_token: f64,
}

/// What the candidates of a run hold on the tiers below the GPU.
pub(super) trait LowerTierRows: Copy {
    /// As [`PrefillRows::first`].
    fn first(self, rows: usize) -> Self;
    fn of(&self, row: usize) -> LowerTiers;
}

/// Nobody holds anything there.
#[derive(Clone, Copy)]
pub(super) struct AllOnGpu;

impl LowerTierRows for AllOnGpu {
    #[inline(always)]
    fn first(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    fn of(&self, _: usize) -> LowerTiers {
        [0.0; 3]
    }
}

impl LowerTierRows for &[LowerTiers] {
    #[inline(always)]
    fn first(self, rows: usize) -> Self {
        &self[..rows]
    }

    #[inline(always)]
    fn of(&self, row: usize) -> LowerTiers {
        self[row]
    }
}

/// What each candidate of a run would do for the prompt.
pub(super) trait Works: Copy {
    /// As [`PrefillRows::first`].
    fn first(self, rows: usize) -> Self;
    fn of(&self, row: usize) -> Work;
}

/// The same, for all.
#[derive(Clone, Copy)]
pub(super) struct Same(pub(super) Work);

impl Works for Same {
    #[inline(always)]
    fn first(self, _: usize) -> Self {
        self
    }

    #[inline(always)]
    fn of(&self, _: usize) -> Work {
        self.0
    }
}

/// By what each holds.
#[derive(Clone, Copy)]
pub(super) struct Each<'a, L> {
    pub(super) prompt_tokens: f64,
    pub(super) held: &'a [f64],
    pub(super) lower_tiers: L,
    pub(super) tiers: TierWeights,
}

impl<L: LowerTierRows> Works for Each<'_, L> {
    #[inline(always)]
    fn first(self, rows: usize) -> Self {
        Self { held: &self.held[..rows], lower_tiers: self.lower_tiers.first(rows), ..self }
    }

    #[inline(always)]
    fn of(&self, row: usize) -> Work {
        Work::of(self.prompt_tokens, self.held[row], self.lower_tiers.of(row), &self.tiers)
    }
}

impl Work {
    #[inline(always)]
    pub(super) fn of(
        prompt_tokens: f64,
        cached: f64,
        lower_tiers: LowerTiers,
        tiers: &TierWeights,
    ) -> Self {
        let uncached_tokens = prompt_tokens - cached;
        let uncached_tokens = if uncached_tokens > 1.0 { uncached_tokens } else { 1.0 };
        let pairs = pairs(uncached_tokens, cached);
        let loaded_tokens = cached - tiers.credit_tokens(cached, lower_tiers);
        let own_tokens = uncached_tokens + loaded_tokens;
        Self {
            own: Prefill { uncached_tokens, pairs },
            loaded_tokens,
            own_tokens,
            pairs_per_own_token: pairs / own_tokens,
        }
    }
}

/// [`prefill_pairs`](crate::fleet::prefill_pairs) of whole numbers, to the same bits, in vectors.
#[inline(always)]
pub(super) fn pairs(uncached_tokens: f64, cached_tokens: f64) -> f64 {
    // Numbers from here on have no fraction: it is rounded off.
    const WHOLE: f64 = (1u64 << 52) as f64;
    const MOST: f64 = MAX_PREFILL_PAIRS as f64;
    // A half goes down, as in a division of integers.
    let pairs = uncached_tokens * (2.0 * cached_tokens + uncached_tokens) * 0.5 - 0.25;
    if pairs < MOST { (pairs + WHOLE) - WHOLE } else { MOST }
}

#[cfg(test)]
mod tests {
    use super::pairs;
    use crate::fleet::prefill_pairs;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pairs_in_vectors_are_those_of_integers(
            uncached in prop_oneof![1..100_000_u32, any::<u32>()],
            cached in prop_oneof![0..100_000_u32, any::<u32>()],
        ) {
            let ours = pairs(uncached.into(), cached.into());
            prop_assert_eq!(ours.to_bits(), (prefill_pairs(uncached, cached) as f64).to_bits());
        }
    }
}
