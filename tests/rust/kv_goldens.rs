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
    ApplyOutcome, BlockStored, ExtraKey, IndexConfig, KvEvent, KvEventBatch, MatchSource, Matches,
    Residency, Source,
};
use llmd_brain::prompt::{Scope, token_keys};
use llmd_brain::{EndpointId, EngineHash, Slot, Time};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
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

/// What a block is, written out: the block before it, its tokens, and what else it depends on.
fn content(parent: Option<EngineHash>, tokens: &[u32], extra: &[ExtraKey]) -> String {
    format!("{parent:?} {tokens:?} {extra:?}")
}

/// What one rank announced, read naively and by the engine's own names: copies of each block.
#[derive(Default)]
struct Copies {
    names: HashMap<String, EngineHash>,
    copies: HashMap<EngineHash, u32>,
}

impl Copies {
    fn apply(&mut self, batch: &KvEventBatch) {
        for event in &batch.events {
            match event {
                KvEvent::Cleared => self.copies.clear(),
                KvEvent::Removed(removed) => {
                    for name in &removed.block_hashes {
                        *self.copies.get_mut(name).unwrap() -= 1;
                    }
                }
                KvEvent::Stored(stored) => self.store(stored),
            }
        }
    }

    fn store(&mut self, stored: &BlockStored) {
        let mut parent = stored.parent;
        let tokens = stored.token_ids.chunks(stored.block_size as usize);
        for (i, (&name, tokens)) in stored.block_hashes.iter().zip(tokens).enumerate() {
            let extra = stored.extra_keys.get(i).map_or(&[][..], |keys| keys);
            self.names.insert(content(parent, tokens, extra), name);
            *self.copies.entry(name).or_default() += 1;
            parent = Some(name);
        }
    }

    /// Blocks with a copy at least.
    fn blocks(&self) -> u64 {
        self.copies.values().filter(|&&copies| copies > 0).count() as u64
    }

    /// Tokens of the prompt in its longest run of blocks with a copy each.
    fn held_tokens(&self, step: &Step) -> u32 {
        let (mut parent, mut held) = (None, 0);
        for tokens in step.prompt.chunks_exact(ENGINE_BLOCK as usize) {
            let salt = step.cache_salt.iter().filter(|_| held == 0);
            let extra: Vec<_> =
                step.model.iter().chain(salt).cloned().map(ExtraKey::Text).collect();
            parent = self.names.get(&content(parent, tokens, &extra)).copied();
            match parent.and_then(|name| self.copies.get(&name)) {
                Some(&copies) if copies > 0 => held += ENGINE_BLOCK,
                _ => break,
            }
        }
        held
    }
}

/// What has been heard of an engine so far.
struct World {
    /// One for each of [`ROUTER_BLOCKS`].
    followers: [Follower; 3],
    /// One for each rank.
    copies: Vec<Copies>,
}

impl World {
    fn new(ranks: usize) -> Self {
        let followers = ROUTER_BLOCKS.map(|size| Follower::new(size, ranks));
        Self { followers, copies: (0..ranks).map(|_| Copies::default()).collect() }
    }

    fn apply(&mut self, rank: u32, batch: &KvEventBatch) {
        self.followers.iter().for_each(|follower| follower.apply(rank, batch));
        self.copies[rank as usize].apply(batch);
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
fn replay(capture: &Capture, mut check: impl FnMut(&Asked<'_>, &World)) -> [ApplyOutcome; 3] {
    let mut world = World::new(capture.batches.len());
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
            let cleared = KvEventBatch { events: vec![KvEvent::Cleared], ..caused[0].clone() };
            world.apply(rank, &cleared);
        }

        let scope = step.scope();
        let matched =
            [0, 1, 2].map(|i: usize| world.followers[i].matched(rank, &step.prompt, &scope));
        check(&Asked { step, matched }, &world);

        caused.iter().for_each(|batch| world.apply(rank, batch));
    }
    world.followers.map(|follower| follower.index.stats().applied)
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
fn every_prompt_is_matched_while_a_copy_of_each_block_is_left() {
    let mut held_in_part = 0;
    for (name, capture) in Capture::all().iter().filter(|(name, _)| !is_hybrid(name)) {
        replay(capture, |asked, world| {
            for (rank, copies) in (0..).zip(&world.copies) {
                let same = &world.followers[1];
                let counts = same.index.blocks(endpoint(rank)).unwrap();
                assert_eq!(counts.exact, [copies.blocks(), 0, 0, 0], "{name}: {}", asked.step.step);
                for step in capture.steps.iter().filter(|step| !step.is_reset()) {
                    let (matched, _) = same.matched(rank, &step.prompt, &step.scope());
                    let held = copies.held_tokens(step);
                    let when = &asked.step.step;
                    assert_eq!(matched, held, "{name}: {}, before {when}", step.step);
                    held_in_part += u32::from(held > 0 && held < step.most_hit_tokens());
                }
            }
        });
    }
    assert!(held_in_part > 20, "only {held_in_part}");
}

#[test]
fn an_adapter_s_blocks_are_its_own() {
    let capture = Capture::read("llama_sha256");
    let mut seen = 0;
    replay(&capture, |asked, world| {
        let same = &world.followers[1];
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
