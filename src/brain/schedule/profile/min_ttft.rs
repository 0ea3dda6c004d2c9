//! `min-ttft`: the least predicted time to first token, and nothing else.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "min-ttft",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("min-ttft-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
