//! Loads that look like models': heavy tails, another order of experts in each layer.

use crate::moe::ExpertLoad;
use crate::rng::Rng;

pub fn lognormal(layers: usize, experts: usize, sigma: f64, seed: u64) -> ExpertLoad {
    let mut rng = Rng::new(seed);
    let tokens = (0..layers * experts).map(|_| 1e3 * libm::exp(sigma * rng.next_normal()));
    ExpertLoad::new(layers, experts, tokens.collect()).unwrap()
}

pub fn zipf(layers: usize, experts: usize, seed: u64) -> ExpertLoad {
    let mut rng = Rng::new(seed);
    let mut tokens = Vec::new();
    for _ in 0..layers {
        let mut layer: Vec<f64> = (1..=experts).map(|rank| 1e5 / rank as f64).collect();
        for last in (1..experts).rev() {
            layer.swap(last, rng.below(last as u64 + 1) as usize);
        }
        tokens.extend(layer);
    }
    ExpertLoad::new(layers, experts, tokens).unwrap()
}

/// Every expert's load times a lognormal factor.
pub fn drifted(load: &ExpertLoad, sigma: f64, seed: u64) -> ExpertLoad {
    let mut rng = Rng::new(seed);
    let tokens = load.iter().flatten().map(|it| it * libm::exp(sigma * rng.next_normal()));
    let tokens = tokens.collect();
    ExpertLoad::new(load.layers(), load.experts(), tokens).unwrap()
}
