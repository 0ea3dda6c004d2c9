//! Whether balancing still does what it should: engines have been seen to stop it without a word.

use super::MoeError;
use super::error::within;
use serde::{Deserialize, Serialize};

/// Settings of a [`Watch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Steps after which a map should have been looked at again; engines' own intervals are 1,000 to
    /// 3,000.
    pub stale_after_steps: u64,
    /// What the fullest GPU may have above what was planned and what chance adds, as a share of the mean.
    pub slack: f64,
    /// Steps that readings are averaged over.
    pub window_steps: f64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { stale_after_steps: 6_000, slack: 0.05, window_steps: 200.0 }
    }
}

/// What a [`Watch`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Health {
    /// Nothing was planned or seen yet.
    Unknown,
    /// As planned.
    Good,
    /// No plan for so many steps: is the engine's balancing thread alive?
    Stale {
        /// Steps since the last plan, or since the first reading.
        steps: u64,
    },
    /// GPUs are less even than planned: the load has changed, or the map is not the planned one.
    Uneven {
        /// Fullest GPU over the mean, as planned.
        planned: f64,
        /// As it is.
        achieved: f64,
    },
}

/// Compares what was planned with what is.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    config: WatchConfig,
    since: Option<u64>,
    planned: Option<f64>,
    achieved: Option<f64>,
    read_at: u64,
}

impl Watch {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// Where a setting is out of range.
    pub fn new(config: WatchConfig) -> Result<Self, MoeError> {
        within("slack", config.slack, 0.0..=10.0, "0 to 10")?;
        within("window_steps", config.window_steps, 1.0..=1e9, "1 to 1e9")?;
        Ok(Self { config, since: None, planned: None, achieved: None, read_at: 0 })
    }

    /// A map went live that is planned to give the fullest GPU `balance` times the mean. What was
    /// read under the one before is forgotten.
    pub fn planned(&mut self, step: u64, balance: f64) {
        self.since = Some(step);
        self.planned = Some(balance);
        self.achieved = None;
        self.read_at = step;
    }

    /// A step gave the fullest GPU `balance` times the mean, of which chance makes `noise_floor`.
    pub fn read(&mut self, step: u64, balance: f64, noise_floor: f64) {
        self.since.get_or_insert(step);
        let steps = step.saturating_sub(self.read_at).max(1) as f64;
        let balance = balance - (noise_floor - 1.0).max(0.0);
        let kept = libm::exp(-steps / self.config.window_steps);
        self.achieved = Some(match self.achieved {
            Some(before) => before * kept + balance * (1.0 - kept),
            None => balance,
        });
        self.read_at = step;
    }

    /// What it comes to. Stale outweighs uneven: it is the likely cause.
    #[must_use]
    pub fn health(&self, step: u64) -> Health {
        let Some(since) = self.since else { return Health::Unknown };
        let steps = step.saturating_sub(since);
        if steps > self.config.stale_after_steps {
            return Health::Stale { steps };
        }
        match (self.planned, self.achieved) {
            (Some(planned), Some(achieved)) if achieved > planned + self.config.slack => {
                Health::Uneven { planned, achieved }
            }
            (Some(_), Some(_)) => Health::Good,
            _ => Health::Unknown,
        }
    }
}
