//! Loads that other routers have on our endpoints.
//!
//! They arrive as state, not as deltas: each message holds all that its router has in flight, so a
//! lost one is healed by the next and a repeated one changes nothing. A router that falls silent
//! for `peer_ttl_ms` counts for nothing; its epoch and sequence stay known, so that a late message
//! does not raise it from the dead.

use super::Load;
use crate::{Slot, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bounds on one reported value, so that any number of peers sums without overflow.
const MAX_REQUESTS: u32 = 1 << 20;
const MAX_TOKENS: u64 = 1 << 40;
const MAX_PAIRS: u64 = 1 << 52;

/// The absolute load that another router has on each endpoint; endpoints that it does not name
/// have none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerTotals {
    /// Which router.
    pub router: String,
    /// Its incarnation: a higher one replaces all that came before.
    pub epoch: u64,
    /// Number within the epoch: one that is not higher than the last is late and is dropped.
    pub sequence: u64,
    /// What it has in flight.
    pub endpoints: Vec<PeerLoad>,
}

/// A peer's load on one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerLoad {
    /// Address of the endpoint: ids differ between routers.
    pub address: String,
    /// Its rank.
    #[serde(default)]
    pub dp_rank: u32,
    /// What is in flight there.
    pub load: Load,
}

/// What became of a peer's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerOutcome {
    /// It replaced what the peer had said before.
    Applied {
        /// Endpoints that it names and that are not in this fleet.
        unknown_endpoints: usize,
    },
    /// A newer one came before it.
    Late,
    /// It is our own.
    Echo,
}

/// One peer.
#[derive(Debug, Clone)]
struct Peer {
    epoch: u64,
    sequence: u64,
    heard_at: Time,
    /// In slot order, idle ones left out.
    loads: Vec<(Slot, Load)>,
}

/// All peers.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    by_router: BTreeMap<String, Peer>,
    limit: usize,
    ttl: Duration,
    sums: Vec<Load>,
    /// When any of them told last: what every refresh of a load asks.
    heard_at: Option<Time>,
}

/// The peer table is full of live peers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyPeers;

impl Peers {
    pub(super) fn new(limit: usize, ttl: Duration) -> Self {
        Self { by_router: BTreeMap::new(), limit, ttl, sums: Vec::new(), heard_at: None }
    }

    /// The sum of all peers' loads on a slot.
    pub(super) fn load(&self, slot: Slot) -> Load {
        self.sums.get(slot.index()).copied().unwrap_or_default()
    }

    /// Whether any peer tells what it has in flight.
    pub(super) fn is_told(&self, now: Time) -> bool {
        self.heard_at.is_some_and(|at| now < at + self.ttl)
    }

    /// Takes a message in; `loads` are its endpoints that are in the fleet. `touched` gets the
    /// slots whose sums changed, even where it fails; some more than once. `Ok(false)` is a late
    /// message.
    pub(super) fn apply(
        &mut self,
        now: Time,
        totals: &PeerTotals,
        loads: Vec<(Slot, Load)>,
        touched: &mut Vec<Slot>,
    ) -> Result<bool, TooManyPeers> {
        if let Some(peer) = self.by_router.get_mut(&totals.router) {
            if (totals.epoch, totals.sequence) <= (peer.epoch, peer.sequence) {
                return Ok(false);
            }
            peer.epoch = totals.epoch;
            peer.sequence = totals.sequence;
            peer.heard_at = now;
        } else {
            if self.by_router.len() >= self.limit {
                self.expire(now, touched);
                if !self.forget_one(now) {
                    return Err(TooManyPeers);
                }
            }
            let (epoch, sequence) = (totals.epoch, totals.sequence);
            let peer = Peer { epoch, sequence, heard_at: now, loads: Vec::new() };
            self.by_router.insert(totals.router.clone(), peer);
        }
        self.heard_at = self.heard_at.max(Some(now));
        let loads = normalised(loads);
        for &(slot, load) in &loads {
            if self.sums.len() <= slot.index() {
                self.sums.resize(slot.index() + 1, Load::default());
            }
            self.sums[slot.index()] += load;
            touched.push(slot);
        }
        if let Some(peer) = self.by_router.get_mut(&totals.router) {
            for (slot, load) in std::mem::replace(&mut peer.loads, loads) {
                self.sums[slot.index()] -= load;
                touched.push(slot);
            }
        }
        Ok(true)
    }

    /// Zeroes the peers that have been silent for too long; `touched` as for `apply`.
    pub(super) fn expire(&mut self, now: Time, touched: &mut Vec<Slot>) {
        for peer in self.by_router.values_mut() {
            if peer.heard_at + self.ttl <= now {
                for (slot, load) in peer.loads.drain(..) {
                    self.sums[slot.index()] -= load;
                    touched.push(slot);
                }
            }
        }
    }

    /// When the next peer that has load here falls silent for too long.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        let loaded = self.by_router.values().filter(|peer| !peer.loads.is_empty());
        loaded.map(|peer| peer.heard_at + self.ttl).min()
    }

    /// The slot's tenant left.
    pub(super) fn forget_slot(&mut self, slot: Slot) {
        for peer in self.by_router.values_mut() {
            peer.loads.retain(|&(other, _)| other != slot);
        }
        if let Some(sum) = self.sums.get_mut(slot.index()) {
            *sum = Load::default();
        }
    }

    /// Makes room by forgetting the peer that has been silent for longest, if it is past its time.
    fn forget_one(&mut self, now: Time) -> bool {
        let silent = |peer: &Peer| peer.heard_at + self.ttl <= now;
        let oldest = self
            .by_router
            .iter()
            .filter(|(_, peer)| silent(peer))
            .min_by_key(|(_, peer)| peer.heard_at)
            .map(|(router, _)| router.clone());
        oldest.is_some_and(|router| self.by_router.remove(&router).is_some())
    }
}

/// In slot order, without idle ones, values within bounds; of an endpoint that is named twice the
/// last mention counts.
fn normalised(mut loads: Vec<(Slot, Load)>) -> Vec<(Slot, Load)> {
    loads.sort_by_key(|&(slot, _)| slot);
    loads.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            *earlier = *later;
        }
        same
    });
    loads.retain_mut(|(_, load)| {
        *load = bounded(*load);
        *load != Load::default()
    });
    loads
}

fn bounded(load: Load) -> Load {
    Load {
        inflight_requests: load.inflight_requests.min(MAX_REQUESTS),
        decoding_requests: load.decoding_requests.min(MAX_REQUESTS),
        pending_prefill_tokens: load.pending_prefill_tokens.min(MAX_TOKENS),
        pending_prefill_pairs: load.pending_prefill_pairs.min(MAX_PAIRS),
        active_decode_tokens: load.active_decode_tokens.min(MAX_TOKENS),
        inflight_context_tokens: load.inflight_context_tokens.min(MAX_TOKENS),
    }
}
