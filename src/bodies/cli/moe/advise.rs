//! `llmd-sched moe advise`.

use super::ClusterArgs;
use crate::cli::CommandError;
use crate::expert_load::{read_load, read_vllm_log};
use clap::Args;
use llmd_brain::moe::{Advice, Shape, SlotsRow, advise, noise_floor};
use std::path::PathBuf;

/// Options of `llmd-sched moe advise`.
#[derive(Debug, Args)]
pub(super) struct AdviseArgs {
    /// Recorded load: .npy or SGLang's JSON.
    #[arg(required_unless_present = "vllm_log")]
    load: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Slots a GPU beyond the fewest to try.
    #[arg(long, default_value_t = 3)]
    extra_slots: usize,
    /// A vLLM log with balancedness lines, instead of or beside a load.
    #[arg(long)]
    vllm_log: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl AdviseArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        if let Some(path) = &self.vllm_log {
            let lines = read_vllm_log(path)?;
            let each = lines.iter().map(|it| it.max_tokens / it.avg_tokens);
            let balance = each.sum::<f64>() / lines.len() as f64;
            let gpus = self.cluster.gpus;
            let model = self.cluster.model();
            let shape = Shape::new(1, gpus, gpus, self.cluster.nodes)?;
            let floor = noise_floor(&shape, model.tokens_per_gpu, model.top_k);
            println!(
                "{}: {} lines, fullest GPU over the mean {balance:.3}; chance alone makes {floor:.3}",
                path.display(),
                lines.len()
            );
            let most = (1.0 - floor.min(balance) / balance) * 100.0;
            println!("balancing could save at most {most:.1} % of what experts take\n");
        }
        let Some(path) = &self.load else { return Ok(()) };
        let load = read_load(path)?;
        let shape = self.cluster.shape(&load, None)?;
        let advice = advise(&load, &shape, self.extra_slots, &self.cluster.model())?;
        if self.json {
            println!("{}", serde_json::to_string(&advice)?);
        } else {
            print(&advice);
        }
        Ok(())
    }
}

fn print(advice: &Advice) {
    println!(
        "{:12} {:>5} {:>9} {:>8} {:>9} {:>9} {:>11} {:>10}",
        "", "slots", "redundant", "GB more", "fullest", "weighted", "prefill ms", "decode ms"
    );
    let line = |name: &str, row: &SlotsRow| {
        println!(
            "{name:12} {:5} {:9} {:8.1} {:9.3} {:9.3} {:11.2} {:10.2}",
            row.slots_per_gpu,
            row.redundant,
            row.extra_gb_per_gpu,
            row.balance,
            row.balance_weighted,
            row.prefill_ms,
            row.decode_ms
        );
    };
    line("unbalanced", &advice.unbalanced);
    for (at, row) in advice.rows.iter().enumerate() {
        line(if at == advice.best { "> balanced" } else { "  balanced" }, row);
    }
    let saved = advice.saved * 100.0;
    let best = &advice.rows[advice.best];
    println!();
    if advice.enable {
        println!(
            "Balance experts, with {} redundant ones ({} slots a GPU): {saved:.1} % of what the expert \
             layers take.",
            best.redundant, best.slots_per_gpu
        );
    } else {
        println!(
            "Leave experts as they are: balancing saves {saved:.1} % of what their layers take."
        );
    }
    println!(
        "Chance alone makes the fullest GPU {:.3} times the mean in a decode step.",
        advice.decode_noise_floor
    );
}
