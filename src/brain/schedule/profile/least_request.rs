//! `least-request`: the fewest requests in flight.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "least-request",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("active-request-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
