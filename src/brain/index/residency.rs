//! The facade: who holds what, behind `&self`.
//!
//! Locks, and the only order in which one is taken while another is held:
//! - the turn to expire before an endpoint's mutex;
//! - an endpoint's mutex before a lock of the [`Tree`](super::tree::Tree): everything that changes
//!   what it holds.
//!
//! Never two endpoints, and none by those who change the roster. So nothing can deadlock, and a
//! match waits for nobody.
//!
//! No ghosts: an endpoint that leaves is first marked gone and emptied under its mutex, and only
//! then is its slot vacated. Whoever still holds the old [`Endpoint`] finds it gone, and a new
//! tenant of the slot cannot join before its bits are clear.

use super::endpoint::{Endpoint, KeySpace, Shared, State};
use super::expiry::{Expiry, Turn};
use super::snapshot::{Exported, ImportError, Loader, Record};
use super::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, Published};
use super::tree::{Tree, heap};
use super::{
    ApplyOutcome, BlockCounts, Depths, EndpointStats, Held, IndexConfig, IndexError, IndexStats,
    KvEventBatch, MAX_BLOCKS, MAX_ENDPOINTS, MatchSource, Matches, Source,
};
use crate::prompt::Chain;
use crate::{BlockKey, EndpointId, EngineHash, Time};
use std::time::Duration;

/// Who has which slot.
#[derive(Debug, Clone, Default)]
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
/// let keys = [BlockKey(1), BlockKey(2), BlockKey(3)];
/// index.book(Time::ZERO, endpoint, &keys[..2]);
///
/// let mut matches = Matches::new();
/// index.matches(Time::ZERO, &keys, &mut matches);
/// assert_eq!(matches.depth_blocks, [2]);
/// assert_eq!(index.holds(endpoint, &keys[..2]), Some(Held::Believed));
/// # Ok::<(), llmd_brain::index::IndexError>(())
/// ```
#[derive(Debug)]
pub struct Residency {
    config: IndexConfig,
    block_size: u32,
    /// Read by everybody without waiting; replaced whole by those who join and leave, in turn.
    roster: Published<Roster>,
    /// Slots of the roster, for who wants nothing else of it.
    slots: AtomicUsize,
    joining: Mutex<()>,
    shared: Shared,
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
            roster: Published::new(Arc::default()),
            slots: AtomicUsize::new(0),
            joining: Mutex::new(()),
            shared: Shared { tokens: Tree::new(), text: Tree::nameless() },
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
    /// dense: memory grows with the highest. Nothing is known of slots past [`MAX_ENDPOINTS`].
    pub fn join(&self, endpoint: EndpointId, model: &str, source: Source) {
        if endpoint.slot.index() >= MAX_ENDPOINTS {
            return;
        }
        // The block size was checked when the index was made.
        let Some(space) = KeySpace::new(model, self.block_size) else { return };
        let joined = Arc::new(Endpoint::new(endpoint, source, space, self.capacity(source)));
        let slot = endpoint.slot.index();
        loop {
            let previous = {
                let _turn = self.joining.lock();
                let mut roster = Roster::clone(&self.roster.load());
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
                        self.slots.store(roster.tenants.len(), Ordering::Relaxed);
                        self.roster.store(Arc::new(roster));
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
                state.forget_all(&self.shared);
                *self.departed.lock() += state.applied;
            }
        }
        let _turn = self.joining.lock();
        let mut roster = Roster::clone(&self.roster.load());
        let slot = endpoint.slot.index();
        if roster.tenants[slot].as_ref().is_some_and(|now| Arc::ptr_eq(now, &tenant)) {
            roster.tenants[slot] = None;
            roster.generations[slot] = 0;
            self.roster.store(Arc::new(roster));
        }
    }

    /// Applies an engine's events, in order. An endpoint that was approximate is from then on
    /// known by its events.
    pub fn apply(&self, now: Time, endpoint: EndpointId, batch: &KvEventBatch) -> ApplyOutcome {
        let applied = self.with_state(endpoint, |tenant, state| {
            if state.source.is_approximate() && !batch.events.is_empty() {
                self.switch(now, state, Source::Events);
            }
            state.stamp = now.as_secs();
            let mut applied = state.apply(&self.shared, &batch.events);
            applied.evicted_blocks += self.evict_excess(state);
            tenant.label(state);
            applied
        });
        applied.unwrap_or_else(|| {
            let stale_events = batch.events.len() as u64;
            let outcome = ApplyOutcome { stale_events, ..ApplyOutcome::default() };
            *self.departed.lock() += outcome;
            outcome
        })
    }

    /// A run of blocks is held, as a stored event says whose keys are known already: of an engine
    /// with the router's block size, one KV cache group, and in GPU memory. Returns how many blocks
    /// were recorded: none behind a parent that is not held. An endpoint that is told of by
    /// this and [`Self::remove`] must not be told of by [`Self::apply`] too.
    pub fn store(
        &self,
        endpoint: EndpointId,
        parent: Option<EngineHash>,
        names: &[EngineHash],
        keys: &[BlockKey],
    ) -> u64 {
        let stored = self.with_state(endpoint, |_, state| {
            let stored = state.store(&self.shared, parent, names, keys);
            self.evict_excess(state);
            stored
        });
        stored.unwrap_or_default()
    }

    /// Copies of blocks go, as a removed event says. Returns how many there were.
    pub fn remove(&self, endpoint: EndpointId, names: &[EngineHash]) -> u64 {
        let removed = self.with_state(endpoint, |_, state| state.remove(&self.shared, names));
        removed.unwrap_or_default()
    }

    /// Hands what the endpoint's events told to `sink`, as records that [`Self::import`] takes. Its
    /// events wait meanwhile; matches do not.
    pub fn export(&self, endpoint: EndpointId, mut sink: impl FnMut(Record)) -> Exported {
        let exported = self.with_state(endpoint, |_, state| state.export(&self.shared, &mut sink));
        exported.unwrap_or(Exported::NoEvents)
    }

    /// The endpoint holds what an export of it said, and nothing else: bookings of it are forgotten
    /// too. `next` gives the records until there are none. Returns how many blocks are held.
    ///
    /// # Errors
    /// [`ImportError`], or what `next` failed with: the endpoint holds nothing then.
    pub fn import<E: From<ImportError>>(
        &self,
        now: Time,
        endpoint: EndpointId,
        mut next: impl FnMut() -> Result<Option<Record>, E>,
    ) -> Result<u64, E> {
        let imported = self.with_state(endpoint, |tenant, state| {
            self.switch(now, state, Source::Events);
            state.forget_all(&self.shared);
            state.stamp = now.as_secs();
            let mut loader = Loader::default();
            let imported = loop {
                match next() {
                    Ok(None) => break Ok(loader.blocks()),
                    Ok(Some(record)) => {
                        let imported = state.import(&self.shared, &mut loader, &record);
                        // At each record: a snapshot of a larger index must not get past the bound.
                        if let Err(error) = imported.and_then(|()| self.has_room()) {
                            break Err(error.into());
                        }
                    }
                    Err(error) => break Err(error),
                }
            };
            let over = self.shared.tokens.excess_blocks(self.config.max_bytes).is_some();
            let imported =
                if over { imported.and(Err(ImportError::Full.into())) } else { imported };
            if imported.is_err() {
                state.forget_all(&self.shared);
            }
            tenant.label(state);
            imported
        });
        imported.unwrap_or(Err(ImportError::Gone.into()))
    }

    /// What the endpoint holds is no longer known: it restarted, or events were lost for good.
    pub fn clear(&self, endpoint: EndpointId) {
        self.with_state(endpoint, |tenant, state| {
            state.forget_all(&self.shared);
            tenant.label(state);
        });
    }

    /// The residency of the endpoint is known otherwise from now on. What the other source said
    /// is kept only as far as the new one can vouch for it: bookings live on as long as the new
    /// source lets them, events are forgotten by an approximate endpoint.
    pub fn set_source(&self, now: Time, endpoint: EndpointId, source: Source) {
        self.with_state(endpoint, |tenant, state| {
            self.switch(now, state, source);
            tenant.label(state);
        });
    }

    /// The capacity of an endpoint without events became known, in blocks of the router's size
    /// (0: unknown again). Does nothing for one that sends events.
    pub fn set_capacity(&self, endpoint: EndpointId, capacity_blocks: u64) {
        self.with_state(endpoint, |_, state| {
            if state.source.is_approximate() {
                state.source = Source::Approximate { capacity_blocks };
                state.set_capacity(&self.shared, self.capacity(state.source));
            }
        });
    }

    /// A request with these blocks of token ids was sent to the endpoint, which is believed to
    /// hold them from now on: until its events say otherwise or the time to live is over.
    ///
    /// Believed blocks are bounded for each endpoint; the least recently booked goes first, and of
    /// one prompt its last block, as engines evict.
    pub fn book(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]) {
        let first = self.with_state(endpoint, |_, state| {
            state.book(&self.shared, keys, now + self.time_to_live(state.source));
            state.first_expiry()
        });
        self.expiry.note(first.flatten());
    }

    /// As [`Self::book`], for blocks of text ([`crate::prompt::text`]). No event can name them, so
    /// bookings are all that is known of them even where an endpoint sends events: they live for
    /// [`IndexConfig::approximate_ttl_ms`], have a bound of their own of the same size, and a match
    /// of them is [`MatchSource::Approximate`].
    pub fn book_text(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]) {
        let first = self.with_state(endpoint, |_, state| {
            let lifetime = Duration::from_millis(self.config.approximate_ttl_ms);
            state.book_text(&self.shared, keys, now + lifetime);
            state.first_expiry()
        });
        self.expiry.note(first.flatten());
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
        let roster = self.roster.load();
        let slots = roster.tenants.len();
        out.reset(slots, u32::try_from(keys.len()).unwrap_or(u32::MAX));
        out.generation.copy_from_slice(&roster.generations);
        // Keys of text and of token ids never meet: the first tells where to look for all.
        let text = keys.first().is_some_and(|&first| self.shared.text.has_head(first));
        let tree = if text { &self.shared.text } else { &self.shared.tokens };
        let walk = &mut out.walk;
        tree.walk(keys, slots, walk);
        out.depth_blocks.copy_from_slice(&walk.depths);
        if !walk.lower.is_empty() {
            out.lower_tier_blocks.copy_from_slice(&walk.lower);
        }
        for (slot, tenant) in roster.tenants.iter().enumerate() {
            if out.depth_blocks[slot] == 0 {
                continue;
            }
            match tenant {
                Some(_) if text => out.source[slot] = MatchSource::Approximate,
                Some(tenant) => out.source[slot] = tenant.match_source(!walk.is_believed(slot)),
                None => out.depth_blocks[slot] = 0,
            }
        }
    }

    /// The bare match of token keys: how long a run from the first each slot holds, for whatever
    /// reason, with no word of expiry, of tenants or of sources.
    pub fn depths(&self, keys: &[BlockKey], out: &mut Depths) {
        let slots = self.slots.load(Ordering::Relaxed);
        self.shared.tokens.walk(keys, slots, &mut out.walk);
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

    /// Whether, and why, the endpoint counts as holding the last of these blocks, which start a
    /// prompt.
    #[must_use]
    pub fn holds(&self, endpoint: EndpointId, keys: &[BlockKey]) -> Option<Held> {
        self.with_state(endpoint, |_, state| state.holds(&self.shared, keys))?
    }

    /// How many blocks the endpoint holds; `None` for a stale id.
    #[must_use]
    pub fn blocks(&self, endpoint: EndpointId) -> Option<BlockCounts> {
        self.with_state(endpoint, |_, state| state.block_counts())
    }

    /// Bytes that the index has allocated.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let endpoints = self.endpoints();
        let itself = heap::arc(std::mem::size_of::<Endpoint>());
        let each = endpoints.iter().map(|endpoint| itself + endpoint.state.lock().memory_bytes());
        each.sum::<usize>() + self.shared.tokens.memory_bytes() + self.shared.text.memory_bytes()
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
        let keys = self.shared.tokens.len() + self.shared.text.len();
        IndexStats { keys, applied, endpoints }
    }

    /// Entries of the endpoint's view.
    #[cfg(test)]
    pub(super) fn view_entries(&self, endpoint: EndpointId) -> usize {
        self.with_state(endpoint, |_, state| state.view_entries()).unwrap_or_default()
    }

    /// The endpoint with this very id.
    fn tenant(&self, endpoint: EndpointId) -> Option<Arc<Endpoint>> {
        let roster = self.roster.load();
        let tenant = roster.tenants.get(endpoint.slot.index())?.as_ref()?;
        (tenant.id == endpoint).then(|| Arc::clone(tenant))
    }

    /// All endpoints, in slot order.
    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.roster.load().tenants.iter().flatten().cloned().collect()
    }

    fn has_room(&self) -> Result<(), ImportError> {
        match self.shared.tokens.excess_blocks(self.config.max_bytes) {
            None => Ok(()),
            Some(_) => Err(ImportError::Full),
        }
    }

    /// Has the endpoint pay where the index is larger than it may be. Returns how many blocks it
    /// gave up.
    fn evict_excess(&self, state: &mut State) -> u64 {
        let tree = &self.shared.tokens;
        let Some(excess) = tree.excess_blocks(self.config.max_bytes) else { return 0 };
        // A little more than is needed, so that this is done rarely.
        state.evict(&self.shared, excess + excess / 4 + Tree::blocks_of(self.config.max_bytes / 64))
    }

    /// Runs `change` under the endpoint's mutex; `None` for a stale id.
    fn with_state<R>(
        &self,
        endpoint: EndpointId,
        change: impl FnOnce(&Endpoint, &mut State) -> R,
    ) -> Option<R> {
        let roster = self.roster.load();
        let tenant = roster.tenants.get(endpoint.slot.index())?.as_ref()?;
        if tenant.id != endpoint {
            return None;
        }
        let mut state = tenant.state.lock();
        (!state.gone).then(|| change(tenant, &mut state))
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
            let tenant = match self.roster.load().tenants.get(slot) {
                None => break,
                Some(None) => continue,
                Some(Some(tenant)) => Arc::clone(tenant),
            };
            let first = match lock(&tenant) {
                None => Some(now), // Busy: still due.
                Some(mut state) => {
                    state.expire(&self.shared, now);
                    state.first_expiry()
                }
            };
            next = next.into_iter().chain(first).min();
        }
        turn.finish(next);
    }

    fn switch(&self, now: Time, state: &mut State, source: Source) {
        let latest = now + self.time_to_live(source);
        state.set_source(&self.shared, source, self.capacity(source), latest);
        self.expiry.note(state.first_expiry());
    }

    fn capacity(&self, source: Source) -> usize {
        match source {
            Source::Approximate { capacity_blocks } if capacity_blocks > 0 => {
                usize::try_from(capacity_blocks).map_or(MAX_BLOCKS, |blocks| blocks.min(MAX_BLOCKS))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    #[test]
    fn a_match_does_not_wait_for_a_writer_and_what_it_left_stays_due() {
        let index = Residency::new(IndexConfig::default(), 16).unwrap();
        let endpoint = EndpointId { slot: Slot(0), generation: 1 };
        index.join(endpoint, "model", Source::Events);
        index.book(Time::ZERO, endpoint, &[BlockKey(1)]);
        let late = Time::from_millis_f64(3_000.0);
        let mut out = Matches::new();

        let tenant = index.tenant(endpoint).unwrap();
        let writing = tenant.state.lock();
        index.matches(late, &[BlockKey(1)], &mut out);
        assert_eq!(out.depth_blocks, [1]);
        assert!(index.next_expiry().is_some_and(|next| next <= late));

        drop(writing);
        index.matches(late, &[BlockKey(1)], &mut out);
        assert_eq!(out.depth_blocks, [0]);
        assert_eq!(index.next_expiry(), None);
    }
}
