//! All settings of a brain, as one struct that every body reads by one path.

use crate::fleet::FleetConfig;
use crate::flow::FlowConfig;
use crate::index::IndexConfig;
use crate::predict::PredictConfig;
use crate::schedule::ScheduleConfig;
use serde::{Deserialize, Serialize};

/// Settings of a brain. Every part has good defaults; unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrainConfig {
    /// Tokens a block key stands for. Best the engines' own block size, or a divisor of it.
    pub block_size: u32,
    /// Seeds every random choice: equal seeds and inputs give equal decisions.
    pub seed: u64,
    /// Bounds of the KV index.
    pub index: IndexConfig,
    /// Bounds and ages of the fleet.
    pub fleet: FleetConfig,
    /// Latency models.
    pub predict: PredictConfig,
    /// Filters, scorers and pickers.
    pub schedule: ScheduleConfig,
    /// Holding of requests that have no place yet.
    pub flow: FlowConfig,
}

impl Default for BrainConfig {
    fn default() -> Self {
        Self {
            block_size: 16,
            seed: 0,
            index: IndexConfig::default(),
            fleet: FleetConfig::default(),
            predict: PredictConfig::default(),
            schedule: ScheduleConfig::default(),
            flow: FlowConfig::default(),
        }
    }
}
