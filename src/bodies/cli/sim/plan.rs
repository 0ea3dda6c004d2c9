//! What the options ask for: the world, the workloads, the question.

use super::runs::{Job, Question};
use super::{CommandError, SimArgs};
use llmd_brain::brain::BrainConfig;
use llmd_brain::engine::EngineConfig;
use llmd_brain::schedule::builtin_profiles;
use llmd_brain::sim::{Arrivals, TwoTenants, Workload, World, capacity_requests_per_s};
use std::ops::RangeInclusive;

/// What is asked of a fleet to learn what it completes, where the load is of a tenant alone.
const SAMPLED_PER_S: f64 = 10.0;
const SAMPLED_S: f64 = 120.0;

/// What runs have in common, and what they play.
pub(super) struct Plan {
    first_seed: u64,
    /// One for each seed, or one for all.
    workloads: Vec<Workload>,
    pub(super) world: World,
    pub(super) question: Question,
    /// What the fleet completes when flooded, where it was asked.
    pub(super) capacity_requests_per_s: Option<f64>,
}

impl Plan {
    /// What a run of this policy and seed plays.
    pub(super) fn job<'a>(&'a self, (policy, seed): (&'a str, u64)) -> Job<'a> {
        let at = (seed - self.first_seed) as usize % self.workloads.len();
        (policy, seed, &self.workloads[at])
    }
}

impl SimArgs {
    /// Everything that runs of these seeds need. What the fleet completes is measured with the workload
    /// of the first of them, unless the options have it.
    pub(super) fn plan(&self, seeds: RangeInclusive<u64>) -> Result<Plan, CommandError> {
        let config = self.brain_config()?;
        let written = config.schedule.profiles.keys().cloned();
        let known: Vec<String> = written.chain(builtin_profiles().map(str::to_owned)).collect();
        let unknown = self.policies.iter().find(|name| !known.contains(name));
        if let Some(unknown) = unknown {
            return Err(format!("policy {unknown:?} is unknown: use {}", known.join(", ")).into());
        }
        let first_seed = *seeds.start();
        if seeds.is_empty() {
            return Err("nothing to play: give at least one of --seeds".into());
        }
        let mut asked = None;
        let mut workloads: Vec<Workload> = match self.two_tenants(&mut asked)? {
            Some(quiet_per_s) => seeds
                .filter_map(|seed| self.source.two_tenants(quiet_per_s, self.horizon_s, seed))
                .map(|it| it.workload())
                .collect(),
            None => {
                let source = self.source.open()?;
                let seeds = if source.is_seeded() { seeds } else { first_seed..=first_seed };
                seeds.map(|seed| source.workload(seed)).collect::<Result<Vec<_>, _>>()?
            }
        };
        for workload in &mut workloads {
            self.scaling.shape(workload, self.source.is_open_loop())?;
        }
        let (world, question) = self.world(&workloads[0], &config, &mut asked)?;
        Ok(Plan { first_seed, workloads, world, question, capacity_requests_per_s: asked })
    }

    fn brain_config(&self) -> Result<BrainConfig, CommandError> {
        let Some(path) = &self.config else { return Ok(BrainConfig::default()) };
        let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|why| failed(&why))?;
        Ok(toml::from_str(&text).map_err(|why| failed(&why))?)
    }

    /// Requests a second of the first of two tenants, where they are asked for: `--load` of what the
    /// fleet completes of them.
    fn two_tenants(&self, asked: &mut Option<f64>) -> Result<Option<f64>, CommandError> {
        let Some(sample) = self.source.two_tenants(SAMPLED_PER_S, SAMPLED_S, 0) else {
            return Ok(None);
        };
        if self.rate.is_some() {
            return Ok(self.rate);
        }
        let sample = TwoTenants { flood: 0.0, ..sample }.workload();
        let engines = self.fleet.engines(sample.block_size())?;
        let mut world = World::new(first(&engines)?, 0, Arrivals::closed(1));
        world.engines = engines;
        Ok(Some(self.load * self.capacity(&sample, &world, asked)?))
    }

    /// What the fleet completes when flooded.
    fn capacity(
        &self,
        workload: &Workload,
        world: &World,
        asked: &mut Option<f64>,
    ) -> Result<f64, CommandError> {
        let capacity = match self.capacity_requests_per_s {
            Some(known) => known,
            None => capacity_requests_per_s(workload, world)?,
        };
        *asked = Some(capacity);
        Ok(capacity)
    }

    /// The world and what is asked in it. The capacity is that of the first seed's workload.
    fn world(
        &self,
        workload: &Workload,
        config: &BrainConfig,
        asked: &mut Option<f64>,
    ) -> Result<(World, Question), CommandError> {
        let engines = self.fleet.engines(workload.block_size())?;
        let first = first(&engines)?;
        let mut world = World::new(first, 0, Arrivals::closed(self.sessions));
        world.engines = engines;
        self.fleet.apply(&mut world);
        self.scaling.apply(&mut world);
        world.brain = config.clone();
        world.slo.ttft_ms = self.slo_ttft_ms;
        world.slo.tpot_ms = self.slo_tpot_ms;
        world.kv_lag_ms = self.lag_ms;
        world.metrics_interval_ms = self.metrics_ms;
        world.pages_at_step_end = self.pages_at_step_end;
        world.first_tokens_told = !self.first_tokens_untold;
        world.ends = self.ends.into();
        // Metrics are sampled, so they are late already; what is more than that is added.
        world.metrics_lag_ms = (self.lag_ms - world.metrics_interval_ms).max(0.0);
        world.routers = self.routers;
        world.exchange_interval_ms = self.exchange_ms;
        world.hold_ms = (self.max_hold_s * 1e3) as u64;
        if let Arrivals::Closed { horizon_s, think_cap_s, session_cap, .. } = &mut world.arrivals {
            (*horizon_s, *think_cap_s) = (self.horizon_s, self.think_cap_s);
            *session_cap = self.session_cap;
            world.warmup_share = 0.15;
        }
        if !self.source.is_open_loop() {
            return match self.goodput {
                Some(_) => Err("--goodput is of an open loop, and this is a closed one".into()),
                None => Ok((world, Question::Run)),
            };
        }
        if self.session_cap.is_some() {
            return Err("--session-cap is of a closed loop, and this is an open one".into());
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
        let capacity_requests_per_s = self.capacity(workload, &world, asked)?;
        if self.capacity_requests_per_s.is_none() {
            eprintln!("capacity: {capacity_requests_per_s:.3} requests/s");
        }
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
