//! By which names the blocks of a stripe go among all engines.

use super::stripe::Writer;
use super::{BlockRef, Tree};
use crate::EngineHash;

impl Writer {
    /// Whether a block goes by this name among all.
    pub(super) fn is_named(&self, slot: u32, EngineHash(name): EngineHash) -> bool {
        name != 0 && self.storage.name(slot) == name
    }

    /// Names those of the blocks from `first` on that have no name, or looks at the first where it has
    /// one. Returns how many it was, and whether the names are others than those that all share.
    pub(super) fn give_names(&self, tree: &Tree, first: u32, names: &[EngineHash]) -> (u32, bool) {
        match self.storage.unnamed(first, names.len()) {
            0 => (1, !self.is_named(first, names[0])),
            unnamed => {
                let (named, is_shared) = self.name(tree, first, &names[..unnamed]);
                (named, !is_shared)
            }
        }
    }

    /// Whether a name is not the one that all share for the block; makes it so where there is none.
    pub(super) fn is_aliased(&self, tree: &Tree, slot: u32, name: EngineHash) -> bool {
        if name.0 != 0 && self.storage.name(slot) == 0 {
            self.name(tree, slot, std::slice::from_ref(&name));
        }
        !self.is_named(slot, name)
    }

    /// How many of the blocks from `first` on go by these names among all.
    pub(super) fn named_so(&self, first: u32, names: &[EngineHash]) -> usize {
        let named_so = self.storage.named_so(first, names);
        // No name is none, whatever is compared.
        match names[..named_so].contains(&EngineHash(0)) {
            false => named_so,
            true => names.iter().position(|name| name.0 == 0).unwrap_or(0),
        }
    }

    /// Makes the names the ones that all share for the blocks from `first` on, but for those that
    /// are other blocks' already. Returns how many of the first ones became so, or became not.
    pub(super) fn name(&self, tree: &Tree, first: u32, names: &[EngineHash]) -> (u32, bool) {
        self.storage.set_names(first, names);
        let is_it = |name, other: BlockRef| tree.name(other) == name;
        let mut any_refused = false;
        let refused = |i: usize| {
            any_refused = true;
            self.storage.set_name(first + i as u32, 0);
        };
        tree.names.insert(names, self.block(first), is_it, refused);
        let len = names.len() as u32;
        if !any_refused {
            return (len, true);
        }
        let is_shared = |i: u32| self.storage.name(first + i) != 0;
        let shared = is_shared(0);
        let alike = (1..len).take_while(|&i| is_shared(i) == shared).count();
        (alike as u32 + 1, shared)
    }
}
