//! What one rank has done and does, for its metrics page.

use super::histogram::{
    BETWEEN_TOKENS_S, CHOICES, FIRST_TOKEN_S, Histogram, PREEMPTIONS, REQUEST_S, STEP_TOKENS,
    one_two_five,
};
use super::job::{Finish, Job};
use llmd_brain::engine::{Counters, Load, Step};
use llmd_brain::prompt::vllm::FullHash;
use tokio::time::Instant;

/// The numbers behind one rank's samples.
#[derive(Debug, Clone)]
pub(super) struct RankMetrics {
    pub(super) load: Load,
    pub(super) counters: Counters,
    pub(super) finished: FinishedRequests,
    /// Prompt tokens of requests that got their first token, by where their KV came from.
    pub(super) computed_tokens: u64,
    pub(super) device_hit_tokens: u64,
    pub(super) host_hit_tokens: u64,
    /// Time by which the machine was too slow for the profile, given up on.
    pub(super) late_s: f64,
    /// Adapters of running and of waiting requests, each once, sorted.
    pub(super) running_loras: Vec<String>,
    pub(super) waiting_loras: Vec<String>,
    pub(super) prompt_tokens: Histogram,
    pub(super) generation_tokens: Histogram,
    pub(super) iteration_tokens: Histogram,
    pub(super) params_n: Histogram,
    pub(super) params_max_tokens: Histogram,
    pub(super) first_token_s: Histogram,
    pub(super) inter_token_s: Histogram,
    pub(super) per_output_token_s: Histogram,
    pub(super) e2e_s: Histogram,
    pub(super) queue_s: Histogram,
    pub(super) inference_s: Histogram,
    pub(super) prefill_s: Histogram,
    pub(super) decode_s: Histogram,
    pub(super) preemptions: Histogram,
    pub(super) prefill_kv_tokens: Histogram,
}

/// Requests that left, by `finished_reason`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FinishedRequests {
    pub(super) stop: u64,
    pub(super) length: u64,
    pub(super) abort: u64,
    pub(super) error: u64,
}

impl RankMetrics {
    pub(super) fn new(max_model_len: u32, load: Load) -> Self {
        let tokens = || Histogram::new(one_two_five(max_model_len));
        let request = || Histogram::new(REQUEST_S);
        Self {
            load,
            counters: Counters::default(),
            finished: FinishedRequests::default(),
            computed_tokens: 0,
            device_hit_tokens: 0,
            host_hit_tokens: 0,
            late_s: 0.0,
            running_loras: Vec::new(),
            waiting_loras: Vec::new(),
            prompt_tokens: tokens(),
            generation_tokens: tokens(),
            iteration_tokens: Histogram::new(STEP_TOKENS),
            params_n: Histogram::new(CHOICES),
            params_max_tokens: tokens(),
            first_token_s: Histogram::new(FIRST_TOKEN_S),
            inter_token_s: Histogram::new(BETWEEN_TOKENS_S),
            per_output_token_s: Histogram::new(BETWEEN_TOKENS_S),
            e2e_s: request(),
            queue_s: request(),
            inference_s: request(),
            prefill_s: request(),
            decode_s: request(),
            preemptions: Histogram::new(PREEMPTIONS),
            prefill_kv_tokens: tokens(),
        }
    }

    pub(super) fn step(&mut self, step: &Step<FullHash>) {
        let tokens = step.prefill_tokens as usize + step.tokens.len();
        self.iteration_tokens.observe(tokens as f64);
    }

    /// A sequence generated a token at `now`, the first or a later one.
    pub(super) fn token(&mut self, job: &Job, now: Instant) {
        let times = &job.times;
        if times.first_token.is_none() {
            self.first_token_s.observe((now - times.arrived).as_secs_f64());
            let prompt_tokens = job.plan.prompt_tokens as u64;
            let hit_tokens = u64::from(job.device_hit_tokens) + u64::from(job.host_hit_tokens);
            self.computed_tokens += prompt_tokens - hit_tokens;
            self.device_hit_tokens += u64::from(job.device_hit_tokens);
            self.host_hit_tokens += u64::from(job.host_hit_tokens);
        } else {
            self.inter_token_s.observe((now - times.last_token).as_secs_f64());
        }
    }

    /// A sequence generated its last token, at `job.times.last_token`.
    pub(super) fn finished(&mut self, job: &Job) {
        match job.plan.finish {
            Finish::Length => self.finished.length += 1,
            Finish::Stop(_) => self.finished.stop += 1,
        }
        let times = &job.times;
        let admitted = times.admitted.unwrap_or(times.arrived);
        let first = times.first_token.unwrap_or(times.last_token);
        let output_tokens = job.plan.output().len();
        let hit_tokens = job.device_hit_tokens + job.host_hit_tokens;
        self.prompt_tokens.observe(job.plan.prompt_tokens as f64);
        self.generation_tokens.observe(output_tokens as f64);
        self.params_n.observe(f64::from(job.plan.choices));
        self.params_max_tokens.observe(f64::from(job.plan.max_tokens));
        self.e2e_s.observe((times.last_token - times.arrived).as_secs_f64());
        self.queue_s.observe((admitted - times.arrived).as_secs_f64());
        self.inference_s.observe((times.last_token - admitted).as_secs_f64());
        self.prefill_s.observe((first - admitted).as_secs_f64());
        let decode_s = (times.last_token - first).as_secs_f64();
        self.decode_s.observe(decode_s);
        self.per_output_token_s.observe(decode_s / output_tokens.saturating_sub(1).max(1) as f64);
        self.preemptions.observe(f64::from(job.preemptions));
        self.prefill_kv_tokens.observe(job.plan.prompt_tokens as f64 - f64::from(hit_tokens));
    }
}
