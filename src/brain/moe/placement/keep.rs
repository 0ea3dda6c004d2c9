//! What stays on a GPU stays in its slot.

use super::super::Shape;
use super::super::map::LayerMap;

/// Reorders the slots of each GPU so that experts it held stay where they were.
pub(super) fn in_place(map: &mut LayerMap, old: &[u32], shape: &Shape) {
    for gpu in 0..shape.gpus() {
        for slot in shape.slots_of(gpu) {
            if map.experts[slot] == old[slot] {
                continue;
            }
            let moved = |it: &usize| map.experts[*it] == old[slot] && map.experts[*it] != old[*it];
            if let Some(from) = shape.slots_of(gpu).find(moved) {
                map.experts.swap(slot, from);
                map.shares.swap(slot, from);
                for row in map.from_node.chunks_exact_mut(shape.slots()) {
                    row.swap(slot, from);
                }
            }
        }
    }
}
