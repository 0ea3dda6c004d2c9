//! The same rules, written for the eye: flat lists, linear searches, nothing incremental.

use super::super::{Admission, EngineConfig, EngineRequest, KvChange, RequestId};

#[derive(Debug, Clone)]
struct Block {
    key: Option<u64>,
    holders: Vec<RequestId>,
    /// When the last holder let go, and when its content became hittable: orders of both.
    released: u64,
    published: u64,
}

#[derive(Debug, Clone)]
struct Job {
    request: EngineRequest<u64>,
    generated: u32,
    computed: u32,
    scheduled: u32,
    table: Vec<usize>,
    resumed: bool,
    aborted: bool,
}

impl Job {
    fn tokens(&self) -> u32 {
        self.request.prompt_tokens + self.generated
    }
}

pub(super) struct NaiveEngine {
    config: EngineConfig,
    blocks: Vec<Block>,
    /// Least recently used first.
    host: Vec<u64>,
    waiting: Vec<Job>,
    running: Vec<Job>,
    in_flight: bool,
    clock: u64,
    changes: Vec<KvChange<u64>>,
    admitted: Vec<Admission>,
    preempted: Vec<RequestId>,
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct NaiveStep {
    pub(super) prefill_tokens: u32,
    pub(super) decode_requests: u32,
    pub(super) admitted: Vec<Admission>,
    pub(super) preempted: Vec<RequestId>,
    pub(super) tokens: Vec<RequestId>,
    pub(super) finished: Vec<RequestId>,
    pub(super) changes: Vec<KvChange<u64>>,
}

impl NaiveEngine {
    pub(super) fn new(config: EngineConfig) -> Self {
        let block = Block { key: None, holders: Vec::new(), released: 0, published: 0 };
        Self {
            blocks: vec![block; config.kv_blocks as usize],
            host: Vec::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            in_flight: false,
            clock: 0,
            changes: Vec::new(),
            admitted: Vec::new(),
            preempted: Vec::new(),
            config,
        }
    }

    pub(super) fn submit(&mut self, request: EngineRequest<u64>) {
        let (table, resumed, aborted) = (Vec::new(), false, false);
        let job = Job { request, generated: 0, computed: 0, scheduled: 0, table, resumed, aborted };
        self.waiting.push(job);
    }

    pub(super) fn abort(&mut self, id: RequestId) {
        self.waiting.retain(|job| job.request.id != id);
        if let Some(at) = self.running.iter().position(|job| job.request.id == id) {
            self.running[at].aborted = true;
            if !self.in_flight {
                let mut job = self.running.remove(at);
                self.free(&mut job);
            }
        }
    }

    pub(super) fn reset(&mut self) -> bool {
        if self.free_blocks() != self.blocks.len() {
            return false;
        }
        // Blank blocks are spent last-released first; a reset releases the evictable ones in order.
        let mut cached: Vec<usize> =
            (0..self.blocks.len()).filter(|&b| self.blocks[b].key.is_some()).collect();
        cached.sort_by_key(|&b| self.blocks[b].released);
        for block in cached {
            self.blocks[block].key = None;
            self.blocks[block].released = self.tick();
        }
        self.host.clear();
        self.changes.push(KvChange::Cleared);
        true
    }

    pub(super) fn free_blocks(&self) -> usize {
        self.blocks.iter().filter(|block| block.holders.is_empty()).count()
    }

    pub(super) fn begin(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            return false;
        }
        self.in_flight = true;
        let mut budget = self.config.max_batch_tokens;
        let mut position = 0;
        while position < self.running.len() {
            let job = self.running[position].clone();
            let chunk = (job.tokens() - job.computed).min(budget);
            let blocks = (job.computed + chunk).div_ceil(self.config.block_size) as usize;
            if blocks > job.table.len() && self.free_blocks() == 0 {
                let mut victim = self.running.pop().unwrap();
                self.preempted.push(victim.request.id);
                self.free(&mut victim);
                victim.computed = 0;
                victim.resumed = true;
                self.waiting.insert(0, victim);
                continue;
            }
            if blocks > job.table.len() {
                let block = self.allocate(job.request.id);
                self.running[position].table.push(block);
            }
            self.running[position].scheduled = chunk;
            budget -= chunk;
            position += 1;
        }
        while self.preempted.is_empty()
            && budget > 0
            && self.running.len() < self.config.max_sequences as usize
            && !self.waiting.is_empty()
            && self.admit(budget)
        {
            budget -= self.running.last().unwrap().scheduled;
        }
        true
    }

    fn admit(&mut self, budget: u32) -> bool {
        let mut job = self.waiting[0].clone();
        let (size, id) = (self.config.block_size, job.request.id);
        let limit = ((job.tokens() - 1) / size) as usize;
        let mut found = Vec::new();
        for position in 0..limit.min(self.cacheable(&job)) {
            let key = job.request.keys[position];
            let copies = self.copies(key);
            if copies.is_empty() && !self.host.contains(&key) {
                break;
            }
            found.push(copies.first().copied());
        }
        let shared: Vec<usize> = found.iter().copied().flatten().collect();
        let free_after_sharing = (0..self.blocks.len())
            .filter(|b| self.blocks[*b].holders.is_empty() && !shared.contains(b))
            .count();
        let needed = job.tokens().div_ceil(size) as usize;
        if needed - shared.len() > free_after_sharing {
            return false;
        }
        for (position, block) in found.iter().enumerate() {
            match block {
                Some(block) => self.blocks[*block].holders.push(id),
                None => self.refresh_host(job.request.keys[position]),
            }
        }
        for position in 0..needed {
            let block = found.get(position).copied().flatten();
            let block = block.unwrap_or_else(|| self.allocate(id));
            job.table.push(block);
        }
        job.computed = found.len() as u32 * size;
        job.scheduled = (job.tokens() - job.computed).min(budget);
        self.admitted.push(Admission {
            id,
            hit_tokens: shared.len() as u32 * size,
            host_hit_tokens: (found.len() - shared.len()) as u32 * size,
            resumed: job.resumed,
        });
        self.waiting.remove(0);
        self.running.push(job);
        true
    }

    pub(super) fn finish(&mut self) -> NaiveStep {
        self.in_flight = false;
        let mut step = NaiveStep {
            admitted: std::mem::take(&mut self.admitted),
            preempted: std::mem::take(&mut self.preempted),
            ..NaiveStep::default()
        };
        for mut job in std::mem::take(&mut self.running) {
            let id = job.request.id;
            let decodes = job.scheduled == 1
                && job.tokens() - job.computed == 1
                && job.computed >= job.request.prompt_tokens;
            if decodes {
                step.decode_requests += 1;
            } else {
                step.prefill_tokens += job.scheduled;
            }
            job.computed += std::mem::take(&mut job.scheduled);
            self.publish(&job);
            if !job.aborted && job.computed == job.tokens() {
                job.generated += 1;
                step.tokens.push(id);
            }
            let done = job.generated == job.request.output_tokens;
            if done && !job.aborted {
                step.finished.push(id);
            }
            if done || job.aborted {
                self.free(&mut job);
            } else {
                self.running.push(job);
            }
        }
        step.changes = std::mem::take(&mut self.changes);
        step
    }

    fn cacheable(&self, job: &Job) -> usize {
        let prompt = (job.request.prompt_tokens / self.config.block_size) as usize;
        let limit = if self.config.cache_output { usize::MAX } else { prompt };
        job.request.keys.len().min(limit)
    }

    fn publish(&mut self, job: &Job) {
        let full = (job.computed / self.config.block_size) as usize;
        let mut run: Option<(usize, Vec<u64>)> = None;
        for position in 0..full.min(self.cacheable(job)) {
            let block = job.table[position];
            if self.blocks[block].key.is_some() {
                self.note(job, run.take());
                continue;
            }
            let key = job.request.keys[position];
            self.blocks[block].key = Some(key);
            self.blocks[block].published = self.tick();
            run.get_or_insert((position, Vec::new())).1.push(key);
        }
        self.note(job, run);
    }

    fn note(&mut self, job: &Job, run: Option<(usize, Vec<u64>)>) {
        if let Some((first, keys)) = run {
            let parent = first.checked_sub(1).map(|parent| job.request.keys[parent]);
            let (request, first_block) = (job.request.id, first as u32);
            self.changes.push(KvChange::Stored { request, first_block, parent, keys });
        }
    }

    /// Copies of a block; the oldest is the one that is hit.
    fn copies(&self, key: u64) -> Vec<usize> {
        let mut copies: Vec<usize> =
            (0..self.blocks.len()).filter(|&b| self.blocks[b].key == Some(key)).collect();
        copies.sort_by_key(|&b| self.blocks[b].published);
        copies
    }

    fn allocate(&mut self, id: RequestId) -> usize {
        let free = || (0..self.blocks.len()).filter(|&b| self.blocks[b].holders.is_empty());
        let blank = free().filter(|&b| self.blocks[b].key.is_none());
        let block = match blank.max_by_key(|&b| (self.blocks[b].released, usize::MAX - b)) {
            Some(block) => block,
            None => free().min_by_key(|&b| self.blocks[b].released).unwrap(),
        };
        self.blocks[block].holders.push(id);
        if let Some(key) = self.blocks[block].key.take() {
            match self.changes.last_mut() {
                Some(KvChange::Removed(keys)) => keys.push(key),
                _ => self.changes.push(KvChange::Removed(vec![key])),
            }
            if self.copies(key).is_empty() {
                self.offload(key);
            }
        }
        block
    }

    fn offload(&mut self, key: u64) {
        if self.config.host_blocks == 0 {
            return;
        }
        if self.host.contains(&key) {
            self.refresh_host(key);
            return;
        }
        if self.host.len() == self.config.host_blocks as usize {
            let old = self.host.remove(0);
            self.changes.push(KvChange::HostRemoved(old));
        }
        self.host.push(key);
        self.changes.push(KvChange::HostStored(key));
    }

    fn refresh_host(&mut self, key: u64) {
        if self.host.contains(&key) {
            self.host.retain(|held| *held != key);
            self.host.push(key);
        }
    }

    fn free(&mut self, job: &mut Job) {
        for block in std::mem::take(&mut job.table).into_iter().rev() {
            let released = self.tick();
            let block = &mut self.blocks[block];
            block.holders.retain(|holder| *holder != job.request.id);
            if block.holders.is_empty() {
                block.released = released;
            }
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
