//! Token ids to block hashes, local and chained, in blocks of 16.

use crate::clock::cpu_s_of;
use crate::ours::Hashing;
use crate::race::{Race, Runner};
use crate::report::Report;
use crate::rng::SplitMix64;
use crate::settings::Settings;
use dynamo_kv_hashing::Request;
use dynamo_kv_router::protocols::{
    BlockHashOptions, compute_block_hash_for_seq, compute_seq_hash_for_block,
};
use dynamo_tokens::{compute_block_hash_for_tokens, compute_next_sequence_hash};
use std::hint::black_box;
use xxhash_rust::xxh3::xxh3_64;

const BLOCK_TOKENS: usize = 16;
const VOCABULARY: u64 = 151_936;
/// Hashed in one run.
const TOKENS_A_RUN: usize = 16 << 20;
/// The rivals: the router's own functions, the request type of `dynamo-kv-hashing`, and the
/// primitives of `dynamo-tokens`, called with as little as they need.
const RIVALS: &[&str] = &["dynamo-kv-router", "dynamo-kv-hashing", "dynamo-tokens"];

pub fn tokens(settings: &Settings, report: &mut Report) {
    for (tokens, suffix) in [(2_048, "_2k"), (8_192, ""), (32_768, "_32k")] {
        let race = race(settings, tokens);
        for &name in race.names() {
            let rate = tokens as f64 / race.cost(name, 0) / 1e9;
            Report::note(&format!("{name:18} {rate:6.2} G tokens per CPU-s, {tokens} tokens"));
        }
        let key = format!("hash_tokens{suffix}");
        report.figure(&key, race.ratio(0, "ours", RIVALS), "x the best of the three");
        for rival in RIVALS {
            let key = format!("{key}_vs_{}", rival.replace('-', "_"));
            report.figure(&key, race.ratio(0, "ours", &[rival]), "x");
        }
        let fraction = race.ratio(0, "ours", &["xxh3_64"]);
        report.figure(&format!("hash_bandwidth_fraction{suffix}"), fraction, "of xxh3_64's speed");
    }
}

fn race(settings: &Settings, tokens: usize) -> Race {
    let mut rng = SplitMix64(1);
    let prompt: Vec<u32> = (0..tokens).map(|_| rng.below(VOCABULARY) as u32).collect();
    let prompt = &prompt;
    let rounds = settings.count(TOKENS_A_RUN) / tokens;
    let hashing = Hashing::new();
    let mut keys = Vec::new();
    let timed = |round: &mut dyn FnMut()| {
        let cost_s = cpu_s_of(|| (0..rounds).for_each(|_| round()));
        vec![cost_s / rounds as f64]
    };
    let ours: Runner<'_> = Box::new(move || {
        timed(&mut || {
            hashing.keys(black_box(prompt), &mut keys);
            black_box(&keys);
        })
    });
    let router: Runner<'_> = Box::new(move || {
        timed(&mut || {
            let options = BlockHashOptions::default();
            let locals = compute_block_hash_for_seq(black_box(prompt), 16, options);
            black_box(compute_seq_hash_for_block(&locals));
        })
    });
    let request: Runner<'_> = Box::new(move || {
        // It takes the prompt by value: the copies are off the clock.
        let request = || Request::builder().tokens(prompt.clone()).build().unwrap();
        let requests: Vec<_> = (0..rounds).map(|_| request()).collect();
        let cost_s = cpu_s_of(|| {
            for request in requests {
                black_box(request.into_sequence_hashes(16).unwrap());
            }
        });
        vec![cost_s / rounds as f64]
    });
    let primitives: Runner<'_> = Box::new(move || {
        timed(&mut || {
            let mut parent = None;
            let hash = |block: &[u32]| {
                let local = compute_block_hash_for_tokens(block, 0);
                let chained = parent.map_or(local, |up| compute_next_sequence_hash(up, local));
                parent = Some(chained);
                chained
            };
            let chained: Vec<_> = black_box(prompt).chunks_exact(BLOCK_TOKENS).map(hash).collect();
            black_box(chained);
        })
    });
    let yardstick: Runner<'_> = Box::new(move || {
        timed(&mut || {
            black_box(xxh3_64(bytemuck::cast_slice(black_box(prompt))));
        })
    });
    let [router_name, request_name, primitives_name] = RIVALS else { unreachable!() };
    let turns = vec![
        ("ours", ours),
        (*router_name, router),
        (*request_name, request),
        (*primitives_name, primitives),
        ("xxh3_64", yardstick),
    ];
    Race::run(settings.runs, turns)
}
