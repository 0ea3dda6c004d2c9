//! The fleet that is simulated, from the command line.

use super::CommandError;
use clap::Args;
use llmd_brain::engine::EngineConfig;
use llmd_brain::predict::EngineProfile;
use llmd_brain::sim::{Outage, World};
use serde::{Deserialize, Serialize};

#[derive(Debug, Args, Serialize, Deserialize)]
pub(super) struct FleetArgs {
    /// Models and GPUs whose step times engines take: NAME for as many as --replicas says, NAME:COUNT
    /// for so many; several for a fleet of several kinds.
    #[arg(
        long = "profile",
        value_name = "NAME[:COUNT]",
        value_delimiter = ',',
        default_value = "qwen3-32b_h100_tp2"
    )]
    profiles: Vec<String>,
    /// Engines of a profile that says no count.
    #[arg(long, default_value_t = 8)]
    replicas: usize,
    /// Host tier behind each KV cache, as a multiple of it.
    #[arg(long, default_value_t = 0.0)]
    host_tier: f64,
    /// Every engine finds what any has computed, for nothing, and the routers know: the bound of what
    /// hits can bring.
    #[arg(long)]
    shared_cache: bool,
    /// Steps last a random factor longer, of mean 1, whose logarithm has this standard deviation.
    #[arg(long, default_value_t = 0.0)]
    step_jitter: f64,
    /// An engine (counted from 0) dies at a time in seconds, and comes back with an empty cache at
    /// another, or never: `1@600` or `1@600-900`.
    #[arg(long = "fail", value_name = "ENGINE@S[-S]", value_delimiter = ',', value_parser = failure)]
    failures: Vec<Outage>,
    /// An engine is not there before this time: `7@300`.
    #[arg(long = "join", value_name = "ENGINE@S", value_delimiter = ',', value_parser = join)]
    joins: Vec<Outage>,
    /// How long routers do not know that an engine died.
    #[arg(long, default_value_t = 1_000.0)]
    notice_ms: f64,
    /// How long a client waits after a broken connection before it asks again.
    #[arg(long, default_value_t = 100.0)]
    retry_ms: f64,
    /// Routers are not told which profile an engine has.
    #[arg(long)]
    unknown_profiles: bool,
    /// What a replica costs.
    #[arg(long, default_value_t = 0.0)]
    usd_per_replica_hour: f64,
}

impl FleetArgs {
    /// The engines, for prompts cut into blocks of `block_size`.
    pub(super) fn engines(&self, block_size: u32) -> Result<Vec<EngineConfig>, CommandError> {
        let mut engines = Vec::new();
        for kind in &self.profiles {
            let (name, count) = match kind.split_once(':') {
                None => (kind.as_str(), self.replicas),
                Some((name, count)) => (
                    name,
                    count.parse().map_err(|_| {
                        format!("--profile {kind}: {count:?} is no count: give NAME:COUNT")
                    })?,
                ),
            };
            let profile = *EngineProfile::named(name).ok_or_else(|| {
                let known: Vec<&str> = EngineProfile::names().collect();
                format!("profile {name:?} is unknown: use {}", known.join(", "))
            })?;
            let mut engine = EngineConfig::of_trace(profile, block_size);
            engine.host_blocks = (self.host_tier * f64::from(engine.kv_blocks)) as u32;
            engine.step_jitter = self.step_jitter;
            engines.extend(std::iter::repeat_n(engine, count));
        }
        Ok(engines)
    }

    /// What happens to them.
    pub(super) fn apply(&self, world: &mut World) {
        world.profiles_known = !self.unknown_profiles;
        world.shared_cache = self.shared_cache;
        world.outages = self.failures.iter().chain(&self.joins).copied().collect();
        world.outage_notice_ms = self.notice_ms;
        world.retry_ms = self.retry_ms;
        world.usd_per_replica_hour = self.usd_per_replica_hour;
    }
}

fn failure(text: &str) -> Result<Outage, String> {
    let (engine, times) = engine_at(text)?;
    match times.split_once('-') {
        None => Ok(Outage::failure(engine, ms(times)?)),
        Some((fails, returns)) => {
            let (fails_ms, returns_ms) = (ms(fails)?, ms(returns)?);
            if returns_ms < fails_ms {
                return Err("it comes back before it dies: give ENGINE@DIES-RETURNS".to_owned());
            }
            Ok(Outage { engine, fails_ms, returns_ms })
        }
    }
}

fn join(text: &str) -> Result<Outage, String> {
    let (engine, time) = engine_at(text)?;
    Ok(Outage::join(engine, ms(time)?))
}

fn engine_at(text: &str) -> Result<(u32, &str), String> {
    let parts = text.split_once('@').and_then(|(engine, at)| Some((engine.parse().ok()?, at)));
    parts.ok_or_else(|| "give the engine's number, @, and seconds".to_owned())
}

fn ms(seconds: &str) -> Result<f64, String> {
    match seconds.parse::<f64>() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds * 1e3),
        _ => Err(format!("{seconds:?} is no time in seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Outage, failure, join};

    #[test]
    fn outages_are_read_or_refused() {
        assert_eq!(failure("1@600"), Ok(Outage::failure(1, 600e3)));
        let back = Outage { engine: 3, fails_ms: 500.0, returns_ms: 2e3 };
        assert_eq!(failure("3@0.5-2"), Ok(back));
        assert_eq!(join("7@300"), Ok(Outage::join(7, 300e3)));
        for bad in ["", "1", "a@3", "1@x", "1@-3", "1@9-3", "1@1-2-3"] {
            assert!(failure(bad).is_err(), "{bad}");
        }
        assert!(join("1@3-4").is_err());
    }
}
