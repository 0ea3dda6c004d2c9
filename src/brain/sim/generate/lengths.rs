use super::{GenerateError, MOST_TOKENS, within};
use crate::rng::Rng;

/// A lognormal distribution, by its median and the deviation of its logarithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lognormal {
    /// Half of all draws are below.
    pub median: f64,
    /// Standard deviation of the logarithm; 0 always draws the median.
    pub sigma: f64,
}

impl Lognormal {
    /// A distribution.
    #[must_use]
    pub const fn new(median: f64, sigma: f64) -> Self {
        Self { median, sigma }
    }

    pub(super) fn validate(&self, name: &'static str) -> Result<(), GenerateError> {
        within(name, self.median, 0.0..=1e9, "a median of 0 to 1 billion")?;
        within(name, self.sigma, 0.0..=5.0, "a sigma of 0 to 5")
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> f64 {
        self.median * libm::exp(self.sigma * rng.next_normal())
    }

    /// At least one token, at most what a context can be.
    pub(super) fn tokens(&self, rng: &mut Rng) -> u32 {
        self.draw(rng).clamp(1.0, f64::from(MOST_TOKENS)) as u32
    }
}
