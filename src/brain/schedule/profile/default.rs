//! `default`: the least predicted cost.
//!
//! One scorer, [`predicted-cost-scorer`](crate::schedule::scorer), which weighs queue, cache and
//! decodes in one unit, so there are no weights to tune. An adapter that a request asks for narrows
//! the choice to those who serve it.

use super::Builtin;
use crate::schedule::config::{PluginConfig, ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "default",
    config: || ProfileConfig {
        filters: vec![PluginConfig::new("lora-residency-filter")],
        scorers: vec![ScorerConfig::new("predicted-cost-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
