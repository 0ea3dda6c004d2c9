//! Loads that other routers have on our endpoints, and what they have prefilled there.
//!
//! They arrive as state, not as deltas: each message holds all that its router has in flight, so a
//! lost one is healed by the next and a repeated one changes nothing. A router that falls silent
//! for `peer_ttl_ms` counts for nothing; its epoch and sequence stay known, so that a late message
//! does not raise it from the dead.
//!
//! Prefills are told as totals that only grow, of which the rise from one message to the next counts. Where
//! there is none to rise from (a new peer or epoch, one that was silent, an endpoint that it did not name
//! before) or a total fell, counting begins with the message.

use super::{Load, PrefillHead};
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerLoad {
    /// Address of the endpoint: ids differ between routers.
    pub address: String,
    /// Its rank.
    #[serde(default)]
    pub dp_rank: u32,
    /// What is in flight there.
    pub load: Load,
    /// The oldest of its requests there that has no token yet.
    #[serde(default)]
    pub head: Option<PeerHead>,
    /// How long ago the oldest of them last had its first token, microseconds.
    #[serde(default)]
    pub head_done_us_ago: Option<u64>,
    /// What it has sent there to prefill, and what of it is done.
    #[serde(default)]
    pub prefills: PrefillTotals,
}

/// A prefill in progress as its router sees it, in ages: clocks differ between routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerHead {
    /// How long ago it was booked, microseconds: by this the engine's order is known.
    pub booked_us_ago: u64,
    /// For how long it has been the oldest, microseconds.
    pub since_us_ago: u64,
    /// Its uncached tokens.
    pub uncached_tokens: u32,
    /// Its token pairs.
    pub pairs: u64,
}

/// Prefills that a router sent to an endpoint, since that joined it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefillTotals {
    /// Requests booked.
    pub booked_requests: u64,
    /// Their uncached tokens.
    pub booked_tokens: u64,
    /// Their token pairs.
    pub booked_pairs: u64,
    /// Uncached tokens of those whose first token came.
    pub done_tokens: u64,
    /// Their token pairs.
    pub done_pairs: u64,
    /// Engine steps that they took.
    pub done_steps: u64,
}

impl PrefillTotals {
    fn of(counts: [u64; 6]) -> Self {
        let [booked_requests, booked_tokens, booked_pairs, done_tokens, done_pairs, done_steps] =
            counts;
        Self { booked_requests, booked_tokens, booked_pairs, done_tokens, done_pairs, done_steps }
    }

    fn counts(&self) -> [u64; 6] {
        [
            self.booked_requests,
            self.booked_tokens,
            self.booked_pairs,
            self.done_tokens,
            self.done_pairs,
            self.done_steps,
        ]
    }

    /// What came on top of `before`, within bounds; nothing where any of it fell.
    fn risen_from(&self, before: &Self) -> Self {
        const MOST: [u64; 6] =
            [MAX_REQUESTS as u64, MAX_TOKENS, MAX_PAIRS, MAX_TOKENS, MAX_PAIRS, MAX_TOKENS];
        let (new, old) = (self.counts(), before.counts());
        if new.iter().zip(&old).any(|(new, old)| new < old) {
            return Self::default();
        }
        Self::of(std::array::from_fn(|at| (new[at] - old[at]).min(MOST[at])))
    }
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
    /// In slot order.
    told: Vec<(Slot, Told)>,
    is_loaded: bool,
}

/// What a peer tells of an endpoint, by our clock.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) load: Load,
    pub(super) queue: Queue,
    pub(super) prefills: PrefillTotals,
}

impl Told {
    /// What a message says that came at `now`.
    pub(super) fn at(now: Time, it: &PeerLoad) -> Self {
        let ago = |us: u64| now.before(Duration::from_micros(us));
        let head = it.head.map(|head| QueueHead {
            booked_at: ago(head.booked_us_ago),
            prefill: PrefillHead {
                since: ago(head.since_us_ago),
                uncached_tokens: head.uncached_tokens,
                pairs: head.pairs.min(MAX_PAIRS),
            },
        });
        let queue = Queue { head, done_at: it.head_done_us_ago.map(ago) };
        Self { load: bounded(it.load), queue, prefills: it.prefills }
    }
}

/// Where an endpoint is in the prefills of one router or several.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queue {
    pub(super) head: Option<QueueHead>,
    /// When the last prefill was done.
    pub(super) done_at: Option<Time>,
}

/// The oldest request without a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueHead {
    pub(super) booked_at: Time,
    pub(super) prefill: PrefillHead,
}

impl Queue {
    /// The same of both: engines prefill in the order of arrival.
    pub(super) fn beside(self, other: Self) -> Self {
        let heads = [self.head, other.head].into_iter().flatten();
        Self {
            head: heads.min_by_key(|head| head.booked_at),
            done_at: self.done_at.max(other.done_at),
        }
    }

    /// What the engine prefills: not before the last prefill was done, whoever's that was.
    pub(super) fn prefill(self) -> Option<PrefillHead> {
        let head = self.head?.prefill;
        let since = self.done_at.map_or(head.since, |at| head.since.max(at));
        Some(PrefillHead { since, ..head })
    }
}

/// All peers.
#[derive(Debug, Clone)]
pub(super) struct Peers {
    by_router: BTreeMap<String, Peer>,
    limit: usize,
    ttl: Duration,
    /// Of each slot, over all peers: read at every refresh of a load.
    sums: Vec<Load>,
    queues: Vec<Queue>,
    /// When any of them told last: what every refresh of a load asks.
    heard_at: Option<Time>,
}

/// The peer table is full of live peers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyPeers;

impl Peers {
    pub(super) fn new(limit: usize, ttl: Duration) -> Self {
        Self {
            by_router: BTreeMap::new(),
            limit,
            ttl,
            sums: Vec::new(),
            queues: Vec::new(),
            heard_at: None,
        }
    }

    /// The sum of all peers' loads on a slot.
    pub(super) fn load(&self, slot: Slot) -> Load {
        self.sums.get(slot.index()).copied().unwrap_or_default()
    }

    /// Where all peers' prefills are on a slot.
    pub(super) fn queue(&self, slot: Slot) -> Queue {
        self.queues.get(slot.index()).copied().unwrap_or_default()
    }

    /// Whether any peer tells what it has in flight.
    pub(super) fn is_told(&self, now: Time) -> bool {
        self.heard_at.is_some_and(|at| now < at + self.ttl)
    }

    /// Takes a message in; `told` is what it says of endpoints that are in the fleet. `touched` gets the
    /// slots whose sums changed, even where it fails; some more than once. `risen` gets the slots where
    /// more was prefilled or sent to be. `Ok(false)` is a late message.
    pub(super) fn apply(
        &mut self,
        now: Time,
        totals: &PeerTotals,
        told: Vec<(Slot, Told)>,
        touched: &mut Vec<Slot>,
        risen: &mut Vec<(Slot, PrefillTotals)>,
    ) -> Result<bool, TooManyPeers> {
        let (epoch, sequence) = (totals.epoch, totals.sequence);
        let mut goes_on = false;
        if let Some(peer) = self.by_router.get_mut(&totals.router) {
            if (epoch, sequence) <= (peer.epoch, peer.sequence) {
                return Ok(false);
            }
            goes_on = epoch == peer.epoch && now < peer.heard_at + self.ttl;
            peer.epoch = epoch;
            peer.sequence = sequence;
            peer.heard_at = now;
        } else {
            if self.by_router.len() >= self.limit {
                self.expire(now, touched);
                if !self.forget_one(now) {
                    return Err(TooManyPeers);
                }
            }
            let peer = Peer { epoch, sequence, heard_at: now, told: Vec::new(), is_loaded: false };
            self.by_router.insert(totals.router.clone(), peer);
        }
        self.heard_at = self.heard_at.max(Some(now));
        let told = normalised(told);
        let first_touched = touched.len();
        for (slot, it) in &told {
            if self.sums.len() <= slot.index() {
                self.sums.resize(slot.index() + 1, Load::default());
                self.queues.resize(slot.index() + 1, Queue::default());
            }
            self.sums[slot.index()] += it.load;
            touched.push(*slot);
        }
        if let Some(peer) = self.by_router.get_mut(&totals.router) {
            peer.is_loaded = told.iter().any(|(_, it)| !it.load.is_idle());
            let before = std::mem::replace(&mut peer.told, told);
            for (slot, it) in &before {
                self.sums[slot.index()] -= it.load;
                touched.push(*slot);
            }
            let mut before = before.into_iter().filter(|_| goes_on).peekable();
            for (slot, it) in &peer.told {
                while before.next_if(|(earlier, _)| earlier < slot).is_some() {}
                if let Some((_, earlier)) = before.next_if(|(same, _)| same == slot) {
                    let rise = it.prefills.risen_from(&earlier.prefills);
                    if rise != PrefillTotals::default() {
                        risen.push((*slot, rise));
                    }
                }
            }
        }
        for slot in &touched[first_touched..] {
            self.find_queue(*slot);
        }
        Ok(true)
    }

    fn find_queue(&mut self, slot: Slot) {
        let of = |peer: &Peer| {
            let at = peer.told.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
            Some(peer.told[at].1.queue)
        };
        let queues = self.by_router.values().filter_map(of);
        self.queues[slot.index()] = queues.fold(Queue::default(), Queue::beside);
    }

    /// Zeroes the peers that have been silent for too long; `touched` as for `apply`.
    pub(super) fn expire(&mut self, now: Time, touched: &mut Vec<Slot>) {
        let first_touched = touched.len();
        for peer in self.by_router.values_mut() {
            if peer.heard_at + self.ttl <= now {
                peer.is_loaded = false;
                for (slot, it) in peer.told.drain(..) {
                    self.sums[slot.index()] -= it.load;
                    touched.push(slot);
                }
            }
        }
        for slot in &touched[first_touched..] {
            self.find_queue(*slot);
        }
    }

    /// When the next peer that has load here falls silent for too long.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        let loaded = self.by_router.values().filter(|peer| peer.is_loaded);
        loaded.map(|peer| peer.heard_at + self.ttl).min()
    }

    /// The slot's tenant left.
    pub(super) fn forget_slot(&mut self, slot: Slot) {
        for peer in self.by_router.values_mut() {
            peer.told.retain(|&(other, _)| other != slot);
            peer.is_loaded = peer.told.iter().any(|(_, it)| !it.load.is_idle());
        }
        if let Some(sum) = self.sums.get_mut(slot.index()) {
            *sum = Load::default();
            self.queues[slot.index()] = Queue::default();
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

/// In slot order; of an endpoint that is named twice the last mention counts.
fn normalised(mut told: Vec<(Slot, Told)>) -> Vec<(Slot, Told)> {
    told.sort_by_key(|&(slot, _)| slot);
    told.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            *earlier = *later;
        }
        same
    });
    told
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
