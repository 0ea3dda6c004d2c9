use super::{noise, relative_error};
use crate::predict::fit::{Fit, dot};
use crate::rng::Rng;
use proptest::prelude::*;

const TRUTH: [f64; 3] = [3.52, 0.05025, 1.6e-6];
const MEMORY: f64 = 256.0;

/// A prompt as features: up to 20,000 new tokens after up to 50,000 cached ones.
fn prompt(rng: &mut Rng) -> [f64; 3] {
    let new = 10.0 + 20_000.0 * rng.next_f64() * rng.next_f64();
    let cached = 50_000.0 * rng.next_f64();
    [1.0, new, new * (cached + new / 2.0)]
}

fn worst_error(fit: &Fit, rng: &mut Rng) -> f64 {
    let coefficients = fit.coefficients();
    let error = |x: [f64; 3]| relative_error(dot(&coefficients, &x), dot(&TRUTH, &x));
    (0..500).map(|_| error(prompt(rng))).fold(0.0, f64::max)
}

#[test]
fn exact_data_are_learned_exactly_from_any_prior() {
    for prior in [[30.0, 0.5, 1e-5], [0.1, 0.002, 1e-8], [1.0, 1.0, 1e-9]] {
        let mut rng = Rng::new(1);
        let mut fit = Fit::from_prior(prior);
        for _ in 0..1_000 {
            let x = prompt(&mut rng);
            fit.observe(x, dot(&TRUTH, &x), MEMORY);
        }
        let worst = worst_error(&fit, &mut rng);
        assert!(worst < 0.01, "{worst} from {prior:?}");
    }
}

#[test]
fn noise_and_outliers_cost_little() {
    let mut rng = Rng::new(2);
    let mut fit = Fit::from_prior([3.78, 0.06233, 9.9e-7]);
    for i in 0..600 {
        let x = prompt(&mut rng);
        let outlier = if i % 20 == 0 { 30.0 } else { 1.0 };
        fit.observe(x, dot(&TRUTH, &x) * noise(&mut rng, 0.2) * outlier, MEMORY);
    }
    let worst = worst_error(&fit, &mut rng);
    assert!(worst < 0.10, "{worst}");
    assert!(fit.spread() > 0.05 && fit.spread() < 0.5, "{}", fit.spread());
}

#[test]
fn a_change_of_the_engine_is_followed() {
    let mut rng = Rng::new(3);
    let mut fit = Fit::from_prior([3.78, 0.06233, 9.9e-7]);
    for factor in [1.0, 3.0] {
        for _ in 0..1_500 {
            let x = prompt(&mut rng);
            fit.observe(x, factor * dot(&TRUTH, &x), MEMORY);
        }
    }
    let x = [1.0, 5_000.0, 5_000.0 * 2_500.0];
    let error = relative_error(dot(&fit.coefficients(), &x), 3.0 * dot(&TRUTH, &x));
    assert!(error < 0.02, "{error}");
}

#[test]
fn what_recent_data_are_silent_about_is_not_forgotten() {
    let mut rng = Rng::new(4);
    let mut fit = Fit::from_prior([30.0, 0.5, 1e-5]);
    for _ in 0..500 {
        let x = prompt(&mut rng);
        fit.observe(x, dot(&TRUTH, &x), MEMORY);
    }
    let short = [1.0, 100.0, 100.0 * 50.0];
    for _ in 0..20_000 {
        fit.observe(short, dot(&TRUTH, &short) * noise(&mut rng, 0.05), MEMORY);
    }
    let long = [1.0, 20_000.0, 20_000.0 * 10_000.0];
    let error = relative_error(dot(&fit.coefficients(), &long), dot(&TRUTH, &long));
    assert!(error < 0.25, "{error}: 20,000 short prompts say nothing of a long one");
}

#[test]
fn a_coefficient_that_would_be_negative_is_zero() {
    let mut rng = Rng::new(5);
    let mut fit = Fit::from_prior([1.0, 0.01, 1e-6]);
    for _ in 0..300 {
        let new = 100.0 + 5_000.0 * rng.next_f64();
        // Concave in the tokens: the square would be negative.
        let measured = 50.0 * libm::sqrt(new);
        fit.observe([1.0, new, new * new / 2.0], measured, MEMORY);
    }
    let coefficients = fit.coefficients();
    assert!(coefficients.iter().all(|&value| value >= 0.0), "{coefficients:?}");
    assert!(coefficients[2] < 1e-12, "{coefficients:?}");
}

#[test]
fn a_copy_predicts_alike_and_has_observed_nothing() {
    let mut rng = Rng::new(6);
    let mut fit = Fit::from_prior([30.0, 0.5, 1e-5]);
    for _ in 0..100 {
        let x = prompt(&mut rng);
        fit.observe(x, dot(&TRUTH, &x), MEMORY);
    }
    let copy = fit.fresh_copy();
    let x = prompt(&mut rng);
    assert!(relative_error(dot(&copy.coefficients(), &x), dot(&fit.coefficients(), &x)) < 1e-12);
    assert_eq!((fit.observations(), copy.observations()), (100, 0));
}

proptest! {
    /// Whatever is observed, coefficients are finite and not negative.
    #[test]
    fn nothing_breaks_the_coefficients(
        observations in prop::collection::vec((any::<[f64; 3]>(), any::<f64>()), 0..40),
        tame in prop::collection::vec((0.0..1e12f64, 0.0..1e18f64, 0.0..1e8f64), 0..40),
    ) {
        let mut fit = Fit::from_prior([1.0, 0.01, 1e-6]);
        let tame = tame.into_iter().map(|(tokens, pairs, ms)| ([1.0, tokens, pairs], ms));
        for (features, measured) in observations.into_iter().chain(tame) {
            fit.observe(features, measured, MEMORY);
            let coefficients = fit.coefficients();
            prop_assert!(coefficients.iter().all(|k| k.is_finite() && *k >= 0.0), "{coefficients:?}");
        }
    }
}
