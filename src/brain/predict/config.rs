//! How latency models are learned.

use super::EngineProfile;
use serde::{Deserialize, Serialize};

/// How latency models are learned and when they speak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PredictConfig {
    /// Observations before a learned model speaks.
    pub min_observations: u32,
    /// Observations after which one counts for 1/e of a new one.
    pub memory_observations: u32,
    /// Engine profile that speaks for endpoints of which nothing better is known; none if empty.
    pub prior_profile: String,
    /// Over how long prefills are averaged that slow the decodes beside them, in milliseconds.
    pub prefill_window_ms: u64,
}

impl Default for PredictConfig {
    fn default() -> Self {
        Self {
            min_observations: 16,
            memory_observations: 256,
            prior_profile: String::new(),
            prefill_window_ms: 10_000,
        }
    }
}

/// Why a configuration of the predictor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// No such profile.
    #[error("predict: prior_profile is {name:?}: leave it empty, or give one of {}", names())]
    UnknownProfile {
        /// What was given.
        name: String,
    },
    /// A value that cannot work.
    #[error("predict: {field} is {value}: give it {low} to {high}")]
    Config {
        /// Which.
        field: &'static str,
        /// What it was.
        value: u64,
        /// Least that works.
        low: u64,
        /// Most that works.
        high: u64,
    },
}

fn names() -> String {
    EngineProfile::names().collect::<Vec<_>>().join(", ")
}

impl PredictConfig {
    /// Whether the values can work; the error names the first that cannot.
    ///
    /// # Errors
    /// [`PredictError`].
    pub fn validate(&self) -> Result<(), PredictError> {
        let within = |field, value: u64, low, high| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(PredictError::Config { field, value, low, high })
            }
        };
        within("min_observations", self.min_observations.into(), 1, 1_000_000)?;
        within("memory_observations", self.memory_observations.into(), 2, 1_000_000)?;
        within("prefill_window_ms", self.prefill_window_ms, 1, 3_600_000)?;
        let name = &self.prior_profile;
        if !name.is_empty() && EngineProfile::named(name).is_none() {
            return Err(PredictError::UnknownProfile { name: name.clone() });
        }
        Ok(())
    }
}
