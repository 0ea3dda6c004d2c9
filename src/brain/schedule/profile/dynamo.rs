//! `dynamo`: NVIDIA Dynamo's rule.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "dynamo",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("dynamo-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
