//! How experts' weights get from an old map to a new one, what that costs, and whether it pays.

use super::fabric::Fabric;
use super::map::EMPTY;
use super::{MoeError, Shape, StepModel};
use serde::Serialize;

/// One expert's weights on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// Of which layer.
    pub layer: u32,
    /// Of which expert.
    pub expert: u32,
    /// The slot that they are read from; `None` where no living GPU has them: from host or disk.
    pub from_slot: Option<u32>,
    /// The slot that they are written to.
    pub to_slot: u32,
}

/// Transfers that go at once: all of them read what was there before any of them writes, and a GPU
/// sends one and receives one at most. Only where experts that exist once change places in a ring that
/// passes a GPU twice does that GPU do so twice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Batch {
    /// What goes.
    pub transfers: Vec<Transfer>,
    /// How long it takes, microseconds.
    pub us: f64,
}

/// All of a change of maps, layer by layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Migration {
    /// In this order.
    pub batches: Vec<Batch>,
    /// Bytes that go between GPUs.
    pub bytes: f64,
    /// Bytes that the GPU which receives most receives.
    pub bytes_per_gpu: f64,
    /// How long all batches take one after the other, milliseconds.
    pub ms: f64,
    /// Experts that no living GPU has.
    pub lost: usize,
}

/// Whether a change of maps pays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdict {
    /// What a step is modelled to become shorter by, microseconds.
    pub gain_us_per_step: f64,
    /// What the migration takes away, milliseconds.
    pub cost_ms: f64,
    /// Steps after which it is paid for; infinite where steps do not become shorter.
    pub break_even_steps: f64,
    /// Whether that is before the next one is due.
    pub pays: bool,
}

impl Migration {
    /// The batches that lead from the old slots to the new ones.
    ///
    /// # Errors
    /// Where the maps are not of this shape.
    pub fn plan(
        shape: &Shape,
        old: &[Vec<u32>],
        new: &[Vec<u32>],
        model: &StepModel,
    ) -> Result<Self, MoeError> {
        let (found, expected) = (new.len(), old.len());
        if found != expected {
            let what = "the new map";
            return Err(MoeError::Length { what, found, expected, per_layer: "slots" });
        }
        for (layer, slots) in old.iter().chain(new).enumerate() {
            if slots.len() != shape.slots() {
                let why = format!("{} slots, not {}", slots.len(), shape.slots());
                return Err(MoeError::Map { layer: layer % expected, why });
            }
        }
        let mut planned =
            Self { batches: Vec::new(), bytes: 0.0, bytes_per_gpu: 0.0, ms: 0.0, lost: 0 };
        let mut received = vec![0.0; shape.gpus()];
        for (layer, (old, new)) in (0..).zip(old.iter().zip(new)) {
            let mut line = Line::new(layer, old, new, shape);
            while let Some(transfers) = line.next_batch() {
                let mut us = 0.0_f64;
                let mut arriving = vec![0.0; shape.gpus()];
                for it in &transfers {
                    let to = shape.gpu_of(it.to_slot as usize);
                    let took = transfer_us(it, shape, model);
                    arriving[to] += took;
                    us = us.max(arriving[to]);
                    if took > 0.0 {
                        planned.bytes += model.expert_bytes;
                        received[to] += model.expert_bytes;
                    }
                    planned.lost += usize::from(it.from_slot.is_none());
                }
                planned.ms += us / 1e3;
                planned.batches.push(Batch { transfers, us });
            }
        }
        planned.bytes_per_gpu = received.into_iter().fold(0.0, f64::max);
        Ok(planned)
    }

    /// Slots that get another expert.
    #[must_use]
    pub fn moves(&self) -> usize {
        self.batches.iter().map(|it| it.transfers.len()).sum()
    }

    /// Whether steps that become `gain_us_per_step` shorter for `steps` steps pay for it, where
    /// `stall` is the share of the migration that steps wait for: 1 where weights move between steps,
    /// less where they move beside them.
    #[must_use]
    pub fn pays(&self, gain_us_per_step: f64, steps: f64, stall: f64) -> Verdict {
        let cost_ms = self.ms * stall;
        let break_even_steps = match (cost_ms > 0.0, gain_us_per_step > 0.0) {
            (false, _) => 0.0,
            (true, true) => cost_ms * 1e3 / gain_us_per_step,
            (true, false) => f64::INFINITY,
        };
        let pays = gain_us_per_step > 0.0 && break_even_steps <= steps;
        Verdict { gain_us_per_step, cost_ms, break_even_steps, pays }
    }
}

/// Over the network between nodes, NVLink inside one; inside a GPU it takes no time to speak of. What
/// is lost comes from host memory, of which nothing is known: as if over the network.
fn transfer_us(it: &Transfer, shape: &Shape, model: &StepModel) -> f64 {
    let to = shape.gpu_of(it.to_slot as usize);
    let Fabric { nvlink_gb_s, network_gb_s, .. } = model.fabric;
    let gb_s = match it.from_slot.map(|slot| shape.gpu_of(slot as usize)) {
        Some(from) if from == to => return 0.0,
        Some(from) if shape.node_of(from) == shape.node_of(to) => nvlink_gb_s,
        _ => network_gb_s,
    };
    model.expert_bytes / (gb_s * 1e3)
}

/// A layer on its way.
struct Line<'a> {
    layer: u32,
    shape: &'a Shape,
    now: Vec<u32>,
    /// Slots that still get another expert, and which.
    due: Vec<(u32, u32)>,
    /// What each GPU has sent so far.
    sent: Vec<u32>,
}

impl<'a> Line<'a> {
    fn new(layer: u32, old: &[u32], new: &[u32], shape: &'a Shape) -> Self {
        let mut now = old.to_vec();
        for gpu in (0..shape.gpus()).filter(|gpu| shape.is_dead(*gpu)) {
            now[shape.slots_of(gpu)].fill(EMPTY);
        }
        let changes =
            |(slot, expert): &(u32, u32)| *expert != EMPTY && now[*slot as usize] != *expert;
        let due = (0..).zip(new.iter().copied()).filter(changes).collect();
        Self { layer, shape, now, due, sent: vec![0; shape.gpus()] }
    }

    fn next_batch(&mut self) -> Option<Vec<Transfer>> {
        if self.due.is_empty() {
            return None;
        }
        let mut batch = Claims::new(self.shape.gpus(), self.due.len());
        self.apart(&mut batch);
        for at in 0..self.due.len() {
            if let Some(ring) = self.ring(at, &batch)
                && batch.has_room_for(&ring, self)
            {
                ring.into_iter().for_each(|(at, source)| batch.take(at, source, self));
            }
        }
        if batch.taken.is_empty() {
            // Whatever ring there is: it passes a GPU twice. There is one, since every slot that is due
            // holds what another waits for.
            let ring = (0..self.due.len()).find_map(|at| self.ring(at, &batch));
            ring?.into_iter().for_each(|(at, source)| batch.take(at, source, self));
        }
        let mut taken = batch.taken;
        let mut transfers = Vec::with_capacity(taken.len());
        for &(at, from_slot) in &taken {
            let (to_slot, expert) = self.due[at];
            if let Some(slot) = from_slot {
                self.sent[self.shape.gpu_of(slot as usize)] += 1;
            }
            transfers.push(Transfer { layer: self.layer, expert, from_slot, to_slot });
        }
        for it in &transfers {
            self.now[it.to_slot as usize] = it.expert;
        }
        taken.sort_unstable();
        for (at, _) in taken.into_iter().rev() {
            self.due.remove(at);
        }
        Some(transfers)
    }

    /// As many as go without a GPU sending or receiving twice, and without the last copy of what is
    /// still due elsewhere being written over. What is read in the batch lives on where it goes, so that
    /// further passes find more.
    fn apart(&self, batch: &mut Claims) {
        let mut left = super::map::replica_counts(&self.now, self.shape.experts());
        let exists: Vec<bool> = left.iter().map(|it| *it > 0).collect();
        let mut needed = vec![0_u32; self.shape.experts()];
        self.due.iter().for_each(|(_, expert)| needed[*expert as usize] += 1);
        loop {
            let before = batch.taken.len();
            for (at, &(slot, expert)) in self.due.iter().enumerate() {
                if batch.is_taken[at] || batch.receives[self.shape.gpu_of(slot as usize)] {
                    continue;
                }
                let gone = self.now[slot as usize];
                if gone != EMPTY && left[gone as usize] == 1 && needed[gone as usize] > 0 {
                    continue;
                }
                let source = self.source(expert, slot, &batch.sends);
                let is_free = |slot: u32| !batch.sends[self.shape.gpu_of(slot as usize)];
                // What no GPU has comes from elsewhere and keeps no sender busy.
                if !source.map_or(!exists[expert as usize], is_free) {
                    continue;
                }
                batch.take(at, source, self);
                left[expert as usize] += 1;
                needed[expert as usize] -= 1;
                if gone != EMPTY {
                    left[gone as usize] -= 1;
                }
            }
            if batch.taken.len() == before {
                return;
            }
        }
    }

    /// Slots from this one on of which each waits for what the one before holds, back to the first.
    fn ring(&self, at: usize, batch: &Claims) -> Option<Vec<(usize, Option<u32>)>> {
        let mut ring = Vec::new();
        let mut last = at;
        loop {
            if batch.is_taken[last] {
                return None;
            }
            let slot = self.due[last].0;
            let held = self.now[slot as usize];
            let waits = |(at, it): (usize, &(u32, u32))| it.1 == held && !batch.is_taken[at];
            let next = self.due.iter().enumerate().position(waits)?;
            if ring.iter().any(|(it, _)| *it == next) {
                return None;
            }
            ring.push((next, Some(slot)));
            if next == at {
                return Some(ring);
            }
            last = next;
        }
    }

    /// Where to read an expert: its own GPU, then its own node, then anywhere; one that is not busy,
    /// and has sent least.
    fn source(&self, expert: u32, to_slot: u32, sending: &[bool]) -> Option<u32> {
        let to = self.shape.gpu_of(to_slot as usize);
        let slots = (0..).zip(&self.now).filter(|(_, held)| **held == expert).map(|(slot, _)| slot);
        slots.min_by_key(|slot: &u32| {
            let from = self.shape.gpu_of(*slot as usize);
            let far = u8::from(self.shape.node_of(from) != self.shape.node_of(to));
            (from != to && sending[from], from != to, far, self.sent[from], *slot)
        })
    }
}

/// What a batch has taken so far.
struct Claims {
    /// Which of the slots that are due, and where each is read.
    taken: Vec<(usize, Option<u32>)>,
    is_taken: Vec<bool>,
    receives: Vec<bool>,
    sends: Vec<bool>,
}

impl Claims {
    fn new(gpus: usize, due: usize) -> Self {
        let (receives, sends) = (vec![false; gpus], vec![false; gpus]);
        Self { taken: Vec::new(), is_taken: vec![false; due], receives, sends }
    }

    fn take(&mut self, at: usize, source: Option<u32>, line: &Line<'_>) {
        self.taken.push((at, source));
        self.is_taken[at] = true;
        self.receives[line.shape.gpu_of(line.due[at].0 as usize)] = true;
        if let Some(slot) = source {
            self.sends[line.shape.gpu_of(slot as usize)] = true;
        }
    }

    /// Whether a ring passes only GPUs that are idle, and each once. A GPU of a ring sends what it held
    /// and receives in its place.
    fn has_room_for(&self, ring: &[(usize, Option<u32>)], line: &Line<'_>) -> bool {
        let mut gpus: Vec<usize> =
            ring.iter().map(|(at, _)| line.shape.gpu_of(line.due[*at].0 as usize)).collect();
        gpus.sort_unstable();
        let count = gpus.len();
        gpus.dedup();
        gpus.len() == count && gpus.iter().all(|gpu| !self.receives[*gpu] && !self.sends[*gpu])
    }
}
