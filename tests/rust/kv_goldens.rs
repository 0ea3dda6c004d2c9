//! The index against what real engines did: every capture of `tests/goldens/vllm` goes through the
//! decoder into an index, batch after batch as the engine published it, and before each request's
//! batches the index is asked for its prompt. What it says must be what the engine then hit, by its
//! own `vllm:prefix_cache_hits_total`.
//!
//! vLLM's rule: the last token of a prompt is always computed, and hits are whole blocks. So
//! `hit = min(matched, floor((prompt_tokens - 1) / block) * block)`, with its block of 32 tokens.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use llmd_bodies::observe::{DecodeLimits, Skipped, vllm};
use llmd_brain::index::{
    ApplyOutcome, IndexConfig, KvEvent, KvEventBatch, MatchSource, Matches, Residency, Source,
};
use llmd_brain::prompt::{Scope, token_keys};
use llmd_brain::{EndpointId, Slot, Time};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MODEL: &str = "tiny-llama";
/// Of every captured engine, in tokens.
const ENGINE_BLOCK: u32 = 32;
/// The router's: half of the engine's, the same, and twice as large.
const ROUTER_BLOCKS: [u32; 3] = [16, 32, 64];
/// vLLM skips the cache lookup of a request that wants the log probabilities of its prompt, so its
/// hits say nothing about what is held.
const NOT_LOOKED_UP: &str = "logprobs of the prompt: nothing is read from the cache";

/// What was done to an engine, and what came of it; keyed by data-parallel rank.
#[derive(Debug, Deserialize)]
struct Step {
    step: String,
    #[serde(default)]
    prompt: Vec<u32>,
    cache_salt: Option<String>,
    /// The adapter, where the request named one instead of the base model.
    model: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    hit_tokens: BTreeMap<u32, u32>,
    sequences: BTreeMap<u32, Vec<usize>>,
}

impl Step {
    fn is_reset(&self) -> bool {
        self.step == "reset_prefix_cache"
    }

    fn rank(&self) -> u32 {
        self.headers.get("X-data-parallel-rank").map_or(0, |rank| rank.parse().unwrap())
    }

    fn scope(&self) -> Scope {
        let (lora, cache_salt) = (self.model.clone(), self.cache_salt.clone());
        Scope { model: MODEL.into(), lora, cache_salt, ..Scope::default() }
    }

    /// Most that vLLM takes from its cache for this prompt, in tokens.
    fn most_hit_tokens(&self) -> u32 {
        (self.prompt.len() as u32 - 1) / ENGINE_BLOCK * ENGINE_BLOCK
    }
}

/// An engine as it was captured.
struct Capture {
    steps: Vec<Step>,
    /// By rank, then by sequence.
    batches: Vec<Vec<KvEventBatch>>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vllm")
}

impl Capture {
    /// Every captured engine, by name.
    fn all() -> Vec<(String, Self)> {
        let files = std::fs::read_dir(goldens()).unwrap();
        let names = files.filter_map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".steps.json").map(str::to_owned)
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), Self::read(&name))).collect()
    }

    fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(goldens().join(format!("{name}.steps.json"))).unwrap();
        let steps: Vec<Step> = serde_json::from_str(&text).unwrap();
        let ranks = steps[0].hit_tokens.len();
        let file = |rank| match ranks {
            1 => format!("{name}.events.bin"),
            _ => format!("{name}.events.dp{rank}.bin"),
        };
        let batches = (0..ranks).map(|rank| decoded(&goldens().join(file(rank)))).collect();
        Self { steps, batches }
    }
}

/// The batches of a file of `[u32 LE frames]([u32 LE length][bytes])*`, repeated.
fn decoded(path: &Path) -> Vec<KvEventBatch> {
    let file = std::fs::read(path).unwrap();
    let mut rest = &file[..];
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk().unwrap();
        *rest = tail;
        u32::from_le_bytes(*head) as usize
    };
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let mut payload: &[u8] = &[];
        for _ in 0..number(&mut rest) {
            let length = number(&mut rest);
            (payload, rest) = rest.split_at(length);
        }
        let decoded = vllm::decode(payload, &DecodeLimits::default()).unwrap();
        assert_eq!(decoded.skipped, Skipped::default(), "{}", path.display());
        batches.push(decoded.batch);
    }
    batches
}

/// The index of a router with one block size, with an endpoint for each rank.
struct Follower {
    block_size: u32,
    index: Residency,
}

fn endpoint(rank: u32) -> EndpointId {
    EndpointId { slot: Slot(rank), generation: 1 }
}

impl Follower {
    fn new(block_size: u32, ranks: usize) -> Self {
        let index = Residency::new(IndexConfig::default(), block_size).unwrap();
        for rank in 0..ranks as u32 {
            index.join(endpoint(rank), MODEL, Source::Events);
        }
        Self { block_size, index }
    }

    fn apply(&self, rank: u32, batch: &KvEventBatch) {
        self.index.apply(Time::ZERO, endpoint(rank), batch);
    }

    /// Tokens of the prompt that the rank is known to hold, and on what word.
    fn matched(&self, rank: u32, prompt: &[u32], scope: &Scope) -> (u32, MatchSource) {
        let (mut keys, mut out) = (Vec::new(), Matches::new());
        token_keys(prompt, self.block_size, scope, &mut keys).unwrap();
        self.index.matches(Time::ZERO, &keys, &mut out);
        let slot = endpoint(rank).slot.index();
        (out.depth_blocks[slot] * self.block_size, out.source[slot])
    }
}

/// What a replayed step was asked and answered: matched tokens at each of [`ROUTER_BLOCKS`].
struct Asked<'a> {
    step: &'a Step,
    matched: [(u32, MatchSource); 3],
}

impl Asked<'_> {
    fn hit_tokens(&self) -> u32 {
        self.step.hit_tokens[&self.step.rank()]
    }
}

/// Plays a capture into an index of each router block size, calls `check` with each request as it
/// stood when the engine looked its prompt up, and returns what applying its events did.
fn replay(
    capture: &Capture,
    mut check: impl FnMut(&Asked<'_>, &[Follower; 3]),
) -> [ApplyOutcome; 3] {
    let followers = ROUTER_BLOCKS.map(|size| Follower::new(size, capture.batches.len()));
    let apply = |rank, batch: &KvEventBatch| followers.iter().for_each(|f| f.apply(rank, batch));
    let mut reset_is_due = vec![false; capture.batches.len()];
    for step in &capture.steps {
        if step.is_reset() {
            assert!(step.sequences.values().all(Vec::is_empty), "{step:?}");
            reset_is_due.fill(true);
            continue;
        }
        let rank = step.rank();
        let of_rank = &capture.batches[rank as usize];
        let mut caused: Vec<_> =
            step.sequences[&rank].iter().map(|&i| of_rank[i].clone()).collect();
        if std::mem::take(&mut reset_is_due[rank as usize]) {
            // An idle engine says nothing: vLLM announces a reset with the next step that it runs,
            // before what that step stored. The lookup came in between.
            assert_eq!(caused[0].events.remove(0), KvEvent::Cleared);
            apply(rank, &KvEventBatch { events: vec![KvEvent::Cleared], ..caused[0].clone() });
        }

        let scope = step.scope();
        let matched = [0, 1, 2].map(|i: usize| followers[i].matched(rank, &step.prompt, &scope));
        check(&Asked { step, matched }, &followers);

        caused.iter().for_each(|batch| apply(rank, batch));
    }
    followers.map(|follower| follower.index.stats().applied)
}

fn is_hybrid(name: &str) -> bool {
    name.contains("hybrid")
}

#[test]
fn every_step_matches_what_the_engine_hit() {
    let (mut compared, mut with_hits) = (0, 0);
    for (name, capture) in Capture::all().iter().filter(|(name, _)| !is_hybrid(name)) {
        let outcomes = replay(capture, |asked, _| {
            let what = format!("{name}: {}", asked.step.step);
            let [(half, _), (same, source), (double, _)] = asked.matched;
            assert_eq!(half, same, "{what}: one engine block is two of 16 tokens");
            // A block of 64 tokens is held while both of its halves are.
            assert_eq!(double, same / 64 * 64, "{what}: two engine blocks are one of 64 tokens");
            let expected_source = if same > 0 { MatchSource::Exact } else { MatchSource::None };
            assert_eq!(source, expected_source, "{what}");
            if asked.step.step == NOT_LOOKED_UP {
                assert_eq!((same, asked.hit_tokens()), (64, 0), "{what}");
                return;
            }
            assert_eq!(same.min(asked.step.most_hit_tokens()), asked.hit_tokens(), "{what}");
            compared += 1;
            with_hits += u32::from(asked.hit_tokens() > 0);
        });
        for outcome in outcomes {
            let applied = ApplyOutcome {
                stored_blocks: outcome.stored_blocks,
                removed_blocks: outcome.removed_blocks,
                cleared: capture.batches.len() as u64,
                ..ApplyOutcome::default()
            };
            assert_eq!(outcome, applied, "{name}: nothing is orphaned, unknown or left out");
        }
    }
    assert_eq!((compared, with_hits), (44, 13));
}

#[test]
fn an_adapter_s_blocks_are_its_own() {
    let capture = Capture::read("llama_sha256");
    let mut seen = 0;
    replay(&capture, |asked, [_, same, _]| {
        if asked.step.step == "an adapter" {
            let of_base = Scope { lora: None, ..asked.step.scope() };
            assert_eq!(same.matched(0, &asked.step.prompt, &of_base).0, 64);
            assert_eq!(asked.matched[1].0, 0);
            seen += 1;
        }
        if asked.step.step == "every copy is evicted, first half" {
            let adapter = capture.steps.iter().find(|step| step.step == "an adapter").unwrap();
            assert_eq!(same.matched(0, &adapter.prompt, &adapter.scope()).0, 64);
            seen += 1;
        }
    });
    assert_eq!(seen, 2);
}

#[test]
fn of_a_hybrid_model_the_match_is_an_upper_bound_and_says_so() {
    let mut beyond = Vec::new();
    for (name, capture) in Capture::all().iter().filter(|(name, _)| is_hybrid(name)) {
        replay(capture, |asked, _| {
            let what = format!("{name}: {}", asked.step.step);
            let [(half, _), (same, source), (double, _)] = asked.matched;
            assert_eq!((half, double), (same, same / 64 * 64), "{what}");
            assert!(same.min(asked.step.most_hit_tokens()) >= asked.hit_tokens(), "{what}");
            let expected_source =
                if same > 0 { MatchSource::UpperBound } else { MatchSource::None };
            assert_eq!(source, expected_source, "{what}");
            if same > asked.hit_tokens() {
                beyond.push(asked.step.step.clone());
            }
        });
    }
    // Its sliding-window layers had kept the end of the first prompt alone.
    assert_eq!(beyond, ["two blocks shared"]);
}
