//! The engines: who is there, under which names, and who is left alone.
//!
//! An engine that cannot be asked what it is when the gateway starts joins when it can. One that
//! fails is ejected for a while, unless too many are already: with every engine doubtful, all are
//! used, since an answer that may fail is better than a certain 503.

use super::asked::{Names, Served};
use super::config::{EndpointConfig, HealthConfig, ms};
use super::upstream::{BadAddress, Upstream};
use super::vigil::Standing;
use crate::http::HttpClient;
use crate::router::{LiveRouter, MemberRef, RouterError};
use llmd_brain::brain::EndpointChange;
use llmd_brain::fleet::EndpointSpec;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How long an engine may take to say what it is.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to ask an engine what it is.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at who is due to be tried again.
const LOOK: Duration = Duration::from_millis(100);

/// The engines of a gateway.
pub(super) struct Fleet {
    live: Arc<LiveRouter>,
    health: RwLock<HealthConfig>,
    members: RwLock<HashMap<String, Member>>,
    names: RwLock<Names>,
    /// Times that an engine was ejected.
    pub(super) ejections: AtomicU64,
    /// Times that one was not, because too many were.
    pub(super) ejections_spared: AtomicU64,
}

struct Member {
    config: EndpointConfig,
    upstream: Arc<Upstream>,
    /// Joins it, then asks how it is.
    care: AbortHandle,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.care.abort();
    }
}

impl Fleet {
    pub(super) fn new(live: Arc<LiveRouter>, health: HealthConfig) -> Arc<Self> {
        Arc::new(Self {
            live,
            health: RwLock::new(health),
            members: RwLock::default(),
            names: RwLock::default(),
            ejections: AtomicU64::new(0),
            ejections_spared: AtomicU64::new(0),
        })
    }

    /// Makes the fleet that of `wanted`: who is new joins, who is gone gets no more requests and
    /// leaves when it is idle, and who is there with other properties joins anew.
    ///
    /// # Errors
    /// [`RouterError`] where an address cannot be; nothing is changed then.
    pub(super) fn set(self: &Arc<Self>, wanted: &[EndpointConfig]) -> Result<(), FleetError> {
        let mut fresh = Vec::new();
        for config in wanted {
            let address = config.given().address;
            let is_there =
                self.members.read().get(&address).is_some_and(|member| member.config == *config);
            if !is_there {
                fresh.push((config.clone(), Arc::new(Upstream::new(&address)?)));
            }
        }
        let runtime = self.live.runtime()?;
        let kept: Vec<String> = wanted.iter().map(|config| config.given().address).collect();
        let gone: Vec<Member> = {
            let mut members = self.members.write();
            let leaving = |address: &String| {
                !kept.contains(address) || fresh.iter().any(|(_, it)| it.address == *address)
            };
            let leaving: Vec<String> =
                members.keys().filter(|address| leaving(address)).cloned().collect();
            leaving.iter().filter_map(|address| members.remove(address)).collect()
        };
        for member in gone {
            let change = match kept.contains(&member.upstream.address) {
                true => None,
                false => Some(EndpointChange::Drain),
            };
            self.end(&member.upstream.address, change);
        }
        for (config, upstream) in fresh {
            let care = Arc::clone(self).care(config.clone(), Arc::clone(&upstream));
            let care = runtime.spawn(care).abort_handle();
            let address = upstream.address.clone();
            self.members.write().insert(address, Member { config, upstream, care });
        }
        self.refresh_names();
        Ok(())
    }

    /// Takes the ranks of an address out of the fleet: drained, or at once.
    fn end(&self, address: &str, change: Option<EndpointChange>) {
        for id in self.ranks(address) {
            let told = match change {
                Some(change) => self.live.change_endpoint(&id, change),
                None => self.live.remove_endpoint(&id),
            };
            if let Err(error) = told {
                tracing::debug!(%error, address, "an engine left meanwhile");
            }
        }
    }

    fn ranks(&self, address: &str) -> Vec<MemberRef> {
        let endpoints = self.live.endpoints();
        let of_address = endpoints.iter().filter(|view| view.spec.address == address);
        of_address.map(|view| MemberRef::Id(view.id)).collect()
    }

    fn refresh_names(&self) {
        let names = Names::of(&self.live.endpoints());
        *self.names.write() = names;
    }

    /// Other rules of who is left alone.
    pub(super) fn set_health(&self, health: HealthConfig) {
        *self.health.write() = health;
    }

    /// An operator's order for an engine. Returns whether there is one.
    pub(super) fn order(&self, address: &str, change: EndpointChange) -> bool {
        let is_there = !self.ranks(address).is_empty();
        self.change(address, change);
        is_there
    }

    /// What the name of a model stands for; `None` where nobody serves it.
    pub(super) fn find(&self, name: &str) -> Option<Served> {
        let known = self.names.read().known(name);
        // Somebody may have joined a moment ago.
        known.or_else(|| {
            self.refresh_names();
            self.names.read().find(name)
        })
    }

    /// The engine behind an endpoint. It may have left the configuration while it is drained: then
    /// it is not there, and the request goes elsewhere.
    pub(super) fn upstream(&self, spec: &EndpointSpec) -> Option<Arc<Upstream>> {
        self.members.read().get(&spec.address).map(|member| Arc::clone(&member.upstream))
    }

    /// Everybody, in the order of their addresses.
    pub(super) fn upstreams(&self) -> Vec<Arc<Upstream>> {
        let members = self.members.read();
        let mut all: Vec<_> = members.values().map(|member| Arc::clone(&member.upstream)).collect();
        all.sort_by(|a, b| a.address.cmp(&b.address));
        all
    }

    /// Why the first engine that has not joined could not.
    pub(super) fn obstacle(&self) -> Option<String> {
        self.upstreams().iter().find_map(|upstream| upstream.obstacle.lock().clone())
    }

    /// An engine failed at a request or a probe.
    pub(super) fn failed(&self, upstream: &Upstream) {
        upstream.counts.failures.fetch_add(1, Relaxed);
        let health = self.health.read().clone();
        if !upstream.vigil.failed(&health) {
            return;
        }
        {
            // Two ejections at once must not both be the last that is allowed.
            let members = self.members.write();
            let is_ejected =
                |member: &&Member| member.upstream.vigil.standing() == Standing::Ejected;
            let ejected = members.values().filter(is_ejected).count();
            let most = members.len() * health.max_ejected_percent as usize / 100;
            if ejected >= most {
                self.ejections_spared.fetch_add(1, Relaxed);
                return;
            }
            let alone = upstream.vigil.eject(Instant::now(), &health);
            tracing::warn!(engine = %upstream.address, alone_ms = alone.as_millis(), "ejected");
        }
        self.ejections.fetch_add(1, Relaxed);
        self.change(&upstream.address, EndpointChange::Unreachable);
    }

    fn change(&self, address: &str, change: EndpointChange) {
        self.end(address, Some(change));
    }

    /// Joins an engine, then asks how it is for as long as it is a member.
    async fn care(self: Arc<Self>, config: EndpointConfig, upstream: Arc<Upstream>) {
        let mut pause = FIRST_PAUSE;
        let given = config.given();
        loop {
            let (fleet, given) = (Arc::clone(&self), given.clone());
            let joined = tokio::task::spawn_blocking(move || {
                fleet.live.discover(&given.address, &given, DESCRIBE_TIMEOUT)
            });
            match joined.await {
                Ok(Ok(_)) => break,
                Ok(Err(RouterError::Closed)) | Err(_) => return,
                Ok(Err(error)) => {
                    tracing::warn!(engine = %upstream.address, %error, "cannot join yet");
                    *upstream.obstacle.lock() = Some(error.to_string());
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        *upstream.obstacle.lock() = None;
        self.refresh_names();
        self.watch(&upstream).await;
    }

    /// Ejected engines are asked even where nobody else is: nothing else would bring them back.
    async fn watch(&self, upstream: &Upstream) {
        let client = self.live.http_client();
        let mut last = Instant::now();
        loop {
            let interval = ms(self.health.read().interval_ms);
            let pause = if interval.is_zero() { LOOK } else { LOOK.min(interval) };
            tokio::time::sleep(pause).await;
            let now = Instant::now();
            if upstream.vigil.is_due(now) {
                self.ask_again(&client, upstream).await;
            } else if !interval.is_zero()
                && now >= last + interval
                && upstream.vigil.standing() != Standing::Ejected
            {
                last = now;
                if !self.is_well(&client, upstream).await {
                    self.failed(upstream);
                }
            }
        }
    }

    async fn ask_again(&self, client: &HttpClient, upstream: &Upstream) {
        if self.is_well(client, upstream).await {
            upstream.vigil.try_again();
            tracing::info!(engine = %upstream.address, "tried again");
            self.change(&upstream.address, EndpointChange::Reachable);
        } else {
            let health = self.health.read().clone();
            upstream.vigil.eject(Instant::now(), &health);
        }
    }

    async fn is_well(&self, client: &HttpClient, upstream: &Upstream) -> bool {
        let url = format!("{}/health", upstream.address);
        let timeout = ms(self.health.read().timeout_ms);
        client.get(&url, 64 << 10, timeout).await.is_ok()
    }
}

/// Why a fleet cannot be.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// An address cannot be.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The router refused.
    #[error(transparent)]
    Router(#[from] RouterError),
}
