use super::kv_cache::KeyHasher;
use super::memory::Memory;
use super::run::{Instant, Planned, Run};
use super::sequence::Sequence;
use super::shared_cache::SharedCache;
use super::work::Work;
use super::{
    Admission, BlockIdentity, EngineConfig, EngineConfigError, EngineRequest, RequestId, Step,
    SubmitError,
};
use crate::{BlockKey, Time};
use serde::{Deserialize, Serialize};
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasherDefault;

/// The engine. [`begin_step`](Self::begin_step) and [`finish_step`](Self::finish_step) alternate;
/// requests may be submitted and aborted between and during steps.
///
/// ```
/// use llmd_brain::engine::{EngineConfig, EngineModel, EngineRequest, RequestId};
/// use llmd_brain::{BlockKey, Time, predict::EngineProfile};
///
/// let profile = *EngineProfile::named("llama-3.1-8b_h100_tp1").unwrap();
/// let mut engine = EngineModel::new(EngineConfig::new(profile))?;
/// let keys = vec![BlockKey(1), BlockKey(2)];
/// engine.submit(EngineRequest { id: RequestId(1), prompt_tokens: 40, output_tokens: 1, keys })?;
/// let step = engine.step(Time::ZERO).unwrap();
/// assert_eq!(step.finished, [RequestId(1)]);
/// assert!(step.duration_ms >= profile.decode_base_ms);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct EngineModel<K = BlockKey> {
    config: EngineConfig,
    memory: Memory<K>,
    waiting: VecDeque<Sequence<K>>,
    /// In admission order. At most the last one has an unfinished prefill: nothing is admitted
    /// behind a prefill that filled the step.
    running: Vec<Sequence<K>>,
    /// Names in `waiting` and `running`. Never iterated.
    known: HashSet<RequestId, BuildHasherDefault<KeyHasher>>,
    /// The step in flight.
    flight: Option<Flight>,
    /// Memory for the run of the next one.
    spare: Vec<u64>,
    now: Instant,
    counters: Counters,
}

/// What the step in flight does.
#[derive(Debug, Clone)]
struct Flight {
    run: Run,
    work: Work,
    admitted: Vec<Admission>,
    preempted: Vec<RequestId>,
}

/// Totals since the engine began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// Steps finished.
    pub steps: u64,
    /// Requests that generated everything they were to.
    pub finished_requests: u64,
    /// Requests aborted.
    pub aborted_requests: u64,
    /// Times a running request went back to the queue.
    pub preemptions: u64,
    /// Prompt tokens of admitted requests, resumptions not counted: what was looked up.
    pub prefix_queries_tokens: u64,
    /// Those found in the KV cache.
    pub prefix_hits_tokens: u64,
    /// Those not found there, and looked up on the host tier; 0 without one.
    pub host_queries_tokens: u64,
    /// Those found there.
    pub host_hits_tokens: u64,
    /// Prompt tokens of requests that have generated their first token.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
}

/// How busy the engine is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Requests admitted and not finished.
    pub running_requests: u32,
    /// Requests in the queue.
    pub waiting_requests: u32,
    /// Blocks that a running request references.
    pub used_blocks: u32,
    /// All blocks.
    pub total_blocks: u32,
}

impl Load {
    /// Share of the KV cache that running requests reference, 0 to 1.
    #[must_use]
    pub fn kv_usage(&self) -> f64 {
        f64::from(self.used_blocks) / f64::from(self.total_blocks.max(1))
    }
}

impl<K: BlockIdentity> EngineModel<K> {
    /// An idle engine with nothing cached.
    ///
    /// # Errors
    /// [`EngineConfigError`] for sizes and costs that cannot be.
    pub fn new(config: EngineConfig) -> Result<Self, EngineConfigError> {
        config.validate()?;
        Ok(Self {
            memory: Memory::new(&config),
            config,
            waiting: VecDeque::new(),
            running: Vec::new(),
            known: HashSet::default(),
            flight: None,
            spare: Vec::new(),
            now: Instant::default(),
            counters: Counters::default(),
        })
    }

    /// The same engine behind a cache that others share too: what any of them computed is found.
    #[must_use]
    pub fn sharing(mut self, cache: SharedCache<K>) -> Self {
        self.memory.share(cache);
        self
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Queues a request, behind all others.
    ///
    /// # Errors
    /// [`SubmitError`]; the engine is as it was.
    pub fn submit(&mut self, request: EngineRequest<K>) -> Result<(), SubmitError> {
        self.submit_at(Time::ZERO, request)
    }

    /// As [`submit`](Self::submit), of a caller that begins [runs](Self::begin_run): one in flight ends
    /// with the step that runs at `now`, so that the request is admitted as if there was none.
    ///
    /// # Errors
    /// [`SubmitError`]; the engine is as it was.
    pub fn submit_at(&mut self, now: Time, request: EngineRequest<K>) -> Result<(), SubmitError> {
        let id = request.id;
        if request.prompt_tokens == 0 {
            return Err(SubmitError::EmptyPrompt(id));
        }
        if request.output_tokens == 0 {
            return Err(SubmitError::EmptyOutput(id));
        }
        let tokens = u64::from(request.prompt_tokens) + u64::from(request.output_tokens);
        // The last token generated is never an input: it needs no room.
        if tokens - 1 > self.config.kv_tokens().min(u64::from(u32::MAX - 1)) {
            return Err(SubmitError::TooLong { id, tokens, kv_tokens: self.config.kv_tokens() });
        }
        if !self.known.insert(id) {
            return Err(SubmitError::DuplicateId(id));
        }
        let (block_size, cache_output) = (self.config.block_size, self.config.cache_output);
        self.cut_run(now);
        self.waiting.push_back(Sequence::new(request, block_size, cache_output));
        Ok(())
    }

    /// Drops a request; `false` where it is not, or no longer, in the engine. What the step in
    /// flight computes for it stays hittable.
    pub fn abort(&mut self, id: RequestId) -> bool {
        if !self.known.contains(&id) {
            return false;
        }
        if let Some(at) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(at);
        } else if let Some(at) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = &mut self.running[at];
            if self.flight.is_some() {
                return !std::mem::replace(&mut sequence.aborted, true);
            }
            self.memory.release(sequence);
            self.running.remove(at);
        }
        self.known.remove(&id);
        self.counters.aborted_requests += 1;
        true
    }

    /// Whether the request is in the queue, runs, or leaves with the step in flight.
    #[must_use]
    pub fn contains(&self, id: RequestId) -> bool {
        self.known.contains(&id)
    }

    /// Begins a step at `now`; `None` when there is nothing to do. While a step is in flight, says
    /// which.
    pub fn begin_step(&mut self, now: Time) -> Option<Planned> {
        self.begin_run(now, 1)
    }

    /// As [`begin_step`](Self::begin_step), but where everything decodes and nothing can happen but
    /// more of it, up to `most` steps at once: to the first that finishes a request or fills a block.
    /// Requests are [submitted](Self::submit_at) meanwhile as in a step; an abort waits for its end.
    pub fn begin_run(&mut self, now: Time, most: u32) -> Option<Planned> {
        if let Some(planned) = self.planned() {
            return Some(planned);
        }
        self.now = self.now.or_later(now);
        let mut work = Work::default();
        let mut budget = self.config.max_batch_tokens;
        let preempted = self.schedule_running(&mut work, &mut budget);
        // A step that had to take blocks away has none to give (vLLM's rule).
        let admitted =
            if preempted.is_empty() { self.admit(&mut work, budget) } else { Vec::new() };
        if self.running.is_empty() {
            return None;
        }
        // Whoever waits now found no room, and finds none before something but a token happens:
        // unless another engine finds it some.
        let is_steady = work.prefill_tokens == 0
            && preempted.is_empty()
            && admitted.is_empty()
            && (self.waiting.is_empty() || !self.memory.is_shared())
            // What made room is news, and not to wait for the end of a run.
            && !self.memory.has_changes();
        let steps = if is_steady { self.steady_steps().min(most).max(1) } else { 1 };
        let (memory, number) = (std::mem::take(&mut self.spare), self.counters.steps);
        let run = Run::new(&work, &self.config, self.now, number, steps, memory);
        let planned = run.planned();
        self.flight = Some(Flight { run, work, admitted, preempted });
        Some(planned)
    }

    /// Steps until a request that decodes finishes or fills its last block.
    fn steady_steps(&self) -> u32 {
        let steps = self.running.iter().map(|sequence| {
            let room = sequence.blocks.len() as u32 * self.config.block_size;
            (sequence.final_tokens - sequence.tokens).min(room - sequence.computed)
        });
        steps.min().unwrap_or(1)
    }

    /// The step, or run of steps, in flight.
    #[must_use]
    pub fn planned(&self) -> Option<Planned> {
        self.flight.as_ref().map(|flight| flight.run.planned())
    }

    /// A run in flight ends with the step that runs at `now`.
    fn cut_run(&mut self, now: Time) {
        if let Some(flight) = &mut self.flight {
            flight.run.cut(now);
        }
    }

    /// Ends the step in flight into `step`, whose memory is reused; `false`, with an empty `step`,
    /// when none is.
    pub fn finish_step(&mut self, step: &mut Step<K>) -> bool {
        step.clear();
        let Some(Flight { run, work, admitted, preempted }) = self.flight.take() else {
            return false;
        };
        let (planned, steps) = (run.planned(), run.steps());
        self.now = run.end();
        self.spare = run.into_memory();
        self.counters.steps += u64::from(steps);
        step.steps = steps;
        step.started = planned.started;
        step.ended = planned.ends;
        step.duration_ms = planned.duration_ms;
        step.prefill_tokens = work.prefill_tokens;
        step.decode_requests = work.decode_requests;
        step.host_tokens = work.host_tokens;
        step.admitted = admitted;
        step.preempted = preempted;
        let mut running = std::mem::take(&mut self.running);
        running.retain_mut(|sequence| self.end_of_step(sequence, steps, step));
        self.running = running;
        self.memory.swap_changes(&mut step.changes);
        true
    }

    /// The engine dies, and another begins in its place: everything queued, running and cached is gone,
    /// and nothing is reported of it. Returns what was in it; the totals go on.
    pub fn crash(&mut self) -> Vec<RequestId> {
        let lost: Vec<RequestId> =
            self.running.iter().chain(&self.waiting).map(|sequence| sequence.id).collect();
        self.counters.aborted_requests += lost.len() as u64;
        self.memory = self.memory.renewed(&self.config);
        self.running.clear();
        self.waiting.clear();
        self.known.clear();
        self.flight = None;
        lost
    }

    /// A whole step: for callers whose time is virtual.
    pub fn step(&mut self, now: Time) -> Option<Step<K>> {
        self.begin_step(now)?;
        let mut step = Step::default();
        self.finish_step(&mut step).then_some(step)
    }

    /// Drops all cached blocks; does nothing and says `false` while requests run. The change is
    /// reported with the next step.
    pub fn reset_prefix_cache(&mut self) -> bool {
        self.memory.clear()
    }

    /// Totals.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether a step would do something.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !(self.running.is_empty() && self.waiting.is_empty())
    }

    /// How busy it is: during a step, with that step's requests.
    #[must_use]
    pub fn load(&self) -> Load {
        let total_blocks = self.memory.total_blocks();
        Load {
            running_requests: self.running.len() as u32,
            waiting_requests: self.waiting.len() as u32,
            used_blocks: total_blocks - self.memory.free_blocks(),
            total_blocks,
        }
    }

    /// Gives every running request its tokens of this step, oldest first, and sends the youngest
    /// back to the queue while there is no block for an older one. Says who went.
    fn schedule_running(&mut self, work: &mut Work, budget: &mut u32) -> Vec<RequestId> {
        let mut preempted = Vec::new();
        let mut position = 0;
        while position < self.running.len() {
            let sequence = &mut self.running[position];
            let chunk = sequence.uncomputed_tokens().min(*budget);
            sequence.scheduled = 0;
            if self.memory.grow(sequence, sequence.computed + chunk) {
                sequence.scheduled = chunk;
                work.add(sequence);
                *budget -= chunk;
                position += 1;
            } else {
                preempted.extend(self.preempt_youngest());
            }
        }
        preempted
    }

    fn preempt_youngest(&mut self) -> Option<RequestId> {
        let mut sequence = self.running.pop()?;
        self.memory.release(&mut sequence);
        sequence.scheduled = 0;
        sequence.resumed = true;
        self.counters.preemptions += 1;
        let id = sequence.id;
        self.waiting.push_front(sequence);
        Some(id)
    }

    fn admit(&mut self, work: &mut Work, mut budget: u32) -> Vec<Admission> {
        let mut admitted = Vec::new();
        while budget > 0 && self.running.len() < self.config.max_sequences as usize {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let Some(hit) = self.memory.reserve(&mut sequence) else {
                self.waiting.push_front(sequence);
                break;
            };
            sequence.scheduled = sequence.uncomputed_tokens().min(budget);
            budget -= sequence.scheduled;
            work.add(&sequence);
            work.host_tokens += hit.host_tokens;
            let resumed = sequence.resumed;
            if !resumed {
                self.count_lookup(sequence.prompt_tokens, hit.cached_tokens, hit.host_tokens);
            }
            admitted.push(Admission {
                id: sequence.id,
                hit_tokens: hit.cached_tokens,
                host_hit_tokens: hit.host_tokens,
                resumed,
            });
            self.running.push(sequence);
        }
        admitted
    }

    fn count_lookup(&mut self, prompt_tokens: u32, cached_tokens: u32, host_tokens: u32) {
        self.counters.prefix_queries_tokens += u64::from(prompt_tokens);
        self.counters.prefix_hits_tokens += u64::from(cached_tokens);
        if self.config.host_blocks > 0 {
            self.counters.host_queries_tokens += u64::from(prompt_tokens - cached_tokens);
            self.counters.host_hits_tokens += u64::from(host_tokens);
        }
    }

    /// What the end of a step does to one request; `false` when it leaves.
    fn end_of_step(&mut self, sequence: &mut Sequence<K>, steps: u32, step: &mut Step<K>) -> bool {
        // All but the last step of a run decoded a token, and nothing else.
        let before = steps - 1;
        sequence.tokens += before;
        self.counters.generated_tokens += u64::from(before);
        sequence.computed += before + std::mem::take(&mut sequence.scheduled);
        self.memory.publish(sequence);
        if sequence.aborted {
            self.counters.aborted_requests += 1;
            step.aborted.push(sequence.id);
        } else if sequence.uncomputed_tokens() == 0 {
            if sequence.is_first_token() {
                self.counters.prompt_tokens += u64::from(sequence.prompt_tokens);
                step.first_tokens.push(sequence.id);
            }
            sequence.tokens += 1;
            self.counters.generated_tokens += 1;
            step.tokens.push(sequence.id);
            if sequence.tokens == sequence.final_tokens {
                self.counters.finished_requests += 1;
                step.finished.push(sequence.id);
            }
        }
        let stays = !sequence.aborted && sequence.tokens < sequence.final_tokens;
        if !stays {
            self.known.remove(&sequence.id);
            self.memory.release(sequence);
        }
        stays
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> &Memory<K> {
        &self.memory
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> &[Sequence<K>] {
        &self.running
    }
}
