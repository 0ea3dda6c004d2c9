use super::kv_events::KvEventsConfig;
use llmd_brain::engine::{EngineConfig, EngineConfigError};
use llmd_brain::predict::EngineProfile;
use llmd_brain::prompt::vllm::{DEFAULT_SEED, HashAlgorithm};

/// An embedded engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineServerConfig {
    /// Address or name that the HTTP server listens on.
    pub host: String,
    /// Its port; 0 for a free one.
    pub port: u16,
    /// Name of the model.
    pub model: String,
    /// Names of adapters, each served as a model of its own.
    pub loras: Vec<String>,
    /// What the engine can hold and how fast it is; of each rank.
    pub engine: EngineConfig,
    /// How many times faster than the profile it runs; 1 is real time.
    pub speed: f64,
    /// Longest prompt plus output, in tokens.
    pub max_model_len: u32,
    /// Ranks, each an engine of its own behind the same port.
    pub data_parallel_size: u32,
    /// Sequences that a rank takes before it refuses more.
    pub max_queued_requests: u32,
    /// How blocks are named.
    pub hash_algorithm: HashAlgorithm,
    /// Seed of the names; vLLM's `PYTHONHASHSEED`.
    pub hash_seed: String,
    /// Where events go; `None` for nowhere.
    pub kv_events: Option<KvEventsConfig>,
}

/// Longest context that is assumed where none is given.
const DEFAULT_MAX_MODEL_LEN: u32 = 131_072;
/// Ranks of one server: more would be more sockets than anyone means.
const MAX_RANKS: u32 = 256;

impl EngineServerConfig {
    /// A server of `model` on a free port of the loopback interface, with KV events on free ports.
    #[must_use]
    pub fn new(model: impl Into<String>, profile: EngineProfile) -> Self {
        let engine = EngineConfig::new(profile);
        Self {
            host: "127.0.0.1".into(),
            port: 0,
            model: model.into(),
            loras: Vec::new(),
            max_model_len: Self::default_max_model_len(&engine),
            engine,
            speed: 1.0,
            data_parallel_size: 1,
            max_queued_requests: 65_536,
            hash_algorithm: HashAlgorithm::default(),
            hash_seed: DEFAULT_SEED.into(),
            kv_events: Some(KvEventsConfig::default()),
        }
    }

    /// The longest context that fits the KV cache, up to 131,072 tokens.
    #[must_use]
    pub fn default_max_model_len(engine: &EngineConfig) -> u32 {
        let fits = u32::try_from(engine.kv_tokens()).unwrap_or(u32::MAX);
        fits.min(DEFAULT_MAX_MODEL_LEN)
    }

    pub(super) fn validate(&self) -> Result<(), ServerConfigError> {
        let kv_tokens = self.engine.kv_tokens();
        if self.max_model_len < 2 || u64::from(self.max_model_len) > kv_tokens {
            return Err(ServerConfigError::MaxModelLen { asked: self.max_model_len, kv_tokens });
        }
        if !self.speed.is_finite() || self.speed <= 0.0 {
            return Err(ServerConfigError::Speed(self.speed));
        }
        if self.data_parallel_size == 0 || self.data_parallel_size > MAX_RANKS {
            return Err(ServerConfigError::Ranks(self.data_parallel_size));
        }
        let mut names: Vec<&str> = self.loras.iter().map(String::as_str).collect();
        names.push(&self.model);
        names.sort_unstable();
        if let Some(name) = names.iter().find(|name| name.is_empty()) {
            return Err(ServerConfigError::ModelName((*name).to_owned()));
        }
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ServerConfigError::ModelName(twice[0].to_owned()));
        }
        Ok(())
    }

    /// Number of the adapter of this name, from 1; 0 for the model itself.
    pub(super) fn model_number(&self, name: &str) -> Option<u32> {
        if name == self.model {
            return Some(0);
        }
        let position = self.loras.iter().position(|lora| lora == name)?;
        u32::try_from(position + 1).ok()
    }
}

/// Why there can be no such server.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ServerConfigError {
    /// A context that does not fit.
    #[error(
        "max_model_len {asked} is out of range: use 2 to the {kv_tokens} tokens that the KV cache \
         holds, or raise kv_blocks"
    )]
    MaxModelLen {
        /// What it was.
        asked: u32,
        /// What there is.
        kv_tokens: u64,
    },
    /// Not a factor.
    #[error("speed {0} is out of range: use a positive number, 1 for real time")]
    Speed(f64),
    /// Too few or many.
    #[error("data_parallel_size {0} is out of range: use 1 to {MAX_RANKS}")]
    Ranks(u32),
    /// A name that names nothing, or two things.
    #[error("model and adapter names must differ and not be empty: {0:?} is given twice or empty")]
    ModelName(String),
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] EngineConfigError),
}
