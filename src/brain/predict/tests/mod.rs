//! The models against engines whose timing is known.

mod drift;
mod fit;
mod interference;
mod learning;
mod predictor;
mod profile;
mod saved;
mod stepped_engine;

use crate::rng::Rng;

/// A factor around 1, of the given relative spread: triangular, so without outliers.
fn noise(rng: &mut Rng, spread: f64) -> f64 {
    1.0 + spread * (rng.next_f64() + rng.next_f64() - 1.0)
}

fn relative_error(value: f64, truth: f64) -> f64 {
    ((value - truth) / truth).abs()
}
