//! `session-hash`: a session goes where its name hashes to.

use super::Builtin;
use crate::schedule::config::{ProfileConfig, ScorerConfig};

pub(super) const PROFILE: Builtin = Builtin {
    name: "session-hash",
    config: || ProfileConfig {
        scorers: vec![ScorerConfig::new("session-hash-scorer", 1.0)],
        ..ProfileConfig::default()
    },
};
