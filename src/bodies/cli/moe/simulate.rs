//! `llmd-sched moe simulate`.

use super::ClusterArgs;
use crate::cli::CommandError;
use crate::expert_load::read_load;
use clap::Args;
use llmd_brain::moe::PlaceConfig;
use llmd_brain::moe::sim::{StepWorld, Strategy, play_steps};
use std::path::PathBuf;

/// Options of `llmd-sched moe simulate`.
#[derive(Debug, Args)]
pub(super) struct SimulateArgs {
    /// Recorded load that steps begin with: .npy or SGLang's JSON.
    load: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Slots of all GPUs together; by default as few as hold the experts.
    #[arg(long)]
    slots: Option<usize>,
    /// Steps to play.
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Steps from one balancing to the next.
    #[arg(long, default_value_t = 50)]
    interval: usize,
    /// Sigma of the factor by which an expert's load drifts in that time.
    #[arg(long, default_value_t = 0.1)]
    drift: f64,
    /// Share of a migration that steps wait for.
    #[arg(long, default_value_t = 1.0)]
    stall: f64,
    /// Seed of all that is random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SimulateArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let load = read_load(&self.load)?;
        let shape = self.cluster.shape(&load, self.slots)?;
        let place = PlaceConfig { model: self.cluster.model(), ..PlaceConfig::default() };
        println!(
            "{:12} {:>12} {:>9} {:>8} {:>13} {:>10}",
            "", "layers' ms", "fullest", "moves", "migration ms", "total ms"
        );
        for (name, strategy) in [
            ("unbalanced", Strategy::Unbalanced),
            ("placed once", Strategy::Once),
            ("placed anew", Strategy::Anew),
            ("mended", Strategy::Mended),
        ] {
            let world = StepWorld {
                steps: self.steps,
                strategy,
                interval_steps: self.interval,
                drift: self.drift,
                stall: self.stall,
                place: place.clone(),
                seed: self.seed,
                ..StepWorld::default()
            };
            let played = play_steps(&load, &shape, &world)?;
            println!(
                "{name:12} {:12.2} {:9.3} {:8} {:13.1} {:10.0}",
                played.mean_us / 1e3,
                played.mean_balance,
                played.rebalanced.iter().map(|it| it.moves).sum::<usize>(),
                played.rebalanced.iter().map(|it| it.ms).sum::<f64>(),
                played.total_ms
            );
        }
        Ok(())
    }
}
