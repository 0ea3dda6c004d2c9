//! Least hit density (Beckmann, Chen, Cidon: "LHD: Improving cache hit rate by maximizing hit
//! density", NSDI 2018): the block goes from which fewest hits are to be expected for the time
//! that it would stay.
//!
//! How likely a hit is after how long is learned from the hits and evictions seen, for classes of
//! blocks apart. Two things tell conversations apart, and a block inherits both from its chain: how
//! many turns the conversation has had, and how long its user or tool took the last time. Blocks
//! of one class form one list in the order of use, so their ages are in order too, and only the
//! lists' ends are compared: no sampling, as in the paper, and no heap.

use super::lists::Lists;
use super::{Eviction, Node};
use bytemuck::{Pod, Zeroable};

const USES: usize = 6;
const GAPS: usize = 5;
const CLASSES: usize = USES * GAPS;
/// Ages are told apart by a quarter of their size.
const AGES: usize = 88;
/// Densities are computed anew after this many hits and evictions, the first times after fewer. A
/// prompt is a thousand events at once: lessons of 16 thousand each, with the same memory, forgot
/// what most sessions were like before their next turn came, and lost to LRU by a point.
const EVENTS_A_LESSON: u32 = 1 << 18;
const EVENTS_OF_THE_FIRST: u32 = 256;
/// What earlier lessons weigh beside a new one.
const MEMORY: f32 = 0.9;

/// What was seen of blocks of one class, by the age at which it happened.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Seen {
    hits: [f32; AGES],
    evictions: [f32; AGES],
    density: [f32; AGES],
}

/// Lists by class, and what was learned of each.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Density {
    lists: Lists,
    classes: [Seen; CLASSES],
    events: u32,
    lessons: u32,
}

fn class_of(node: &Node) -> usize {
    let uses = ((node.hits.saturating_add(node.turn) + 1).ilog2() as usize).min(USES - 1);
    // In ticks of 10 ms: within 4 s a tool, within 30 s a long one, then people.
    let gap = match node.gap {
        0 => 0,
        1..=400 => 1,
        401..=3_000 => 2,
        3_001..=20_000 => 3,
        _ => 4,
    };
    uses * GAPS + gap
}

fn age_bucket(age: u32) -> usize {
    if age < 4 {
        return age as usize;
    }
    let octave = age.ilog2();
    let quarter = (age >> (octave - 2)) & 3;
    ((octave as usize - 1) * 4 + quarter as usize).min(AGES - 1)
}

/// The first age of a bucket.
fn bucket_start(bucket: usize) -> f32 {
    if bucket < 4 {
        return bucket as f32;
    }
    let octave = bucket / 4 + 1;
    (4.0 + (bucket % 4) as f32) * 2f32.powi(octave as i32 - 2)
}

impl Density {
    fn learn(&mut self) {
        self.events += 1;
        let doubled = EVENTS_OF_THE_FIRST << self.lessons.min(16);
        if self.events < doubled.min(EVENTS_A_LESSON) {
            return;
        }
        self.events = 0;
        self.lessons = self.lessons.saturating_add(1);
        for seen in &mut self.classes {
            // From the oldest: the hits still to come, and the time that blocks of this age and
            // above have yet to stay, summed over those that reached it.
            let (mut hits, mut leaving, mut staying) = (0f32, 0f32, 0f32);
            for age in (0..AGES).rev() {
                hits += seen.hits[age];
                leaving += seen.hits[age] + seen.evictions[age];
                staying += leaving * (bucket_start(age + 1) - bucket_start(age));
                seen.density[age] = if staying > 0.0 { hits / staying } else { 0.0 };
                seen.hits[age] *= MEMORY;
                seen.evictions[age] *= MEMORY;
            }
        }
    }
}

impl Eviction for Density {
    fn admit(&mut self, nodes: &mut [Node], slot: u32) {
        let node = &mut nodes[slot as usize];
        let class = class_of(node);
        node.rank = class as f64;
        self.lists.push(nodes, class, slot);
    }

    fn expose(&mut self, nodes: &mut [Node], slot: u32) {
        let node = &mut nodes[slot as usize];
        let class = class_of(node);
        node.rank = class as f64;
        self.lists.push_near_tail(nodes, class, slot);
    }

    fn touch(&mut self, nodes: &mut [Node], slot: u32, idle: u32) {
        let was = nodes[slot as usize].rank as usize;
        self.classes[was.min(CLASSES - 1)].hits[age_bucket(idle)] += 1.0;
        self.learn();
        if nodes[slot as usize].list != 0 {
            self.lists.take(nodes, slot);
            self.admit(nodes, slot);
        } else {
            let node = &mut nodes[slot as usize];
            node.rank = class_of(node) as f64;
        }
    }

    fn remove(&mut self, nodes: &mut [Node], slot: u32) {
        self.lists.take(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut [Node], now: u32) -> Option<u32> {
        let age = |slot: u32| now.wrapping_sub(nodes[slot as usize].used_at);
        let slot = self.lists.least(CLASSES, |class, slot| {
            let age = age(slot);
            // Of two that are worth the same (nothing, before the first lesson), the older goes.
            f64::from(self.classes[class].density[age_bucket(age)]) - f64::from(age) * 1e-15
        })?;
        let class = nodes[slot as usize].rank as usize;
        self.classes[class.min(CLASSES - 1)].evictions[age_bucket(age(slot))] += 1.0;
        self.learn();
        self.lists.take(nodes, slot);
        Some(slot)
    }
}
