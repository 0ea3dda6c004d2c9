//! `prefix`: whoever holds most of the prompt, whatever its load.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "prefix",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("prefix-cache-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
