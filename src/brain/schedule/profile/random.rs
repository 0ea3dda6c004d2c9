//! `random`: anybody.

use super::Builtin;
use crate::schedule::config::{PluginConfig, ProfileConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "random",
    config: || ProfileConfig {
        picker: PluginConfig::new("random-picker"),
        ..ProfileConfig::default()
    },
};
