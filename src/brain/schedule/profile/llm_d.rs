//! `llm-d`: llm-d's default weights: queue 2, KV utilisation 2, prefix 3.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "llm-d",
    config: || ProfileConfig {
        scorers: vec![
            ScorerConfig::new("queue-scorer", 2.0),
            ScorerConfig::new("kv-cache-utilization-scorer", 2.0),
            ScorerConfig::new("prefix-cache-scorer", 3.0),
        ],
        ..ProfileConfig::default()
    },
};
