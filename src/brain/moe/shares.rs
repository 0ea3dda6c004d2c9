//! How the traffic of an expert divides among its replicas.

use super::Shape;
use super::map::{EMPTY, LayerMap};

/// Tokens that may go to any of some slots.
struct Unit {
    tokens: f64,
    /// Slots of different GPUs.
    slots: Vec<usize>,
    /// What goes to each.
    given: Vec<f64>,
}

/// Sweeps over the units; each brings the levels nearer to each other.
const SWEEPS: usize = 200;

/// Shares by which GPUs are as even as this map of experts allows: each expert in turn pours its
/// tokens over its replicas like water over vessels filled so far. That descends the sum of squares
/// of the GPUs' tokens coordinate by coordinate; its minimum is also that of the fullest GPU, as of
/// any flow whose sources share sinks (decreasing-minimal, Frank and Murota 2022).
pub fn weighted(experts: Vec<u32>, tokens: &[f64], shape: &Shape) -> LayerMap {
    let mut map = LayerMap::equal(experts, shape);
    let mut units: Vec<Unit> = tokens.iter().map(|&it| Unit::new(it)).collect();
    for (slot, &expert) in map.experts.iter().enumerate() {
        if expert != EMPTY {
            units[expert as usize].offer(slot, shape);
        }
    }
    settle(&mut units, shape);
    map.shares.fill(0.0);
    for unit in units.iter().filter(|unit| !unit.slots.is_empty()) {
        for (slot, share) in unit.parts() {
            map.shares[slot] = share;
        }
    }
    map
}

/// The same where senders go to a replica on their own node if there is one; what comes from nodes
/// without one is poured where room is. No other shares move fewer tokens between these slots' nodes.
pub fn near(experts: Vec<u32>, tokens: &[f64], shape: &Shape) -> LayerMap {
    let mut map = LayerMap::equal(experts, shape);
    let nodes = shape.living_nodes();
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); tokens.len()];
    for (slot, &expert) in map.experts.iter().enumerate() {
        if expert != EMPTY {
            held[expert as usize].push(slot);
        }
    }
    let mut units = Vec::new();
    // Senders of each unit.
    let mut senders: Vec<Vec<usize>> = Vec::new();
    for (expert, slots) in (0..).zip(&held) {
        let each = tokens[expert as usize] / nodes.len() as f64;
        let mut far = Vec::new();
        for &node in &nodes {
            let mut unit = Unit::new(each);
            for &slot in slots.iter().filter(|it| shape.node_of(shape.gpu_of(**it)) == node) {
                unit.offer(slot, shape);
            }
            if unit.slots.is_empty() {
                far.push(node);
            } else {
                units.push(unit);
                senders.push(vec![node]);
            }
        }
        let mut unit = Unit::new(each * far.len() as f64);
        slots.iter().for_each(|slot| unit.offer(*slot, shape));
        units.push(unit);
        senders.push(far);
    }
    settle(&mut units, shape);
    map.shares.fill(0.0);
    map.from_node = vec![0.0; shape.nodes() * shape.slots()];
    for (unit, from) in units.iter().zip(&senders) {
        for (slot, share) in unit.parts() {
            map.shares[slot] += share * from.len() as f64 / nodes.len() as f64;
            for node in from {
                map.from_node[node * shape.slots() + slot] = share;
            }
        }
    }
    map
}

impl Unit {
    fn new(tokens: f64) -> Self {
        Self { tokens, slots: Vec::new(), given: Vec::new() }
    }

    /// One slot more that it can go to. A second replica on one GPU gets nothing: it changes nothing.
    fn offer(&mut self, slot: usize, shape: &Shape) {
        let gpu = shape.gpu_of(slot);
        if self.slots.iter().all(|it| shape.gpu_of(*it) != gpu) {
            self.slots.push(slot);
        }
    }

    /// The share of its tokens of each slot; of no tokens, even ones.
    fn parts(&self) -> impl Iterator<Item = (usize, f64)> {
        let even = 1.0 / self.slots.len() as f64;
        let share = move |given: f64| if self.tokens > 0.0 { given / self.tokens } else { even };
        self.slots.iter().zip(&self.given).map(move |(slot, given)| (*slot, share(*given)))
    }

    /// Pours its tokens anew; how much moved.
    fn pour(&mut self, gpu_tokens: &mut [f64], shape: &Shape) -> f64 {
        for (slot, given) in self.slots.iter().zip(&self.given) {
            gpu_tokens[shape.gpu_of(*slot)] -= given;
        }
        let level = level(self.slots.iter().map(|it| gpu_tokens[shape.gpu_of(*it)]), self.tokens);
        let mut moved = 0.0;
        for (slot, given) in self.slots.iter().zip(&mut self.given) {
            let vessel = &mut gpu_tokens[shape.gpu_of(*slot)];
            let poured = (level - *vessel).max(0.0);
            moved += (poured - *given).abs();
            *given = poured;
            *vessel += poured;
        }
        moved
    }
}

/// The level that vessels filled so far reach when `tokens` are poured over them.
pub(super) fn level(filled: impl Iterator<Item = f64>, tokens: f64) -> f64 {
    let mut filled: smallvec::SmallVec<[f64; 16]> = filled.collect();
    filled.sort_unstable_by(f64::total_cmp);
    let mut sum = 0.0;
    let mut level = tokens;
    for (index, vessel) in filled.iter().enumerate() {
        if index > 0 && level <= *vessel {
            break;
        }
        sum += vessel;
        level = (sum + tokens) / (index + 1) as f64;
    }
    level
}

fn settle(units: &mut [Unit], shape: &Shape) {
    let mut gpu_tokens = vec![0.0; shape.gpus()];
    let mut sum = 0.0;
    for unit in &mut *units {
        let each = unit.tokens / unit.slots.len().max(1) as f64;
        unit.given = vec![each; unit.slots.len()];
        for slot in &unit.slots {
            gpu_tokens[shape.gpu_of(*slot)] += each;
        }
        sum += unit.tokens;
    }
    let mut loose: Vec<&mut Unit> = units.iter_mut().filter(|it| it.slots.len() > 1).collect();
    for _ in 0..SWEEPS {
        let moved: f64 = loose.iter_mut().map(|unit| unit.pour(&mut gpu_tokens, shape)).sum();
        if moved <= 1e-7 * sum {
            break;
        }
    }
}
