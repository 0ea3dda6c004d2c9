use crate::predict::EngineProfile;
use crate::rng::Rng;

/// What an engine can hold and how fast it is.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineConfig {
    /// Step times.
    pub profile: EngineProfile,
    /// Tokens a block.
    pub block_size: u32,
    /// Blocks of the KV cache.
    pub kv_blocks: u32,
    /// Most tokens in one step.
    pub max_batch_tokens: u32,
    /// Most requests that run at once.
    pub max_sequences: u32,
    /// Whether full blocks that hold output are cached, as a real engine does. Public traces carry
    /// no ids for output until it returns in a later prompt; comparisons on them say `false`.
    pub cache_output: bool,
    /// Blocks of a host tier behind the KV cache; 0 for none. A block evicted from the KV cache
    /// goes there, and is copied back when a prompt matches it.
    pub host_blocks: u32,
    /// What loading from the host tier adds to a step, for each token, milliseconds.
    pub host_ms_per_token: f64,
    /// How much steps differ from what the profile says: each lasts a factor longer whose logarithm
    /// has this standard deviation and whose mean is 1; 0 for none.
    pub step_jitter: f64,
    /// What those factors follow from, with the number of the step.
    pub jitter_seed: u64,
}

/// Bytes a millisecond that a host link moves to the GPU: PCIe 5.0 x16 as achieved.
const HOST_LINK_BYTES_PER_MS: f64 = 40e6;

impl EngineConfig {
    /// vLLM's defaults around a profile: 16 tokens a block, 8,192 tokens and 256 requests a step,
    /// the whole KV cache of the profile, no host tier.
    ///
    /// ```
    /// use llmd_brain::{engine::EngineConfig, predict::EngineProfile};
    ///
    /// let config = EngineConfig::new(*EngineProfile::named("qwen3-32b_h100_tp2").unwrap());
    /// assert_eq!(config.kv_blocks, 269_000 / 16);
    /// ```
    #[must_use]
    pub fn new(profile: EngineProfile) -> Self {
        let block_size = 16;
        Self {
            profile,
            block_size,
            kv_blocks: u32::try_from(profile.kv_tokens / u64::from(block_size)).unwrap_or(u32::MAX),
            max_batch_tokens: 8_192,
            max_sequences: 256,
            cache_output: true,
            host_blocks: 0,
            host_ms_per_token: profile.kv_bytes_per_token as f64 / HOST_LINK_BYTES_PER_MS,
            step_jitter: 0.0,
            jitter_seed: 0,
        }
    }

    /// By how much step number `step` lasts longer than the profile says.
    #[inline]
    pub(super) fn jitter(&self, step: u64) -> f64 {
        if self.step_jitter == 0.0 { 1.0 } else { self.drawn_jitter(step) }
    }

    fn drawn_jitter(&self, step: u64) -> f64 {
        // By the step's number, and not from one generator: a run that is cut draws no more than its
        // steps.
        let mut rng = Rng::new(Rng::new(self.jitter_seed).next_u64() ^ step);
        let deviation = self.step_jitter;
        libm::exp(deviation * rng.next_normal() - deviation * deviation / 2.0)
    }

    /// Most tokens that one request can ever occupy.
    #[must_use]
    pub fn kv_tokens(&self) -> u64 {
        u64::from(self.kv_blocks) * u64::from(self.block_size)
    }

    /// One for a public trace whose blocks have so many tokens: as [`new`](Self::new), but output is
    /// not cached, because traces have no ids for it until it comes back in a prompt.
    #[must_use]
    pub fn of_trace(profile: EngineProfile, block_size: u32) -> Self {
        let kv_blocks = profile.kv_tokens / u64::from(block_size.max(1));
        Self {
            block_size,
            kv_blocks: u32::try_from(kv_blocks).unwrap_or(u32::MAX),
            cache_output: false,
            ..Self::new(profile)
        }
    }

    pub(super) fn validate(&self) -> Result<(), EngineConfigError> {
        for (name, value, max) in [
            ("block_size", self.block_size, crate::prompt::MAX_BLOCK_TOKENS),
            ("kv_blocks", self.kv_blocks, MAX_BLOCKS),
            ("max_batch_tokens", self.max_batch_tokens, u32::MAX),
            ("max_sequences", self.max_sequences, 1 << 20),
        ] {
            if value == 0 || value > max {
                return Err(EngineConfigError::OutOfRange { name, value, min: 1, max });
            }
        }
        if self.host_blocks > MAX_BLOCKS {
            let (value, max) = (self.host_blocks, MAX_BLOCKS);
            return Err(EngineConfigError::OutOfRange { name: "host_blocks", value, min: 0, max });
        }
        if !self.host_ms_per_token.is_finite() || self.host_ms_per_token < 0.0 {
            return Err(EngineConfigError::HostCost(self.host_ms_per_token));
        }
        if !(0.0..=MOST_JITTER).contains(&self.step_jitter) {
            return Err(EngineConfigError::Jitter(self.step_jitter));
        }
        Ok(())
    }
}

/// Largest spread of a step's duration: one step in six lasts more than 1.6 times the median.
const MOST_JITTER: f64 = 0.5;

/// Most blocks of a tier: 2^28 blocks of bookkeeping take about 10 GiB.
const MAX_BLOCKS: u32 = 1 << 28;

/// Why there can be no such engine.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineConfigError {
    /// A size that cannot work.
    #[error("{name} = {value} is out of range: use {min} to {max}")]
    OutOfRange {
        /// Which.
        name: &'static str,
        /// What it was.
        value: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// A cost that is no time.
    #[error(
        "host_ms_per_token = {0} is not a time: use a finite number of milliseconds, 0 or more"
    )]
    HostCost(f64),
    /// A spread that is none.
    #[error("step_jitter = {0} is out of range: use 0 to {MOST_JITTER}")]
    Jitter(f64),
}
