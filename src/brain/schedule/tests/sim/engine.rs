//! An engine: first come first served, continuous batching, step time by formula.

use super::cache::{Cache, Page};
use crate::predict::EngineProfile;
use std::collections::VecDeque;
use std::rc::Rc;

pub const BLOCK_TOKENS: usize = 16;
const MAX_BATCH_TOKENS: usize = 8_192;
const MAX_RUNNING: usize = 256;

pub struct Job {
    pub request: usize,
    pub contents: Rc<[u64]>,
    pub prompt_tokens: usize,
    pub output_tokens: usize,
}

struct Sequence {
    job: Job,
    pages: Vec<Page>,
    computed_tokens: usize,
    generated_tokens: usize,
    chunk_tokens: usize,
}

impl Sequence {
    fn is_prefilling(&self) -> bool {
        self.computed_tokens < self.job.prompt_tokens
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Output {
    FirstToken(usize),
    Finished(usize),
}

pub struct Engine {
    profile: &'static EngineProfile,
    pub cache: Cache,
    waiting: VecDeque<Job>,
    running: Vec<Sequence>,
    /// Requests that had their first token before they were preempted.
    started: Vec<usize>,
    pub hit_tokens: u64,
    pub prompt_tokens: u64,
    pub preemptions: u64,
}

impl Engine {
    pub fn new(profile: &'static EngineProfile, capacity_blocks: usize) -> Self {
        Self {
            profile,
            cache: Cache::new(capacity_blocks),
            waiting: VecDeque::new(),
            running: Vec::new(),
            started: Vec::new(),
            hit_tokens: 0,
            prompt_tokens: 0,
            preemptions: 0,
        }
    }

    pub fn submit(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Plans a step; its length in milliseconds, or `None` with nothing to do.
    pub fn start_step(&mut self) -> Option<f64> {
        self.grow_decodes();
        let decodes = self.running.iter().filter(|seq| !seq.is_prefilling()).count();
        let mut budget = MAX_BATCH_TOKENS.saturating_sub(decodes);
        for seq in &mut self.running {
            seq.chunk_tokens = (seq.job.prompt_tokens
                - seq.computed_tokens.min(seq.job.prompt_tokens))
            .min(budget);
            budget -= seq.chunk_tokens;
        }
        while budget > 0 && self.running.len() < MAX_RUNNING {
            let Some(mut seq) = self.admit() else { break };
            seq.chunk_tokens = (seq.job.prompt_tokens - seq.computed_tokens).min(budget);
            budget -= seq.chunk_tokens;
            self.running.push(seq);
        }
        if self.running.is_empty() {
            return None;
        }
        let (mut tokens, mut pairs, mut context) = (0, 0.0, 0);
        for seq in &self.running {
            if seq.is_prefilling() {
                let chunk = seq.chunk_tokens as f64;
                tokens += seq.chunk_tokens;
                pairs += chunk * (seq.computed_tokens as f64 + chunk / 2.0);
            } else {
                context += seq.job.prompt_tokens + seq.generated_tokens;
            }
        }
        Some(self.profile.step_ms(tokens as u64, pairs, decodes as u64, context as u64))
    }

    /// One page more for each decode that needs it; on exhaustion the last admitted makes room.
    fn grow_decodes(&mut self) {
        let mut row = 0;
        while row < self.running.len() {
            let seq = &mut self.running[row];
            let context = seq.job.prompt_tokens + seq.generated_tokens + 1;
            if !seq.is_prefilling() && seq.pages.len() * BLOCK_TOKENS < context {
                match self.cache.take_new() {
                    Some(page) => seq.pages.push(page),
                    None => {
                        self.preempt_last();
                        continue;
                    }
                }
            }
            row += 1;
        }
    }

    fn preempt_last(&mut self) {
        let seq = self.running.pop().unwrap();
        self.cache.release(&seq.pages);
        self.preemptions += 1;
        if seq.generated_tokens > 0 {
            self.started.push(seq.job.request);
        }
        self.waiting.push_front(Job {
            prompt_tokens: seq.job.prompt_tokens + seq.generated_tokens,
            output_tokens: seq.job.output_tokens - seq.generated_tokens,
            ..seq.job
        });
    }

    /// The whole prompt is reserved at once; at least one token of it is computed.
    fn admit(&mut self) -> Option<Sequence> {
        let job = self.waiting.front()?;
        let full_blocks = job.prompt_tokens / BLOCK_TOKENS;
        let most = (job.prompt_tokens - 1) / BLOCK_TOKENS;
        let hits = self.cache.matched(&job.contents[..full_blocks]).min(most);
        let blocks = (job.prompt_tokens + 1).div_ceil(BLOCK_TOKENS);
        let reused = self.cache.reusable_among(&job.contents[..hits]);
        if blocks - hits + reused > self.cache.available() {
            return None;
        }
        let job = self.waiting.pop_front()?;
        let mut pages: Vec<Page> =
            job.contents[..hits].iter().map(|&content| self.cache.take_hit(content)).collect();
        while pages.len() < blocks {
            pages.push(self.cache.take_new()?);
        }
        self.hit_tokens += (hits * BLOCK_TOKENS) as u64;
        self.prompt_tokens += job.prompt_tokens as u64;
        let computed_tokens = hits * BLOCK_TOKENS;
        Some(Sequence { job, pages, computed_tokens, generated_tokens: 0, chunk_tokens: 0 })
    }

    /// Ends the step that was planned.
    pub fn finish_step(&mut self, outputs: &mut Vec<Output>) {
        for seq in &mut self.running {
            let before = seq.computed_tokens;
            if seq.is_prefilling() {
                seq.computed_tokens += seq.chunk_tokens;
                if !seq.is_prefilling() {
                    seq.generated_tokens = 1;
                    match self.started.iter().position(|&request| request == seq.job.request) {
                        Some(at) => drop(self.started.swap_remove(at)),
                        None => outputs.push(Output::FirstToken(seq.job.request)),
                    }
                }
            } else {
                seq.computed_tokens += 1;
                seq.generated_tokens += 1;
            }
            for block in before / BLOCK_TOKENS..seq.computed_tokens / BLOCK_TOKENS {
                self.cache.computed(seq.pages[block], seq.job.contents[block]);
            }
        }
        let mut row = 0;
        while row < self.running.len() {
            if self.running[row].generated_tokens >= self.running[row].job.output_tokens {
                let seq = self.running.remove(row);
                self.cache.release(&seq.pages);
                outputs.push(Output::Finished(seq.job.request));
            } else {
                row += 1;
            }
        }
    }
}
