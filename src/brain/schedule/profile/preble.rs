//! `preble`: Preble's exploitation and exploration.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "preble",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("preble-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
