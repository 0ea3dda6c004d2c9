//! `lmetric`: LMETRIC: uncached tokens times batch.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "lmetric",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("lmetric-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
