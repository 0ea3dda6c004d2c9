//! Other settings while it serves: all or none of them take effect, and no request notices.

use super::config::{EndpointConfig, GatewayConfig};
use super::fleet::FleetError;
use super::settings::Settings;
use super::{Gateway, GatewayError};
use crate::router::RouterError;
use std::sync::Arc;

/// Reads the settings anew.
pub type ConfigSource = Box<dyn Fn() -> Result<GatewayConfig, String> + Send + Sync>;

/// Why settings do not take effect; those in use stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// There is nothing to read.
    #[error(
        "the gateway was started without a configuration file: change it by the admin API, or start it with --config"
    )]
    NoSource,
    /// Something cannot change while it serves.
    #[error("{0} cannot change while the gateway serves: put it back, or start another gateway")]
    NeedsRestart(&'static str),
    /// They cannot be.
    #[error(transparent)]
    Settings(#[from] GatewayError),
    /// The engines cannot be.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The policy cannot be.
    #[error(transparent)]
    Router(#[from] RouterError),
}

impl Gateway {
    /// Reads the settings anew and serves by them.
    ///
    /// # Errors
    /// [`ReloadError`]; those in use stay.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let source = self.source.as_ref().ok_or(ReloadError::NoSource)?;
        self.apply(source().map_err(ReloadError::Unreadable)?)
    }

    /// Serves by other settings.
    ///
    /// # Errors
    /// [`ReloadError`]; those in use stay.
    pub fn apply(&self, config: GatewayConfig) -> Result<(), ReloadError> {
        let found = self.found.lock();
        let before = self.settings();
        check(&before.config, &config)?;
        let after = Settings::new(config, Some(&before))?;
        if after.config.router.schedule != before.config.router.schedule {
            self.live.switch_schedule(after.config.router.schedule.clone())?;
        }
        let engines = with(&after.config.endpoints, &found);
        if let Err(error) = self.fleet.set(&engines) {
            // The profile before was good: it is so again.
            self.live.switch_schedule(before.config.router.schedule.clone())?;
            return Err(error.into());
        }
        self.fleet.set_health(after.config.health.clone());
        self.live.http_client().set_tls(after.upstream_tls.clone());
        *self.settings.write() = Arc::new(after);
        Ok(())
    }

    /// Other engines were found than before.
    pub(super) fn found(&self, engines: Vec<EndpointConfig>) -> Result<(), FleetError> {
        let mut found = self.found.lock();
        if *found != engines {
            self.fleet.set(&with(&self.settings().config.endpoints, &engines))?;
            *found = engines;
        }
        Ok(())
    }
}

/// Engines that are named, and those that were found and are not.
fn with(named: &[EndpointConfig], found: &[EndpointConfig]) -> Vec<EndpointConfig> {
    let mut all = named.to_vec();
    for engine in found {
        if !all.iter().any(|it| it.given().address == engine.given().address) {
            all.push(engine.clone());
        }
    }
    all
}

fn check(before: &GatewayConfig, after: &GatewayConfig) -> Result<(), ReloadError> {
    let mut router = after.router.clone();
    router.schedule = before.router.schedule.clone();
    for (setting, is_same) in [
        ("listen", before.listen == after.listen),
        ("threads", before.threads == after.threads),
        ("tls (whether there is any)", before.tls.is_some() == after.tls.is_some()),
        ("admin", before.admin == after.admin),
        ("peers.listen", before.peers.listen == after.peers.listen),
        ("peers.interval_ms", before.peers.interval_ms == after.peers.interval_ms),
        ("router (but for router.schedule)", before.router == router),
        ("limits.max_connections", before.limits.max_connections == after.limits.max_connections),
    ] {
        if !is_same {
            return Err(ReloadError::NeedsRestart(setting));
        }
    }
    Ok(())
}
