//! `default`: the least predicted cost.
//!
//! One scorer decides, `predicted-cost-scorer`, which weighs queue, cache and decodes in one unit,
//! so there are no weights to tune. Between endpoints of almost equal cost, up to a tenth apart, the
//! idler GPU wins, where an exporter says how busy they are: what a foreign process does to an
//! engine of ours shows there first, and in the learned latencies once requests have suffered. An
//! adapter that a request asks for narrows the choice to those who serve it.

use super::Builtin;
use crate::schedule::config::{PluginConfig, ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "default",
    config: || ProfileConfig {
        filters: vec![PluginConfig::new("lora-residency-filter")],
        scorers: vec![
            ScorerConfig::new("predicted-cost-scorer", 1.0),
            ScorerConfig::new("gpu-utilization-scorer", 0.1),
        ],
        ..ProfileConfig::default()
    },
};
