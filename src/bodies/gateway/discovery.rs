//! Engines that are found: in a file that somebody else writes, and behind names.
//!
//! A file that cannot be read and a name that does not resolve change nothing: an outage of what
//! tells about engines is none of the engines.

use super::Gateway;
use super::config::{EndpointConfig, GatewayConfig, ms};
use crate::router::{from_value, read_file};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Weak;
use std::time::SystemTime;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    endpoints: Vec<EndpointConfig>,
}

/// What was found where, the last time that it could be read.
#[derive(Default)]
struct Known {
    file: Vec<EndpointConfig>,
    /// When the file was changed.
    changed: Option<SystemTime>,
    names: BTreeMap<String, Vec<EndpointConfig>>,
}

/// Looks for engines until the gateway is gone.
pub(super) async fn look(gateway: Weak<Gateway>) {
    let mut known = Known::default();
    loop {
        let pause = {
            let Some(gateway) = gateway.upgrade() else { return };
            let settings = gateway.settings();
            known.look(&settings.config).await;
            if let Err(error) = gateway.found(known.all()) {
                tracing::error!(%error, "engines that were found cannot be");
            }
            ms(settings.config.discovery.interval_ms)
        };
        tokio::time::sleep(pause).await;
    }
}

impl Known {
    async fn look(&mut self, config: &GatewayConfig) {
        match &config.discovery.file {
            None => self.file.clear(),
            Some(path) => self.read(path),
        }
        let names = &config.discovery.dns;
        self.names.retain(|name, _| names.contains(name));
        for name in names {
            let (scheme, host) = match name.strip_prefix("https://") {
                Some(host) => ("https", host),
                None => ("http", name.strip_prefix("http://").unwrap_or(name)),
            };
            match tokio::net::lookup_host(host).await {
                Ok(addresses) => {
                    let mut urls: Vec<String> =
                        addresses.map(|address| format!("{scheme}://{address}")).collect();
                    urls.sort();
                    urls.dedup();
                    let engines = urls.into_iter().map(EndpointConfig::new).collect();
                    self.names.insert(name.clone(), engines);
                }
                Err(error) => tracing::warn!(%error, name, "a name of engines does not resolve"),
            }
        }
    }

    fn read(&mut self, path: &Path) {
        let changed = std::fs::metadata(path).and_then(|it| it.modified()).ok();
        if changed.is_some() && changed == self.changed {
            return;
        }
        match read_file(path).and_then(from_value::<Listed>) {
            Ok(listed) => (self.file, self.changed) = (listed.endpoints, changed),
            Err(error) => tracing::warn!(%error, "the list of engines cannot be read"),
        }
    }

    fn all(&self) -> Vec<EndpointConfig> {
        self.file.iter().chain(self.names.values().flatten()).cloned().collect()
    }
}
