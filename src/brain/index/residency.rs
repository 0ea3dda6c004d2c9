//! The facade: who holds what, behind `&self`.
//!
//! Locks, and the only order in which one is taken while another is held:
//! - roster (reader-writer) before a shard of [`Holders`]: a match;
//! - the turn to expire before an endpoint's mutex;
//! - an endpoint's mutex before a shard: everything that changes what it holds.
//!
//! Never the roster together with an endpoint's mutex, never two endpoints, never two shards.
//! So nothing can deadlock, and a match waits for a shard or for the roster's short writes only.
//!
//! No ghosts: an endpoint that leaves is first marked gone and emptied under its mutex, and only
//! then is its slot vacated. Whoever still holds the old [`Endpoint`] finds it gone, and a new
//! tenant of the slot cannot join before its bits are clear.

use super::beliefs::Beliefs;
use super::expiry::{Expiry, Turn};
use super::holders::Holders;
use super::view::{EngineView, KeySpace, Publisher};
use super::{ApplyOutcome, IndexConfig, IndexError, KvEventBatch, MatchSource, Matches};
use crate::prompt::Chain;
use crate::{BlockKey, EndpointId, Slot, Tier, Time};
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How the residency of an endpoint is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// From its events; our bookings bridge the time until they arrive.
    Events,
    /// From our bookings only.
    Approximate {
        /// Blocks of the router's size that it can hold; 0 where unknown
        /// ([`IndexConfig::approximate_blocks`] then).
        capacity_blocks: u64,
    },
}

/// Why a block counts as held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// The engine's events say so; the fastest tier on which it lies.
    Exact(Tier),
    /// We booked it and the events have not spoken yet, or never will.
    Believed,
}

/// Blocks of one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCounts {
    /// Distinct blocks that events say are held, by the fastest tier of each.
    pub exact: [u64; Tier::COUNT],
    /// Distinct blocks that only bookings vouch for.
    pub believed: u64,
}

/// What the index did and holds, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStats {
    /// Distinct block keys held anywhere.
    pub keys: u64,
    /// What applying events did since the start, endpoints that left included.
    pub applied: ApplyOutcome,
    /// One row an endpoint, in slot order.
    pub endpoints: Vec<EndpointStats>,
}

/// What one endpoint's events did, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStats {
    /// Which.
    pub endpoint: EndpointId,
    /// How its residency is known.
    pub source: Source,
    /// What applying its events did since it joined.
    pub applied: ApplyOutcome,
    /// What it holds.
    pub blocks: BlockCounts,
}

/// One tenant of a slot.
#[derive(Debug)]
struct Endpoint {
    id: EndpointId,
    /// Whether it sends no events, and whether its matches are upper bounds: written under the
    /// mutex, read by matches without it.
    approximate: AtomicBool,
    upper_bound: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Set when it leaves: whoever comes late finds nothing to change.
    gone: bool,
    source: Source,
    view: EngineView,
    beliefs: Beliefs,
    applied: ApplyOutcome,
}

impl State {
    /// The view, and where its changes are made known.
    fn publish<'a>(
        &'a mut self,
        holders: &'a Holders,
        slot: Slot,
    ) -> (&'a mut EngineView, Publisher<'a>) {
        (&mut self.view, Publisher { holders, slot, beliefs: &mut self.beliefs })
    }

    fn block_counts(&self) -> BlockCounts {
        BlockCounts { exact: self.view.held(), believed: self.beliefs.len() as u64 }
    }
}

impl Endpoint {
    fn match_source(&self, exact: bool) -> MatchSource {
        if self.approximate.load(Ordering::Relaxed) {
            MatchSource::Approximate
        } else if self.upper_bound.load(Ordering::Relaxed) {
            MatchSource::UpperBound
        } else if exact {
            MatchSource::Exact
        } else {
            MatchSource::Speculative
        }
    }
}

/// Who has which slot.
#[derive(Debug, Default)]
struct Roster {
    tenants: Vec<Option<Arc<Endpoint>>>,
    /// Generation of each slot's tenant, 0 for none.
    generations: Vec<u32>,
}

/// Who holds which block. See the [module](super) for what it guarantees.
///
/// ```
/// use llmd_brain::index::{Held, IndexConfig, Matches, Residency, Source};
/// use llmd_brain::{BlockKey, EndpointId, Slot, Time};
///
/// let index = Residency::new(IndexConfig::default(), 16)?;
/// let endpoint = EndpointId { slot: Slot(0), generation: 1 };
/// index.join(endpoint, "model", Source::Approximate { capacity_blocks: 1000 });
/// index.book(Time::ZERO, endpoint, &[BlockKey(1), BlockKey(2)]);
///
/// let mut matches = Matches::new();
/// index.matches(Time::ZERO, &[BlockKey(1), BlockKey(2), BlockKey(3)], &mut matches);
/// assert_eq!(matches.depth_blocks, [2]);
/// assert_eq!(index.holds(endpoint, BlockKey(2)), Some(Held::Believed));
/// # Ok::<(), llmd_brain::index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct Residency {
    config: IndexConfig,
    block_size: u32,
    roster: RwLock<Roster>,
    holders: Holders,
    expiry: Expiry,
    /// Events of endpoints that left, and those that came for nobody.
    departed: Mutex<ApplyOutcome>,
}

impl Residency {
    /// An empty index for blocks of `block_size` tokens, the router's.
    ///
    /// # Errors
    /// A bound of the config, or the block size, that cannot be.
    pub fn new(config: IndexConfig, block_size: u32) -> Result<Self, IndexError> {
        config.check()?;
        Chain::new("", None, block_size)?;
        Ok(Self {
            config,
            block_size,
            roster: RwLock::default(),
            holders: Holders::new(),
            expiry: Expiry::new(),
            departed: Mutex::default(),
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &IndexConfig {
        &self.config
    }

    /// The endpoint starts with nothing. `model` roots its key chain, as it does for requests.
    ///
    /// A previous tenant of the slot leaves; an id older than the tenant's is ignored. Slots are
    /// dense: memory grows with the highest.
    pub fn join(&self, endpoint: EndpointId, model: &str, source: Source) {
        let space = KeySpace { model: model.to_owned(), block_size: self.block_size };
        let max_blocks = self.config.max_blocks_per_endpoint;
        let joined = Arc::new(Endpoint {
            id: endpoint,
            approximate: AtomicBool::new(matches!(source, Source::Approximate { .. })),
            upper_bound: AtomicBool::new(false),
            state: Mutex::new(State {
                gone: false,
                source,
                view: EngineView::new(space, max_blocks),
                beliefs: Beliefs::new(self.capacity(source)),
                applied: ApplyOutcome::default(),
            }),
        });
        let slot = endpoint.slot.index();
        loop {
            let previous = {
                let mut roster = self.roster.write();
                if roster.tenants.len() <= slot {
                    roster.tenants.resize_with(slot + 1, || None);
                    roster.generations.resize(slot + 1, 0);
                }
                match &roster.tenants[slot] {
                    Some(tenant) if tenant.id.generation > endpoint.generation => return,
                    Some(tenant) => tenant.id,
                    None => {
                        roster.tenants[slot] = Some(joined);
                        roster.generations[slot] = endpoint.generation;
                        return;
                    }
                }
            };
            self.leave(previous);
        }
    }

    /// Forgets everything about the endpoint. Idempotent; a stale id is ignored.
    pub fn leave(&self, endpoint: EndpointId) {
        let Some(tenant) = self.tenant(endpoint) else { return };
        {
            let mut state = tenant.state.lock();
            if !state.gone {
                state.gone = true;
                self.forget_all(&mut state, endpoint.slot);
                *self.departed.lock() += state.applied;
            }
        }
        let mut roster = self.roster.write();
        let slot = endpoint.slot.index();
        if roster.tenants[slot].as_ref().is_some_and(|now| Arc::ptr_eq(now, &tenant)) {
            roster.tenants[slot] = None;
            roster.generations[slot] = 0;
        }
    }

    /// Applies an engine's events, in order. An endpoint that was approximate is from then on
    /// known by its events.
    pub fn apply(&self, now: Time, endpoint: EndpointId, batch: &KvEventBatch) -> ApplyOutcome {
        let mut tally = ApplyOutcome::default();
        let applied = self.with_state(endpoint, |tenant, state| {
            if matches!(state.source, Source::Approximate { .. }) && !batch.events.is_empty() {
                self.switch(now, tenant, state, Source::Events);
            }
            let (view, mut out) = state.publish(&self.holders, endpoint.slot);
            for event in &batch.events {
                view.apply(event, &mut out, &mut tally);
            }
            tenant.upper_bound.store(view.has_unindexed_groups(), Ordering::Relaxed);
            state.applied += tally;
        });
        if applied.is_none() {
            tally.stale_events = batch.events.len() as u64;
            *self.departed.lock() += tally;
        }
        tally
    }

    /// What the endpoint holds is no longer known: it restarted, or events were lost for good.
    pub fn clear(&self, endpoint: EndpointId) {
        self.with_state(endpoint, |tenant, state| {
            self.forget_all(state, endpoint.slot);
            tenant.upper_bound.store(false, Ordering::Relaxed);
        });
    }

    /// The residency of the endpoint is known otherwise from now on. What the other source said
    /// is kept only as far as the new one can vouch for it: bookings live on as long as the new
    /// source lets them, events are forgotten by an approximate endpoint.
    pub fn set_source(&self, now: Time, endpoint: EndpointId, source: Source) {
        self.with_state(endpoint, |tenant, state| self.switch(now, tenant, state, source));
    }

    /// The capacity of an endpoint without events became known, in blocks of the router's size
    /// (0: unknown again). Does nothing for one that sends events.
    pub fn set_capacity(&self, endpoint: EndpointId, capacity_blocks: u64) {
        self.with_state(endpoint, |_, state| {
            if matches!(state.source, Source::Approximate { .. }) {
                state.source = Source::Approximate { capacity_blocks };
                state.beliefs.set_capacity(self.capacity(state.source));
                state.publish(&self.holders, endpoint.slot).1.disbelieve_excess();
            }
        });
    }

    /// A request with these blocks was sent to the endpoint, which is believed to hold them from
    /// now on: until its events say otherwise or the time to live is over.
    ///
    /// Believed blocks are bounded for each endpoint; the least recently booked goes first, and of
    /// one prompt its last block, as engines evict.
    pub fn book(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]) {
        let first_expiry = self.with_state(endpoint, |_, state| {
            let expiry = now + self.time_to_live(state.source);
            let (view, mut out) = state.publish(&self.holders, endpoint.slot);
            for &key in keys.iter().rev() {
                if view.fastest(key).is_none() {
                    out.believe(key, expiry);
                }
            }
            state.beliefs.first_expiry()
        });
        self.expiry.note(first_expiry.flatten());
    }

    /// For each endpoint the longest run of `keys` from the first that it holds, on which tiers,
    /// and what that rests on. Allocates only while `out` grows to the number of slots.
    ///
    /// Beliefs past their time to live at `now` do not count, whether or not [`Self::expire`] was
    /// called (but for an endpoint whose events are being applied at this very moment: a match
    /// waits for no writer).
    pub fn matches(&self, now: Time, keys: &[BlockKey], out: &mut Matches) {
        if self.expiry.is_due(now)
            && let Some(turn) = self.expiry.try_turn()
        {
            self.expire_in(turn, now, |endpoint| endpoint.state.try_lock());
        }
        let roster = self.roster.read();
        let slots = roster.tenants.len();
        out.reset(slots, u32::try_from(keys.len()).unwrap_or(u32::MAX));
        out.generation.copy_from_slice(&roster.generations);
        let (depths, sources) = (&mut out.depth_blocks, &mut out.source);
        let lower = &mut out.lower_tier_blocks;
        self.holders.walk(
            keys,
            slots,
            |slot, depth, exact| {
                if let Some(tenant) = roster.tenants.get(slot).and_then(Option::as_ref) {
                    depths[slot] = depth;
                    sources[slot] = tenant.match_source(exact);
                }
            },
            |slot, tier| {
                if let Some(blocks) = lower.get_mut(slot) {
                    blocks[tier] += 1;
                }
            },
        );
    }

    /// Forgets bookings that are past their time to live.
    pub fn expire(&self, now: Time) {
        if self.expiry.is_due(now) {
            self.expire_in(self.expiry.turn(), now, |endpoint| Some(endpoint.state.lock()));
        }
    }

    /// When [`Self::expire`] may have something to do next: never later than the first expiry, and
    /// earlier where that booking was confirmed or renewed.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiry.next()
    }

    /// Whether, and why, the endpoint counts as holding the block.
    #[must_use]
    pub fn holds(&self, endpoint: EndpointId, key: BlockKey) -> Option<Held> {
        self.with_state(endpoint, |_, state| match state.view.fastest(key) {
            Some(tier) => Some(Held::Exact(tier)),
            None => state.beliefs.contains(key).then_some(Held::Believed),
        })?
    }

    /// How many blocks the endpoint holds; `None` for a stale id.
    #[must_use]
    pub fn blocks(&self, endpoint: EndpointId) -> Option<BlockCounts> {
        self.with_state(endpoint, |_, state| state.block_counts())
    }

    /// Bytes that the index keeps allocated, estimated from the capacity of its tables.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let endpoints = self.endpoints().into_iter().map(|endpoint| {
            let state = endpoint.state.lock();
            state.view.memory_bytes() + state.beliefs.memory_bytes()
        });
        endpoints.sum::<usize>() + self.holders.memory_bytes()
    }

    /// Totals for metrics.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        let mut applied = *self.departed.lock();
        let rows = self.endpoints().into_iter().filter_map(|endpoint| {
            let state = endpoint.state.lock();
            (!state.gone).then(|| EndpointStats {
                endpoint: endpoint.id,
                source: state.source,
                applied: state.applied,
                blocks: state.block_counts(),
            })
        });
        let endpoints: Vec<_> = rows.inspect(|row| applied += row.applied).collect();
        IndexStats { keys: self.holders.len() as u64, applied, endpoints }
    }

    /// Names that the endpoint's view keeps, those included that only others keep known.
    #[cfg(test)]
    pub(super) fn known_names(&self, endpoint: EndpointId) -> usize {
        self.with_state(endpoint, |_, state| state.view.known_names()).unwrap_or_default()
    }

    /// The part of [`Self::memory_bytes`] that is not any one endpoint's.
    #[cfg(test)]
    pub(super) fn shared_memory_bytes(&self) -> usize {
        self.holders.memory_bytes()
    }

    /// The endpoint with this very id.
    fn tenant(&self, endpoint: EndpointId) -> Option<Arc<Endpoint>> {
        let roster = self.roster.read();
        let tenant = roster.tenants.get(endpoint.slot.index())?.as_ref()?;
        (tenant.id == endpoint).then(|| Arc::clone(tenant))
    }

    /// All endpoints, in slot order.
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.roster.read().tenants.iter().flatten().cloned().collect()
    }

    /// Runs `change` under the endpoint's mutex; `None` for a stale id.
    fn with_state<R>(
        &self,
        endpoint: EndpointId,
        change: impl FnOnce(&Endpoint, &mut State) -> R,
    ) -> Option<R> {
        let tenant = self.tenant(endpoint)?;
        let mut state = tenant.state.lock();
        (!state.gone).then(|| change(&tenant, &mut state))
    }

    /// Expires the beliefs of every endpoint whose mutex `lock` yields.
    fn expire_in(
        &self,
        turn: Turn<'_>,
        now: Time,
        lock: impl for<'a> Fn(&'a Endpoint) -> Option<MutexGuard<'a, State>>,
    ) {
        let mut next = None;
        for slot in 0.. {
            let tenant = match self.roster.read().tenants.get(slot) {
                None => break,
                Some(None) => continue,
                Some(Some(tenant)) => Arc::clone(tenant),
            };
            let first = match lock(&tenant) {
                None => Some(now), // Busy: still due.
                Some(mut state) => {
                    state.publish(&self.holders, tenant.id.slot).1.disbelieve_expired(now);
                    state.beliefs.first_expiry()
                }
            };
            next = next.into_iter().chain(first).min();
        }
        turn.finish(next);
    }

    fn forget_all(&self, state: &mut State, slot: Slot) {
        let (view, mut out) = state.publish(&self.holders, slot);
        view.reset(&mut out);
        out.disbelieve_all();
    }

    fn switch(&self, now: Time, tenant: &Endpoint, state: &mut State, source: Source) {
        state.source = source;
        state.beliefs.set_capacity(self.capacity(source));
        state.beliefs.cap_expiry(now + self.time_to_live(source));
        let (view, mut out) = state.publish(&self.holders, tenant.id.slot);
        out.disbelieve_excess();
        let approximate = matches!(source, Source::Approximate { .. });
        if approximate {
            view.reset(&mut out);
            tenant.upper_bound.store(false, Ordering::Relaxed);
        }
        tenant.approximate.store(approximate, Ordering::Relaxed);
        self.expiry.note(state.beliefs.first_expiry());
    }

    fn capacity(&self, source: Source) -> usize {
        match source {
            Source::Approximate { capacity_blocks } if capacity_blocks > 0 => {
                let bound = self.config.max_blocks_per_endpoint;
                usize::try_from(capacity_blocks).map_or(bound, |blocks| blocks.min(bound))
            }
            Source::Approximate { .. } | Source::Events => self.config.approximate_blocks,
        }
    }

    fn time_to_live(&self, source: Source) -> Duration {
        Duration::from_millis(match source {
            Source::Events => self.config.speculative_ttl_ms,
            Source::Approximate { .. } => self.config.approximate_ttl_ms,
        })
    }
}
