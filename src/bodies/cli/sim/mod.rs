//! `llmd-sched sim`.

mod fleet;
mod runs;
mod source;

use super::CommandError;
use clap::Args;
use fleet::FleetArgs;
use llmd_brain::brain::BrainConfig;
use llmd_brain::engine::EngineConfig;
use llmd_brain::schedule::builtin_profiles;
use llmd_brain::sim::{Arrivals, TwoTenants, Workload, World, capacity_requests_per_s};
use runs::{Job, Question, play, print_table};
use source::SourceArgs;
use std::path::PathBuf;

/// What is asked of a fleet to learn what it completes, where the load is of a tenant alone.
const SAMPLED_PER_S: f64 = 10.0;
const SAMPLED_S: f64 = 120.0;

/// Options of `llmd-sched sim`.
#[derive(Debug, Args)]
pub(super) struct SimArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    fleet: FleetArgs,
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
    /// Rate of an open loop, as a share of what the fleet completes when flooded.
    #[arg(long, default_value_t = 0.8, conflicts_with = "rate")]
    load: f64,
    /// Rate of an open loop, requests a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Each request of an open loop comes up to so much later, at the trace's own speed; by default 3 s
    /// for Mooncake's, whose times are rounded to that, and else 0.
    #[arg(long)]
    jitter_ms: Option<f64>,
    /// In the place of figures at one rate: the highest rate of an open loop at which this share of the
    /// requests is within the objectives, to a 64th of what the fleet completes when flooded.
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["rate", "load"])]
    goodput: Option<f64>,
    /// Sessions that are open at a time, in a closed loop.
    #[arg(long, default_value_t = 32)]
    sessions: u32,
    /// Time that a closed loop is played, seconds.
    #[arg(long, default_value_t = 3_600.0)]
    horizon_s: f64,
    /// Pauses between the turns of a session are cut to this.
    #[arg(long, default_value_t = 60.0)]
    think_cap_s: f64,
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
    /// Runs of each policy, each with another seed.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Print a line of JSON for each run in the place of a table.
    #[arg(long)]
    json: bool,
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
        let workloads = match self.two_tenants()? {
            Some(workloads) => workloads,
            None => {
                let source = self.source.open()?;
                (1..=if source.is_seeded() { self.seeds.max(1) } else { 1 })
                    .map(|seed| source.workload(seed))
                    .collect::<Result<Vec<_>, _>>()?
            }
        };
        let (world, question) = self.world(&workloads[0], &config)?;
        let seeds = (1..=self.seeds).zip(workloads.iter().cycle());
        let jobs: Vec<Job<'_>> = self
            .policies
            .iter()
            .flat_map(|policy| {
                seeds.clone().map(move |(seed, workload)| (policy.as_str(), seed, workload))
            })
            .collect();
        let ran = play(&jobs, &world, question, self.json)?;
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

    /// Two tenants, where they are asked for: the first asks for `--load` of what the fleet completes of
    /// its requests.
    fn two_tenants(&self) -> Result<Option<Vec<Workload>>, CommandError> {
        let Some(sample) = self.source.two_tenants(SAMPLED_PER_S, SAMPLED_S, 0) else {
            return Ok(None);
        };
        let quiet_per_s = match self.rate {
            Some(rate) => rate,
            None => {
                let sample = TwoTenants { flood: 0.0, ..sample }.workload();
                let engines = self.fleet.engines(sample.block_size())?;
                let mut world = World::new(first(&engines)?, 0, Arrivals::closed(1));
                world.engines = engines;
                self.load * capacity_requests_per_s(&sample, &world)?
            }
        };
        let of_seed = |seed| self.source.two_tenants(quiet_per_s, self.horizon_s, seed);
        let asked = (1..=self.seeds.max(1)).filter_map(of_seed);
        Ok(Some(asked.map(|it| it.workload()).collect()))
    }

    /// The world and what is asked in it. The capacity is that of the first seed's workload.
    fn world(
        &self,
        workload: &Workload,
        config: &BrainConfig,
    ) -> Result<(World, Question), CommandError> {
        let engines = self.fleet.engines(workload.block_size())?;
        let first = first(&engines)?;
        let mut world = World::new(first, 0, Arrivals::closed(self.sessions));
        world.engines = engines;
        self.fleet.apply(&mut world);
        world.brain = config.clone();
        world.slo.ttft_ms = self.slo_ttft_ms;
        world.slo.tpot_ms = self.slo_tpot_ms;
        world.kv_lag_ms = self.lag_ms;
        world.metrics_interval_ms = self.metrics_ms;
        // Metrics are sampled, so they are late already; what is more than that is added.
        world.metrics_lag_ms = (self.lag_ms - world.metrics_interval_ms).max(0.0);
        world.routers = self.routers;
        world.exchange_interval_ms = self.exchange_ms;
        world.hold_ms = (self.max_hold_s * 1e3) as u64;
        if let Arrivals::Closed { horizon_s, think_cap_s, .. } = &mut world.arrivals {
            (*horizon_s, *think_cap_s) = (self.horizon_s, self.think_cap_s);
            world.warmup_share = 0.15;
        }
        if !self.source.is_open_loop() {
            return match self.goodput {
                Some(_) => Err("--goodput is of an open loop, and this is a closed one".into()),
                None => Ok((world, Question::Run)),
            };
        }
        world.warmup_share = 0.1;
        let jitter_ms = self.jitter_ms.unwrap_or(self.source.jitter_ms());
        if self.source.two_tenants(0.0, 0.0, 0).is_some() {
            world.arrivals = Arrivals::Open { requests_per_s: None, jitter_ms };
            return Ok((world, Question::Run));
        }
        world.arrivals = Arrivals::at_rate(self.rate.unwrap_or(1.0), jitter_ms);
        if self.rate.is_some() {
            return Ok((world, Question::Run));
        }
        let capacity_requests_per_s = capacity_requests_per_s(workload, &world)?;
        eprintln!("capacity: {capacity_requests_per_s:.3} requests/s");
        if let Some(attainment) = self.goodput {
            return Ok((world, Question::Goodput { attainment, capacity_requests_per_s }));
        }
        world.arrivals = Arrivals::at_rate(self.load * capacity_requests_per_s, jitter_ms);
        Ok((world, Question::Run))
    }
}

fn first(engines: &[EngineConfig]) -> Result<EngineConfig, CommandError> {
    let empty = "the fleet is empty: give --replicas or --profile NAME:COUNT";
    engines.first().cloned().ok_or_else(|| empty.into())
}
