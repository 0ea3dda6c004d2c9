//! A fleet of endpoints that serves a Mooncake trace: who is asked what, and what the endpoints
//! store and evict meanwhile.
//!
//! The trace names blocks of 512 tokens; here they are cut to 16. A request goes to the endpoint
//! that holds most of it if that is more than half, else to the one that has computed the fewest
//! blocks. An endpoint stores what it lacks and evicts the least recently used blocks beyond its
//! capacity, of one request the last first.

use crate::ops::Op;
use crate::oracle::{Answer, Oracle};
use crate::rng::SplitMix64;
use crate::tree3::Sequence;
use llmd_brain::EngineHash;
use rustc_hash::FxHashMap;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

pub const ENDPOINTS: u32 = 64;
const BLOCKS_AN_ENDPOINT: usize = 16_384;
const BLOCK_TOKENS: u64 = 16;
const TRACE_BLOCK_TOKENS: u64 = 512;

/// What an endpoint's cache did for one request, as positions in the prompt.
pub struct Served {
    pub prompt: Sequence,
    stored: Vec<std::ops::Range<usize>>,
    evicted: Vec<EngineHash>,
}

impl Served {
    pub fn ops(&self) -> impl Iterator<Item = Op<'_>> {
        let evicted = (!self.evicted.is_empty())
            .then(|| Op::Remove { endpoint: self.prompt.endpoint, names: self.evicted.clone() });
        self.stored.iter().map(|run| self.prompt.store(run.clone())).chain(evicted)
    }
}

/// The prompts of a trace, as local hashes.
pub fn prompts(path: &Path, limit: usize) -> Vec<Vec<u64>> {
    let text = std::fs::read_to_string(path).unwrap();
    let prompt = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let blocks = row["input_length"].as_u64().unwrap() / BLOCK_TOKENS;
        let split = TRACE_BLOCK_TOKENS / BLOCK_TOKENS;
        let ids = row["hash_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
        let block = |id: u64| (0..split).map(move |part| SplitMix64(id * split + part).next());
        ids.flat_map(block).take(blocks as usize).collect()
    };
    text.lines().take(limit).map(prompt).collect()
}

/// The fleet, one request after the other.
pub struct ServingFleet {
    oracle: Oracle,
    endpoints: Vec<Endpoint>,
}

#[derive(Default)]
struct Endpoint {
    /// When each block was used last, and where it stood in its prompt.
    used: FxHashMap<EngineHash, (u64, usize)>,
    /// The same, the first to go first.
    order: BTreeSet<(u64, std::cmp::Reverse<usize>, EngineHash)>,
    clock: u64,
    computed_blocks: usize,
}

impl ServingFleet {
    pub fn new() -> Self {
        let endpoints = (0..ENDPOINTS).map(|_| Endpoint::default()).collect();
        Self { oracle: Oracle::new(ENDPOINTS), endpoints }
    }

    /// What is held of a prompt now.
    pub fn answer(&self, prompt: &[u64]) -> Answer {
        self.oracle.answer(prompt)
    }

    pub fn serve(&mut self, prompt: &[u64]) -> Served {
        let answer = self.oracle.answer(prompt);
        let longest = answer.iter().max_by_key(|(_, depth)| *depth);
        let holder = longest.filter(|(_, depth)| *depth as usize * 2 > prompt.len());
        let idlest =
            || (0..ENDPOINTS).min_by_key(|&at| self.endpoints[at as usize].computed_blocks);
        let endpoint = holder.map_or_else(|| idlest().unwrap(), |(endpoint, _)| *endpoint);
        let prompt = Sequence::new(endpoint, prompt.to_vec());
        let (stored, evicted) = self.endpoints[endpoint as usize].use_blocks(&prompt.names);
        let served = Served { prompt, stored, evicted };
        let ops: Vec<_> = served.ops().collect();
        self.oracle.apply(&ops);
        drop(ops);
        served
    }
}

impl Endpoint {
    fn use_blocks(
        &mut self,
        names: &[EngineHash],
    ) -> (Vec<std::ops::Range<usize>>, Vec<EngineHash>) {
        self.clock += 1;
        let mut stored: Vec<std::ops::Range<usize>> = Vec::new();
        for (at, &name) in names.iter().enumerate() {
            match self.used.insert(name, (self.clock, at)) {
                Some((clock, at)) => {
                    self.order.remove(&(clock, std::cmp::Reverse(at), name));
                }
                None => match stored.last_mut() {
                    Some(run) if run.end == at => run.end += 1,
                    _ => stored.push(at..at + 1),
                },
            }
            self.order.insert((self.clock, std::cmp::Reverse(at), name));
        }
        self.computed_blocks += stored.iter().map(ExactSizeIterator::len).sum::<usize>();
        let mut evicted = Vec::new();
        while self.used.len() > BLOCKS_AN_ENDPOINT {
            let Some((_, _, name)) = self.order.pop_first() else { break };
            self.used.remove(&name);
            evicted.push(name);
        }
        (stored, evicted)
    }
}
