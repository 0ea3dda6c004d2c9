//! `sticky-until-saturated`: llm-d's successor of its blend (August 2026): who holds 80 % of the
//! prompt, unless that costs 18 s of queueing; among those the least uncached tokens.

use super::Builtin;
use crate::schedule::config::{PluginConfig, ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "sticky-until-saturated",
    config: || ProfileConfig {
        filters: vec![PluginConfig::new("prefix-cache-affinity-filter")],
        scorers: vec![ScorerConfig::new("token-load-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
