//! The models of an endpoint, and those that endpoints share.

use super::EngineProfile;
use super::fit::Fit;
use super::interference::Interference;

/// A pair of models, by [`Part`], and whether the prior that they started from may speak.
#[derive(Debug, Clone, Copy)]
pub(super) struct Models {
    pub(super) fits: [Fit; Part::COUNT],
    pub(super) prior_speaks: bool,
}

/// Which of an endpoint's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Prefill,
    Decode,
}

impl Part {
    pub(super) const COUNT: usize = 2;
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Prefill, Self::Decode];
}

impl Models {
    pub(super) fn from_profile(profile: &EngineProfile, prior_speaks: bool) -> Self {
        // A prior of zero has no unit to be a multiple of.
        let least = |value: f64, least: f64| value.max(least);
        let prefill = [
            least(profile.prefill_base_ms, 1.0),
            least(profile.prefill_ms_per_token, 1e-4),
            least(profile.prefill_ms_per_pair, 1e-9),
        ];
        let decode = [
            least(profile.decode_base_ms, 1.0),
            least(profile.decode_ms_per_request, 1e-4),
            least(profile.decode_ms_per_context_token, 1e-8),
        ];
        Self { fits: [Fit::from_prior(prefill), Fit::from_prior(decode)], prior_speaks }
    }

    pub(super) fn part(&self, part: Part) -> &Fit {
        &self.fits[part as usize]
    }
}

/// What all endpoints that serve one model have shown together.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) members: u32,
    pub(super) models: Models,
    pub(super) interference: Interference,
    /// By [`Part`]: members with too few observations of their own, who borrow.
    pub(super) borrowers: [Vec<u32>; Part::COUNT],
}
