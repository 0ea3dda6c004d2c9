//! Where the simulated requests come from, from the command line.

use super::CommandError;
use crate::telemetry::decision_log;
use clap::{Args, ValueEnum};
use llmd_brain::sim::{
    Agents, Chats, Lognormal, PrefixModel, TwoTenants, Workload, agent_sessions, azure, mooncake,
    prompt_sessions, toolmix,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Debug, Args, Serialize, Deserialize)]
pub(super) struct SourceArgs {
    /// The trace; none for generated requests.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// What it is written in, or what is generated.
    #[arg(long, value_enum)]
    format: Format,
    #[command(flatten)]
    generate: GenerateArgs,
}

/// Of requests that are made up, or whose prefixes are.
#[derive(Debug, Args, Serialize, Deserialize)]
struct GenerateArgs {
    /// Tokens a block, where no trace says it.
    #[arg(long, default_value_t = 16)]
    block_size: u32,
    /// Requests of generated chats.
    #[arg(long)]
    requests: Option<u32>,
    /// Coefficient of variation of the times between generated chats: 1 is Poisson, more is bursty.
    #[arg(long)]
    variation: Option<f64>,
    /// Generated agents in all.
    #[arg(long)]
    agents: Option<u32>,
    /// System prompts that prompts begin with.
    #[arg(long)]
    system_prompts: Option<u32>,
    /// Exponent of their popularity; 0 is uniform.
    #[arg(long)]
    zipf: Option<f64>,
    /// Their median length, tokens.
    #[arg(long)]
    system_tokens: Option<f64>,
    /// Chance that a request continues a conversation.
    #[arg(long)]
    multi_turn: Option<f64>,
    /// Times that the second of two tenants asks as often as the first, whose load is `--load`; 0 leaves
    /// the first alone.
    #[arg(long, default_value_t = 10.0)]
    flood: f64,
}

/// How a trace is written, or what is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
enum Format {
    /// Mooncake's: an open loop.
    Mooncake,
    /// The same, with tool calls made up between.
    Toolmix,
    /// Azure's, with prefixes made up: an open loop.
    Azure,
    /// kv-cache-tester's sessions: a closed loop.
    AgentSessions,
    /// LMCache's sessions: a closed loop.
    PromptSessions,
    /// What `Router(record=...)` wrote: an open loop.
    DecisionLog,
    /// Generated conversations: an open loop.
    Chats,
    /// Generated agents: a closed loop.
    Agents,
    /// Two tenants of short requests, one of whom floods, for `--horizon-s`: an open loop.
    TwoTenants,
}

/// A trace, read, or what takes its place.
#[derive(Debug)]
pub(super) struct Source<'a> {
    args: &'a SourceArgs,
    text: String,
    /// Of a decision log, which is no text.
    logged: Option<Workload>,
}

impl SourceArgs {
    /// Whether requests come when they come, answered or not.
    pub(super) fn is_open_loop(&self) -> bool {
        !matches!(self.format, Format::AgentSessions | Format::PromptSessions | Format::Agents)
    }

    /// How much later each request comes at most where nobody says: Mooncake's times are rounded.
    pub(super) fn jitter_ms(&self) -> f64 {
        if matches!(self.format, Format::Mooncake | Format::Toolmix) { 3_000.0 } else { 0.0 }
    }

    /// Two tenants, the first at so many requests a second; `None` where the format is another.
    pub(super) fn two_tenants(
        &self,
        quiet_per_s: f64,
        seconds: f64,
        seed: u64,
    ) -> Option<TwoTenants> {
        let flood = self.generate.flood;
        let asked = TwoTenants { quiet_per_s, flood, seconds, seed };
        (self.format == Format::TwoTenants).then_some(asked)
    }

    /// The trace's path as seen from anywhere on this machine.
    pub(super) fn start_from(&mut self, folder: &Path) {
        self.trace = self.trace.take().map(|trace| folder.join(trace));
    }

    /// Reads the trace.
    pub(super) fn open(&self) -> Result<Source<'_>, CommandError> {
        let mut source = Source { args: self, text: String::new(), logged: None };
        if matches!(self.format, Format::Chats | Format::Agents) {
            return Ok(source);
        }
        let Some(path) = &self.trace else {
            return Err("this format is of a trace: give one with --trace".into());
        };
        let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        if self.format == Format::DecisionLog {
            let read = decision_log::workload(path, None).map_err(|why| failed(&why))?;
            eprintln!("{read}");
            source.logged = Some(read.workload);
        } else {
            source.text = std::fs::read_to_string(path).map_err(|why| failed(&why))?;
        }
        Ok(source)
    }
}

impl Source<'_> {
    /// Whether the workload depends on the seed.
    pub(super) fn is_seeded(&self) -> bool {
        matches!(self.args.format, Format::Azure | Format::Chats | Format::Agents)
    }

    pub(super) fn workload(&self, seed: u64) -> Result<Workload, CommandError> {
        if let Some(logged) = &self.logged {
            return Ok(logged.clone());
        }
        let (text, made) = (&self.text, &self.args.generate);
        Ok(match self.args.format {
            Format::Mooncake => mooncake(text)?,
            Format::DecisionLog | Format::TwoTenants => Workload::new(made.block_size),
            Format::Toolmix => toolmix(&mooncake(text)?, 1),
            Format::Azure => {
                azure(text, &made.prefixes(PrefixModel::default()), made.block_size, seed)?
            }
            Format::AgentSessions => agent_sessions(text)?,
            Format::PromptSessions => prompt_sessions(text)?,
            Format::Chats => {
                let mut chats = Chats { block_size: made.block_size, ..Chats::default() };
                chats.prefixes = made.prefixes(chats.prefixes);
                chats.requests = made.requests.unwrap_or(chats.requests);
                chats.gaps.variation = made.variation.unwrap_or(chats.gaps.variation);
                chats.generate(seed)?
            }
            Format::Agents => {
                let mut agents = Agents { block_size: made.block_size, ..Agents::default() };
                agents.prefixes = made.prefixes(agents.prefixes);
                agents.sessions = made.agents.unwrap_or(agents.sessions);
                agents.generate(seed)?
            }
        })
    }
}

impl GenerateArgs {
    fn prefixes(&self, model: PrefixModel) -> PrefixModel {
        let system_tokens = Lognormal {
            median: self.system_tokens.unwrap_or(model.system_tokens.median),
            ..model.system_tokens
        };
        PrefixModel {
            system_prompts: self.system_prompts.unwrap_or(model.system_prompts),
            zipf: self.zipf.unwrap_or(model.zipf),
            multi_turn: self.multi_turn.unwrap_or(model.multi_turn),
            system_tokens,
            ..model
        }
    }
}
