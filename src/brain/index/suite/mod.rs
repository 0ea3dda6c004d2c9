//! What every structure behind the index's contract must pass: random histories against the
//! [`Oracle`](super::oracle::Oracle), one thread after another ([`histories`]) and many at once
//! ([`threads`]).
//!
//! The world ([`world`]) is small on purpose: few prompts that share prefixes, few endpoints, small
//! bounds, so that short histories meet each other's blocks.

mod histories;
mod threads;
mod world;

use super::{
    ApplyOutcome, BlockCounts, Held, IndexConfig, KvEventBatch, Matches, Residency, Source,
};
use crate::{BlockKey, EndpointId, Time};

/// What the suite needs to know of a structure. Each method is [`Residency`]'s of that name.
pub(super) trait Structure: Send + Sync + Sized {
    fn new(config: IndexConfig, block_size: u32) -> Self;
    fn join(&self, endpoint: EndpointId, model: &str, source: Source);
    fn leave(&self, endpoint: EndpointId);
    fn clear(&self, endpoint: EndpointId);
    fn set_source(&self, now: Time, endpoint: EndpointId, source: Source);
    fn set_capacity(&self, endpoint: EndpointId, capacity_blocks: u64);
    fn apply(&self, now: Time, endpoint: EndpointId, batch: &KvEventBatch) -> ApplyOutcome;
    fn book(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]);
    fn book_text(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]);
    fn matches(&self, now: Time, keys: &[BlockKey], out: &mut Matches);
    fn expire(&self, now: Time);
    fn next_expiry(&self) -> Option<Time>;
    fn holds(&self, endpoint: EndpointId, keys: &[BlockKey]) -> Option<Held>;
    fn blocks(&self, endpoint: EndpointId) -> Option<BlockCounts>;
    fn keys(&self) -> u64;
    fn applied(&self) -> ApplyOutcome;
    /// What the endpoint holds by its events goes out as a snapshot and comes back from it, if that
    /// is all that is known of it.
    fn reload(&self, now: Time, endpoint: EndpointId);
}

impl Structure for Residency {
    fn new(config: IndexConfig, block_size: u32) -> Self {
        Self::new(config, block_size).unwrap()
    }
    fn join(&self, endpoint: EndpointId, model: &str, source: Source) {
        self.join(endpoint, model, source);
    }
    fn leave(&self, endpoint: EndpointId) {
        self.leave(endpoint);
    }
    fn clear(&self, endpoint: EndpointId) {
        self.clear(endpoint);
    }
    fn set_source(&self, now: Time, endpoint: EndpointId, source: Source) {
        self.set_source(now, endpoint, source);
    }
    fn set_capacity(&self, endpoint: EndpointId, capacity_blocks: u64) {
        self.set_capacity(endpoint, capacity_blocks);
    }
    fn apply(&self, now: Time, endpoint: EndpointId, batch: &KvEventBatch) -> ApplyOutcome {
        self.apply(now, endpoint, batch)
    }
    fn book(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]) {
        self.book(now, endpoint, keys);
    }
    fn book_text(&self, now: Time, endpoint: EndpointId, keys: &[BlockKey]) {
        self.book_text(now, endpoint, keys);
    }
    fn matches(&self, now: Time, keys: &[BlockKey], out: &mut Matches) {
        self.matches(now, keys, out);
    }
    fn expire(&self, now: Time) {
        self.expire(now);
    }
    fn next_expiry(&self) -> Option<Time> {
        self.next_expiry()
    }
    fn holds(&self, endpoint: EndpointId, keys: &[BlockKey]) -> Option<Held> {
        self.holds(endpoint, keys)
    }
    fn blocks(&self, endpoint: EndpointId) -> Option<BlockCounts> {
        self.blocks(endpoint)
    }
    fn keys(&self) -> u64 {
        self.stats().keys
    }
    fn applied(&self) -> ApplyOutcome {
        self.stats().applied
    }
    fn reload(&self, now: Time, endpoint: EndpointId) {
        if self.blocks(endpoint).is_some_and(|blocks| blocks.believed == 0) {
            super::snapshot::tests::reload(self, now, endpoint);
        }
    }
}

/// Random histories to run: `LLMD_HISTORIES`, or as many as fit into a test run of seconds.
fn history_count(default: u32) -> u32 {
    std::env::var("LLMD_HISTORIES").map_or(default, |count| {
        count.parse().expect("LLMD_HISTORIES is a number of random histories")
    })
}

#[test]
fn the_tree_answers_as_the_oracle_under_random_histories() {
    let count = history_count(10_000);
    assert_eq!(histories::agree_with_the_oracle::<Residency>(count), count);
}

#[test]
fn the_tree_never_over_credits_while_engines_write() {
    let count = history_count(10_000).div_ceil(10);
    let (writers, matches) = threads::never_over_credit::<Residency>(count);
    assert_eq!(writers, count * threads::WRITERS);
    assert!(matches > 0);
}

#[test]
fn the_tree_keeps_no_ghosts_when_slots_change_tenants() {
    threads::leave_no_ghosts::<Residency>(history_count(10_000).div_ceil(50));
}
