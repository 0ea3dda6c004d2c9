//! Replicas on GPUs: the state that packing and the search after it work on.

use super::super::Shape;
use super::super::map::EMPTY;

/// What replicas of one expert keep apart from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// From each other's GPU: two on one GPU balance nothing.
    Gpus,
    /// From each other's node as well, so that more senders have one near.
    Nodes,
}

/// A layer's replicas on GPUs.
pub(super) struct Packing<'a> {
    pub shape: &'a Shape,
    pub spread: Spread,
    /// The GPUs that are packed, ascending.
    pub gpus: Vec<usize>,
    /// Slot -> expert.
    pub experts: Vec<u32>,
    /// Slot -> tokens of the replica.
    pub pieces: Vec<f64>,
    /// GPU -> tokens.
    pub tokens: Vec<f64>,
    /// GPU -> slots taken.
    taken: Vec<usize>,
    /// GPU and expert -> replicas there.
    on_gpu: Vec<u16>,
    /// Node and expert -> replicas there.
    on_node: Vec<u16>,
}

impl<'a> Packing<'a> {
    pub fn new(shape: &'a Shape, spread: Spread, gpus: impl Iterator<Item = usize>) -> Self {
        Self {
            shape,
            spread,
            gpus: gpus.filter(|gpu| !shape.is_dead(*gpu)).collect(),
            experts: vec![EMPTY; shape.slots()],
            pieces: vec![0.0; shape.slots()],
            tokens: vec![0.0; shape.gpus()],
            taken: vec![0; shape.gpus()],
            on_gpu: vec![0; shape.gpus() * shape.experts()],
            on_node: vec![0; shape.nodes() * shape.experts()],
        }
    }

    /// Longest processing time first (Graham 1969) with so many places a GPU: the largest replica
    /// that is left goes to the GPU with fewest tokens among those with a place, away from its like.
    pub fn pack(&mut self, replicas: impl Iterator<Item = (u32, u32, f64)>) {
        let mut pieces: Vec<(f64, u32, bool)> = Vec::with_capacity(self.experts.len());
        for (expert, count, tokens) in replicas {
            let piece = tokens / f64::from(count);
            pieces.extend((0..count).map(|_| (piece, expert, count > 1)));
        }
        pieces.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let each = self.shape.slots_per_gpu();
        // GPUs with a place, in no order that matters: ties go to the lower number.
        let mut open = self.gpus.clone();
        for (piece, expert, has_siblings) in pieces {
            let mut found: Option<(usize, (u16, f64, usize))> = None;
            for (at, &gpu) in open.iter().enumerate() {
                let crowd = if has_siblings { self.crowd(gpu, expert) } else { 0 };
                let key = (crowd, self.tokens[gpu], gpu);
                if found.is_none_or(|(_, best)| key < best) {
                    found = Some((at, key));
                }
            }
            let Some((at, (_, _, gpu))) = found else { return };
            self.put(gpu * each + self.taken[gpu], expert, piece);
            if self.taken[gpu] == each {
                open.swap_remove(at);
            }
        }
    }

    /// Tokens of a GPU on average.
    pub fn mean(&self) -> f64 {
        self.gpus.iter().map(|gpu| self.tokens[*gpu]).sum::<f64>() / self.gpus.len() as f64
    }

    /// The GPU with most tokens.
    pub fn fullest(&self) -> usize {
        let more = |a: usize, b: usize| if self.tokens[b] > self.tokens[a] { b } else { a };
        self.gpus.iter().copied().reduce(more).unwrap_or(0)
    }

    /// The expert with most tokens on a GPU.
    pub fn largest_on(&self, gpu: usize) -> usize {
        let slots = self.shape.slots_of(gpu);
        let more = |a: usize, b: usize| if self.pieces[b] > self.pieces[a] { b } else { a };
        slots.reduce(more).map_or(0, |slot| self.experts[slot] as usize)
    }

    fn put(&mut self, slot: usize, expert: u32, piece: f64) {
        let gpu = self.shape.gpu_of(slot);
        self.experts[slot] = expert;
        self.pieces[slot] = piece;
        self.tokens[gpu] += piece;
        self.taken[gpu] += 1;
        *self.at_gpu(gpu, expert) += 1;
        *self.at_node(gpu, expert) += 1;
    }

    /// Exchanges what two slots hold.
    pub fn swap(&mut self, a: usize, b: usize) {
        let (from, to) = (self.shape.gpu_of(a), self.shape.gpu_of(b));
        let (left, right) = (self.experts[a], self.experts[b]);
        let moved = self.pieces[a] - self.pieces[b];
        self.tokens[from] -= moved;
        self.tokens[to] += moved;
        for (gpu, gone, came) in [(from, left, right), (to, right, left)] {
            *self.at_gpu(gpu, gone) -= 1;
            *self.at_node(gpu, gone) -= 1;
            *self.at_gpu(gpu, came) += 1;
            *self.at_node(gpu, came) += 1;
        }
        self.experts.swap(a, b);
        self.pieces.swap(a, b);
    }

    /// Whether replicas stay as well apart if two slots of different GPUs exchange what they hold.
    pub fn may_swap(&self, a: usize, b: usize) -> bool {
        let (from, to) = (self.shape.gpu_of(a), self.shape.gpu_of(b));
        self.may_go(from, to, self.experts[a]) && self.may_go(to, from, self.experts[b])
    }

    fn may_go(&self, from: usize, to: usize, expert: u32) -> bool {
        let experts = self.shape.experts();
        let at = |side: usize| side * experts + expert as usize;
        // A GPU that holds two may give one away to a GPU that holds none, never the other way.
        if self.on_gpu[at(to)] >= self.on_gpu[at(from)] {
            return false;
        }
        let (here, there) = (self.shape.node_of(from), self.shape.node_of(to));
        self.spread == Spread::Gpus
            || here == there
            || self.on_node[at(there)] < self.on_node[at(here)]
    }

    /// How a GPU would crowd an expert's replicas: by as many as are on its node, where that matters,
    /// and beyond all by those on itself.
    fn crowd(&self, gpu: usize, expert: u32) -> u16 {
        let experts = self.shape.experts();
        if self.on_gpu[gpu * experts + expert as usize] > 0 {
            return u16::MAX;
        }
        match self.spread {
            Spread::Gpus => 0,
            Spread::Nodes => self.on_node[self.shape.node_of(gpu) * experts + expert as usize],
        }
    }

    fn at_gpu(&mut self, gpu: usize, expert: u32) -> &mut u16 {
        &mut self.on_gpu[gpu * self.shape.experts() + expert as usize]
    }

    fn at_node(&mut self, gpu: usize, expert: u32) -> &mut u16 {
        let node = self.shape.node_of(gpu);
        &mut self.on_node[node * self.shape.experts() + expert as usize]
    }
}
