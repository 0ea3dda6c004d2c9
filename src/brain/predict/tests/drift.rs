//! When the alarm of drift is raised, and when not.

use crate::predict::drift::Drift;
use crate::rng::Rng;

const FITTED: [f64; 3] = [10.0, 0.1, 0.0];

/// A normal variable, by the sum of twelve uniform ones.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.next_f64()).sum::<f64>() - 6.0
}

/// An endpoint whose latency is `factor` times what the model says, but for noise; alarms raised.
fn observe(drift: &mut Drift, rng: &mut Rng, sigma: f64, factor: f64, times: u32) -> u32 {
    (0..times)
        .map(|_| {
            let log = libm::log(factor) + sigma * normal(rng);
            u32::from(drift.observe(log, log, FITTED))
        })
        .sum()
}

fn settled(rng: &mut Rng, sigma: f64) -> Drift {
    let mut drift = Drift::default();
    drift.refer_to(FITTED);
    assert_eq!(observe(&mut drift, rng, sigma, 1.0, 500), 0);
    drift
}

#[test]
fn stationary_noise_raises_no_alarm_in_a_hundred_thousand_observations() {
    for (seed, sigma) in [0.01, 0.1, 0.3, 1.0].into_iter().enumerate() {
        let mut rng = Rng::new(seed as u64);
        let mut drift = settled(&mut rng, sigma);
        assert_eq!(observe(&mut drift, &mut rng, sigma, 1.0, 100_000), 0, "sigma {sigma}");
    }
}

#[test]
fn correlated_noise_raises_none_either() {
    let mut rng = Rng::new(7);
    let mut drift = settled(&mut rng, 0.15);
    let mut log = 0.0;
    for _ in 0..100_000 {
        log = 0.5 * log + 0.15 * 0.87 * normal(&mut rng);
        assert!(!drift.observe(log, log, FITTED));
    }
}

#[test]
fn a_shift_of_three_tenths_is_told_and_so_is_its_end() {
    for (sigma, within) in [(0.02, 40), (0.1, 60), (0.2, 140)] {
        for factor in [1.3, 1.0 / 1.3, 1.5] {
            let mut rng = Rng::new(3);
            let mut drift = settled(&mut rng, sigma);
            assert_eq!(drift.ratio(), None);
            let raised = observe(&mut drift, &mut rng, sigma, factor, within);
            assert_eq!(raised, 1, "{factor} at sigma {sigma}");
            assert_eq!(observe(&mut drift, &mut rng, sigma, factor, 2_000), 0, "told once");
            let told = drift.ratio().expect("it lasts");
            assert!((told / factor - 1.0).abs() < 0.2, "{told} for {factor}");
            observe(&mut drift, &mut rng, sigma, 1.0, 2 * within + 40);
            assert_eq!(drift.ratio(), None, "{factor} at sigma {sigma} is over");
            assert_eq!(observe(&mut drift, &mut rng, sigma, factor, within + 20), 1, "and again");
        }
    }
}

#[test]
fn a_tenth_and_a_few_outliers_are_nothing() {
    let mut rng = Rng::new(5);
    let mut drift = settled(&mut rng, 0.05);
    assert_eq!(observe(&mut drift, &mut rng, 0.05, 1.08, 5_000), 0);
    for _ in 0..100 {
        assert_eq!(observe(&mut drift, &mut rng, 0.05, 20.0, 1), 0);
        assert_eq!(observe(&mut drift, &mut rng, 0.05, 1.0, 19), 0);
    }
}

#[test]
fn what_is_not_a_number_is_ignored() {
    let mut drift = settled(&mut Rng::new(1), 0.1);
    let before = drift;
    assert!(!drift.observe(f64::NAN, 0.0, FITTED) && !drift.observe(f64::INFINITY, 0.0, FITTED));
    assert_eq!(drift, before);
}
