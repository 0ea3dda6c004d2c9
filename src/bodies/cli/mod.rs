//! One command tree, for the `llmd-sched` binary and for the wheel's console script. One file a
//! command: its options, and what it does with them.

mod engine;
mod moe;
mod policy;
mod serve;
mod sim;
mod top;

pub use sim::{Cluster, errand_run};

use clap::{Parser, Subcommand};
use std::ffi::OsString;

/// The scheduling brain of distributed LLM inference.
#[derive(Debug, Parser)]
#[command(name = "llmd-sched", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an embedded engine: a vLLM without model and GPU.
    ///
    /// Once it serves, one line of JSON on standard output says where: `url`, `port`, `model`, and
    /// under `kv_events`, for each rank, `endpoint`, `replay_endpoint` and `topic`. SIGTERM or
    /// SIGINT ends it after what is in flight; a second one ends it at once.
    Engine(Box<engine::EngineArgs>),
    /// Place the experts of a wide expert-parallel engine.
    Moe(moe::MoeArgs),
    /// Drive the brain by lines of JSON at virtual time.
    ///
    /// In: `init` (n, block, kv_tokens, engine, slo_ttft_ms, slo_tpot_ms, hold), `stored` and
    /// `removed` (w, ids), `arrive` (id, t, len, ids, sess, workers), `first` and `done` (id, w, t),
    /// `tick` (t), `end`; each an object with its name under `ev`. Out: `{"w":2}` or `{"hold":true}`
    /// to an arrival; where init had hold, `{"go":[[id,w],..]}` to first, done and tick.
    Policy(policy::PolicyArgs),
    /// Serve OpenAI's API in front of engines.
    ///
    /// Once it serves, one line of JSON on standard output says where: `url`, and `admin`. SIGHUP has
    /// the configuration read again. SIGTERM or SIGINT ends it after what is in flight; a second one
    /// ends it at once.
    Serve(serve::ServeArgs),
    /// Simulate a fleet under policies on a trace, at virtual time.
    Sim(Box<sim::SimArgs>),
    /// Show a gateway: its figures, its engines and its last decisions.
    Top(top::TopArgs),
}

/// Runs the command that `args`, of which the first is the program's name, asks for, until it is
/// done or the process is told to stop, and returns the exit code: 2 is a mistake in `args`, 1 any
/// other failure. `cluster` is who plays simulations on other machines, where there is one to ask.
pub fn run(args: impl Iterator<Item = OsString>, cluster: Option<&dyn Cluster>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" too, on standard output and with code 0.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    log_to_stderr();
    let outcome = match cli.command {
        Command::Engine(args) => args.run(),
        Command::Moe(args) => args.run(),
        Command::Policy(args) => args.run(),
        Command::Serve(args) => args.run(),
        Command::Sim(args) => args.run(cluster),
        Command::Top(args) => args.run(),
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("llmd-sched: {error}");
            1
        }
    }
}

/// What a command fails with: a message for whoever typed it.
type CommandError = Box<dyn std::error::Error>;

/// `RUST_LOG` says what is logged; by default warnings. A program that has set up its own log
/// keeps it.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
