//! Who is in the fleet: joining, leaving, health, and finding endpoints again.

use super::change::Standing;
use super::ledger::Ledger;
use super::models::Models;
use super::others::Others;
use super::peers::{Peers, PrefillTotals};
use super::{
    Capacity, Columns, EndpointChange, EndpointSpec, FleetConfig, FleetError, MetricsSample,
    Reservation,
};
use crate::{EndpointId, Slot, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The next [`Fleet::roster`]; 0 is that of an empty fleet.
static ROSTERS: AtomicU64 = AtomicU64::new(1);

/// The endpoints, their reported signals, and what is in flight on them.
///
/// ```
/// use llmd_brain::fleet::{Booking, EndpointSpec, Fleet, FleetConfig};
/// use llmd_brain::{Ticket, Time};
///
/// let mut fleet = Fleet::new(FleetConfig::default());
/// let a = fleet.join(Time::ZERO, EndpointSpec::new("http://a:8000", "qwen")).unwrap();
/// let booking = Booking {
///     ticket: Ticket(1),
///     prompt_tokens: 1_000,
///     uncached_tokens: 200,
///     predicted: Default::default(),
///     objective_tpot_ms: None,
///     expected_output_tokens: None,
///     first_token_is_untold: false,
/// };
/// let reservation = fleet.book(Time::ZERO, a, &booking).unwrap();
/// assert_eq!(fleet.columns().pending_prefill_tokens, [200.0]);
///
/// fleet.first_token(Time::from_millis_f64(30.0), reservation).unwrap();
/// assert_eq!(fleet.columns().pending_prefill_tokens, [0.0]);
/// assert_eq!(fleet.columns().active_decode_tokens, [1_001.0]);
///
/// assert!(fleet.release(Time::from_millis_f64(900.0), reservation));
/// assert!(!fleet.release(Time::from_millis_f64(901.0), reservation), "twice is harmless");
/// ```
#[derive(Debug, Clone)]
pub struct Fleet {
    pub(super) config: FleetConfig,
    pub(super) columns: Columns,
    pub(super) tenants: Vec<Option<Tenant>>,
    pub(super) ledger: Ledger,
    pub(super) peers: Peers,
    pub(super) placed_by_peers: Vec<(Slot, PrefillTotals)>,
    pub(super) others: Others,
    models: Models,
    vacant: BTreeSet<Slot>,
    draining: BTreeSet<Slot>,
    roster: u64,
    by_address: BTreeMap<String, BTreeMap<u32, Slot>>,
    pub(super) latest: Time,
}

/// What is known of an endpoint besides its row of columns.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) spec: EndpointSpec,
    pub(super) standing: Standing,
    /// The spec's capacity, completed from the metrics page.
    pub(super) capacity: Capacity,
    pub(super) process_start_time_s: Option<f64>,
    pub(super) sample: MetricsSample,
    pub(super) sampled_at: Option<Time>,
    pub(super) ignored_values: u64,
}

impl Fleet {
    /// An empty fleet; `config` is taken as it is, see [`FleetConfig::validate`].
    #[must_use]
    pub fn new(config: FleetConfig) -> Self {
        Self {
            columns: Columns::default(),
            tenants: Vec::new(),
            ledger: Ledger::new(config.max_reservations, Duration::from_millis(config.lease_ms)),
            peers: Peers::new(config.max_peers, Duration::from_millis(config.peer_ttl_ms)),
            placed_by_peers: Vec::new(),
            others: Others::new(Duration::from_millis(config.metrics_max_age_ms)),
            models: Models::default(),
            vacant: BTreeSet::new(),
            draining: BTreeSet::new(),
            roster: 0,
            by_address: BTreeMap::new(),
            latest: Time::ZERO,
            config,
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &FleetConfig {
        &self.config
    }

    /// How long a reported signal counts: the `max_age` of [`Signal::fresh`](super::Signal::fresh).
    #[must_use]
    pub fn metrics_max_age(&self) -> Duration {
        Duration::from_millis(self.config.metrics_max_age_ms)
    }

    /// Takes an endpoint in, ready for requests, in the lowest vacant slot.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Duplicate`], [`FleetError::Full`]; nothing changes.
    pub fn join(&mut self, now: Time, spec: EndpointSpec) -> Result<EndpointId, FleetError> {
        let now = self.clamp(now);
        spec.validate()?;
        if let Some(existing) = self.find(&spec.address, spec.dp_rank) {
            return Err(FleetError::Duplicate {
                address: spec.address,
                dp_rank: spec.dp_rank,
                existing,
            });
        }
        if self.len() >= self.config.max_endpoints {
            return Err(FleetError::Full(self.len()));
        }
        let slot = self.vacant.pop_first().unwrap_or_else(|| {
            self.columns.push_empty();
            self.tenants.push(None);
            Slot((self.tenants.len() - 1) as u32)
        });
        let row = slot.index();
        self.by_address.entry(spec.address.clone()).or_default().insert(spec.dp_rank, slot);
        self.columns.occupied[row] = true;
        self.columns.generation[row] = self.columns.generation[row].wrapping_add(1).max(1);
        self.columns.role[row] = spec.role;
        self.columns.model[row] = self.models.intern(&spec.model);
        self.columns.clear_signals(slot);
        let standing = Standing::default();
        self.columns.health[row] = standing.health();
        self.tenants[row] = Some(Tenant {
            standing,
            capacity: spec.capacity.clone(),
            process_start_time_s: None,
            sample: MetricsSample::default(),
            sampled_at: None,
            ignored_values: 0,
            spec,
        });
        self.set_capacity_columns(slot);
        self.ledger.admit(now, slot);
        self.others.admit(slot);
        self.refresh_load(now, slot);
        self.roster_changed();
        Ok(EndpointId { slot, generation: self.columns.generation[row] })
    }

    /// Lets an endpoint go. What was in flight on it is released and handed back: requests without
    /// a token in order of booking, then those that decode in order of their first token.
    ///
    /// # Errors
    /// [`FleetError::Unknown`].
    pub fn leave(&mut self, now: Time, id: EndpointId) -> Result<Vec<Reservation>, FleetError> {
        let now = self.clamp(now);
        let slot = self.slot_of(id)?;
        let row = slot.index();
        let ended = self.ledger.evict(now, slot);
        self.peers.forget_slot(slot);
        self.refresh_load(now, slot);
        if let Some(tenant) = self.tenants[row].take()
            && let Some(ranks) = self.by_address.get_mut(&tenant.spec.address)
        {
            ranks.remove(&tenant.spec.dp_rank);
            if ranks.is_empty() {
                self.by_address.remove(&tenant.spec.address);
            }
        }
        self.models.release(self.columns.model[row]);
        self.columns.occupied[row] = false;
        self.draining.remove(&slot);
        self.vacant.insert(slot);
        self.roster_changed();
        Ok(ended)
    }

    /// Changes an endpoint's health. The operator's last order (cordon, uncordon, drain) and the
    /// health checks' last finding are kept apart: who was cordoned and became unreachable is
    /// cordoned again when it recovers. Repeating a change changes nothing.
    ///
    /// Returns whether the endpoint may be given requests now and could not before.
    ///
    /// # Errors
    /// [`FleetError::Unknown`].
    pub fn change(
        &mut self,
        now: Time,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<bool, FleetError> {
        self.clamp(now);
        let slot = self.slot_of(id)?;
        let row = slot.index();
        let Some(tenant) = &mut self.tenants[row] else { return Err(FleetError::Unknown(id)) };
        tenant.standing.apply(change);
        if tenant.standing.is_draining() {
            self.draining.insert(slot);
        } else {
            self.draining.remove(&slot);
        }
        let before = std::mem::replace(&mut self.columns.health[row], tenant.standing.health());
        self.roster_changed();
        Ok(!before.is_schedulable() && self.columns.health[row].is_schedulable())
    }

    /// Draining endpoints on which this router has nothing in flight, in slot order: they can
    /// leave.
    pub fn drained(&self) -> impl Iterator<Item = EndpointId> + '_ {
        let idle = self.draining.iter().filter(|&&slot| self.ledger.load(slot).is_idle());
        idle.filter_map(|&slot| self.columns.id(slot))
    }

    /// A number that changes whenever who may be given requests does. No two fleets of a process
    /// have one in common unless they are copies, so it may stand for what was derived from it.
    #[must_use]
    pub fn roster(&self) -> u64 {
        self.roster
    }

    fn roster_changed(&mut self) {
        self.roster = ROSTERS.fetch_add(1, Relaxed);
    }

    /// What scoring reads.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Number of endpoints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.len() - self.vacant.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All endpoints, in slot order.
    pub fn ids(&self) -> impl Iterator<Item = EndpointId> + '_ {
        (0..self.columns.slots()).filter_map(|row| self.columns.id(Slot(row as u32)))
    }

    /// Whether `id` is in the fleet now.
    #[must_use]
    pub fn contains(&self, id: EndpointId) -> bool {
        self.columns.id(id.slot) == Some(id)
    }

    /// The endpoint with this address and rank.
    #[must_use]
    pub fn find(&self, address: &str, dp_rank: u32) -> Option<EndpointId> {
        self.columns.id(*self.by_address.get(address)?.get(&dp_rank)?)
    }

    /// What its owner said of an endpoint.
    #[must_use]
    pub fn spec(&self, id: EndpointId) -> Option<&EndpointSpec> {
        self.contains(id).then(|| self.spec_at(id.slot)).flatten()
    }

    /// What its owner said of the tenant of a slot.
    #[must_use]
    pub fn spec_at(&self, slot: Slot) -> Option<&EndpointSpec> {
        Some(&self.tenant(slot)?.spec)
    }

    /// What an endpoint can hold: its owner's figures, completed from its metrics page.
    #[must_use]
    pub fn capacity(&self, id: EndpointId) -> Option<&Capacity> {
        self.contains(id).then(|| self.tenant(id.slot)).flatten().map(|tenant| &tenant.capacity)
    }

    /// The names of the models that are served, with the index that [`Columns::model`] uses, in
    /// the order of the index.
    pub fn models(&self) -> impl Iterator<Item = (u32, &str)> {
        self.models.iter()
    }

    /// The index of a model's name in [`Columns::model`], if anybody serves it.
    #[must_use]
    pub fn model_index(&self, name: &str) -> Option<u32> {
        self.models.index(name)
    }

    pub(super) fn tenant(&self, slot: Slot) -> Option<&Tenant> {
        self.tenants.get(slot.index())?.as_ref()
    }

    /// The slot of an endpoint that is in the fleet.
    pub(super) fn slot_of(&self, id: EndpointId) -> Result<Slot, FleetError> {
        if self.contains(id) { Ok(id.slot) } else { Err(FleetError::Unknown(id)) }
    }

    /// Time never goes back here: a lease is never lengthened by a clock that was set back.
    pub(super) fn clamp(&mut self, now: Time) -> Time {
        self.latest = self.latest.max(now);
        self.latest
    }

    /// Copies the tenant's capacity to its columns.
    pub(super) fn set_capacity_columns(&mut self, slot: Slot) {
        let row = slot.index();
        let Some(Some(tenant)) = self.tenants.get(row) else { return };
        let capacity = &tenant.capacity;
        let kv_tokens = capacity.kv_blocks.saturating_mul(u64::from(capacity.block_size));
        self.columns.kv_capacity_tokens[row] =
            if kv_tokens == 0 { f64::NAN } else { kv_tokens as f64 };
        self.columns.max_running_requests[row] = capacity.max_running_requests;
        self.columns.set_max_batch_tokens(slot, capacity.max_batch_tokens);
        self.columns.max_loras[row] = capacity.max_loras;
    }
}
