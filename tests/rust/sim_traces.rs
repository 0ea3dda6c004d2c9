//! The simulator on public traces, against what an independent one found for published policies.
//! Needs the traces in `LLMD_TRACES`, by default `../shared/traces`; skipped where they are not.

use llmd_brain::engine::EngineConfig;
use llmd_brain::fleet::FirstTokens;
use llmd_brain::predict::EngineProfile;
use llmd_brain::sim::{Arrivals, World, capacity_requests_per_s, mooncake, run};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// SLO attainment and hit ratio, percent, of 8 Qwen3-32B engines at a load of 0.8.
const TABLE: &[(&str, f64, f64)] = &[
    ("least-request", 74.7, 4.9),
    ("sglang", 76.6, 8.3),
    ("dynamo", 81.9, 6.5),
    ("mooncake", 87.3, 7.9),
    ("lmetric", 90.4, 7.7),
    ("min-ttft", 90.3, 8.1),
];
/// Points that two simulators may differ by.
const TOLERANCE: f64 = 3.0;
/// One run differs from the next by a point.
const SEEDS: RangeInclusive<u64> = 1..=3;

fn trace(name: &str) -> Option<String> {
    let folder = std::env::var_os("LLMD_TRACES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(folder.join(name)).ok();
    if text.is_none() {
        println!("skipped: no {name} in {}", folder.display());
    }
    text
}

#[test]
fn published_policies_do_as_an_independent_simulator_says_and_ours_does_better() {
    let Some(text) = trace("mooncake_conversation_dev.jsonl") else { return };
    let workload = mooncake(&text).unwrap();
    let profile = *EngineProfile::named("qwen3-32b_h100_tp2").unwrap();
    let mut engine = EngineConfig::new(profile);
    engine.block_size = workload.block_size();
    engine.kv_blocks = (profile.kv_tokens / u64::from(workload.block_size())) as u32;
    engine.cache_output = false;
    let mut world = World::new(engine, 8, Arrivals::at_rate(1.0, 3_000.0));
    let capacity = capacity_requests_per_s(&workload, &world).unwrap();
    world.arrivals = Arrivals::at_rate(0.8 * capacity, 3_000.0);
    let play = |world: &World| -> (f64, f64) {
        let of_seed = |seed| {
            let summary = run(&workload, &World { seed, ..world.clone() }).unwrap().summary();
            (100.0 * summary.slo_attainment, 100.0 * summary.hit_ratio_with_host)
        };
        let runs: Vec<(f64, f64)> = SEEDS.map(of_seed).collect();
        let mean =
            |of: fn(&(f64, f64)) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
        (mean(|it| it.0), mean(|it| it.1))
    };
    let mut best: f64 = 0.0;
    for &(policy, slo, hits) in TABLE {
        let (slo_found, hits_found) = play(&world.clone().with_policy(policy));
        assert!((slo_found - slo).abs() < TOLERANCE, "{policy}: SLO {slo_found} against {slo}");
        assert!(
            (hits_found - hits).abs() < TOLERANCE,
            "{policy}: hits {hits_found} against {hits}"
        );
        best = best.max(slo_found);
    }
    let (ours, _) = play(&world);
    assert!(ours > 1.02 * best, "{ours} against {best}");
    // Where routers are told only of ends, they do as well by guessing.
    let mut untold = World { first_tokens_told: false, ..world.clone() };
    let (blind, _) = play(&untold);
    untold.brain.fleet.first_tokens = FirstTokens::Guessed;
    let (guessed, _) = play(&untold);
    assert!(blind < ours - 5.0 && guessed > ours - 1.0, "{ours} told, {guessed}, {blind} blind");
    // The bound of that simulator: whatever anyone computed, everyone has.
    world.shared_cache = true;
    let (slo, hits) = play(&world.clone().with_policy("lmetric"));
    assert!((slo - 97.2).abs() < TOLERANCE && (hits - 39.2).abs() < TOLERANCE, "{slo} {hits}");
}
