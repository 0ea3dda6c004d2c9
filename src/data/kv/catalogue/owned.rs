//! A catalogue in a process's own memory, for what needs no sharing: benches, and tests.

use super::{Catalogue, Head, Slot};
use crate::kv::eviction::{Eviction, Node};
use bytemuck::Zeroable;
use std::sync::atomic::AtomicU64;

/// The memory that a [`Catalogue`] is a view of.
pub struct OwnedCatalogue<E> {
    head: Head,
    buckets: Vec<u32>,
    slots: Vec<Slot>,
    nodes: Vec<Node>,
    generations: Vec<AtomicU64>,
    policy: E,
}

impl<E: Eviction> OwnedCatalogue<E> {
    /// `slots` free slots whose victims `policy` names.
    #[must_use]
    pub fn new(slots: usize, policy: E) -> Self {
        let mut owned = Self {
            head: Head::default(),
            buckets: vec![0; (slots * 2).next_power_of_two()],
            slots: vec![Slot::zeroed(); slots],
            nodes: vec![Node::default(); slots],
            generations: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            policy,
        };
        owned.view().rebuild(|_| (), |_| true);
        owned
    }

    /// The view to work with.
    pub fn view(&mut self) -> Catalogue<'_, E> {
        Catalogue {
            head: &mut self.head,
            buckets: &mut self.buckets,
            slots: &mut self.slots,
            nodes: &mut self.nodes,
            generations: &self.generations,
            policy: &mut self.policy,
        }
    }
}
