//! Data-parallel ranks in lockstep: a step takes as long as its slowest rank.

use super::super::MoeError;
use super::super::error::within;
use super::super::ranks::{RankCosts, RankLoad, RankRequest, RankScorer};
use crate::rng::Rng;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Who chooses the rank of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankRule {
    /// One after the other.
    RoundRobin,
    /// Fewest sequences, counting what was sent since the report: vLLM's.
    Requests,
    /// Fewest tokens of KV, as reported.
    KvArgmin,
    /// Fewer tokens of KV, as reported, of two drawn at random.
    KvPowerOfTwo,
    /// Fewest tokens of KV, counting what was sent since the report.
    KvBooked,
    /// [`RankScorer`].
    Scored,
}

/// The ranks and what comes to them. As many requests are in flight as there are ranks times
/// `sequences_per_rank`: one comes for each that ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RankWorld {
    /// Data-parallel ranks.
    pub ranks: usize,
    /// Requests in flight for each.
    pub sequences_per_rank: usize,
    /// Mean of the prompts' lengths, lognormal.
    pub prompt_tokens: f64,
    /// Their sigma.
    pub prompt_sigma: f64,
    /// Longest prompt.
    pub prompt_cap: f64,
    /// Mean of the answers' lengths, lognormal.
    pub output_tokens: f64,
    /// Their sigma.
    pub output_sigma: f64,
    /// Steps that reports are old when they are read.
    pub stale_steps: usize,
    /// Prompt tokens that a rank prefills a step; 0 where prefill is done elsewhere.
    pub prefill_tokens_per_step: f64,
    /// What all ranks take alike a step, microseconds: the experts.
    pub shared_us: f64,
    /// What a rank's work takes, which the scorer goes by too.
    pub costs: RankCosts,
    /// Steps that count.
    pub steps: usize,
    /// Steps before those.
    pub warmup_steps: usize,
    /// Of all that is random.
    pub seed: u64,
}

impl Default for RankWorld {
    /// Decode ranks of 64 sequences, prompts of 2,000 tokens on average and answers of 600.
    fn default() -> Self {
        Self {
            ranks: 32,
            sequences_per_rank: 64,
            prompt_tokens: 2_000.0,
            prompt_sigma: 1.2,
            prompt_cap: 120_000.0,
            output_tokens: 600.0,
            output_sigma: 0.8,
            stale_steps: 2,
            prefill_tokens_per_step: 0.0,
            shared_us: 0.0,
            costs: RankCosts::default(),
            steps: 2_000,
            warmup_steps: 1_500,
            seed: 0,
        }
    }
}

/// Averages over the steps that count.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct RanksOutcome {
    /// What a step takes, microseconds.
    pub step_us: f64,
    /// Most KV of a rank over the mean.
    pub kv_imbalance: f64,
    /// Most sequences of a rank over the mean.
    pub sequences_imbalance: f64,
}

/// A rank as it is.
#[derive(Debug, Clone, Default)]
struct Rank {
    kv_tokens: f64,
    /// Sequences that decode: each step adds a token to each.
    decoding: f64,
    /// Prompts that wait: (tokens left, output tokens).
    waiting: VecDeque<(f64, f64, usize)>,
}

/// Plays a rule.
///
/// # Errors
/// Where a number is out of range.
pub fn play_ranks(world: &RankWorld, rule: RankRule) -> Result<RanksOutcome, MoeError> {
    within("sequences_per_rank", world.sequences_per_rank as f64, 1.0..=65_536.0, "1 to 65536")?;
    within("prompt_tokens", world.prompt_tokens, 1.0..=1e9, "1 to 1e9")?;
    within("output_tokens", world.output_tokens, 1.0..=1e6, "1 to 1e6")?;
    within("steps", world.steps as f64, 1.0..=1e7, "1 to 1e7")?;
    within("stale_steps", world.stale_steps as f64, 0.0..=1e3, "0 to 1000")?;
    within("prefill_tokens_per_step", world.prefill_tokens_per_step, 0.0..=1e9, "0 to 1e9")?;
    let mut chooser = Chooser::new(world, rule)?;
    let mut lengths = Rng::new(world.seed);
    let mut ranks = vec![Rank::default(); world.ranks];
    let mut ends: Vec<Vec<(usize, f64)>> = Vec::new();
    let mut reports: VecDeque<Vec<RankLoad>> = VecDeque::new();
    let mut coming = world.ranks * world.sequences_per_rank;
    let mut sums = RanksOutcome::default();
    for step in 0..world.warmup_steps + world.steps {
        for _ in 0..std::mem::take(&mut coming) {
            let draw = |rng: &mut Rng, mean: f64, sigma: f64| {
                mean * libm::exp(sigma * rng.next_normal() - sigma * sigma / 2.0)
            };
            let prompt = draw(&mut lengths, world.prompt_tokens, world.prompt_sigma);
            let prompt = libm::round(prompt.clamp(1.0, world.prompt_cap));
            let output = draw(&mut lengths, world.output_tokens, world.output_sigma);
            // What is in flight at the beginning is somewhere in its answer.
            let gone = if step == 0 { lengths.next_f64() } else { 0.0 };
            let output = libm::ceil((output * (1.0 - gone)).max(1.0));
            let rank = chooser.choose(step, prompt, &ranks);
            let left = if world.prefill_tokens_per_step > 0.0 { prompt } else { 0.0 };
            ranks[rank].kv_tokens += prompt;
            ranks[rank].waiting.push_back((left, output, prompt as usize));
        }
        let slowest = advance(&mut ranks, world, step, &mut ends);
        if step >= world.warmup_steps {
            let kv = skew(ranks.iter().map(|it| it.kv_tokens));
            let sequences = skew(ranks.iter().map(|it| it.decoding + it.waiting.len() as f64));
            sums.step_us += world.shared_us + slowest;
            sums.kv_imbalance += kv;
            sums.sequences_imbalance += sequences;
        }
        if let Some(ended) = ends.get_mut(step) {
            for (rank, kv_tokens) in std::mem::take(ended) {
                ranks[rank].kv_tokens -= kv_tokens;
                ranks[rank].decoding -= 1.0;
                coming += 1;
            }
        }
        reports.push_back(ranks.iter().map(Rank::load).collect());
        if reports.len() > world.stale_steps
            && let Some(report) = reports.pop_front()
        {
            chooser.report(step - world.stale_steps, &report)?;
        }
    }
    let steps = world.steps as f64;
    Ok(RanksOutcome {
        step_us: sums.step_us / steps,
        kv_imbalance: sums.kv_imbalance / steps,
        sequences_imbalance: sums.sequences_imbalance / steps,
    })
}

/// A step of every rank; what the slowest takes.
fn advance(
    ranks: &mut [Rank],
    world: &RankWorld,
    step: usize,
    ends: &mut Vec<Vec<(usize, f64)>>,
) -> f64 {
    let mut slowest = 0.0_f64;
    for (number, rank) in ranks.iter_mut().enumerate() {
        let mut room = world.prefill_tokens_per_step;
        let mut prefilled = 0.0;
        while let Some((left, output, prompt)) = rank.waiting.front_mut() {
            let taken = left.min(room);
            *left -= taken;
            room -= taken;
            prefilled += taken;
            if *left > 0.0 {
                break;
            }
            let end = step + *output as usize;
            if ends.len() <= end {
                ends.resize(end + 1, Vec::new());
            }
            ends[end].push((number, *prompt as f64 + *output));
            rank.decoding += 1.0;
            rank.waiting.pop_front();
        }
        let costs = &world.costs;
        let us = rank.kv_tokens * costs.kv_token_us
            + rank.decoding * costs.sequence_us
            + prefilled * costs.prefill_token_us;
        slowest = slowest.max(us);
        rank.kv_tokens += rank.decoding;
    }
    slowest
}

impl Rank {
    fn load(&self) -> RankLoad {
        RankLoad {
            kv_tokens: self.kv_tokens,
            prefill_tokens: self.waiting.iter().map(|it| it.0).sum(),
            sequences: self.decoding + self.waiting.len() as f64,
        }
    }
}

fn skew(values: impl Iterator<Item = f64>) -> f64 {
    let (most, sum, count) = values
        .fold((0.0_f64, 0.0, 0.0), |(most, sum, count), it| (most.max(it), sum + it, count + 1.0));
    if sum > 0.0 { most * count / sum } else { 1.0 }
}

/// A rule, and what it knows.
struct Chooser {
    rule: RankRule,
    reported: Vec<RankLoad>,
    scorer: RankScorer,
    rng: Rng,
    is_prefilled: bool,
    turn: usize,
}

impl Chooser {
    fn new(world: &RankWorld, rule: RankRule) -> Result<Self, MoeError> {
        let costs = match rule {
            RankRule::Requests => only(0.0, 1.0),
            RankRule::KvBooked => only(1.0, 0.0),
            _ => world.costs.clone(),
        };
        Ok(Self {
            rule,
            reported: vec![RankLoad::default(); world.ranks],
            scorer: RankScorer::new(world.ranks, costs)?,
            rng: Rng::new(world.seed ^ 0x5241_4e4b),
            is_prefilled: world.prefill_tokens_per_step <= 0.0,
            turn: 0,
        })
    }

    fn report(&mut self, step: usize, loads: &[RankLoad]) -> Result<(), MoeError> {
        self.reported.copy_from_slice(loads);
        for (rank, load) in loads.iter().enumerate() {
            self.scorer.report(rank, step as u64, *load)?;
        }
        Ok(())
    }

    fn choose(&mut self, step: usize, prompt_tokens: f64, ranks: &[Rank]) -> usize {
        let kv = |rank: usize| self.reported[rank].kv_tokens;
        let fewer = |a: usize, b: usize| if kv(b) < kv(a) { b } else { a };
        // Nothing is reported of the first: they go around, under every rule.
        let rule = if step == 0 { RankRule::RoundRobin } else { self.rule };
        match rule {
            RankRule::RoundRobin => {
                self.turn += 1;
                (self.turn - 1) % ranks.len()
            }
            RankRule::KvArgmin => (0..ranks.len()).fold(0, fewer),
            RankRule::KvPowerOfTwo => {
                let mut draw = || self.rng.below(ranks.len() as u64) as usize;
                let (a, b) = (draw(), draw());
                fewer(a, b)
            }
            RankRule::Requests | RankRule::KvBooked | RankRule::Scored => {
                let request = RankRequest { prompt_tokens, is_prefilled: self.is_prefilled };
                self.scorer.choose(step as u64, request, |_| 0.0)
            }
        }
    }
}

fn only(kv_token_us: f64, sequence_us: f64) -> RankCosts {
    RankCosts {
        kv_token_us,
        sequence_us,
        prefill_token_us: 0.0,
        level: -1.0,
        ..RankCosts::default()
    }
}
