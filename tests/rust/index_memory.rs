//! What the index says it takes against what the allocator counts, and that nothing stays.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use llmd_brain::index::{Depths, IndexConfig, Residency, Source};
use llmd_brain::rng::Rng;
use llmd_brain::{BlockKey, EndpointId, EngineHash, Slot};

fn endpoint(slot: u32) -> EndpointId {
    EndpointId { slot: Slot(slot), generation: 1 }
}

fn fleet(endpoints: u32) -> Residency {
    let index = Residency::new(IndexConfig::default(), 16).unwrap();
    (0..endpoints).for_each(|slot| index.join(endpoint(slot), "model", Source::Events));
    index
}

/// A chain of keys: blocks `0..at` are those of prompt `of`, the others its own.
fn keys(prompt: u64, of: u64, at: usize, len: usize) -> Vec<BlockKey> {
    let mut key = 7u64;
    let step = |key: u64, by: u64| {
        let wide = u128::from(key ^ 0x2D35_8DCC_AA6C_78A5) * u128::from(by ^ 0x8BB8_4B93_962E_ACC9);
        (wide as u64) ^ ((wide >> 64) as u64)
    };
    (0..len)
        .map(|i| {
            let owner = if i < at { of } else { prompt };
            key = step(key, owner << 20 | i as u64);
            BlockKey(key)
        })
        .collect()
}

/// Names under one seed for all engines, or one for each.
fn names(keys: &[BlockKey], seed: u64) -> Vec<EngineHash> {
    keys.iter().map(|key| EngineHash(key.0.rotate_left(9) ^ seed)).collect()
}

fn assert_counted(endpoints: u32, private: bool) {
    let mut index = None;
    let counted = allocation_counter::measure(|| {
        let made = fleet(endpoints);
        let mut rng = Rng::new(1);
        for prompt in 0..4_000u64 {
            let keys = keys(prompt + 1_000, prompt % 64, 32, 128);
            for _ in 0..2 {
                let slot = rng.below(u64::from(endpoints)) as u32;
                let seed = if private { u64::from(slot) << 40 } else { 0 };
                made.store(endpoint(slot), None, &names(&keys, seed), &keys);
            }
        }
        index = Some(made);
    });
    let index = index.unwrap();
    let (said, counted) = (index.memory_bytes() as f64, counted.bytes_current as f64);
    let error = (said - counted).abs() / counted;
    assert!(error < 0.05, "{said} bytes said, {counted} counted: off by {error:.3}");
}

#[test]
fn the_index_knows_what_it_takes_within_a_twentieth() {
    assert_counted(64, false);
    assert_counted(1_024, false);
    assert_counted(64, true);
}

/// Random operations to run: `LLMD_OPERATIONS`, or as many as fit into a test run of seconds.
fn operations() -> u64 {
    std::env::var("LLMD_OPERATIONS")
        .map_or(100_000, |count| count.parse().expect("LLMD_OPERATIONS is a number"))
}

#[test]
fn memory_returns_to_where_it_started_after_churn() {
    let index = fleet(70);
    let (mut rng, mut depths) = (Rng::new(2), Depths::new());
    // Whatever is kept for its room alone is there from the first round on.
    let mut start = 0;
    for round in 0..2 {
        let operations = if round == 0 { 1_000 } else { operations() };
        for _ in 0..operations {
            let slot = rng.below(70) as u32;
            let (prompt, of) = (rng.below(400), rng.below(20));
            let len = 1 + rng.below(64) as usize;
            let keys = keys(prompt, of, rng.below(40) as usize, len);
            let names = names(&keys, u64::from(slot % 2) << 40);
            let from = rng.below(len as u64) as usize;
            match rng.below(10) {
                0..=4 => drop(index.store(endpoint(slot), None, &names, &keys)),
                5 => index.depths(&keys, &mut depths),
                6 => drop(index.remove(endpoint(slot), &names[from..])),
                7 if rng.below(200) == 0 => index.clear(endpoint(slot)),
                _ => drop(
                    index.remove(endpoint(slot), &names.iter().rev().copied().collect::<Vec<_>>()),
                ),
            }
        }
        (0..70).for_each(|slot| index.clear(endpoint(slot)));
        assert_eq!(index.stats().keys, 0);
        match round {
            0 => start = index.memory_bytes(),
            _ => assert!(index.memory_bytes() <= start, "{} > {start}", index.memory_bytes()),
        }
    }
}
