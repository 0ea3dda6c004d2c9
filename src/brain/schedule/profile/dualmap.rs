//! `dualmap`: DualMap: two homes for a prefix.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "dualmap",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("dualmap-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
