use super::loads::{drifted, lognormal, zipf};
use super::{mean_balance, slots};
use crate::moe::*;
use proptest::prelude::*;

fn moved(old: &[Vec<u32>], maps: &[LayerMap]) -> usize {
    let pairs = old.iter().flatten().zip(maps.iter().flat_map(|it| &it.experts));
    pairs.filter(|(old, new)| old != new).count()
}

fn after_drift(load: &ExpertLoad, sharing: Sharing, moves: usize) -> (f64, f64) {
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let old = slots(&place(load, &shape, &PlaceConfig::default(), None).unwrap());
    let new = drifted(load, 0.1, 7);
    let config =
        RebalanceConfig { max_moves_per_layer: moves, target: 1.0, sharing, anew_gap: None };
    let maps = rebalance(&new, &shape, &old, &config).unwrap();
    (mean_balance(&maps, &new, &shape), moved(&old, &maps) as f64 / (288 * load.layers()) as f64)
}

#[test]
fn few_moves_make_up_for_drift() {
    let load = lognormal(16, 256, 0.7, 1);
    let (balance, moved) = after_drift(&load, Sharing::Weighted, 4);
    assert!(balance <= 1.02 && moved <= 0.014, "{balance} {moved}");
    for load in [load, zipf(16, 256, 2)] {
        let (balance, moved) = after_drift(&load, Sharing::Equal, 16);
        assert!(balance <= 1.03 && moved <= 0.056, "{balance} {moved}");
    }
}

#[test]
fn experts_of_a_dead_rank_come_back_elsewhere() {
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let load = lognormal(8, 256, 0.7, 1);
    let old = slots(&place(&load, &shape, &PlaceConfig::default(), None).unwrap());
    let shape = shape.with_dead(&[5, 17]).unwrap();
    for max_moves_per_layer in [0, 16] {
        let config = RebalanceConfig { max_moves_per_layer, ..RebalanceConfig::default() };
        let maps = rebalance(&load, &shape, &old, &config).unwrap();
        for (layer, map) in maps.iter().enumerate() {
            map.check(layer, &shape).unwrap();
            for gpu in [5, 17] {
                assert!(map.experts[shape.slots_of(gpu)].iter().all(|it| *it == EMPTY));
            }
        }
    }
}

#[test]
fn a_map_that_is_not_worth_mending_is_placed_anew() {
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let load = lognormal(8, 256, 0.7, 1);
    let old = vec![in_order(&shape).experts; 8];
    let config = RebalanceConfig { anew_gap: Some(0.05), ..RebalanceConfig::default() };
    let maps = rebalance(&load, &shape, &old, &config).unwrap();
    assert!(mean_balance(&maps, &load, &shape) <= 1.005);
    // What is placed anew is worth keeping.
    let again = rebalance(&drifted(&load, 0.05, 3), &shape, &slots(&maps), &config).unwrap();
    assert!(moved(&slots(&maps), &again) <= 8 * 16);
}

proptest! {
    #[test]
    fn moves_stay_within_their_budget_and_never_harm(
        seed in any::<u64>(),
        drift in 0.0_f64..1.0,
        budget in 0_usize..20,
        sharing in prop::sample::select(vec![Sharing::Equal, Sharing::Weighted]),
    ) {
        let shape = Shape::new(40, 56, 8, 2).unwrap();
        let load = lognormal(2, 40, 1.0, seed);
        let old = place(&load, &shape, &PlaceConfig::default(), None).unwrap();
        let new = drifted(&load, drift, seed ^ 1);
        let config = RebalanceConfig { max_moves_per_layer: budget, target: 1.0, sharing, anew_gap: None };
        let maps = rebalance(&new, &shape, &slots(&old), &config).unwrap();
        prop_assert!(moved(&slots(&old), &maps) <= budget * 2);
        for (layer, (old, map)) in old.iter().zip(&maps).enumerate() {
            map.check(layer, &shape).unwrap();
            let kept = LayerMap::equal(old.experts.clone(), &shape);
            let tokens = new.layer(layer);
            prop_assert!(
                map.balance(tokens, &shape) <= kept.balance(tokens, &shape) * (1.0 + 1e-4)
            );
        }
    }
}
