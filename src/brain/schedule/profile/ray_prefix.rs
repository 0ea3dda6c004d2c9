//! `ray-prefix`: Ray Serve's prefix affinity.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "ray-prefix",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("ray-prefix-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
