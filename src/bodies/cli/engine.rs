//! `llmd-sched engine`.

use super::CommandError;
use crate::engine_server::{EngineServer, EngineServerConfig, HashForm, KvEventsConfig};
use crate::zmtp::Endpoint;
use clap::{Args, ValueEnum};
use llmd_brain::engine::EngineConfig;
use llmd_brain::predict::EngineProfile;
use llmd_brain::prompt::vllm::{DEFAULT_SEED, HashAlgorithm};
use std::io::Write;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Options of `llmd-sched engine`.
#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 for a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Name of the model; by default that of the profile.
    #[arg(long)]
    model: Option<String>,
    /// Name of an adapter to serve besides; may be repeated.
    #[arg(long = "lora", value_name = "NAME")]
    loras: Vec<String>,
    /// Model and GPU whose step times it takes.
    #[arg(long, default_value = "qwen3-32b_h100_tp2", value_parser = profile)]
    profile: &'static EngineProfile,
    /// How many times faster than the profile; 1 is real time.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Tokens a KV block.
    #[arg(long, default_value_t = 16)]
    block_size: u32,
    /// KV blocks of each rank; by default what the profile's GPU memory holds.
    #[arg(long)]
    kv_blocks: Option<u32>,
    /// Blocks of a host tier behind them.
    #[arg(long, default_value_t = 0)]
    host_blocks: u32,
    /// Most tokens in one step.
    #[arg(long, default_value_t = 8192)]
    max_batch_tokens: u32,
    /// Most requests that run at once.
    #[arg(long, default_value_t = 256)]
    max_sequences: u32,
    /// Requests that a rank takes before it answers 503.
    #[arg(long, default_value_t = 65_536)]
    max_queued_requests: u32,
    /// Longest prompt plus output; by default what the KV cache holds, up to 131,072.
    #[arg(long)]
    max_model_len: Option<u32>,
    /// Engines behind the port, chosen by `X-data-parallel-rank`.
    #[arg(long, default_value_t = 1)]
    data_parallel_size: u32,
    /// How blocks are named: sha256, sha256_cbor, xxhash or xxhash_cbor.
    #[arg(long, default_value_t = HashAlgorithm::default())]
    hash_algo: HashAlgorithm,
    /// Seed of the names, vLLM's PYTHONHASHSEED.
    #[arg(long, default_value = DEFAULT_SEED)]
    hash_seed: String,
    /// Where rank 0 publishes KV events; rank r does so r ports further. Port 0 for free ones.
    #[arg(long, value_name = "TCP", default_value = "tcp://127.0.0.1:0")]
    kv_events_endpoint: Endpoint,
    /// Where rank 0 replays them.
    #[arg(long, value_name = "TCP", default_value = "tcp://127.0.0.1:0")]
    kv_replay_endpoint: Endpoint,
    /// First frame of every event message; by default `kv@<host>:<port>@<model>`.
    #[arg(long, value_name = "TOPIC")]
    kv_events_topic: Option<String>,
    /// Event batches kept for replay.
    #[arg(long, default_value_t = 10_000)]
    kv_events_buffer: usize,
    /// How events name blocks.
    #[arg(long, value_enum, default_value_t = HashFormArg::Integer)]
    kv_events_hashes: HashFormArg,
    /// Publish no KV events.
    #[arg(long)]
    no_kv_events: bool,
    /// Seconds that requests in flight get once it is told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    shutdown_grace: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum HashFormArg {
    /// The last 8 bytes, as a number.
    Integer,
    /// All of them.
    Bytes,
}

fn profile(name: &str) -> Result<&'static EngineProfile, String> {
    EngineProfile::named(name).ok_or_else(|| {
        let known: Vec<&str> = EngineProfile::names().collect();
        format!("no such profile: use one of {}", known.join(", "))
    })
}

impl EngineArgs {
    /// Serves until a signal.
    pub(super) fn run(self) -> Result<(), CommandError> {
        let grace = Duration::from_secs(self.shutdown_grace);
        let config = self.config()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(config, grace))
    }

    fn config(self) -> Result<EngineServerConfig, CommandError> {
        let mut engine = EngineConfig::new(*self.profile);
        engine.block_size = self.block_size;
        engine.kv_blocks = match self.kv_blocks {
            Some(blocks) => blocks,
            None => {
                let blocks = self.profile.kv_tokens.checked_div(u64::from(self.block_size));
                u32::try_from(blocks.ok_or("--block-size must not be 0")?)?
            }
        };
        engine.host_blocks = self.host_blocks;
        engine.max_batch_tokens = self.max_batch_tokens;
        engine.max_sequences = self.max_sequences;
        let longest = EngineServerConfig::default_max_model_len(&engine);
        let kv_events = KvEventsConfig {
            endpoint: self.kv_events_endpoint,
            replay_endpoint: Some(self.kv_replay_endpoint),
            topic: self.kv_events_topic,
            buffer_steps: self.kv_events_buffer,
            hash_form: match self.kv_events_hashes {
                HashFormArg::Integer => HashForm::Integer,
                HashFormArg::Bytes => HashForm::Bytes,
            },
        };
        Ok(EngineServerConfig {
            host: self.host,
            port: self.port,
            model: self.model.unwrap_or_else(|| self.profile.name.to_owned()),
            loras: self.loras,
            engine,
            speed: self.speed,
            max_model_len: self.max_model_len.unwrap_or(longest),
            data_parallel_size: self.data_parallel_size,
            max_queued_requests: self.max_queued_requests,
            hash_algorithm: self.hash_algo,
            hash_seed: self.hash_seed,
            kv_events: (!self.no_kv_events).then_some(kv_events),
        })
    }
}

async fn serve(config: EngineServerConfig, grace: Duration) -> Result<(), CommandError> {
    // Before the ready line: whoever reads it may send a signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = EngineServer::start(config).await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", server.ready_message())?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::select! {
        () = server.shutdown(grace) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use crate::engine_server::EngineServerConfig;
    use clap::Parser;

    fn config(args: &[&str]) -> Result<EngineServerConfig, String> {
        let args = ["llmd-sched", "engine"].iter().chain(args);
        let command = Cli::try_parse_from(args).map_err(|e| e.to_string())?.command;
        let Command::Engine(args) = command else { unreachable!("it is an engine") };
        args.config().map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_follow_the_profile_unless_they_are_given() {
        let default = config(&[]).unwrap();
        assert_eq!(default.model, "qwen3-32b_h100_tp2");
        assert_eq!(default.engine.kv_blocks, 269_000 / 16);
        assert_eq!(default.max_model_len, 131_072);
        let small = config(&["--kv-blocks", "100", "--block-size", "32"]).unwrap();
        assert_eq!(small.engine.kv_blocks, 100);
        assert_eq!(small.max_model_len, 3_200);
        assert_eq!(config(&["--no-kv-events"]).unwrap().kv_events, None);
    }

    #[test]
    fn mistakes_say_what_would_be_right() {
        let message = config(&["--profile", "gpt-2"]).unwrap_err();
        assert!(message.contains("no such profile: use one of llama-3.1-8b_h100_tp1"), "{message}");
        let message = config(&["--hash-algo", "md5"]).unwrap_err();
        assert!(message.contains("use sha256, sha256_cbor, xxhash or xxhash_cbor"), "{message}");
        let message = config(&["--kv-events-endpoint", "ipc:///tmp/x"]).unwrap_err();
        assert!(message.contains("tcp://"), "{message}");
        assert!(config(&["--block-size", "0"]).is_err());
    }
}
