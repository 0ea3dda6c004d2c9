//! `llmd-sched policy`.

use super::CommandError;
use crate::stdio;
use clap::Args;
use llmd_brain::brain::BrainConfig;
use llmd_brain::schedule::ProfileChoice;

/// Options of `llmd-sched policy`.
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// Talk over standard input and output; there is no other way yet.
    #[arg(long, required = true)]
    stdio: bool,
    /// Name of the policy.
    #[arg(long, default_value = "default")]
    policy: String,
    /// Seed of its random choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl PolicyArgs {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut config = BrainConfig { seed: self.seed, ..BrainConfig::default() };
        config.schedule.profile = ProfileChoice::Named(self.policy);
        Ok(stdio::serve(&config, std::io::stdin().lock(), std::io::stdout().lock())?)
    }
}
