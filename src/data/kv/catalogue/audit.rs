//! Whether books agree with themselves: what tests ask after each death.

use super::{Catalogue, State};
use crate::kv::eviction::Eviction;

impl<E: Eviction> Catalogue<'_, E> {
    /// What is wrong with the books; empty: nothing.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut free, mut writing) = (0, 0);
        let mut children = vec![0u32; self.slots.len()];
        for slot in 0..self.slots.len() as u32 {
            let entry = &self.slots[slot as usize];
            let state = self.generation(slot).state();
            match state {
                State::Free => free += 1,
                State::Writing => writing += 1,
                State::Ready => {
                    let before = entry.before.checked_sub(1);
                    let behind = before
                        .filter(|&before| self.generation(before).0 == entry.before_generation);
                    if let Some(before) = behind {
                        children[before as usize] += 1;
                    }
                }
            }
            if state != State::Free && self.indexed(entry.block.key) != Some(slot) {
                wrong.push(format!("slot {slot} is {state:?}, and not in the index"));
            }
        }
        for slot in 0..self.slots.len() as u32 {
            let (entry, node) = (&self.slots[slot as usize], &self.nodes[slot as usize]);
            if self.generation(slot).state() != State::Ready {
                continue;
            }
            let counted = children[slot as usize];
            if entry.children != counted {
                let noted = entry.children;
                wrong.push(format!("slot {slot} has {counted} followers, and notes {noted}"));
            }
            if (entry.children == 0) != (node.list != 0) {
                let list = node.list;
                wrong.push(format!("slot {slot} has {counted} followers, and is in list {list}"));
            }
        }
        if (free, writing) != (self.head.free_slots, self.head.writing_slots) {
            let noted = (self.head.free_slots, self.head.writing_slots);
            wrong.push(format!("{free} free and {writing} written slots, noted are {noted:?}"));
        }
        let mut at = self.head.free;
        let mut listed = 0;
        while let Some(slot) = at.checked_sub(1).filter(|_| listed <= free) {
            listed += 1;
            at = self.nodes[slot as usize].next;
        }
        if listed != free {
            wrong.push(format!("{free} free slots, {listed} of them listed"));
        }
        wrong
    }
}
