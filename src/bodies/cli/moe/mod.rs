//! `llmd-sched moe`.

mod advise;
mod plan;
mod simulate;

use super::CommandError;
use clap::{Args, Subcommand, ValueEnum};
use llmd_brain::moe::{ExpertLoad, Phase, Shape, StepModel};

/// Experts of a wide expert-parallel engine, from a recorded load.
#[derive(Debug, Args)]
pub(super) struct MoeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say whether to balance experts, and with how many slots a GPU.
    Advise(advise::AdviseArgs),
    /// Place experts, or mend a map in few moves, and write what SGLang's --init-expert-location takes.
    Plan(plan::PlanArgs),
    /// Play steps under a drifting load, balanced in several ways.
    Simulate(simulate::SimulateArgs),
}

impl MoeArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self.command {
            Command::Advise(args) => args.run(),
            Command::Plan(args) => args.run(),
            Command::Simulate(args) => args.run(),
        }
    }
}

/// The GPUs, and what they do.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// GPUs of the expert-parallel group.
    #[arg(long)]
    gpus: usize,
    /// Nodes that they are on.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Expert groups that the router picks among first (DeepSeek V3: 8).
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// What steps do.
    #[arg(long, value_enum, default_value_t = PhaseArg::Decode)]
    phase: PhaseArg,
    /// Tokens of a GPU a step; by default 128 for decode, 4096 for prefill.
    #[arg(long)]
    tokens_per_gpu: Option<f64>,
    /// Experts of a token.
    #[arg(long, default_value_t = 8)]
    top_k: u32,
    /// Bytes of an expert's weights.
    #[arg(long, default_value_t = 44e6)]
    expert_bytes: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PhaseArg {
    Prefill,
    Decode,
}

impl ClusterArgs {
    fn shape(&self, load: &ExpertLoad, slots: Option<usize>) -> Result<Shape, CommandError> {
        let fewest = load.experts().div_ceil(self.gpus.max(1)) * self.gpus;
        let slots = slots.unwrap_or(fewest);
        Ok(Shape::new(load.experts(), slots, self.gpus, self.nodes)?.with_groups(self.groups)?)
    }

    fn model(&self) -> StepModel {
        let phase = match self.phase {
            PhaseArg::Prefill => Phase::Prefill,
            PhaseArg::Decode => Phase::Decode,
        };
        let usual = StepModel::of(phase);
        StepModel {
            tokens_per_gpu: self.tokens_per_gpu.unwrap_or(usual.tokens_per_gpu),
            top_k: self.top_k,
            expert_bytes: self.expert_bytes,
            ..usual
        }
    }
}
