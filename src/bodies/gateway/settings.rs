//! The settings as they are used: what is made of a configuration once.

use super::GatewayError;
use super::budget::Budget;
use super::config::GatewayConfig;
use super::keys::Keys;
use super::tokens::Tokenizers;
use crate::tls::{ClientTls, ServerTls};

/// What requests are served by, until a reload puts another in its place.
pub(super) struct Settings {
    pub(super) config: GatewayConfig,
    pub(super) keys: Keys,
    pub(super) budget: Budget,
    pub(super) hedges: Budget,
    pub(super) tokenizers: Tokenizers,
    /// What clients are shown.
    pub(super) tls: Option<ServerTls>,
    pub(super) admin_tls: Option<ServerTls>,
    /// How engines are believed.
    pub(super) upstream_tls: ClientTls,
}

impl Settings {
    /// Those of a configuration; what has been used of allowances, and tokenizers that stay, are taken
    /// over from `before`.
    pub(super) fn new(config: GatewayConfig, before: Option<&Self>) -> Result<Self, GatewayError> {
        let keys = Keys::new(&config.auth, before.map(|it| &it.keys))?;
        let budget = Budget::new(config.retries.budget_percent, config.retries.budget_burst);
        let hedges = Budget::new(config.hedge.budget_percent, config.hedge.budget_burst);
        let tokenizers = Tokenizers::load(&config.tokenizers, before.map(|it| &it.tokenizers))?;
        // The files are read each time: their contents change, not their names.
        let tls = config.tls.as_ref().map(|it| ServerTls::new("tls", it)).transpose()?;
        let admin_tls =
            config.admin.tls.as_ref().map(|it| ServerTls::new("admin.tls", it)).transpose()?;
        let upstream_tls = ClientTls::new("upstream_tls", &config.upstream_tls)?;
        Ok(Self { config, keys, budget, hedges, tokenizers, tls, admin_tls, upstream_tls })
    }
}
