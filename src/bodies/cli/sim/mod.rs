//! `llmd-sched sim`.

mod cluster;
mod fleet;
mod plan;
mod runs;
mod scaling;
mod source;

pub use cluster::{Cluster, errand_run};

use super::CommandError;
use clap::{Args, ValueEnum};
use fleet::FleetArgs;
use llmd_brain::sim::Ends;
use runs::{Ran, print_table};
use scaling::ScalingArgs;
use serde::{Deserialize, Serialize};
use source::SourceArgs;
use std::path::{Path, PathBuf};

/// As [`Ends`].
#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
enum EndsArg {
    Told,
    Untold,
    Guessed,
}

impl From<EndsArg> for Ends {
    fn from(given: EndsArg) -> Self {
        match given {
            EndsArg::Told => Self::Told,
            EndsArg::Untold => Self::Untold,
            EndsArg::Guessed => Self::Guessed,
        }
    }
}

/// Options of `llmd-sched sim`.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(super) struct SimArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    scaling: ScalingArgs,
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
    /// Of those so many are let in by a proxy before the routers; the others wait there, first come
    /// first served, until one that was let in ends.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    session_cap: Option<u32>,
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
    /// Pages tell what a step did to the prefix cache's counters when it ends, as vLLM's do.
    #[arg(long)]
    pages_at_step_end: bool,
    /// Routers hear of requests only that they are over, as Ray Serve's do: see `fleet.first_tokens`.
    #[arg(long)]
    first_tokens_untold: bool,
    /// What routers know of the ends of requests: that they are told of each; nothing, so that leases
    /// end what is booked; or nothing, and they guess, as an ingress router of Ray Serve does.
    #[arg(long, value_enum, default_value_t = EndsArg::Told)]
    ends: EndsArg,
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
    /// Play on Ray: on the cluster at this address (`auto`, `HOST:PORT`, `ray://...`), else on the one
    /// that RAY_ADDRESS names, else on a new one here. Its machines read the trace and the settings at
    /// the same paths. Needs the wheel, and Ray: `pip install 'llmd-sched[ray]'`.
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    ray: Option<String>,
    /// What the fleet completes when flooded, requests a second, where that is known: else it is
    /// measured before all runs.
    #[arg(skip)]
    capacity_requests_per_s: Option<f64>,
}

impl SimArgs {
    /// Plays all runs, on a cluster where that is asked for, and prints what came of them.
    pub(super) fn run(mut self, cluster: Option<&dyn Cluster>) -> Result<(), CommandError> {
        let as_json = self.json;
        let ran = match self.ray.take() {
            Some(address) => {
                let without = "--ray is of the llmd-sched that comes with the wheel, whose Python asks \
                               Ray: pip install 'llmd-sched[ray]'";
                let ran = cluster::play(self, cluster.ok_or(without)?, &address)?;
                if as_json {
                    ran.iter().for_each(Ran::print_json);
                }
                ran
            }
            None => {
                let plan = self.plan(1..=self.seeds)?;
                let runs = 0..self.runs();
                let jobs: Vec<_> = runs.map(|number| plan.job(self.run_of(number))).collect();
                runs::play(&jobs, &plan.world, plan.question, as_json)?
            }
        };
        if !as_json {
            print_table(&ran);
        }
        Ok(())
    }

    /// How many runs there are: each policy under each seed.
    fn runs(&self) -> usize {
        self.policies.len() * self.seeds as usize
    }

    /// Policy and seed of a run; those of a policy follow one another.
    fn run_of(&self, number: usize) -> (&str, u64) {
        let seeds = self.seeds as usize;
        (&self.policies[number / seeds], (number % seeds) as u64 + 1)
    }

    /// The same from any folder of this machine.
    fn start_from(&mut self, folder: &Path) {
        self.source.start_from(folder);
        self.config = self.config.take().map(|config| folder.join(config));
    }
}
