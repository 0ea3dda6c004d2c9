//! The definition of truth: what [`Residency`](super::Residency) must answer, written to be
//! obviously right and nothing else. Slow on purpose: every name remembers its whole prefix, and
//! every question is answered from scratch.
//!
//! What is true of one endpoint:
//! - A *name* is held on a tier while more copies of it were stored there than removed, within one
//!   KV cache group, since the last clear.
//! - A name that is held stands for what it was first stored as. Another needs a position: a held
//!   parent, or the start of a prompt.
//! - A name *completes* the router blocks whose last token it holds. Such a router block *rests on*
//!   every name of that prefix whose tokens it overlaps.
//! - A group holds a key on a tier or a faster one where some name completes it and every name that
//!   it rests on is held there or on a faster one. The endpoint does where all its indexed groups do.
//! - A booked key is believed until its time is over, events make it held, a name that it rests on
//!   loses a copy, everything is cleared, or newer bookings push it out.

use super::{
    ApplyOutcome, BlockCounts, BlockRemoved, BlockStored, ExtraKey, Held, IndexConfig, KvEvent,
    KvEventBatch, MatchSource, Matches, Source,
};
use crate::prompt::{BlockExtra, Chain};
use crate::{BlockKey, EndpointId, EngineHash, Tier, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A naive index.
#[derive(Debug)]
pub struct Oracle {
    config: IndexConfig,
    block_size: u32,
    endpoints: BTreeMap<usize, Endpoint>,
    slots: usize,
}

#[derive(Debug)]
struct Endpoint {
    id: EndpointId,
    model: String,
    source: Source,
    groups: BTreeMap<u32, BTreeMap<EngineHash, Name>>,
    unindexed: BTreeSet<u32>,
    /// Keys of token ids, oldest first.
    believed: Vec<(BlockKey, Time)>,
    /// Keys of text, oldest first.
    text: Vec<(BlockKey, Time)>,
}

/// What a name stands for.
#[derive(Debug, Clone)]
struct Name {
    copies: [u64; Tier::COUNT],
    /// The engine blocks from the start of the prompt to this one.
    path: Vec<Step>,
    /// Each key that it completes, with the names that the key rests on.
    completes: Vec<(BlockKey, Vec<EngineHash>)>,
}

#[derive(Debug, Clone)]
struct Step {
    name: EngineHash,
    tokens: Vec<u32>,
    extra_keys: Vec<ExtraKey>,
    lora: Option<String>,
}

impl Step {
    /// Texts but the LoRA name, which is listed first, and multimodal items with their offsets.
    fn extras(&self) -> (impl Iterator<Item = &str>, impl Iterator<Item = (&str, i64)>) {
        let lora_first = self.lora.as_deref().is_some_and(
            |lora| matches!(self.extra_keys.first(), Some(ExtraKey::Text(text)) if text == lora),
        );
        let texts = self.extra_keys.iter().skip(usize::from(lora_first));
        let texts = texts.filter_map(|key| match key {
            ExtraKey::Text(text) => Some(text.as_str()),
            ExtraKey::Multimodal { .. } => None,
        });
        let items = self.extra_keys.iter().filter_map(|key| match key {
            ExtraKey::Text(_) => None,
            ExtraKey::Multimodal { identifier, offset } => Some((identifier.as_str(), *offset)),
        });
        (texts, items)
    }
}

impl Name {
    fn new(path: Vec<Step>, model: &str, block_size: u32) -> Self {
        let completes = completed_by(&path, model, block_size);
        Self { copies: [0; Tier::COUNT], path, completes }
    }

    fn fastest(&self) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| self.copies[tier.index()] > 0)
    }
}

/// The router blocks whose last token lies in the last step of the path.
fn completed_by(path: &[Step], model: &str, block_size: u32) -> Vec<(BlockKey, Vec<EngineHash>)> {
    let lora = path.first().and_then(|step| step.lora.as_deref());
    let Ok(chain) = Chain::new(model, lora, block_size) else { return vec![] };
    let size = block_size as usize;
    let tokens: Vec<u32> = path.iter().flat_map(|step| step.tokens.clone()).collect();
    let own_start = tokens.len() - path.last().map_or(0, |step| step.tokens.len());
    let mut parent = chain.root();
    let mut completed = vec![];
    for (i, block) in tokens.chunks_exact(size).enumerate() {
        let (start, end) = (i * size, (i + 1) * size);
        let (mut texts, mut items, mut rests_on) = (vec![], vec![], vec![]);
        let mut step_start = 0;
        for step in path {
            let step_end = step_start + step.tokens.len();
            if step_start < end && start < step_end {
                rests_on.push(step.name);
            }
            if (start..end).contains(&step_start) {
                let within = (step_start - start) as i64;
                let (step_texts, step_items) = step.extras();
                texts.extend(step_texts);
                items.extend(step_items.map(|(name, offset)| (name, offset + within)));
            }
            step_start = step_end;
        }
        // An item that reaches over several steps is one item.
        items.dedup();
        let extra = BlockExtra::new(texts.into_iter(), items.into_iter());
        parent = chain.next(parent, block, extra);
        if end > own_start {
            completed.push((parent, rests_on));
        }
    }
    completed
}

impl Endpoint {
    /// The fastest tier on which the endpoint holds the key, by its events.
    fn fastest(&self, key: BlockKey) -> Option<Tier> {
        let by_group = self.groups.values().map(|names| {
            let completed = names.values().flat_map(|name| &name.completes);
            let tiers =
                completed.filter(|(completed, _)| *completed == key).filter_map(|(_, on)| {
                    on.iter().map(|name| names.get(name)?.fastest()).collect::<Option<Vec<_>>>()
                });
            tiers.filter_map(|tiers| tiers.into_iter().max()).min()
        });
        by_group.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// All keys that some name completes.
    fn keys(&self) -> BTreeSet<BlockKey> {
        let names = self.groups.values().flat_map(BTreeMap::values);
        names.flat_map(|name| &name.completes).map(|&(key, _)| key).collect()
    }

    /// All bookings.
    fn booked(&self) -> impl Iterator<Item = &(BlockKey, Time)> {
        self.believed.iter().chain(&self.text)
    }

    fn disbelieve(&mut self, key: BlockKey) {
        self.believed.retain(|&(believed, _)| believed != key);
    }

    fn disbelieve_held(&mut self) {
        let mut believed = std::mem::take(&mut self.believed);
        believed.retain(|&(key, _)| self.fastest(key).is_none());
        self.believed = believed;
    }
}

impl Oracle {
    /// An empty oracle; the arguments are those of [`Residency::new`](super::Residency::new).
    #[must_use]
    pub fn new(config: IndexConfig, block_size: u32) -> Self {
        Self { config, block_size, endpoints: BTreeMap::new(), slots: 0 }
    }

    /// See [`Residency::join`](super::Residency::join).
    pub fn join(&mut self, id: EndpointId, model: &str, source: Source) {
        self.slots = self.slots.max(id.slot.index() + 1);
        if self
            .endpoints
            .get(&id.slot.index())
            .is_some_and(|tenant| tenant.id.generation > id.generation)
        {
            return;
        }
        let endpoint = Endpoint {
            id,
            model: model.to_owned(),
            source,
            groups: BTreeMap::new(),
            unindexed: BTreeSet::new(),
            believed: vec![],
            text: vec![],
        };
        self.endpoints.insert(id.slot.index(), endpoint);
    }

    /// See [`Residency::leave`](super::Residency::leave).
    pub fn leave(&mut self, id: EndpointId) {
        if self.tenant(id).is_some() {
            self.endpoints.remove(&id.slot.index());
        }
    }

    /// See [`Residency::clear`](super::Residency::clear).
    pub fn clear(&mut self, id: EndpointId) {
        if let Some(endpoint) = self.tenant_mut(id) {
            endpoint.groups.clear();
            endpoint.unindexed.clear();
            endpoint.believed.clear();
            endpoint.text.clear();
        }
    }

    /// See [`Residency::set_source`](super::Residency::set_source).
    pub fn set_source(&mut self, now: Time, id: EndpointId, source: Source) {
        let latest = now + self.time_to_live(source);
        let capacity = self.capacity(source);
        if let Some(endpoint) = self.tenant_mut(id) {
            endpoint.source = source;
            if matches!(source, Source::Approximate { .. }) {
                endpoint.groups.clear();
                endpoint.unindexed.clear();
            }
            for (_, expiry) in &mut endpoint.believed {
                *expiry = latest.min(*expiry);
            }
            drop_oldest(&mut endpoint.believed, capacity);
            drop_oldest(&mut endpoint.text, capacity);
        }
    }

    /// See [`Residency::set_capacity`](super::Residency::set_capacity).
    pub fn set_capacity(&mut self, id: EndpointId, capacity_blocks: u64) {
        let source = Source::Approximate { capacity_blocks };
        let capacity = self.capacity(source);
        if let Some(endpoint) = self.tenant_mut(id)
            && endpoint.source != Source::Events
        {
            endpoint.source = source;
            drop_oldest(&mut endpoint.believed, capacity);
            drop_oldest(&mut endpoint.text, capacity);
        }
    }

    /// See [`Residency::book`](super::Residency::book).
    pub fn book(&mut self, now: Time, id: EndpointId, keys: &[BlockKey]) {
        let Some(source) = self.tenant(id).map(|endpoint| endpoint.source) else { return };
        let (expiry, capacity) = (now + self.time_to_live(source), self.capacity(source));
        let Some(endpoint) = self.tenant_mut(id) else { return };
        for &key in keys.iter().rev() {
            if endpoint.fastest(key).is_none() {
                endpoint.disbelieve(key);
                endpoint.believed.push((key, expiry));
                drop_oldest(&mut endpoint.believed, capacity);
            }
        }
    }

    /// See [`Residency::book_text`](super::Residency::book_text).
    pub fn book_text(&mut self, now: Time, id: EndpointId, keys: &[BlockKey]) {
        let Some(source) = self.tenant(id).map(|endpoint| endpoint.source) else { return };
        let expiry = now + Duration::from_millis(self.config.approximate_ttl_ms);
        let capacity = self.capacity(source);
        let Some(endpoint) = self.tenant_mut(id) else { return };
        for &key in keys.iter().rev() {
            endpoint.text.retain(|&(booked, _)| booked != key);
            endpoint.text.push((key, expiry));
            drop_oldest(&mut endpoint.text, capacity);
        }
    }

    /// See [`Residency::apply`](super::Residency::apply).
    pub fn apply(&mut self, now: Time, id: EndpointId, batch: &KvEventBatch) -> ApplyOutcome {
        let mut tally = ApplyOutcome::default();
        let Some(source) = self.tenant(id).map(|endpoint| endpoint.source) else {
            tally.stale_events = batch.events.len() as u64;
            return tally;
        };
        if source != Source::Events && !batch.events.is_empty() {
            self.set_source(now, id, Source::Events);
        }
        let block_size = self.block_size;
        let Some(endpoint) = self.tenant_mut(id) else { return tally };
        for event in &batch.events {
            match event {
                KvEvent::Stored(event) => stored(endpoint, event, block_size, &mut tally),
                KvEvent::Removed(event) => removed(endpoint, event, &mut tally),
                KvEvent::Cleared => {
                    endpoint.groups.values_mut().for_each(BTreeMap::clear);
                    endpoint.believed.clear();
                    endpoint.text.clear();
                    tally.cleared += 1;
                }
            }
        }
        tally
    }

    /// See [`Residency::matches`](super::Residency::matches).
    pub fn matches(&self, now: Time, keys: &[BlockKey], out: &mut Matches) {
        out.reset(self.slots, keys.len() as u32);
        for (&slot, endpoint) in &self.endpoints {
            out.generation[slot] = endpoint.id.generation;
            let mut exact = true;
            for &key in keys {
                match held(now, endpoint, key) {
                    None => break,
                    Some(Held::Believed) => exact = false,
                    Some(Held::Exact(Tier::Gpu)) => {}
                    Some(Held::Exact(tier)) => out.lower_tier_blocks[slot][tier.index() - 1] += 1,
                }
                out.depth_blocks[slot] += 1;
            }
            let first = keys.first();
            let is_text = endpoint.text.iter().any(|(key, _)| Some(key) == first);
            out.source[slot] = match (out.depth_blocks[slot], endpoint.source) {
                (0, _) => MatchSource::None,
                _ if is_text => MatchSource::Approximate,
                (_, Source::Approximate { .. }) => MatchSource::Approximate,
                _ if !endpoint.unindexed.is_empty() => MatchSource::UpperBound,
                _ if exact => MatchSource::Exact,
                _ => MatchSource::Speculative,
            };
        }
    }

    /// See [`Residency::holds`](super::Residency::holds), once [`Residency::expire`](super::Residency::expire)
    /// was called for `now`.
    #[must_use]
    pub fn holds(&self, now: Time, id: EndpointId, keys: &[BlockKey]) -> Option<Held> {
        held(now, self.tenant(id)?, *keys.last()?)
    }

    /// See [`Residency::blocks`](super::Residency::blocks), once [`Residency::expire`](super::Residency::expire)
    /// was called for `now`.
    #[must_use]
    pub fn blocks(&self, now: Time, id: EndpointId) -> Option<BlockCounts> {
        let endpoint = self.tenant(id)?;
        let mut counts = BlockCounts::default();
        for key in endpoint.keys() {
            if let Some(tier) = endpoint.fastest(key) {
                counts.exact[tier.index()] += 1;
            }
        }
        counts.believed = endpoint.booked().filter(|&&(_, expiry)| expiry > now).count() as u64;
        Some(counts)
    }

    /// When the first belief expires.
    #[must_use]
    pub fn next_expiry(&self, now: Time) -> Option<Time> {
        let believed = self.endpoints.values().flat_map(Endpoint::booked);
        believed.map(|&(_, expiry)| expiry).filter(|&expiry| expiry > now).min()
    }

    /// All keys that anybody holds or is believed to hold.
    #[must_use]
    pub fn keys(&self, now: Time) -> BTreeSet<BlockKey> {
        let mut keys = BTreeSet::new();
        for endpoint in self.endpoints.values() {
            let known = endpoint.keys();
            let believed = endpoint.booked().map(|&(key, _)| key);
            keys.extend(
                known.into_iter().chain(believed).filter(|&key| held(now, endpoint, key).is_some()),
            );
        }
        keys
    }

    fn tenant(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(&id.slot.index()).filter(|tenant| tenant.id == id)
    }

    fn tenant_mut(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(&id.slot.index()).filter(|tenant| tenant.id == id)
    }

    fn time_to_live(&self, source: Source) -> Duration {
        Duration::from_millis(match source {
            Source::Events => self.config.speculative_ttl_ms,
            Source::Approximate { .. } => self.config.approximate_ttl_ms,
        })
    }

    fn capacity(&self, source: Source) -> usize {
        match source {
            Source::Events | Source::Approximate { capacity_blocks: 0 } => {
                self.config.approximate_blocks
            }
            Source::Approximate { capacity_blocks } => capacity_blocks as usize,
        }
    }
}

fn held(now: Time, endpoint: &Endpoint, key: BlockKey) -> Option<Held> {
    if let Some(tier) = endpoint.fastest(key) {
        return Some(Held::Exact(tier));
    }
    let booked = |&(booked, expiry): &(BlockKey, Time)| booked == key && expiry > now;
    endpoint.booked().any(booked).then_some(Held::Believed)
}

fn drop_oldest(believed: &mut Vec<(BlockKey, Time)>, capacity: usize) {
    let excess = believed.len().saturating_sub(capacity);
    believed.drain(..excess);
}

fn stored(endpoint: &mut Endpoint, event: &BlockStored, block_size: u32, tally: &mut ApplyOutcome) {
    use super::SpecKind::Unstated;
    let index = event.group.as_ref().map_or(0, |group| group.index);
    let indexed = match event.group.as_ref().map(|group| group.kind) {
        None => true,
        Some(Unstated) => {
            endpoint.groups.contains_key(&index) || !endpoint.unindexed.contains(&index)
        }
        Some(kind) => kind.keeps_whole_prefix(),
    };
    let count = event.block_hashes.len();
    if !indexed {
        endpoint.unindexed.insert(index);
        tally.unindexed_group_blocks += count as u64;
        return;
    }
    let size = event.block_size as usize;
    let tokens_fit =
        event.token_ids.is_empty() || size > 0 && event.token_ids.len() == count * size;
    if !tokens_fit || ![0, count].contains(&event.extra_keys.len()) {
        tally.malformed_events += 1;
        return;
    }
    endpoint.groups.entry(index).or_default();

    // The path so far, or which counter takes blocks that have no position.
    let mut path = match event.parent {
        None => Ok(vec![]),
        Some(parent) => endpoint.groups[&index].get(&parent).map(|n| n.path.clone()).ok_or(false),
    };
    for (i, &hash) in event.block_hashes.iter().enumerate() {
        let known = endpoint.groups[&index].get(&hash).cloned();
        let name = match (known, path) {
            (Some(name), _) => Ok(name),
            (None, Err(mismatch)) => Err(mismatch),
            (None, Ok(_)) if event.token_ids.is_empty() => Err(false),
            (None, Ok(before)) => {
                let tokens = event.token_ids[i * size..(i + 1) * size].to_vec();
                let extra_keys = event.extra_keys.get(i).cloned().unwrap_or_default();
                let start: usize = before.iter().map(|step| step.tokens.len()).sum();
                if fits(start, size, block_size as usize, &extra_keys) {
                    let mut path = before;
                    path.push(Step { name: hash, tokens, extra_keys, lora: event.lora.clone() });
                    Ok(Name::new(path, &endpoint.model, block_size))
                } else {
                    Err(true)
                }
            }
        };
        path = match name {
            Err(mismatch) => {
                let counter = if mismatch {
                    &mut tally.block_size_mismatch_blocks
                } else {
                    &mut tally.orphan_blocks
                };
                *counter += 1;
                Err(mismatch)
            }
            Ok(mut name) => {
                tally.stored_blocks += 1;
                name.copies[event.tier.index()] += 1;
                let path = name.path.clone();
                endpoint.groups.entry(index).or_default().insert(hash, name);
                endpoint.disbelieve_held();
                Ok(path)
            }
        };
    }
}

/// Whether an engine block of `size` tokens that starts at token `start` can be cut to router
/// blocks: whole router blocks, or a part of one. Which router blocks of a larger engine block a
/// multimodal item covers is not told.
fn fits(start: usize, size: usize, router: usize, extra_keys: &[ExtraKey]) -> bool {
    let within = start % router;
    let multimodal = extra_keys.iter().any(|key| matches!(key, ExtraKey::Multimodal { .. }));
    if size.is_multiple_of(router) {
        within == 0 && (size == router || !multimodal)
    } else {
        router.is_multiple_of(size) && within + size <= router
    }
}

fn removed(endpoint: &mut Endpoint, event: &BlockRemoved, tally: &mut ApplyOutcome) {
    let groups: Vec<u32> = match event.group {
        None => endpoint.groups.keys().copied().collect(),
        Some(group) if endpoint.groups.contains_key(&group) => vec![group],
        Some(group) if endpoint.unindexed.contains(&group) => {
            tally.unindexed_group_blocks += event.block_hashes.len() as u64;
            return;
        }
        Some(_) => vec![],
    };
    for &hash in &event.block_hashes {
        let mut copies_removed = 0;
        for group in &groups {
            let names = endpoint.groups.entry(*group).or_default();
            let Some(name) = names.get_mut(&hash) else { continue };
            if name.copies[event.tier.index()] == 0 {
                continue;
            }
            name.copies[event.tier.index()] -= 1;
            copies_removed += 1;
            let gone = name.fastest().is_none();
            let resting: Vec<BlockKey> = names
                .values()
                .flat_map(|name| &name.completes)
                .filter(|(_, on)| on.contains(&hash))
                .map(|&(key, _)| key)
                .collect();
            if gone {
                names.remove(&hash);
            }
            resting.into_iter().for_each(|key| endpoint.disbelieve(key));
        }
        tally.removed_blocks += copies_removed;
        tally.unknown_removed_blocks += u64::from(copies_removed == 0);
    }
}
