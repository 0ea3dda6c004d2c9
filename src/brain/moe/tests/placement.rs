use super::loads::{lognormal, zipf};
use super::{mean_balance, mean_remote, slots};
use crate::moe::*;
use proptest::prelude::*;

fn placed(load: &ExpertLoad, shape: &Shape, policy: Policy, sharing: Sharing) -> Vec<LayerMap> {
    let config = PlaceConfig { policy, sharing, ..PlaceConfig::default() };
    place(load, shape, &config, None).unwrap()
}

#[test]
fn gpus_are_even_where_pieces_allow() {
    let shapes = [(288, 32, 4), (288, 32, 8), (288, 72, 18)];
    for (physical, gpus, nodes) in shapes {
        let shape = Shape::new(256, physical, gpus, nodes).unwrap();
        let load = lognormal(16, 256, 0.7, 1);
        let maps = placed(&load, &shape, Policy::Balanced, Sharing::Equal);
        assert!(mean_balance(&maps, &load, &shape) <= 1.005);
    }
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let load = zipf(16, 256, 2);
    let maps = placed(&load, &shape, Policy::Balanced, Sharing::Equal);
    assert!(mean_balance(&maps, &load, &shape) <= 1.005);
}

#[test]
fn no_gpu_holds_an_expert_twice() {
    for (physical, gpus, nodes) in [(288, 32, 4), (288, 72, 18), (288, 144, 18), (320, 320, 40)] {
        let shape = Shape::new(256, physical, gpus, nodes).unwrap();
        let load = zipf(8, 256, 3);
        for policy in [Policy::Balanced, Policy::Near] {
            for map in placed(&load, &shape, policy, Sharing::Equal) {
                for gpu in 0..gpus {
                    let mut held = map.experts[shape.slots_of(gpu)].to_vec();
                    held.sort_unstable();
                    held.dedup();
                    assert_eq!(held.len(), shape.slots_per_gpu());
                }
            }
        }
    }
}

#[test]
fn replicas_near_their_senders_save_what_can_be_saved() {
    let shape = Shape::new(256, 288, 32, 4).unwrap();
    let load = lognormal(16, 256, 0.7, 1);
    let maps = placed(&load, &shape, Policy::Near, Sharing::Weighted);
    assert!(mean_balance(&maps, &load, &shape) <= 1.01);
    // Of 32 replicas each can keep at most a quarter of its expert's tokens on their node.
    let least = |tokens: &[f64]| {
        let mut sorted = tokens.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let kept = (sorted[..10].iter().sum::<f64>() * 3.0 + sorted[10] * 2.0) / 4.0;
        0.75 - kept / sorted.iter().sum::<f64>()
    };
    let bound = load.iter().map(least).sum::<f64>() / load.layers() as f64;
    let remote = mean_remote(&maps, &load, &shape);
    assert!(remote <= bound + 1e-9, "{remote} for {bound}");
}

#[test]
fn groups_stay_on_a_node() {
    let shape = Shape::new(256, 288, 32, 4).unwrap().with_groups(8).unwrap();
    let load = lognormal(16, 256, 0.7, 1);
    let maps = placed(&load, &shape, Policy::Grouped, Sharing::Equal);
    for map in &maps {
        let mut home = [None; 8];
        for (slot, expert) in map.experts.iter().enumerate() {
            let node = shape.node_of(shape.gpu_of(slot));
            assert_eq!(*home[*expert as usize / 32].get_or_insert(node), node);
        }
    }
    assert!(mean_balance(&maps, &load, &shape) < 1.047, "EPLB's");
}

#[test]
fn the_fastest_is_no_slower_than_any() {
    let shape = Shape::new(256, 288, 32, 4).unwrap().with_groups(8).unwrap();
    let load = zipf(12, 256, 5);
    for phase in [Phase::Prefill, Phase::Decode] {
        let model = StepModel::of(phase);
        let us = |policy| {
            let sharing = Sharing::Weighted;
            let config =
                PlaceConfig { policy, sharing, model: model.clone(), ..Default::default() };
            total_us(&place(&load, &shape, &config, None).unwrap(), &load, &shape, &model)
        };
        let fastest = us(Policy::Fastest);
        for policy in [Policy::Balanced, Policy::Grouped, Policy::Near] {
            assert!(fastest <= us(policy) * (1.0 + 1e-12), "{phase:?} {policy:?}");
        }
    }
}

#[test]
fn what_stays_on_a_gpu_stays_in_its_slot() {
    let shape = Shape::new(64, 96, 8, 2).unwrap();
    let load = lognormal(6, 64, 0.7, 1);
    let old = slots(&placed(&load, &shape, Policy::Balanced, Sharing::Equal));
    let turned: Vec<Vec<u32>> = old
        .iter()
        .map(|layer| layer.chunks(12).flat_map(|gpu| gpu.iter().rev().copied()).collect())
        .collect();
    let again = place(&load, &shape, &PlaceConfig::default(), Some(&turned)).unwrap();
    assert_eq!(slots(&again), turned);
}

/// The same on every machine: ranks that each decide must agree.
#[test]
fn maps_are_the_same_to_the_bit() {
    let shape = Shape::new(256, 288, 32, 4).unwrap().with_groups(8).unwrap();
    let load = lognormal(4, 256, 0.7, 11);
    let mut bytes = Vec::new();
    for policy in [Policy::Balanced, Policy::Grouped, Policy::Near] {
        for map in placed(&load, &shape, policy, Sharing::Weighted) {
            bytes.extend(map.experts.iter().flat_map(|it| it.to_le_bytes()));
            bytes.extend(map.shares.iter().flat_map(|it| it.to_bits().to_le_bytes()));
        }
    }
    assert_eq!(xxhash_rust::xxh3::xxh3_64(&bytes), 12_851_219_024_695_107_013);
}

prop_compose! {
    fn worlds()(
        nodes in 1_usize..4,
        gpus_per_node in 1_usize..5,
        slots_per_gpu in 1_usize..6,
        layers in 1_usize..3,
        seed in any::<u64>(),
        sigma in 0.0_f64..3.0,
        spare in 0.0_f64..1.0,
    ) -> (Shape, ExpertLoad) {
        let gpus = nodes * gpus_per_node;
        let physical = gpus * slots_per_gpu;
        let experts = ((physical as f64 * (1.0 - spare * 0.7)) as usize).max(1);
        let shape = Shape::new(experts, physical, gpus, nodes).unwrap();
        // With a dead rank, where what lives has room.
        let shape = if gpus > 1 && physical - slots_per_gpu >= experts {
            shape.clone().with_dead(&[seed as usize % gpus]).unwrap()
        } else {
            shape
        };
        (shape, lognormal(layers, experts, sigma, seed))
    }
}

proptest! {
    #[test]
    fn every_map_is_whole(
        (shape, load) in worlds(),
        policy in prop::sample::select(vec![Policy::Balanced, Policy::Near, Policy::Fastest]),
        sharing in prop::sample::select(vec![Sharing::Equal, Sharing::Weighted]),
    ) {
        for (layer, (map, tokens)) in
            placed(&load, &shape, policy, sharing).iter().zip(load.iter()).enumerate()
        {
            map.check(layer, &shape).unwrap();
            let mut sums = vec![0.0; shape.experts()];
            for (slot, &expert) in map.experts.iter().enumerate() {
                prop_assert_eq!(expert == EMPTY, shape.is_dead(shape.gpu_of(slot)));
                if expert != EMPTY {
                    sums[expert as usize] += map.shares[slot];
                }
            }
            prop_assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{:?}", sums);
            for row in map.from_node.chunks_exact(shape.slots()).enumerate() {
                let mut sums = vec![0.0; shape.experts()];
                for (slot, share) in row.1.iter().enumerate().filter(|it| map.experts[it.0] != EMPTY) {
                    sums[map.experts[slot] as usize] += share;
                }
                let sends = shape.living_nodes().contains(&row.0);
                let one = if sends { 1.0 } else { 0.0 };
                prop_assert!(sums.iter().all(|sum| (sum - one).abs() < 1e-6), "{:?}", sums);
            }
            let all: f64 = map.gpu_tokens(tokens, &shape).iter().sum();
            prop_assert!((all / tokens.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn weighted_shares_are_no_less_even((shape, load) in worlds()) {
        let equal = placed(&load, &shape, Policy::Balanced, Sharing::Equal);
        let weighted = placed(&load, &shape, Policy::Balanced, Sharing::Weighted);
        for ((equal, weighted), tokens) in equal.iter().zip(&weighted).zip(load.iter()) {
            prop_assert_eq!(&equal.experts, &weighted.experts);
            let (equal, weighted) = (equal.balance(tokens, &shape), weighted.balance(tokens, &shape));
            prop_assert!(weighted <= equal * (1.0 + 1e-4), "{} {}", weighted, equal);
        }
    }
}

#[test]
fn a_load_of_nothing_is_placed() {
    let shape = Shape::new(8, 12, 4, 2).unwrap();
    let load = ExpertLoad::new(1, 8, vec![0.0; 8]).unwrap();
    for policy in [Policy::Balanced, Policy::Near, Policy::Fastest] {
        let maps = placed(&load, &shape, policy, Sharing::Weighted);
        maps[0].check(0, &shape).unwrap();
        assert!((maps[0].balance(load.layer(0), &shape) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn what_cannot_be_is_said() {
    let say = |error: MoeError| error.to_string();
    assert!(say(Shape::new(256, 290, 32, 4).unwrap_err()).contains("slots = 290 is no multiple"));
    assert!(say(Shape::new(256, 128, 32, 4).unwrap_err()).contains("256 experts do not fit 128"));
    let load = ExpertLoad::new(1, 2, vec![1.0, f64::NAN]).unwrap_err();
    assert!(say(load).contains("expert 1 in layer 0 is NaN"));
    let shape = Shape::new(8, 12, 4, 4).unwrap().with_groups(2).unwrap();
    let load = lognormal(1, 8, 0.7, 1);
    let config = PlaceConfig { policy: Policy::Grouped, ..PlaceConfig::default() };
    let error = place(&load, &shape, &config, None).unwrap_err();
    assert!(say(error).contains("groups = 2 is no multiple of living nodes = 4"));
}
