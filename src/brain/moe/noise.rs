//! What chance alone does to balance.

use super::Shape;

/// The fullest GPU over the mean that sampling makes of a perfect placement: `tokens_per_gpu` tokens
/// that each pick `top_k` experts give each GPU a number that is nearly Poisson, and the largest of so
/// many is expected at Blom's score (1958). No static map gets below it step by step.
#[must_use]
pub fn noise_floor(shape: &Shape, tokens_per_gpu: f64, top_k: u32) -> f64 {
    let gpus = shape.living_gpus() as f64;
    let mean = tokens_per_gpu * f64::from(top_k);
    if gpus < 2.0 || mean <= 0.0 {
        return 1.0;
    }
    1.0 + upper_quantile((gpus - 0.375) / (gpus + 0.25)) / libm::sqrt(mean)
}

/// The normal quantile of `p` from 0.5 up, within 4.5e-4 (Hastings 1955, sheet 68).
fn upper_quantile(p: f64) -> f64 {
    let t = libm::sqrt(-2.0 * libm::log(1.0 - p));
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - above / below
}
