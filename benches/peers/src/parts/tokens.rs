//! From token ids to the answer: what a router does for a request before it decides.

use super::lineup::Lineup;
use crate::contenders::{Crtc, Index, KvIndex, Lookups, OurTree, built};
use crate::oracle::Oracle;
use crate::ours::{Answer, BlockKey, Hashing, Ours};
use crate::report::Report;
use crate::rng::SplitMix64;
use crate::settings::Settings;
use crate::tree3::{Tree3, names_of};
use dynamo_kv_router::ConcurrentRadixTreeCompressed;
use dynamo_kv_router::protocols::{BlockHashOptions, compute_block_hash_for_seq};
use kv_index::{ChainIndex, compute_request_content_hashes};
use std::hint::black_box;

const BLOCK_TOKENS: u32 = 16;
const VOCABULARY: u64 = 151_936;
const QUERIES: usize = 5_000;

pub fn to_match(settings: &Settings, report: &mut Report) {
    let mut workload = Tree3::new(settings.sized(super::SMALL));
    let prompts = workload.queries(settings.count(QUERIES));
    let prompts: Vec<_> = prompts.iter().map(|blocks| tokens_of(blocks)).collect();
    let hashing = Hashing::new();
    for sequence in &mut workload.sequences {
        let tokens = tokens_of(&sequence.locals);
        sequence.locals = local_hashes(&tokens);
        sequence.names = names_of(&sequence.locals);
        hashing.keys(&tokens, &mut sequence.keys);
    }
    let endpoints = workload.shape.endpoints;
    let phases = [workload.whole()];
    let queries: Vec<_> = prompts.iter().map(|tokens| local_hashes(tokens)).collect();
    let expected = Oracle::after(endpoints, &phases).answers(&queries);
    let (ours, _) = built::<OurTree>(endpoints, &phases);
    let (crtc, _) = built::<Crtc>(endpoints, &phases);
    let (kv_index, _) = built::<KvIndex>(endpoints, &phases);

    let (keys, answer) = (Vec::new(), Answer::default());
    let from_ours =
        OursFromTokens { index: ours.index(), hashing, prompts: &prompts, keys, answer };
    let from_crtc = CrtcFromTokens { tree: crtc.tree(), prompts: &prompts };
    let depths = vec![0; endpoints as usize];
    let from_kv_index = KvIndexFromTokens { index: kv_index.index(), prompts: &prompts, depths };
    let lineup = Lineup::new(endpoints, &expected)
        .with(OurTree::NAME, Box::new(from_ours))
        .with(Crtc::NAME, Box::new(from_crtc))
        .with(KvIndex::NAME, Box::new(from_kv_index));
    let race = lineup.race(report, settings.runs, 1, false);
    let key = "tokens_to_match_64w_d128";
    report.figure(key, race.ratio(0, OurTree::NAME, &[Crtc::NAME]), "x CRTC");
    let kv_index = race.ratio(0, OurTree::NAME, &[KvIndex::NAME]);
    report.figure(&format!("{key}_vs_kv_index"), kv_index, "x kv-index");
}

/// Token ids that stand for these blocks.
fn tokens_of(blocks: &[u64]) -> Vec<u32> {
    let tokens = |&block: &u64| {
        let mut rng = SplitMix64(block);
        (0..BLOCK_TOKENS).map(move |_| rng.below(VOCABULARY) as u32)
    };
    blocks.iter().flat_map(tokens).collect()
}

fn local_hashes(tokens: &[u32]) -> Vec<u64> {
    let hashes = compute_block_hash_for_seq(tokens, BLOCK_TOKENS, BlockHashOptions::default());
    hashes.into_iter().map(|hash| hash.0).collect()
}

struct OursFromTokens<'a> {
    index: &'a Ours,
    hashing: Hashing,
    prompts: &'a [Vec<u32>],
    keys: Vec<BlockKey>,
    answer: Answer,
}

impl Lookups for OursFromTokens<'_> {
    fn one(&mut self, query: usize) {
        self.hashing.keys(black_box(&self.prompts[query]), &mut self.keys);
        self.index.lookup(&self.keys, &mut self.answer);
        black_box(self.answer.depths());
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        self.one(query);
        self.answer.copy_to(depths);
    }
}

struct CrtcFromTokens<'a> {
    tree: &'a ConcurrentRadixTreeCompressed,
    prompts: &'a [Vec<u32>],
}

impl CrtcFromTokens<'_> {
    fn find(&self, query: usize) -> dynamo_kv_router::protocols::OverlapScores {
        let prompt = black_box(&self.prompts[query]);
        let hashes = compute_block_hash_for_seq(prompt, BLOCK_TOKENS, BlockHashOptions::default());
        self.tree.find_matches_impl(&hashes, false)
    }
}

impl Lookups for CrtcFromTokens<'_> {
    fn one(&mut self, query: usize) {
        black_box(self.find(query));
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        for (worker, depth) in self.find(query).scores {
            depths[worker.worker_id as usize] = depth;
        }
    }
}

struct KvIndexFromTokens<'a> {
    index: &'a ChainIndex,
    prompts: &'a [Vec<u32>],
    depths: Vec<u32>,
}

impl Lookups for KvIndexFromTokens<'_> {
    fn one(&mut self, query: usize) {
        let prompt = black_box(&self.prompts[query]);
        let hashes = compute_request_content_hashes(prompt, BLOCK_TOKENS as usize);
        let depths = &mut self.depths;
        depths.fill(0);
        let report = |endpoint: u32, depth| depths[endpoint as usize] = depth;
        self.index.score_into(&hashes, |hash| hash.0, false, report);
        black_box(&self.depths);
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        self.one(query);
        depths.copy_from_slice(&self.depths);
    }
}
