//! The settings as they are used: what is made of a configuration once.

use super::budget::RetryBudget;
use super::config::GatewayConfig;
use super::keys::{BadKey, Keys};

/// What requests are served by, until a reload puts another in its place.
pub(super) struct Settings {
    pub(super) config: GatewayConfig,
    pub(super) keys: Keys,
    pub(super) budget: RetryBudget,
}

impl Settings {
    /// Those of a configuration; what has been used of allowances is taken over from `before`.
    pub(super) fn new(config: GatewayConfig, before: Option<&Self>) -> Result<Self, BadKey> {
        let keys = Keys::new(&config.auth, before.map(|it| &it.keys))?;
        let budget = RetryBudget::new(&config.retries);
        Ok(Self { config, keys, budget })
    }
}
