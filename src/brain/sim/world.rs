//! What requests meet.

use super::{Arrivals, Autoscale, Outage};
use crate::brain::BrainConfig;
use crate::engine::EngineConfig;
use crate::predict::EngineProfile;

/// A fleet, its routers, and how late they learn.
#[derive(Debug, Clone)]
pub struct World {
    /// The engines, one endpoint each.
    pub engines: Vec<EngineConfig>,
    /// Every router's settings; its `block_size` is the workload's.
    pub brain: BrainConfig,
    /// Routers that share nothing but the engines' events; requests go to them in turns.
    pub routers: u32,
    /// Engines that die, and those that join later.
    pub outages: Vec<Outage>,
    /// Who changes the size of the fleet; `None` keeps all engines.
    pub autoscale: Option<Autoscale>,
    /// How long a router does not know that an engine died, milliseconds.
    pub outage_notice_ms: f64,
    /// How long a client waits after a broken connection before it asks its router again, milliseconds.
    pub retry_ms: f64,
    /// Whether every engine finds what any of them computed, at no cost, and routers know it: the bound
    /// of what hits can bring. How a policy shares out the load still matters.
    pub shared_cache: bool,
    /// How late KV events reach a router, milliseconds.
    pub kv_lag_ms: f64,
    /// How late metrics reach it, milliseconds, after they were sampled.
    pub metrics_lag_ms: f64,
    /// How often metrics are sampled, milliseconds; 0 is never.
    pub metrics_interval_ms: f64,
    /// Whether what a step does to the counters of prefix caches is told when it ends, as vLLM does:
    /// of a prefill of one step nobody else knows then before it is over.
    pub pages_at_step_end: bool,
    /// Whether routers are told of first tokens and of the lengths of answers, or only of ends, as those
    /// of Ray Serve are. What they then do is `brain.fleet.first_tokens`.
    pub first_tokens_told: bool,
    /// What routers know of ends.
    pub ends: Ends,
    /// How often routers tell each other their load, milliseconds; 0 is never.
    pub exchange_interval_ms: f64,
    /// Whether routers know the engines' profiles from the start.
    pub profiles_known: bool,
    /// What is asked of an answer.
    pub slo: SloRule,
    /// How long a request may be held, milliseconds; 0 holds none.
    pub hold_ms: u64,
    /// When requests come.
    pub arrivals: Arrivals,
    /// Share of the requests, in order of arrival, that are run but not counted.
    pub warmup_share: f64,
    /// Of jitter, of the order of sessions, and of the routers' random choices.
    pub seed: u64,
    /// What a replica costs, for the price of a token; 0 for none.
    pub usd_per_replica_hour: f64,
}

impl World {
    /// `count` engines of a kind, one router that learns of KV 10 ms late and reads metrics every
    /// 50 ms, objectives of 1 s and 60 ms.
    #[must_use]
    pub fn new(engine: EngineConfig, count: usize, arrivals: Arrivals) -> Self {
        Self {
            engines: vec![engine; count],
            brain: BrainConfig::default(),
            outages: Vec::new(),
            autoscale: None,
            outage_notice_ms: 1_000.0,
            retry_ms: 100.0,
            shared_cache: false,
            routers: 1,
            kv_lag_ms: 10.0,
            metrics_lag_ms: 0.0,
            metrics_interval_ms: 50.0,
            pages_at_step_end: false,
            first_tokens_told: true,
            ends: Ends::Told,
            exchange_interval_ms: 0.0,
            profiles_known: true,
            slo: SloRule::default(),
            hold_ms: 0,
            arrivals,
            warmup_share: 0.1,
            seed: 0,
            usd_per_replica_hour: 0.0,
        }
    }

    /// The same under another of the built-in policies.
    #[must_use]
    pub fn with_policy(mut self, name: &str) -> Self {
        self.brain.schedule.profile = crate::schedule::ProfileChoice::Named(name.to_owned());
        self
    }
}

/// What routers know of the ends of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ends {
    /// They are told of each.
    #[default]
    Told,
    /// Nobody tells, and what was booked stays so until its lease is over.
    Untold,
    /// Nobody tells, and they guess.
    Guessed,
}

/// The objectives of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SloRule {
    /// Time to first token, milliseconds.
    pub ttft_ms: f64,
    /// A prompt that takes long even alone on an idle engine may take so many times that.
    pub isolated_factor: f64,
    /// Time per output token, milliseconds.
    pub tpot_ms: f64,
}

impl Default for SloRule {
    fn default() -> Self {
        Self { ttft_ms: 1_000.0, isolated_factor: 1.5, tpot_ms: 60.0 }
    }
}

impl SloRule {
    /// Time to first token that a prompt may take in a fleet of such engines, milliseconds: what is
    /// asked is the same wherever a request goes, and the slowest engine can do it.
    #[must_use]
    pub fn ttft_limit_ms(&self, fleet: &[EngineProfile], prompt_tokens: u32) -> f64 {
        let alone = fleet.iter().map(|it| it.prefill_ms(u64::from(prompt_tokens), 0));
        self.ttft_ms.max(self.isolated_factor * alone.fold(0.0, f64::max))
    }
}
