//! `round-robin`: everybody in turn.

use super::Builtin;
use crate::schedule::config::{PluginConfig, ProfileConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "round-robin",
    config: || ProfileConfig {
        picker: PluginConfig::new("round-robin-picker"),
        ..ProfileConfig::default()
    },
};
