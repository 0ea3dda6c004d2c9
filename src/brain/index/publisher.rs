//! One endpoint's side of the shared map.

use super::beliefs::Beliefs;
use super::holders::Holders;
use crate::{BlockKey, Slot, Tier, Time};

/// Where one endpoint's changes are made known. Its mutex is held.
pub(super) struct Publisher<'a> {
    pub(super) holders: &'a Holders,
    pub(super) slot: Slot,
    pub(super) beliefs: &'a mut Beliefs,
}

impl Publisher<'_> {
    /// The key's fastest tier is `to` now. Events that speak of a block settle what we believed of
    /// it; exact first, so that no match finds it gone in between.
    pub(super) fn set_tier(&mut self, key: BlockKey, to: Option<Tier>) {
        self.holders.set_tier(key, self.slot, to);
        if to.is_some() {
            self.disbelieve(key);
        }
    }

    /// Believes a block that no event speaks of.
    pub(super) fn believe(&mut self, key: BlockKey, expiry: Time) {
        if self.beliefs.book(key, expiry) {
            self.holders.set_believed(key, self.slot, true);
            self.disbelieve_excess();
        }
    }

    pub(super) fn disbelieve(&mut self, key: BlockKey) {
        if self.beliefs.remove(key) {
            self.holders.set_believed(key, self.slot, false);
        }
    }

    pub(super) fn disbelieve_excess(&mut self) {
        while let Some(key) = self.beliefs.pop_excess() {
            self.holders.set_believed(key, self.slot, false);
        }
    }

    pub(super) fn disbelieve_expired(&mut self, now: Time) {
        while let Some(key) = self.beliefs.pop_expired(now) {
            self.holders.set_believed(key, self.slot, false);
        }
    }

    pub(super) fn disbelieve_all(&mut self) {
        while let Some(key) = self.beliefs.pop_oldest() {
            self.holders.set_believed(key, self.slot, false);
        }
    }
}
