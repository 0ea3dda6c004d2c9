//! One endpoint's side of the shared tree.

use super::beliefs::Beliefs;
use super::tree::{At, BlockRef, Hold, Placed, Put, Tree};
use crate::{BlockKey, EngineHash, Time};

/// Where one endpoint's changes are made known. Its mutex is held.
pub(super) struct Publisher<'a> {
    pub(super) tree: &'a Tree,
    pub(super) who: u32,
    pub(super) beliefs: &'a mut Beliefs,
    /// What a store became; kept between stores for its memory.
    pub(super) pieces: &'a mut Vec<Placed>,
    /// The time, in seconds.
    pub(super) stamp: u32,
}

impl Publisher<'_> {
    /// Events say that the endpoint holds a run of blocks; those that it held already are only
    /// told of. What we believed of them is settled by that. `skip` blocks at the start are only
    /// there to be passed. Returns the last block, and what became of all.
    pub(super) fn hold(
        &mut self,
        at: At,
        keys: &[BlockKey],
        names: &[EngineHash],
        hold: Hold,
        skip: usize,
    ) -> (Option<BlockRef>, &[Placed]) {
        let put = Put { hold, unless: Hold::EXACT, skip, stamp: self.stamp };
        let pieces = &mut *self.pieces;
        pieces.clear();
        let last = self.tree.put(self.who, at, keys, names, put, |placed| pieces.push(placed));
        for piece in pieces.iter().filter(|piece| piece.before.meets(Hold::BELIEVED)) {
            self.beliefs.remove(piece.first, piece.len);
        }
        (last, pieces)
    }

    /// The endpoint holds a block otherwise, or no more.
    pub(super) fn change(&self, block: BlockRef, to: Hold) {
        self.tree.alter(self.who, block, 1, |_| to, |_| ());
    }

    /// Believes the blocks of a prompt that no event speaks of: the last ones first, so that the
    /// first are the newest.
    pub(super) fn believe(&mut self, keys: &[BlockKey], expiry: Time) {
        let known = Hold::EXACT | Hold::BELIEVED;
        let put = Put { hold: Hold::BELIEVED, unless: known, skip: 0, stamp: self.stamp };
        let pieces = &mut *self.pieces;
        pieces.clear();
        self.tree.put(self.who, At::Start, keys, &[], put, |placed| pieces.push(placed));
        for piece in pieces.iter().rev().filter(|piece| !piece.before.meets(Hold::EXACT)) {
            self.beliefs.book(piece.first, piece.len, expiry);
        }
        self.disbelieve_excess();
    }

    /// Believes a block no more, if it did.
    pub(super) fn disbelieve(&mut self, block: BlockRef) {
        if self.tree.held(self.who, block).meets(Hold::BELIEVED) {
            self.beliefs.remove(block, 1);
            self.let_go((block, 1));
        }
    }

    pub(super) fn disbelieve_excess(&mut self) {
        while let Some(blocks) = self.beliefs.pop_excess() {
            self.let_go(blocks);
        }
    }

    pub(super) fn disbelieve_expired(&mut self, now: Time) {
        while let Some(blocks) = self.beliefs.pop_expired(now) {
            self.let_go(blocks);
        }
    }

    pub(super) fn disbelieve_all(&mut self) {
        while let Some(blocks) = self.beliefs.pop_oldest() {
            self.let_go(blocks);
        }
    }

    fn let_go(&self, (first, len): (BlockRef, u32)) {
        self.tree.alter(self.who, first, len, |held| held.without(Hold::BELIEVED), |_| ());
    }
}
