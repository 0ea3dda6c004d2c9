//! `mooncake`: Mooncake's least time to first token.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "mooncake",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("mooncake-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
