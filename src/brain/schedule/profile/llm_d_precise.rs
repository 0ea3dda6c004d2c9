//! `llm-d-precise`: the weights of llm-d's guide to precise prefix caching: prefix 2, KV
//! utilisation 1, queue 1. The prefix is as precise as the endpoints' KV events.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "llm-d-precise",
    config: || ProfileConfig {
        scorers: vec![
            ScorerConfig::new("prefix-cache-scorer", 2.0),
            ScorerConfig::new("kv-cache-utilization-scorer", 1.0),
            ScorerConfig::new("queue-scorer", 1.0),
        ],
        ..ProfileConfig::default()
    },
};
