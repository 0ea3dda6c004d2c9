//! The routers of a world: each a whole brain, fed as a live body feeds it.

use super::engines::Engine;
use super::{Ends, SimError, World};
use crate::brain::{Action, Brain, Input, PeerTotals};
use crate::engine::{EngineConfig, KvChange};
use crate::fleet::{Capacity, EndpointSpec, KvSource};
use crate::index::Matches;
use crate::schedule::{Request, Slo};
use crate::{BlockKey, EndpointId, EngineHash, Ticket, Time};
use std::collections::HashMap;

/// Leases are renewed by the first token alone here, and end with the request.
const LEASE_MS: u64 = 24 * 3_600_000;

/// A router.
pub(super) struct Router {
    pub(super) brain: Brain,
    number: usize,
    /// Of each engine, who it is in this brain, and whether it is there now.
    ids: Vec<EndpointId>,
    is_member: Vec<bool>,
    /// Of each slot, which engine has it.
    engine_of: Vec<u32>,
    specs: Vec<EndpointSpec>,
    shared_cache: bool,
    matches: Matches,
    request: Request,
    /// Which row a held ticket is.
    pub(super) held: HashMap<Ticket, u32>,
    /// When it has asked to be woken.
    pub(super) wakes_at: Option<Time>,
    exchanges: u64,
    names: Vec<EngineHash>,
}

impl Router {
    pub(super) fn new(world: &World, block_size: u32, number: usize) -> Result<Self, SimError> {
        let mut config = world.brain.clone();
        config.block_size = block_size;
        config.seed = world.seed.wrapping_add(number as u64);
        if world.ends != Ends::Untold {
            config.fleet.lease_ms = LEASE_MS;
        }
        config.fleet.max_endpoints = config.fleet.max_endpoints.max(world.engines.len());
        config.fleet.router = format!("router-{number}");
        let brain = Brain::new(config)?;
        let mut ids = Vec::with_capacity(world.engines.len());
        let specs: Vec<EndpointSpec> = (world.engines.iter().enumerate())
            .map(|(at, engine)| spec(at, engine, world.profiles_known))
            .collect();
        for spec in &specs {
            let joined = brain.step(Time::ZERO, Input::Join(spec.clone()))?;
            ids.extend(joined.iter().filter_map(|action| match action {
                Action::Joined(id) => Some(*id),
                _ => None,
            }));
        }
        let request = Request {
            block_tokens: block_size,
            slo: Slo { ttft_ms: Some(world.slo.ttft_ms), tpot_ms: Some(world.slo.tpot_ms) },
            hold_ms: world.hold_ms,
            end_is_untold: world.ends == Ends::Guessed,
            ..Request::default()
        };
        Ok(Self {
            brain,
            number,
            is_member: vec![true; ids.len()],
            // Engines join in order, and nobody else does.
            engine_of: (0..ids.len() as u32).collect(),
            specs,
            shared_cache: world.shared_cache,
            ids,
            matches: Matches::new(),
            request,
            held: HashMap::new(),
            wakes_at: None,
            exchanges: 0,
            names: Vec::new(),
        })
    }

    /// Takes in everything that has reached it by `now`.
    pub(super) fn catch_up(&mut self, now: Time, lag_nanos: u64, engines: &mut [Engine]) {
        for (at, engine) in engines.iter_mut().enumerate() {
            let id = self.ids[at];
            let unread = &mut engine.unread[self.number];
            while let Some(news) = unread.front()
                && news.at.as_nanos() + lag_nanos <= now.as_nanos()
            {
                if self.shared_cache {
                    shared(&self.brain, &self.ids, &news.changes, &mut self.names);
                } else {
                    apply(&self.brain, id, &news.changes, &mut self.names);
                }
                unread.pop_front();
            }
            while let Some((told, page)) = engine.sample(now, self.number) {
                // The fleet is as it was made.
                let _ = self.brain.step(told, Input::Metrics(id, page.read()));
            }
        }
    }

    /// A request arrives.
    pub(super) fn arrive(
        &mut self,
        now: Time,
        prompt_tokens: u32,
        session: u32,
        tenant: u32,
        keys: &[BlockKey],
    ) -> Action {
        self.request.prompt_tokens = prompt_tokens;
        self.request.tenant = (tenant > 0).then(|| tenant.to_string());
        let name = self.request.session_id.get_or_insert_default();
        name.clear();
        // Writing to a string cannot fail.
        let _ = std::fmt::Write::write_fmt(name, format_args!("{session}"));
        self.brain.matches(now, keys, &mut self.matches);
        self.brain.decide(now, &self.request, keys, &self.matches, &[])
    }

    /// Which engine an endpoint is.
    pub(super) fn engine(&self, id: EndpointId) -> usize {
        self.engine_of[id.slot.index()] as usize
    }

    /// Which endpoint an engine is, or was last.
    pub(super) fn id(&self, engine: usize) -> EndpointId {
        self.ids[engine]
    }

    /// Whether an engine is an endpoint of this router's.
    pub(super) fn knows(&self, engine: usize) -> bool {
        self.is_member[engine]
    }

    /// An engine is no longer one; returns who it was.
    pub(super) fn lose(&mut self, engine: usize) -> Option<EndpointId> {
        std::mem::replace(&mut self.is_member[engine], false).then_some(self.ids[engine])
    }

    /// An endpoint has left; one that drains does so by itself.
    pub(super) fn left(&mut self, id: EndpointId) {
        let engine = self.engine(id);
        if self.ids[engine] == id {
            self.is_member[engine] = false;
        }
    }

    /// What an engine says of itself when it joins.
    pub(super) fn spec(&self, engine: usize) -> EndpointSpec {
        self.specs[engine].clone()
    }

    /// An engine joined.
    pub(super) fn gain(&mut self, engine: usize, id: EndpointId) {
        self.is_member[engine] = true;
        self.ids[engine] = id;
        self.engine_of.resize(self.engine_of.len().max(id.slot.index() + 1), 0);
        self.engine_of[id.slot.index()] = engine as u32;
    }

    /// What this router tells its peers.
    pub(super) fn totals(&mut self, now: Time) -> PeerTotals {
        self.exchanges += 1;
        PeerTotals {
            router: format!("router-{}", self.number),
            epoch: 1,
            sequence: self.exchanges,
            endpoints: self.brain.own_totals(now),
        }
    }
}

fn spec(number: usize, engine: &EngineConfig, profile_known: bool) -> EndpointSpec {
    let mut spec = EndpointSpec::new(format!("sim://{number}"), "");
    spec.kv_source = KvSource::Events;
    spec.capacity = Capacity {
        kv_blocks: engine.kv_blocks.into(),
        block_size: engine.block_size,
        max_running_requests: engine.max_sequences,
        max_batch_tokens: engine.max_batch_tokens,
        ..Capacity::default()
    };
    if profile_known {
        spec.labels.insert("engine-profile".to_owned(), engine.profile.label());
    }
    spec
}

/// What an engine computed, all have from now on.
fn shared(brain: &Brain, ids: &[EndpointId], changes: &[KvChange], names: &mut Vec<EngineHash>) {
    for change in changes {
        if let KvChange::Stored { .. } = change {
            ids.iter().for_each(|id| apply(brain, *id, std::slice::from_ref(change), names));
        }
    }
}

/// What an engine's events say, with the blocks' identities for their names.
fn apply(brain: &Brain, id: EndpointId, changes: &[KvChange], names: &mut Vec<EngineHash>) {
    let residency = brain.residency();
    for change in changes {
        names.clear();
        match change {
            KvChange::Stored { parent, keys, .. } => {
                names.extend(keys.iter().map(|key| EngineHash(key.0)));
                residency.store(id, parent.map(|key| EngineHash(key.0)), names, keys);
            }
            KvChange::Removed(keys) => {
                names.extend(keys.iter().map(|key| EngineHash(key.0)));
                residency.remove(id, names);
            }
            KvChange::HostStored(_) | KvChange::HostRemoved(_) => {}
            KvChange::Cleared => residency.clear(id),
        }
    }
}
