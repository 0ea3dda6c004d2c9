//! `llmd-sched moe plan`.

use super::ClusterArgs;
use crate::cli::CommandError;
use crate::expert_load::{read_load, read_map, write_map};
use clap::{Args, ValueEnum};
use llmd_brain::moe::{
    ExpertLoad, LayerMap, Migration, PlaceConfig, Policy, RebalanceConfig, Shape, Sharing,
    StepModel, in_order, place, rebalance, total_us,
};
use std::path::PathBuf;

/// Options of `llmd-sched moe plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Recorded load: .npy or SGLang's JSON.
    load: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Slots of all GPUs together; by default as few as hold the experts.
    #[arg(long)]
    slots: Option<usize>,
    /// Where experts may go.
    #[arg(long, value_enum, default_value_t = PolicyArg::Balanced)]
    policy: PolicyArg,
    /// The map there is (JSON with physical_to_logical_map), to be mended.
    #[arg(long)]
    old: Option<PathBuf>,
    /// Slots of a layer that mending may change.
    #[arg(long, default_value_t = 16, requires = "old")]
    max_moves_per_layer: usize,
    /// Ranks that are dead.
    #[arg(long, value_delimiter = ',')]
    dead: Vec<usize>,
    /// Steps until the next plan, within which moving weights must pay.
    #[arg(long, default_value_t = 3000.0)]
    steps: f64,
    /// Write the map here.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyArg {
    Balanced,
    Grouped,
    Near,
    Fastest,
}

impl PlanArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let load = read_load(&self.load)?;
        let shape = self.cluster.shape(&load, self.slots)?.with_dead(&self.dead)?;
        let model = self.cluster.model();
        let policy = match self.policy {
            PolicyArg::Balanced => Policy::Balanced,
            PolicyArg::Grouped => Policy::Grouped,
            PolicyArg::Near => Policy::Near,
            PolicyArg::Fastest => Policy::Fastest,
        };
        let (before, maps) = match &self.old {
            Some(path) => {
                let old = read_map(path)?;
                let max_moves_per_layer = self.max_moves_per_layer;
                let config = RebalanceConfig { max_moves_per_layer, ..RebalanceConfig::default() };
                let maps = rebalance(&load, &shape, &old, &config)?;
                (old.into_iter().map(|it| LayerMap::equal(it, &shape)).collect(), maps)
            }
            None => {
                let sharing =
                    if policy == Policy::Near { Sharing::Weighted } else { Sharing::Equal };
                let config =
                    PlaceConfig { policy, sharing, model: model.clone(), ..PlaceConfig::default() };
                (vec![in_order(&shape); load.layers()], place(&load, &shape, &config, None)?)
            }
        };
        self.print(&before, &maps, &load, &shape, &model)?;
        if let Some(path) = &self.out {
            write_map(path, &maps)?;
            println!("written to {}", path.display());
        }
        Ok(())
    }

    fn print(
        &self,
        before: &[LayerMap],
        after: &[LayerMap],
        load: &ExpertLoad,
        shape: &Shape,
        model: &StepModel,
    ) -> Result<(), CommandError> {
        println!("{:8} {:>9} {:>8} {:>13}", "", "fullest", "remote", "layers' ms");
        let mut times = [0.0; 2];
        for ((name, maps), us) in [("before", before), ("after", after)].into_iter().zip(&mut times)
        {
            let layers = load.layers() as f64;
            let pairs = || maps.iter().zip(load.iter());
            let balance = pairs().map(|(map, it)| map.balance(it, shape)).sum::<f64>() / layers;
            let remote = pairs().map(|(map, it)| map.remote_share(it, shape)).sum::<f64>() / layers;
            *us = total_us(maps, load, shape, model);
            println!("{name:8} {balance:9.4} {remote:8.3} {:13.2}", *us / 1e3);
        }
        let slots = |maps: &[LayerMap]| -> Vec<Vec<u32>> {
            maps.iter().map(|it| it.experts.clone()).collect()
        };
        let plan = Migration::plan(shape, &slots(before), &slots(after), model)?;
        let verdict = plan.pays(times[0] - times[1], self.steps, 1.0);
        println!(
            "\n{} slots change ({:.1} %), {:.2} GB for the GPU that gets most, {:.0} ms in {} batches",
            plan.moves(),
            plan.moves() as f64 * 100.0 / (shape.slots() * load.layers()) as f64,
            plan.bytes_per_gpu / 1e9,
            plan.ms,
            plan.batches.len()
        );
        if plan.lost > 0 {
            println!("{} experts are on no living GPU: load them from disk", plan.lost);
        }
        let word = if verdict.pays { "pays" } else { "does not pay" };
        println!(
            "moving {word} within {:.0} steps: paid for after {:.0}",
            self.steps, verdict.break_even_steps
        );
        Ok(())
    }
}
