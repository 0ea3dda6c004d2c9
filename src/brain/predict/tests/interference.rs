//! The distribution of what prefills add, and the margin of a 90th percentile.

use crate::Time;
use crate::predict::interference::{Interference, PrefillDone, RecentPrefills};
use crate::predict::margin::Margin;
use crate::rng::Rng;

fn done(tokens_ms: f64, steps: f64) -> PrefillDone {
    PrefillDone { tokens_ms, pairs_ms: 1.0, steps, step_ms: -15.0 }
}

#[test]
fn prefills_of_one_step_fill_it_together() {
    let at = Time::from_millis_f64;
    let share = |prefills: &[(f64, PrefillDone)]| {
        let mut recent = RecentPrefills::default();
        prefills.iter().for_each(|&(ms, of)| recent.add(at(ms), 1_000.0, of));
        1_000.0 * recent.share(at(5.0), 1_000.0)
    };
    assert!(share(&[]) < 1e-12);
    assert!((share(&[(5.0, done(10.0, 1.0))]) - 1.0).abs() < 1e-9, "hidden but for its pairs");
    assert!((share(&[(5.0, done(40.0, 1.0))]) - 26.0).abs() < 1e-9);
    let together = share(&[(5.0, done(10.0, 1.0)), (5.0, done(10.0, 1.0)), (5.0, done(20.0, 1.0))]);
    assert!((together - 28.0).abs() < 1e-9, "40 less one step, and three times the pairs");
    assert!((share(&[(5.0, done(100.0, 3.0))]) - 56.0).abs() < 1e-9, "three steps");
}

#[test]
fn quantiles_are_those_of_what_was_met() {
    // Sums of so many exponential variables: a Gamma distribution of that shape.
    for shape in [1_u32, 3, 10, 50] {
        let mut rng = Rng::new(shape.into());
        let mut met =
            || (0..shape).map(|_| -libm::log(1.0 - rng.next_f64())).sum::<f64>() / f64::from(shape);
        let mut interference = Interference::default();
        let mut within = [0_u32; 2];
        for number in 0..40_000 {
            let met = met();
            if number >= 1_000 {
                let quantiles = interference.quantiles();
                for (within, quantile) in within.iter_mut().zip(quantiles) {
                    *within += u32::from(met <= quantile);
                }
            }
            interference.observe(20.0 + 10.0 * met, 20.0, 30.0);
        }
        let [p50, p90] = within.map(|it| f64::from(it) / 39_000.0);
        assert!((p50 - 0.5).abs() < 0.05, "shape {shape}: {p50}");
        assert!((p90 - 0.9).abs() < 0.02, "shape {shape}: {p90}");
    }
}

#[test]
fn nonsense_teaches_nothing() {
    let mut interference = Interference::default();
    interference.observe(f64::NAN, 20.0, 30.0);
    interference.observe(25.0, 20.0, 20.0);
    assert_eq!(interference, Interference::default());
}

#[test]
fn a_tenth_passes_the_margin_whatever_the_distribution_and_its_changes() {
    let mut rng = Rng::new(11);
    let mut margin = Margin::starting(1.3);
    let mut passed = 0;
    for number in 0..30_000 {
        let wide = if number / 5_000 % 2 == 0 { 0.1 } else { 1.5 };
        let measured_ms = 100.0 * (1.0 + wide * libm::pow(rng.next_f64(), 3.0));
        let p90_ms = 100.0 * margin.factor();
        passed += u32::from(measured_ms > p90_ms);
        margin.observe(measured_ms, p90_ms);
    }
    let share = f64::from(passed) / 30_000.0;
    assert!((share - 0.1).abs() < 0.01, "{share}");
}
