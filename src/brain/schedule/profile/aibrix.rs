//! `aibrix`: AIBrix's prefix rule.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "aibrix",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("aibrix-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
