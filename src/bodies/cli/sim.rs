//! `llmd-sched sim`.

use super::CommandError;
use clap::{Args, ValueEnum};
use llmd_brain::brain::BrainConfig;
use llmd_brain::engine::EngineConfig;
use llmd_brain::predict::EngineProfile;
use llmd_brain::schedule::builtin_profiles;
use llmd_brain::sim::{
    Arrivals, Summary, Workload, World, agent_sessions, capacity_requests_per_s, mooncake,
    prompt_sessions, run, toolmix,
};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Options of `llmd-sched sim`.
#[derive(Debug, Args)]
pub(super) struct SimArgs {
    /// The trace.
    #[arg(long)]
    trace: PathBuf,
    /// What it is written in.
    #[arg(long, value_enum)]
    format: Format,
    /// Policies to compare, by name.
    #[arg(
        long = "policy",
        value_delimiter = ',',
        default_value = "round-robin,least-request,lmetric,default"
    )]
    policies: Vec<String>,
    /// The routers' settings (TOML), for policies of one's own under `schedule.profiles`.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Engines of each profile that is given without a count.
    #[arg(long, default_value_t = 8)]
    replicas: usize,
    /// Model and GPU whose step times the engines take, or several of them, each with how many
    /// engines: `NAME:COUNT,NAME:COUNT`.
    #[arg(long = "profile", value_delimiter = ',', default_value = "qwen3-32b_h100_tp2")]
    profiles: Vec<String>,
    /// Routers are not told which profile an engine has.
    #[arg(long)]
    unknown_profiles: bool,
    /// Host tier behind each KV cache, as a multiple of it.
    #[arg(long, default_value_t = 0.0)]
    host_tier: f64,
    /// Rate of an open loop, as a share of what the fleet completes when flooded.
    #[arg(long, default_value_t = 0.8, conflicts_with = "rate")]
    load: f64,
    /// Rate of an open loop, requests a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Each request of an open loop comes up to so much later, at the trace's own speed.
    #[arg(long, default_value_t = 3_000.0)]
    jitter_ms: f64,
    /// Sessions that are open at a time, in a closed loop.
    #[arg(long, default_value_t = 32)]
    sessions: u32,
    /// Time that a closed loop is played, seconds.
    #[arg(long, default_value_t = 3_600.0)]
    horizon_s: f64,
    /// How late KV events and metrics come.
    #[arg(long, default_value_t = 10.0)]
    lag_ms: f64,
    /// How often metrics are sampled; 0 is never.
    #[arg(long, default_value_t = 50.0)]
    metrics_ms: f64,
    /// Routers that share nothing but the engines' events.
    #[arg(long, default_value_t = 1)]
    routers: u32,
    /// How often they tell each other their load; 0 is never.
    #[arg(long, default_value_t = 0.0)]
    exchange_ms: f64,
    /// How long a request may be held; 0 holds none.
    #[arg(long, default_value_t = 0.0)]
    max_hold_s: f64,
    /// Objective of the time to first token.
    #[arg(long, default_value_t = 1_000.0)]
    slo_ttft_ms: f64,
    /// Objective of the time per output token.
    #[arg(long, default_value_t = 60.0)]
    slo_tpot_ms: f64,
    /// What a replica costs.
    #[arg(long, default_value_t = 0.0)]
    usd_per_replica_hour: f64,
    /// Runs of each policy, each with another seed.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print a line of JSON for each run in the place of a table.
    #[arg(long)]
    json: bool,
}

/// How a trace is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Mooncake's: an open loop.
    Mooncake,
    /// The same, with tool calls made up between.
    Toolmix,
    /// kv-cache-tester's sessions: a closed loop.
    AgentSessions,
    /// LMCache's sessions: a closed loop.
    PromptSessions,
}

/// One run.
#[derive(Debug, Serialize)]
struct Ran {
    policy: String,
    seed: u64,
    #[serde(flatten)]
    summary: Summary,
}

impl SimArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.brain_config()?;
        let written = config.schedule.profiles.keys().cloned();
        let known: Vec<String> = written.chain(builtin_profiles().map(str::to_owned)).collect();
        let unknown = self.policies.iter().find(|name| !known.contains(name));
        if let Some(unknown) = unknown {
            return Err(format!("policy {unknown:?} is unknown: use {}", known.join(", ")).into());
        }
        let text = std::fs::read_to_string(&self.trace)
            .map_err(|why| format!("{}: {why}", self.trace.display()))?;
        let workload = match self.format {
            Format::Mooncake => mooncake(&text)?,
            Format::Toolmix => toolmix(&mooncake(&text)?, 1),
            Format::AgentSessions => agent_sessions(&text)?,
            Format::PromptSessions => prompt_sessions(&text)?,
        };
        let world = self.world(&workload, &config)?;
        let jobs: Vec<(&String, u64)> = self
            .policies
            .iter()
            .flat_map(|policy| (1..=self.seeds).map(move |s| (policy, s)))
            .collect();
        let ran = play(&workload, &world, &jobs, self.json)?;
        if !self.json {
            print_table(&ran);
        }
        Ok(())
    }

    fn brain_config(&self) -> Result<BrainConfig, CommandError> {
        let Some(path) = &self.config else { return Ok(BrainConfig::default()) };
        let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|why| failed(&why))?;
        Ok(toml::from_str(&text).map_err(|why| failed(&why))?)
    }

    fn engines(&self, workload: &Workload) -> Result<Vec<EngineConfig>, CommandError> {
        let mut engines = Vec::new();
        for given in &self.profiles {
            let (name, count) = match given.split_once(':') {
                Some((name, count)) => {
                    let count: usize = count.parse().map_err(|_| {
                        format!("profile {given:?}: {count:?} is no count: use NAME:COUNT")
                    })?;
                    (name, count)
                }
                None => (given.as_str(), self.replicas),
            };
            let profile = *EngineProfile::named(name).ok_or_else(|| {
                let known: Vec<&str> = EngineProfile::names().collect();
                format!("profile {name:?} is unknown: use {}", known.join(", "))
            })?;
            let mut engine = EngineConfig::new(profile);
            engine.block_size = workload.block_size();
            engine.kv_blocks = u32::try_from(profile.kv_tokens / u64::from(engine.block_size))?;
            // Traces have no ids for what is generated until it comes back in a prompt.
            engine.cache_output = false;
            engine.host_blocks = (self.host_tier * f64::from(engine.kv_blocks)) as u32;
            engines.extend(std::iter::repeat_n(engine, count));
        }
        Ok(engines)
    }

    fn world(&self, workload: &Workload, config: &BrainConfig) -> Result<World, CommandError> {
        let engines = self.engines(workload)?;
        let first = engines.first().cloned().ok_or("the fleet has no engine: give a --profile")?;
        let mut world = World::new(first, 1, Arrivals::closed(self.sessions));
        world.engines = engines;
        world.brain = config.clone();
        world.profiles_known = !self.unknown_profiles;
        world.slo.ttft_ms = self.slo_ttft_ms;
        world.slo.tpot_ms = self.slo_tpot_ms;
        world.kv_lag_ms = self.lag_ms;
        world.metrics_interval_ms = self.metrics_ms;
        // Metrics are sampled, so they are late already; what is more than that is added.
        world.metrics_lag_ms = (self.lag_ms - world.metrics_interval_ms).max(0.0);
        world.routers = self.routers;
        world.exchange_interval_ms = self.exchange_ms;
        world.hold_ms = (self.max_hold_s * 1e3) as u64;
        world.usd_per_replica_hour = self.usd_per_replica_hour;
        match (self.format, &mut world.arrivals) {
            (Format::Mooncake | Format::Toolmix, arrivals) => {
                let rate = match self.rate {
                    Some(rate) => rate,
                    None => {
                        *arrivals = Arrivals::at_rate(1.0, self.jitter_ms);
                        let capacity = capacity_requests_per_s(workload, &world)?;
                        eprintln!("capacity: {capacity:.3} requests/s");
                        self.load * capacity
                    }
                };
                world.arrivals = Arrivals::at_rate(rate, self.jitter_ms);
            }
            (_, Arrivals::Closed { horizon_s, .. }) => {
                *horizon_s = self.horizon_s;
                world.warmup_share = 0.15;
            }
            (_, Arrivals::Open { .. }) => {}
        }
        Ok(world)
    }
}

/// Runs all jobs, as many at a time as there are cores, and says how far it is.
fn play(
    workload: &Workload,
    world: &World,
    jobs: &[(&String, u64)],
    as_json: bool,
) -> Result<Vec<Ran>, CommandError> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ran: Mutex<Vec<(usize, Ran)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<String>> = Mutex::new(None);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&(policy, seed)) = jobs.get(number) else { return };
            let mut world = world.clone().with_policy(policy);
            world.seed = seed;
            match run(workload, &world) {
                Ok(outcome) => {
                    let it = Ran { policy: policy.clone(), seed, summary: outcome.summary() };
                    let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
                    eprint!("\r{so_far} of {} runs", jobs.len());
                    if as_json && let Ok(line) = serde_json::to_string(&it) {
                        let _ = writeln!(std::io::stdout().lock(), "{line}");
                    }
                    ran.lock().unwrap_or_else(PoisonError::into_inner).push((number, it));
                }
                Err(why) => {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_string());
                    return;
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(work);
        }
    });
    eprintln!();
    if let Some(why) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(why.into());
    }
    let mut ran = ran.into_inner().unwrap_or_else(PoisonError::into_inner);
    ran.sort_by_key(|(number, _)| *number);
    Ok(ran.into_iter().map(|(_, it)| it).collect())
}

/// A row for each policy: means over its seeds.
fn print_table(ran: &[Ran]) {
    println!(
        "{:24} {:>6} {:>6} {:>10} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9}",
        "policy",
        "SLO %",
        "hit %",
        "goodput/s",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "TPOT p99",
        "longest s",
        "$/M tok"
    );
    for runs in ran.chunk_by(|one, other| one.policy == other.policy) {
        let mean = |of: fn(&Summary) -> f64| {
            runs.iter().map(|it| of(&it.summary)).sum::<f64>() / runs.len() as f64
        };
        println!(
            "{:24} {:6.2} {:6.2} {:10.3} {:9.0} {:9.0} {:8.1} {:8.1} {:9.0} {:9.3}",
            runs[0].policy,
            mean(|it| it.slo_attainment * 100.0),
            mean(|it| it.hit_ratio_with_host * 100.0),
            mean(|it| it.goodput_requests_per_s),
            mean(|it| it.ttft_p50_ms),
            mean(|it| it.ttft_p99_ms),
            mean(|it| it.tpot_p50_ms),
            mean(|it| it.tpot_p99_ms),
            mean(|it| it.longest_wait_ms / 1e3),
            mean(|it| it.usd_per_million_tokens),
        );
    }
}
