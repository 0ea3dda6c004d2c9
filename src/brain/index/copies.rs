//! Physical copies of one block.

use super::tree::Hold;
use crate::Tier;

/// Copies on each tier. They saturate, which forgets copies, never invents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Copies([u16; Tier::COUNT]);

impl Copies {
    /// One on each tier of a hold.
    pub(super) fn one_each(hold: Hold) -> Self {
        Self(Tier::ALL.map(|tier| u16::from(hold.meets(Hold::on(tier)))))
    }

    /// With so many more in GPU memory.
    pub(super) fn and_more(mut self, copies: u32) -> Self {
        self.0[0] = self.0[0].saturating_add(u16::try_from(copies).unwrap_or(u16::MAX));
        self
    }

    pub(super) fn any(self) -> bool {
        self.0.iter().any(|&copies| copies > 0)
    }

    /// Whether there is no tier with several.
    pub(super) fn are_single(self) -> bool {
        self.0.iter().all(|&copies| copies <= 1)
    }

    pub(super) fn fastest(self) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| self.0[tier.index()] > 0)
    }

    /// The tiers that have any.
    pub(super) fn hold(self) -> Hold {
        let held = Tier::ALL.into_iter().filter(|tier| self.0[tier.index()] > 0);
        held.fold(Hold::NONE, |hold, tier| hold | Hold::on(tier))
    }

    pub(super) fn add(&mut self, tier: Tier, more: u16) {
        let copies = &mut self.0[tier.index()];
        *copies = copies.saturating_add(more);
    }

    /// How many there are on a tier.
    pub(super) fn on(self, tier: Tier) -> u16 {
        self.0[tier.index()]
    }

    /// False where there was none.
    pub(super) fn remove(&mut self, tier: Tier) -> bool {
        let copies = &mut self.0[tier.index()];
        let had = *copies > 0;
        *copies = copies.saturating_sub(1);
        had
    }
}
