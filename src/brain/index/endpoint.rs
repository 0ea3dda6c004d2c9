//! One tenant of a slot, and what is known of it.

use super::beliefs::Beliefs;
use super::groups::Groups;
use super::plain::PlainView;
use super::publisher::Publisher;
use super::snapshot::{Exported, ImportError, Loader, Record};
use super::sync::{AtomicBool, Mutex, Ordering};
use super::tree::{Hold, Placed, Tree, heap};
use super::view::EngineView;
use super::{
    ApplyOutcome, BlockCounts, BlockRemoved, BlockStored, Held, KvEvent, MatchSource, Source,
};
use crate::prompt::Chain;
use crate::{BlockKey, EndpointId, EngineHash, Slot, Tier, Time};

/// What all endpoints share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Keys of token ids, which events name too.
    pub(super) tokens: Tree,
    /// Keys of text, which only bookings know. The two never meet, so each prompt's keys are in
    /// one of the trees.
    pub(super) text: Tree,
}

/// What the endpoint's keys are rooted in.
#[derive(Debug)]
pub(super) struct KeySpace {
    model: String,
    block_size: u32,
    /// The chain of prompts without a LoRA adapter.
    base: Chain,
}

impl KeySpace {
    /// `None` for a block size that cannot be.
    pub(super) fn new(model: &str, block_size: u32) -> Option<Self> {
        let base = Chain::new(model, None, block_size).ok()?;
        Some(Self { model: model.to_owned(), block_size, base })
    }

    fn chain(&self, lora: Option<&str>) -> Chain {
        match lora {
            None => self.base.clone(),
            // Block sizes are checked when the space is made.
            lora => {
                Chain::new(&self.model, lora, self.block_size).unwrap_or_else(|_| self.base.clone())
            }
        }
    }
}

/// One tenant of a slot.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) id: EndpointId,
    /// Whether it sends no events, and whether its matches are upper bounds: written under the
    /// mutex, read by matches without it.
    approximate: AtomicBool,
    upper_bound: AtomicBool,
    pub(super) state: Mutex<State>,
}

/// What is known of an endpoint.
#[derive(Debug)]
pub(super) struct State {
    slot: Slot,
    /// Set when it leaves: whoever comes late finds nothing to change.
    pub(super) gone: bool,
    pub(super) source: Source,
    /// What its events did.
    pub(super) applied: ApplyOutcome,
    space: KeySpace,
    groups: Groups,
    view: View,
    tokens: Beliefs,
    text: Beliefs,
    /// Kept between stores for its memory.
    pieces: Vec<Placed>,
    /// The time of what is being applied, in seconds.
    pub(super) stamp: u32,
}

/// What the endpoint's events tell.
#[derive(Debug)]
enum View {
    Plain(PlainView),
    Engine(EngineView),
}

impl Endpoint {
    pub(super) fn new(
        id: EndpointId,
        source: Source,
        space: KeySpace,
        believed_blocks: usize,
    ) -> Self {
        Self {
            id,
            approximate: AtomicBool::new(source.is_approximate()),
            upper_bound: AtomicBool::new(false),
            state: Mutex::new(State {
                slot: id.slot,
                gone: false,
                source,
                applied: ApplyOutcome::default(),
                space,
                groups: Groups::default(),
                view: View::Plain(PlainView::default()),
                pieces: Vec::new(),
                stamp: 0,
                tokens: Beliefs::new(believed_blocks),
                text: Beliefs::new(believed_blocks),
            }),
        }
    }

    /// What a match of token keys rests on, where `exact` says that no booking was needed for it.
    pub(super) fn match_source(&self, exact: bool) -> MatchSource {
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

    /// Makes known to matches what they read without the mutex.
    pub(super) fn label(&self, state: &State) {
        self.approximate.store(state.source.is_approximate(), Ordering::Relaxed);
        self.upper_bound.store(state.groups.has_unindexed(), Ordering::Relaxed);
    }
}

/// The endpoint's side of the tree of token ids.
macro_rules! publisher {
    ($state:expr, $tree:expr, $beliefs:ident) => {
        Publisher {
            tree: &$tree,
            who: $state.slot.0,
            beliefs: &mut $state.$beliefs,
            pieces: &mut $state.pieces,
            stamp: $state.stamp,
        }
    };
}

impl State {
    pub(super) fn apply(&mut self, shared: &Shared, events: &[KvEvent]) -> ApplyOutcome {
        let mut tally = ApplyOutcome::default();
        for event in events {
            match event {
                KvEvent::Stored(stored) => self.stored(shared, stored, &mut tally),
                KvEvent::Removed(removed) => self.removed(shared, removed, &mut tally),
                KvEvent::Cleared => {
                    tally.cleared += 1;
                    self.clear(shared);
                    publisher!(self, shared.tokens, tokens).disbelieve_all();
                }
            }
        }
        if tally.cleared > 0 {
            publisher!(self, shared.text, text).disbelieve_all();
        }
        self.applied += tally;
        tally
    }

    fn stored(&mut self, shared: &Shared, event: &BlockStored, tally: &mut ApplyOutcome) {
        let Some(group) = self.groups.of_stored(event, tally) else { return };
        let chain = self.space.chain(event.lora.as_deref());
        let plain_size = event.token_ids.is_empty() || event.block_size == self.space.block_size;
        let mut out = publisher!(self, shared.tokens, tokens);
        if let View::Plain(view) = &mut self.view {
            if group == 0 && plain_size {
                return view.stored(event, &chain, &mut out, tally);
            }
            self.view = View::Engine(std::mem::take(view).into_engine_view(&mut out));
        }
        if let View::Engine(view) = &mut self.view {
            view.stored(group, event, &chain, &mut out, tally);
        }
    }

    fn removed(&mut self, shared: &Shared, event: &BlockRemoved, tally: &mut ApplyOutcome) {
        let blocks = event.block_hashes.len();
        let Some(groups) = self.groups.of_removed(event.group, blocks, tally) else { return };
        let mut out = publisher!(self, shared.tokens, tokens);
        match &mut self.view {
            View::Plain(_) if groups.is_empty() => tally.unknown_removed_blocks += blocks as u64,
            View::Plain(view) => view.removed(event, &mut out, tally),
            View::Engine(view) => view.removed(groups, event, &mut out, tally),
        }
    }

    /// As a stored event, of an engine whose blocks are the router's, with keys in place of
    /// tokens.
    pub(super) fn store(
        &mut self,
        shared: &Shared,
        parent: Option<EngineHash>,
        names: &[EngineHash],
        keys: &[BlockKey],
    ) -> u64 {
        let mut out = publisher!(self, shared.tokens, tokens);
        let View::Plain(view) = &mut self.view else { return 0 };
        view.store_behind(parent, names, keys, Tier::Gpu, &mut out)
    }

    /// As a removed event.
    pub(super) fn remove(&mut self, shared: &Shared, names: &[EngineHash]) -> u64 {
        let mut out = publisher!(self, shared.tokens, tokens);
        let View::Plain(view) = &mut self.view else { return 0 };
        view.remove(names, Tier::Gpu, &mut out)
    }

    /// Hands what its events told to `sink`, record by record.
    pub(super) fn export(&mut self, shared: &Shared, sink: &mut dyn FnMut(Record)) -> Exported {
        if self.source.is_approximate() {
            return Exported::NoEvents;
        }
        let (View::Plain(view), Some(group)) = (&self.view, self.groups.only()) else {
            return Exported::NotPlain;
        };
        if let Some(group) = group {
            sink(Record::Group(group));
        }
        let out = publisher!(self, shared.tokens, tokens);
        Exported::Whole { blocks: view.save(&out, sink) }
    }

    /// Takes one record in, of an export into an endpoint that was empty. `loader` has what the
    /// ones before it became.
    pub(super) fn import(
        &mut self,
        shared: &Shared,
        loader: &mut Loader,
        record: &Record,
    ) -> Result<(), ImportError> {
        loader.begin();
        let View::Plain(view) = &mut self.view else { return Err(ImportError::Gone) };
        let mut out = publisher!(self, shared.tokens, tokens);
        match record {
            Record::Group(group) => self.groups = Groups::of(*group),
            Record::Run(run) => loader.run(view, run, &mut out)?,
            Record::Copies(more) => loader.copies(view, more, &mut out)?,
        }
        Ok(())
    }

    /// Forgets what was stored the longest ago, so many blocks. Returns how many.
    pub(super) fn evict(&mut self, shared: &Shared, blocks: u64) -> u64 {
        let mut out = publisher!(self, shared.tokens, tokens);
        let evicted = match &mut self.view {
            View::Plain(view) => view.evict(blocks, &mut out),
            View::Engine(view) => view.evict(blocks, &mut out),
        };
        self.applied.evicted_blocks += evicted;
        evicted
    }

    /// The engine holds nothing any more; which groups it has stays known.
    fn clear(&mut self, shared: &Shared) {
        let mut out = publisher!(self, shared.tokens, tokens);
        match &mut self.view {
            View::Plain(view) => view.clear(&mut out),
            View::Engine(view) => view.clear(&mut out),
        }
    }

    /// Nothing that events told is known any more.
    fn reset(&mut self, shared: &Shared) {
        self.clear(shared);
        self.view = View::Plain(PlainView::default());
        self.groups = Groups::default();
    }

    /// The engine was sent a prompt of token ids.
    pub(super) fn book(&mut self, shared: &Shared, keys: &[BlockKey], expiry: Time) {
        publisher!(self, shared.tokens, tokens).believe(keys, expiry);
    }

    /// As [`Self::book`], for a prompt of text.
    pub(super) fn book_text(&mut self, shared: &Shared, keys: &[BlockKey], expiry: Time) {
        publisher!(self, shared.text, text).believe(keys, expiry);
    }

    pub(super) fn expire(&mut self, shared: &Shared, now: Time) {
        publisher!(self, shared.tokens, tokens).disbelieve_expired(now);
        publisher!(self, shared.text, text).disbelieve_expired(now);
    }

    /// When the first belief expires.
    pub(super) fn first_expiry(&self) -> Option<Time> {
        [&self.tokens, &self.text].into_iter().filter_map(Beliefs::first_expiry).min()
    }

    /// Changes how residency is known: at most `believed_blocks` of either sort are believed from
    /// now on, those of token ids until `latest`. An approximate endpoint forgets its events.
    pub(super) fn set_source(
        &mut self,
        shared: &Shared,
        source: Source,
        believed_blocks: usize,
        latest: Time,
    ) {
        self.source = source;
        self.tokens.cap_expiry(latest);
        self.set_capacity(shared, believed_blocks);
        if source.is_approximate() {
            self.reset(shared);
        }
    }

    pub(super) fn set_capacity(&mut self, shared: &Shared, believed_blocks: usize) {
        self.tokens.set_capacity(believed_blocks);
        self.text.set_capacity(believed_blocks);
        publisher!(self, shared.tokens, tokens).disbelieve_excess();
        publisher!(self, shared.text, text).disbelieve_excess();
    }

    /// Nothing is known any more.
    pub(super) fn forget_all(&mut self, shared: &Shared) {
        self.reset(shared);
        publisher!(self, shared.tokens, tokens).disbelieve_all();
        publisher!(self, shared.text, text).disbelieve_all();
        self.pieces = Vec::new();
    }

    /// How the last of these blocks is held, which start a prompt.
    pub(super) fn holds(&self, shared: &Shared, keys: &[BlockKey]) -> Option<Held> {
        let held =
            shared.tokens.held_at(self.slot.0, keys) | shared.text.held_at(self.slot.0, keys);
        match held.fastest() {
            Some(tier) => Some(Held::Exact(tier)),
            None => held.meets(Hold::BELIEVED).then_some(Held::Believed),
        }
    }

    pub(super) fn block_counts(&self) -> BlockCounts {
        let believed = (self.tokens.len() + self.text.len()) as u64;
        let exact = match &self.view {
            View::Plain(view) => view.held(),
            View::Engine(view) => view.held(),
        };
        BlockCounts { exact, believed }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let view = match &self.view {
            View::Plain(view) => view.memory_bytes(),
            View::Engine(view) => view.memory_bytes(),
        };
        view + self.tokens.memory_bytes() + self.text.memory_bytes() + heap::vec(&self.pieces)
    }

    /// Entries of the view.
    #[cfg(test)]
    pub(super) fn view_entries(&self) -> usize {
        match &self.view {
            View::Plain(view) => view.entries(),
            View::Engine(view) => view.entries(),
        }
    }
}
