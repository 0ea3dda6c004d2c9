//! Requests that wait for their turn: while every engine that could take them has enough to do.
//!
//! Engines serve first come first served. Where tenants or priorities contend, requests that may be
//! held therefore wait here, and an engine gets the next one when it has room ([`room()`]): so whoever
//! comes later can still be let go earlier. Order ([`queue`](self::queue)): bands of priority, tenants
//! fairly by tokens within a band ([`start_times`](self::start_times)), one tenant's requests by
//! [`Order`]; and nobody starves.
//!
//! Requests that name other models, endpoints or labels wait for other endpoints, so each such set has
//! a queue of its own, and one that is blocked blocks no other. Queues are looked at in turns.
//!
//! Not here: requests that wait for an endpoint to come, or for room for their session.

mod by_tenant;
mod config;
mod contention;
mod own_queue;
mod queue;
mod room;
mod start_times;
#[cfg(test)]
mod tests;

pub use self::config::{Order, TurnConfig, WaitWhen};
pub use self::own_queue::{Asked, TurnQueue};
pub(crate) use self::queue::Turn;
pub(crate) use self::room::{Room, room};
pub(crate) use self::start_times::TenantId;

use self::by_tenant::ByTenant;
use self::contention::Contention;
use self::queue::FairQueue;
use crate::schedule::Request;
use crate::{Ticket, Time};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A set of endpoints that requests may go to: what decides it, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolId(u64);

impl PoolId {
    /// The pool of a request.
    pub(crate) fn of(request: &Request) -> Self {
        let mut digest = Xxh3::new();
        digest.update(request.model.as_bytes());
        for id in request.allowed.iter().flatten() {
            digest.update(&[1]);
            digest.update(&id.slot.0.to_le_bytes());
            digest.update(&id.generation.to_le_bytes());
        }
        for id in &request.excluded {
            digest.update(&[3]);
            digest.update(&id.slot.0.to_le_bytes());
            digest.update(&id.generation.to_le_bytes());
        }
        for (label, value) in &request.required_labels {
            digest.update(&[2]);
            digest.update(label.as_bytes());
            digest.update(&[0]);
            digest.update(value.as_bytes());
        }
        Self(digest.digest())
    }
}

impl TenantId {
    /// The tenant of a request.
    pub(crate) fn of(request: &Request) -> Self {
        Self::named(request.tenant.as_deref())
    }

    /// The tenant of a name.
    pub(super) fn named(name: Option<&str>) -> Self {
        Self(name.map_or(0, |name| xxh3_64(name.as_bytes()).max(1)))
    }
}

/// All queues of a router.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    config: TurnConfig,
    pools: BTreeMap<PoolId, FairQueue>,
    /// Every pool with requests, the least lately looked at first.
    rotation: VecDeque<PoolId>,
    by_ticket: BTreeMap<Ticket, PoolId>,
    by_tenant: ByTenant,
    contention: Contention,
}

impl Turns {
    pub(crate) fn new(config: &TurnConfig) -> Self {
        Self {
            config: config.clone(),
            pools: BTreeMap::new(),
            rotation: VecDeque::new(),
            by_ticket: BTreeMap::new(),
            by_tenant: ByTenant::default(),
            contention: Contention::default(),
        }
    }

    pub(crate) fn config(&self) -> &TurnConfig {
        &self.config
    }

    /// A request arrives. Says whether it waits for its turn where no engine has room.
    pub(crate) fn arrives(&mut self, now: Time, request: &Request) -> bool {
        match self.config.wait {
            WaitWhen::Never => return false,
            WaitWhen::Always => return request.hold_ms > 0,
            WaitWhen::Contended => {}
        }
        self.contention.saw(now, (request.priority, TenantId::of(request)));
        request.hold_ms > 0 && self.takes_turns(now)
    }

    /// Whether requests wait for their turn now.
    pub(crate) fn takes_turns(&self, now: Time) -> bool {
        let window = || Duration::from_secs_f64(self.config.contended_s);
        match self.config.wait {
            WaitWhen::Never => false,
            WaitWhen::Always => true,
            WaitWhen::Contended => self.contention.is_there(now, window()),
        }
    }

    /// What a request costs its tenant, in tokens over the tenant's weight.
    fn cost(&self, request: &Request, uncached_tokens: u32, mean_output: f64) -> f64 {
        let output_tokens = request.expected_output_tokens.map_or(mean_output, f64::from);
        self.config.cost(request.tenant.as_deref(), uncached_tokens, output_tokens)
    }

    /// A request waits for its turn.
    pub(crate) fn push(
        &mut self,
        ticket: Ticket,
        since: Time,
        request: &Request,
        uncached_tokens: u32,
        mean_output: f64,
    ) {
        let turn = Turn {
            ticket,
            priority: request.priority,
            tenant: TenantId::of(request),
            rank: self.rank(since, request, uncached_tokens),
            cost: self.cost(request, uncached_tokens, mean_output),
            since,
        };
        let (pool, config) = (PoolId::of(request), &self.config);
        let queue = self.pools.entry(pool).or_insert_with(|| {
            self.rotation.push_back(pool);
            FairQueue::new(Duration::from_secs_f64(config.age_s), config.aged_every)
        });
        queue.push(turn);
        self.by_ticket.insert(ticket, pool);
        self.by_tenant.push(&turn);
    }

    fn rank(&self, since: Time, request: &Request, uncached_tokens: u32) -> u64 {
        let due_ms = match (request.deadline_ms, request.slo.ttft_ms) {
            (Some(due_ms), _) => due_ms as f64,
            (None, Some(due_ms)) => due_ms,
            (None, None) => request.hold_ms as f64,
        };
        self.config.rank(since, due_ms, uncached_tokens)
    }

    /// Whether requests of a pool wait: who comes then does not overtake them.
    pub(crate) fn waits(&self, pool: PoolId) -> bool {
        self.pools.contains_key(&pool)
    }

    /// The pools that wait, the least lately looked at first, at most so many.
    pub(crate) fn look(&mut self, most: usize) -> Vec<PoolId> {
        let looked = most.min(self.rotation.len());
        let pools = self.rotation.iter().take(looked).copied().collect();
        self.rotation.rotate_left(looked);
        pools
    }

    /// Whose turn it is in a pool.
    pub(crate) fn next(&self, now: Time, pool: PoolId) -> Option<Ticket> {
        self.pools.get(&pool)?.next(now)
    }

    /// Who makes room for a request where too many wait: of the tenant that has the most waiting, if
    /// that is more than the newcomer's by two, the least important and latest, unless it is more
    /// important than the newcomer.
    pub(crate) fn makes_room_for(&self, request: &Request) -> Option<Ticket> {
        self.by_tenant.makes_room_for(TenantId::of(request), request.priority)
    }

    /// One that waited was let go.
    pub(crate) fn served(&mut self, ticket: Ticket) {
        if let Some(pool) = self.by_ticket.remove(&ticket)
            && let Some(queue) = self.pools.get_mut(&pool)
        {
            queue.served(ticket).iter().for_each(|turn| self.by_tenant.remove(turn));
            self.drop_empty(pool);
        }
    }

    /// One that did not wait went where others of its pool wait.
    pub(crate) fn went_at_once(
        &mut self,
        request: &Request,
        uncached_tokens: u32,
        mean_output: f64,
    ) {
        if self.is_empty() {
            return;
        }
        let cost = self.cost(request, uncached_tokens, mean_output);
        if let Some(queue) = self.pools.get_mut(&PoolId::of(request)) {
            queue.went_at_once(request.priority, TenantId::of(request), cost);
        }
    }

    /// One waits no longer.
    pub(crate) fn remove(&mut self, ticket: Ticket) {
        if let Some(pool) = self.by_ticket.remove(&ticket)
            && let Some(queue) = self.pools.get_mut(&pool)
        {
            queue.remove(ticket).iter().for_each(|turn| self.by_tenant.remove(turn));
            self.drop_empty(pool);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_ticket.is_empty()
    }

    fn drop_empty(&mut self, pool: PoolId) {
        if self.pools.get(&pool).is_some_and(FairQueue::is_empty) {
            self.pools.remove(&pool);
            self.rotation.retain(|other| *other != pool);
        }
    }
}
