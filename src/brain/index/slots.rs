//! A set of endpoint slots.

use crate::Slot;

/// One bit a slot: a single word in place while all slots are below 64, on the heap past that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SlotSet {
    /// Slots 0 to 63.
    Word([u64; 1]),
    /// Slots from 0 on.
    Words(Box<[u64]>),
}

impl SlotSet {
    pub(super) const EMPTY: Self = Self::Word([0]);

    /// The bits, 64 slots a word. Slots past the end are not in the set.
    pub(super) fn words(&self) -> &[u64] {
        match self {
            Self::Word(word) => word,
            Self::Words(words) => words,
        }
    }

    /// Word `index`, 0 past the end.
    pub(super) fn word(&self, index: usize) -> u64 {
        self.words().get(index).copied().unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words().iter().all(|&word| word == 0)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.word(slot.index() / 64) & (1 << (slot.index() % 64)) != 0
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        let index = slot.index() / 64;
        if index >= self.words().len() {
            let mut wider = vec![0; index + 1];
            wider[..self.words().len()].copy_from_slice(self.words());
            *self = Self::Words(wider.into_boxed_slice());
        }
        self.words_mut()[index] |= 1 << (slot.index() % 64);
    }

    /// Takes the slot out, and gives the heap back once the rest fits one word.
    pub(super) fn remove(&mut self, slot: Slot) {
        let index = slot.index() / 64;
        let Some(word) = self.words_mut().get_mut(index) else { return };
        *word &= !(1 << (slot.index() % 64));
        if let Self::Words(words) = self
            && words[1..].iter().all(|&word| word == 0)
        {
            *self = Self::Word([words[0]]);
        }
    }

    /// Heap bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Word(_) => 0,
            Self::Words(words) => std::mem::size_of_val(&**words),
        }
    }

    fn words_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Word(word) => word,
            Self::Words(words) => words,
        }
    }
}

/// The slots whose bits are set in `word`, the word that starts at slot `first`, in order.
pub(super) fn slots_in(mut word: u64, first: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            first + bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_widens_for_high_slots_and_narrows_again() {
        let mut set = SlotSet::EMPTY;
        set.insert(Slot(3));
        assert_eq!(set.heap_bytes(), 0);

        set.insert(Slot(700));
        assert_eq!(set.words().len(), 11);
        assert!(set.contains(Slot(3)) && set.contains(Slot(700)) && !set.contains(Slot(67)));

        set.remove(Slot(700));
        assert_eq!(set, SlotSet::Word([8]));
        set.remove(Slot(9_999));
        set.remove(Slot(3));
        assert!(set.is_empty());
    }

    #[test]
    fn slots_come_in_order() {
        assert_eq!(slots_in(0b1010_0001, 64).collect::<Vec<_>>(), [64, 69, 71]);
    }

    #[test]
    fn a_set_is_two_words() {
        assert_eq!(std::mem::size_of::<SlotSet>(), 16);
    }
}
