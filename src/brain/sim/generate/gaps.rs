use super::{GenerateError, within};
use crate::rng::Rng;

/// Times between arrivals: independent, gamma distributed, with a stated burstiness.
///
/// The coefficient of variation (deviation over mean) is 1 for a Poisson process, 0 for a clock, and
/// 2 to 4 for what production traces of single models show; more of it comes in denser bursts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gaps {
    /// Mean rate.
    pub requests_per_s: f64,
    /// Coefficient of variation.
    pub variation: f64,
}

impl Gaps {
    pub(super) fn validate(&self) -> Result<(), GenerateError> {
        within("requests_per_s", self.requests_per_s, 1e-6..=1e6, "0.000001 to 1000000")?;
        within("variation", self.variation, 0.0..=20.0, "0 (a clock), 1 (Poisson), up to 20")
    }

    /// The next gap, milliseconds.
    pub(super) fn draw_ms(&self, rng: &mut Rng) -> f64 {
        let mean_ms = 1e3 / self.requests_per_s;
        let variance = self.variation * self.variation;
        if variance < 1e-9 {
            return mean_ms;
        }
        mean_ms * variance * gamma(rng, 1.0 / variance)
    }
}

/// By Marsaglia and Tsang ("A simple method for generating gamma variables", 2000), shapes below 1
/// from that of one more.
fn gamma(rng: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let uniform = 1.0 - rng.next_f64();
        return gamma(rng, shape + 1.0) * libm::pow(uniform, 1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / libm::sqrt(9.0 * d);
    loop {
        let x = rng.next_normal();
        let v = 1.0 + c * x;
        if v <= 0.0 {
            continue;
        }
        let v = v * v * v;
        let uniform = 1.0 - rng.next_f64();
        if libm::log(uniform) < 0.5 * x * x + d - d * v + d * libm::log(v) {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_the_mean_and_the_variation_that_they_state() {
        for variation in [0.0, 0.5, 1.0, 3.0] {
            let (gaps, mut rng) = (Gaps { requests_per_s: 4.0, variation }, Rng::new(7));
            let drawn: Vec<f64> = (0..100_000).map(|_| gaps.draw_ms(&mut rng)).collect();
            let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
            let square =
                drawn.iter().map(|gap| (gap - mean) * (gap - mean)).sum::<f64>() / 100_000.0;
            assert!((mean - 250.0).abs() < 10.0, "{mean}");
            assert!((square.sqrt() / mean - variation).abs() < 0.1, "{}", square.sqrt() / mean);
        }
    }
}
