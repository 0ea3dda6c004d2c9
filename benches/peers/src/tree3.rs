//! The workload `tree3`: sequences that share beginnings on three levels, and queries that hit
//! them in part.
//!
//! 64 groups (system prompts) of Zipf popularity. A stored sequence is its group's blocks (a
//! quarter of the depth), its session's (a half, shared by 4 sequences) and its own (a quarter).
//! Half of the sessions stay on one endpoint, the sequences of the others are spread. Of the
//! queries 70% are a stored sequence up to somewhere in its second half and then fresh blocks,
//! 20% are a group's blocks and then fresh ones, and 10% are all fresh.

use crate::ours::chain;
use crate::rng::SplitMix64;
use dynamo_kv_router::protocols::LocalBlockHash;
use dynamo_kv_router::protocols::compute_next_seq_hash;
use llmd_brain::{BlockKey, EngineHash};

const GROUPS: usize = 64;
const SEQUENCES_A_SESSION: usize = 4;
const SEED: u64 = 42;
const QUERY_SEED: u64 = 7;

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub endpoints: u32,
    pub sequences: usize,
    /// Blocks a sequence.
    pub depth: usize,
}

/// What an endpoint holds of one prompt, in everybody's terms.
pub struct Sequence {
    pub endpoint: u32,
    /// Each block's content, by itself: what the rivals look up.
    pub locals: Vec<u64>,
    /// Our chained keys of the same blocks.
    pub keys: Vec<BlockKey>,
    /// The engine's names of them; the rivals' own chained hashes, as Dynamo's engines send them.
    pub names: Vec<EngineHash>,
}

impl Sequence {
    pub fn new(endpoint: u32, locals: Vec<u64>) -> Self {
        let mut keys = Vec::with_capacity(locals.len());
        chain(&locals, &mut keys);
        let names = names_of(&locals);
        Self { endpoint, locals, keys, names }
    }
}

pub struct Tree3 {
    pub shape: Shape,
    pub sequences: Vec<Sequence>,
    groups: Vec<Vec<u64>>,
    popularity: Zipf,
}

impl Tree3 {
    pub fn new(shape: Shape) -> Self {
        let mut rng = SplitMix64(SEED);
        let popularity = Zipf::new(GROUPS);
        let (group, session) = (shape.depth / 4, shape.depth / 2);
        let own = shape.depth - group - session;
        let groups: Vec<_> = (0..GROUPS).map(|_| rng.blocks(group)).collect();
        let mut sequences = Vec::with_capacity(shape.sequences);
        while sequences.len() < shape.sequences {
            let group = popularity.pick(&mut rng);
            let session = rng.blocks(session);
            let is_pinned = rng.unit() < 0.5;
            let home = rng.below(u64::from(shape.endpoints));
            for _ in 0..SEQUENCES_A_SESSION.min(shape.sequences - sequences.len()) {
                let endpoint = if is_pinned { home } else { rng.below(u64::from(shape.endpoints)) };
                let locals = [&groups[group][..], &session, &rng.blocks(own)].concat();
                sequences.push(Sequence::new(endpoint as u32, locals));
            }
        }
        Self { shape, sequences, groups, popularity }
    }

    /// The same, held by engines that each hash with a seed of their own: no two endpoints have a
    /// name in common.
    pub fn with_private_names(mut self) -> Self {
        for sequence in &mut self.sequences {
            let seed = SplitMix64(u64::from(sequence.endpoint)).next();
            for name in &mut sequence.names {
                name.0 = SplitMix64(name.0 ^ seed).next();
            }
        }
        self
    }

    /// Prompts to look up, as local hashes.
    pub fn queries(&self, count: usize) -> Vec<Vec<u64>> {
        let mut rng = SplitMix64(QUERY_SEED);
        let depth = self.shape.depth;
        let query = |_| {
            let kind = rng.unit();
            let mut query = Vec::with_capacity(depth);
            if kind < 0.7 {
                let sequence = &self.sequences[rng.below(self.sequences.len() as u64) as usize];
                let hit = depth / 2 + rng.below(depth as u64 / 2 + 1) as usize;
                query.extend_from_slice(&sequence.locals[..hit]);
            } else if kind < 0.9 {
                query.extend_from_slice(&self.groups[self.popularity.pick(&mut rng)]);
            }
            query.extend(rng.blocks(depth - query.len()));
            query
        };
        (0..count).map(query).collect()
    }
}

/// Dynamo's chained hashes of a prompt's blocks.
pub fn names_of(locals: &[u64]) -> Vec<EngineHash> {
    let mut parent = None;
    let next = |&local: &u64| {
        let name =
            parent.map_or(local, |above| compute_next_seq_hash(above, LocalBlockHash(local)));
        parent = Some(name);
        EngineHash(name)
    };
    locals.iter().map(next).collect()
}

/// Popularity that falls with the rank.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(ranks: usize) -> Self {
        let mut total = 0.0;
        let mut cumulative: Vec<f64> = (1..=ranks)
            .map(|rank| {
                total += 1.0 / rank as f64;
                total
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= total);
        Self(cumulative)
    }

    fn pick(&self, rng: &mut SplitMix64) -> usize {
        let point = rng.unit();
        self.0.partition_point(|&share| share < point).min(self.0.len() - 1)
    }
}
