//! Other gateways in front of the same engines: this one tells them what it has in flight, and hears
//! the same from them, so that several of them do not send a burst to one engine.
//!
//! What is told and when is the router's ([`crate::router`]); here is where the others are. A name
//! that does not resolve changes nothing.

use super::config::{GatewayConfig, ms};
use super::{Gateway, GatewayError};
use crate::router::{LiveRouter, RouterConfig, RouterError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Weak};

/// Other gateways in front of the same engines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeersConfig {
    /// Where they hear what this gateway has in flight, `tcp://host:port`; without it nobody does.
    /// Whoever reaches it can read the loads of engines, and change nothing.
    pub listen: Option<String>,
    /// Where this gateway hears it of them, `tcp://host:port` each. It may be among them itself.
    pub addresses: Vec<String>,
    /// Names that stand for gateways, `host:port`: every address of the host is one.
    pub dns: Vec<String>,
    /// The least time between two messages, in milliseconds.
    pub interval_ms: u64,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self { listen: None, addresses: Vec::new(), dns: Vec::new(), interval_ms: 10 }
    }
}

/// The router's settings, with a name where peers have to know it by one: a new one for every run, as
/// what an earlier run had in flight is gone.
pub(super) fn named(config: &GatewayConfig) -> RouterConfig {
    let mut router = config.router.clone();
    if config.peers.listen.is_some() && router.fleet.router.is_empty() {
        router.fleet.router =
            format!("gateway-{:016x}", RandomState::new().build_hasher().finish());
    }
    router
}

/// Tells the others from now on, and hears those that are named.
pub(super) fn start(live: &Arc<LiveRouter>, config: &PeersConfig) -> Result<(), GatewayError> {
    if let Some(listen) = &config.listen {
        let address = live.tell_peers(listen, config.interval_ms as f64)?;
        tracing::info!(address, "tells its peers what it has in flight");
    }
    Ok(live.hear_peers(&config.addresses)?)
}

/// Follows the peers of the settings, as they are and as names resolve, until the gateway is gone.
pub(super) async fn follow(gateway: Weak<Gateway>) {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        let pause = {
            let Some(gateway) = gateway.upgrade() else { return };
            let settings = gateway.settings();
            let peers = &settings.config.peers;
            known.retain(|name, _| peers.dns.contains(name));
            for name in &peers.dns {
                match tokio::net::lookup_host(name.as_str()).await {
                    Ok(found) => {
                        let urls = found.map(|address| format!("tcp://{address}")).collect();
                        known.insert(name.clone(), urls);
                    }
                    Err(error) => tracing::warn!(%error, name, "a name of peers does not resolve"),
                }
            }
            let mut all = peers.addresses.clone();
            all.extend(known.values().flatten().cloned());
            match gateway.live.hear_peers(&all) {
                Ok(()) => {}
                Err(RouterError::Closed) => return,
                Err(error) => tracing::error!(%error, "peers cannot be heard"),
            }
            ms(settings.config.discovery.interval_ms)
        };
        tokio::time::sleep(pause).await;
    }
}
