//! `sglang`: SGLang's cache-aware rule.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "sglang",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("sglang-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
