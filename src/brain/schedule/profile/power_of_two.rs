//! `power-of-two`: the less loaded of two taken by chance.

use super::Builtin;
use crate::schedule::config::{PluginConfig, ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "power-of-two",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("active-request-scorer", 1.0)],
        picker: PluginConfig::new("power-of-two-picker"),
        ..ProfileConfig::default()
    },
};
