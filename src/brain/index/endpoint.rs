//! One tenant of a slot, and what is known of it.

use super::beliefs::Beliefs;
use super::holders::Holders;
use super::publisher::Publisher;
use super::view::EngineView;
use super::{ApplyOutcome, BlockCounts, Held, KvEvent, MatchSource, Source};
use crate::{BlockKey, EndpointId, Slot, Time};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What all endpoints share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Keys of token ids, which events name too.
    pub(super) tokens: Holders,
    /// Keys of text, which only bookings know. The two never meet, so each prompt's keys are in
    /// one of the maps.
    pub(super) text: Holders,
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
    pub(super) view: EngineView,
    tokens: Beliefs,
    text: Beliefs,
}

impl Endpoint {
    pub(super) fn new(
        id: EndpointId,
        source: Source,
        view: EngineView,
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
                view,
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
        self.upper_bound.store(state.view.has_unindexed_groups(), Ordering::Relaxed);
    }
}

impl State {
    pub(super) fn apply(&mut self, shared: &Shared, events: &[KvEvent]) -> ApplyOutcome {
        let mut tally = ApplyOutcome::default();
        let mut out = publisher(&shared.tokens, self.slot, &mut self.tokens);
        for event in events {
            self.view.apply(event, &mut out, &mut tally);
        }
        if tally.cleared > 0 {
            publisher(&shared.text, self.slot, &mut self.text).disbelieve_all();
        }
        self.applied += tally;
        tally
    }

    /// The engine was sent a prompt of token ids: last block first, so that the first is the
    /// newest.
    pub(super) fn book(&mut self, shared: &Shared, keys: &[BlockKey], expiry: Time) {
        let mut out = publisher(&shared.tokens, self.slot, &mut self.tokens);
        for &key in keys.iter().rev() {
            if self.view.fastest(key).is_none() {
                out.believe(key, expiry);
            }
        }
    }

    /// As [`Self::book`], for a prompt of text.
    pub(super) fn book_text(&mut self, shared: &Shared, keys: &[BlockKey], expiry: Time) {
        let mut out = publisher(&shared.text, self.slot, &mut self.text);
        for &key in keys.iter().rev() {
            out.believe(key, expiry);
        }
    }

    pub(super) fn expire(&mut self, shared: &Shared, now: Time) {
        publisher(&shared.tokens, self.slot, &mut self.tokens).disbelieve_expired(now);
        publisher(&shared.text, self.slot, &mut self.text).disbelieve_expired(now);
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
            self.view.reset(&mut publisher(&shared.tokens, self.slot, &mut self.tokens));
        }
    }

    pub(super) fn set_capacity(&mut self, shared: &Shared, believed_blocks: usize) {
        self.tokens.set_capacity(believed_blocks);
        self.text.set_capacity(believed_blocks);
        publisher(&shared.tokens, self.slot, &mut self.tokens).disbelieve_excess();
        publisher(&shared.text, self.slot, &mut self.text).disbelieve_excess();
    }

    /// Nothing is known any more.
    pub(super) fn forget_all(&mut self, shared: &Shared) {
        let mut out = publisher(&shared.tokens, self.slot, &mut self.tokens);
        self.view.reset(&mut out);
        out.disbelieve_all();
        publisher(&shared.text, self.slot, &mut self.text).disbelieve_all();
    }

    pub(super) fn holds(&self, key: BlockKey) -> Option<Held> {
        let believed = || self.tokens.contains(key) || self.text.contains(key);
        match self.view.fastest(key) {
            Some(tier) => Some(Held::Exact(tier)),
            None => believed().then_some(Held::Believed),
        }
    }

    pub(super) fn block_counts(&self) -> BlockCounts {
        let believed = (self.tokens.len() + self.text.len()) as u64;
        BlockCounts { exact: self.view.held(), believed }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.view.memory_bytes() + self.tokens.memory_bytes() + self.text.memory_bytes()
    }
}

fn publisher<'a>(holders: &'a Holders, slot: Slot, beliefs: &'a mut Beliefs) -> Publisher<'a> {
    Publisher { holders, slot, beliefs }
}
