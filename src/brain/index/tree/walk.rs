//! The reading half: who holds how much of a prompt.
//!
//! A look-up goes from run to run and keeps the set of endpoints that hold everything so far; whoever
//! is not in the sets of the next run has its depth there. It takes no lock, and allocates nothing
//! once the caller's buffers have the fleet's size.
//!
//! NOTE(perf): where keys part is searched for, not walked to, because they are chained: one differing
//! key means that all after it differ. Comparing runs as memory, as an index over unchained hashes has to, reads a
//! run's every cache line where this reads two to four.

use super::node::{More, Span};
use super::set::{Rest, Words, bits};
use super::storage::Storage;
use super::{BELIEVED, Tree};
use crate::index::sync::{AtomicU64, Ordering};
use crate::{BlockKey, Tier};

/// Endpoints that are followed one by one when no more are left.
const FEW: usize = 8;

/// What a look-up finds, in buffers that its caller keeps.
#[derive(Debug, Clone, Default)]
pub(in crate::index) struct Walk {
    /// Blocks that each slot holds from the first on.
    pub(in crate::index) depths: Vec<u32>,
    /// By slot: whether a block of its run is only believed.
    believed: Vec<u64>,
    /// Blocks of its run whose fastest tier is below the GPU; of size only where there are any.
    pub(in crate::index) lower: Vec<[u32; Tier::COUNT - 1]>,
    /// Who still holds everything so far, and who of them by events alone.
    running: Vec<u64>,
    exact: Vec<u64>,
    held: Vec<u64>,
    slots: usize,
}

/// Keys that are compared at once to find where a query and a run part.
const PROBES: usize = 8;

/// Something changed under the reader: it has to begin again.
struct Changed;

/// The number of leading `true`s of `same` over `0..most`, which is `true` up to some place and
/// `false` from there on.
#[inline]
pub(super) fn agreeing(most: usize, same: impl Fn(usize) -> bool) -> usize {
    if most == 0 || same(most - 1) {
        return most;
    }
    let (mut from, mut len) = (0, most - 1);
    while len > PROBES {
        // Probes that do not wait for each other: one cache miss of latency where halving has three.
        let step = len / PROBES;
        let agree: usize = (1..PROBES).map(|i| usize::from(same(from + i * step - 1))).sum();
        from += agree * step;
        len = if agree == PROBES - 1 { len - agree * step } else { step - 1 };
    }
    from + (0..len).map(|i| usize::from(same(from + i))).sum::<usize>()
}

impl Tree {
    /// Looks `keys` up for slots `0..slots`.
    pub(in crate::index) fn walk(&self, keys: &[BlockKey], slots: usize, out: &mut Walk) {
        out.begin(slots);
        let Some(&first) = keys.first() else { return };
        let stripe = &self.stripes[Self::stripe_of(first)];
        loop {
            let edition = stripe.edition.load(Ordering::Acquire);
            let storage = stripe.published.load();
            let walked = match slots {
                0..=64 => out.narrow(&storage, keys),
                _ => out.wide(&storage, keys),
            };
            // A list that was replaced meanwhile may lack what its successor has.
            if walked.is_ok() && stripe.edition.load(Ordering::Acquire) == edition {
                return;
            }
            out.begin(slots);
        }
    }
}

/// A run as a reader saw it.
struct Run<'a> {
    gpu: Words,
    more: Option<&'a More>,
}

impl Walk {
    fn begin(&mut self, slots: usize) {
        self.slots = slots;
        self.depths.clear();
        self.depths.resize(slots, 0);
        self.lower.clear();
        let words = slots.div_ceil(64);
        self.believed.clear();
        self.believed.resize(words, 0);
    }

    /// Whether a block of the slot's run is only believed.
    pub(in crate::index) fn is_believed(&self, slot: usize) -> bool {
        self.believed.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }

    /// Goes from run to run. `step` gets each run with the number of blocks before it and in it
    /// that are the query's; it says whether anybody is left.
    #[inline]
    fn runs(
        storage: &Storage,
        keys: &[BlockKey],
        mut step: impl FnMut(&Run<'_>, u32, u32) -> Result<bool, Changed>,
    ) -> Result<(), Changed> {
        let mut depth = 0;
        let mut before: Option<(u32, Span)> = None;
        loop {
            let Some((number, span)) = storage.enter(keys[depth].0) else {
                // Nothing goes on, unless the run before has grown over it.
                return match before {
                    Some((node, span)) if !is_same(storage, node, span) => Err(Changed),
                    _ => Ok(()),
                };
            };
            let node = storage.reader_node(number).ok_or(Changed)?;
            let most = (span.len() as usize).min(keys.len() - depth);
            let common = agreeing(most, |i| {
                storage.reader_key(span.start + i as u32) == Some(keys[depth + i].0)
            });
            let more = match node.more() {
                None => None,
                Some(record) => Some(storage.reader_record(record).ok_or(Changed)?),
            };
            let run = Run { gpu: node.gpu(), more };
            let anybody = step(&run, depth as u32, common as u32)?;
            if !node.is_still(span) {
                return Err(Changed);
            }
            depth += common;
            if !anybody || common < span.len() as usize || depth == keys.len() {
                return Ok(());
            }
            before = Some((number, span));
        }
    }

    /// For fleets that fit one word.
    fn narrow(&mut self, storage: &Storage, keys: &[BlockKey]) -> Result<(), Changed> {
        let mut running = u64::MAX;
        let mut exact_run = u64::MAX;
        let mut end = 0;
        let mut lower: Vec<[u32; Tier::COUNT - 1]> = std::mem::take(&mut self.lower);
        let (depths, believed) = (&mut self.depths, &mut self.believed);
        let walked = Self::runs(storage, keys, |run, depth, blocks| {
            let (held, exact) = match run.more {
                None => (run.gpu.first, run.gpu.first),
                Some(more) => {
                    let exact = (1..BELIEVED).fold(run.gpu.first, |e, p| e | more.words(p).first);
                    (exact | more.words(BELIEVED).first, exact)
                }
            };
            if depth > 0 {
                let out = running & !held;
                emit(out, depth, depths);
                believed[0] |= out & !exact_run;
            }
            running &= held;
            exact_run &= exact;
            end = depth + blocks;
            if let Some(more) = run.more {
                let mut faster = run.gpu.first;
                for tier in 1..BELIEVED {
                    let here = more.words(tier).first;
                    let slowed = here & !faster & running;
                    count_lower(&mut lower, depths.len(), slowed, 0, tier, blocks);
                    faster |= here;
                }
            }
            Ok(running != 0)
        });
        self.lower = lower;
        walked?;
        if end > 0 {
            emit(running, end, &mut self.depths);
            self.believed[0] |= running & !exact_run;
        }
        Ok(())
    }

    /// For fleets of any size.
    fn wide(&mut self, storage: &Storage, keys: &[BlockKey]) -> Result<(), Changed> {
        let words = self.slots.div_ceil(64);
        let mut state = Wide {
            depths: &mut self.depths,
            believed: &mut self.believed,
            lower: &mut self.lower,
            running: &mut self.running,
            exact: &mut self.exact,
            held: &mut self.held,
            few: [0; FEW],
            few_len: None,
            all_exact: true,
        };
        for buffer in [&mut *state.running, &mut *state.exact, &mut *state.held] {
            buffer.clear();
            buffer.resize(words, 0);
        }
        let mut end = 0;
        Self::runs(storage, keys, |run, depth, blocks| {
            state.step(storage, run, depth, blocks);
            end = depth + blocks;
            Ok(state.anybody())
        })?;
        state.finish(end);
        Ok(())
    }
}

fn is_same(storage: &Storage, node: u32, span: Span) -> bool {
    storage.reader_node(node).is_some_and(|node| node.is_same(span))
}

/// A look-up in a wide fleet.
struct Wide<'a> {
    depths: &'a mut [u32],
    believed: &'a mut [u64],
    lower: &'a mut Vec<[u32; Tier::COUNT - 1]>,
    running: &'a mut Vec<u64>,
    exact: &'a mut Vec<u64>,
    held: &'a mut Vec<u64>,
    /// Who is left, once they are few; `running` is not kept from then on.
    few: [u32; FEW],
    few_len: Option<usize>,
    /// Whether no run so far was believed by anybody: `exact` is not kept as long.
    all_exact: bool,
}

impl Wide<'_> {
    fn anybody(&self) -> bool {
        match self.few_len {
            Some(len) => len > 0,
            None => true,
        }
    }

    fn step(&mut self, storage: &Storage, run: &Run<'_>, depth: u32, blocks: u32) {
        if let Some(more) = run.more {
            return self.step_with_more(storage, run.gpu, more, depth, blocks);
        }
        let rows = &storage.rows;
        if let Some(len) = self.few_len {
            let mut left = 0;
            for i in 0..len {
                let slot = self.few[i];
                if run.gpu.contains(slot, rows) {
                    self.few[left] = slot;
                    left += 1;
                } else {
                    self.end_one(slot, depth);
                }
            }
            self.few_len = Some(left);
            return;
        }
        let words = self.running.len();
        let word =
            |row: &[AtomicU64], i: usize| row.get(i).map_or(0, |w| w.load(Ordering::Acquire));
        match run.gpu.rest(rows) {
            Rest::Few(few) => {
                self.held.fill(0);
                for slot in few.into_iter().filter(|&number| number > 0).map(|n| n as usize - 1) {
                    if slot / 64 < words {
                        self.held[slot / 64] |= 1 << (slot % 64);
                    }
                }
            }
            Rest::Row(row) => {
                for (i, held) in self.held.iter_mut().enumerate() {
                    *held = word(row, i);
                }
            }
        }
        self.held[0] = run.gpu.first;
        self.keep_held(depth);
    }

    /// Ends the runs of those who are not in `held`.
    fn keep_held(&mut self, depth: u32) {
        if depth == 0 {
            self.running.copy_from_slice(self.held);
        }
        let mut left = 0;
        for (i, (running, &held)) in self.running.iter_mut().zip(&*self.held).enumerate() {
            let out = *running & !held;
            *running &= held;
            left += running.count_ones();
            if out != 0 {
                emit(out, depth, &mut self.depths[i * 64..]);
                if !self.all_exact {
                    self.believed[i] |= out & !self.exact[i];
                }
            }
        }
        if left as usize <= FEW {
            let members = (0u32..).zip(&*self.running).flat_map(|(i, &word)| bits(word, i * 64));
            for (i, slot) in members.enumerate() {
                self.few[i] = slot;
            }
            self.few_len = Some(left as usize);
        }
    }

    fn end_one(&mut self, slot: u32, depth: u32) {
        let slot = slot as usize;
        self.depths[slot] = depth;
        if !self.all_exact {
            let bit = 1 << (slot % 64);
            self.believed[slot / 64] |= bit & !self.exact[slot / 64];
        }
    }

    /// As [`Self::step`], where some hold the run otherwise than in GPU memory.
    fn step_with_more(
        &mut self,
        storage: &Storage,
        gpu: Words,
        more: &More,
        depth: u32,
        blocks: u32,
    ) {
        let rows = &storage.rows;
        let words = self.running.len();
        let planes: [Words; BELIEVED + 1] =
            std::array::from_fn(|plane| if plane == 0 { gpu } else { more.words(plane) });
        if self.all_exact {
            self.exact.fill(u64::MAX);
            self.all_exact = false;
        }
        let dense = |words_of: Words, i: usize| match (i, words_of.rest(rows)) {
            (0, _) => words_of.first,
            (_, Rest::Row(row)) => row.get(i).map_or(0, |w| w.load(Ordering::Acquire)),
            (_, Rest::Few(few)) => few
                .into_iter()
                .filter(|&number| number > 0 && (number as usize - 1) / 64 == i)
                .fold(0, |word, number| word | 1 << ((number - 1) % 64)),
        };
        // Whoever was followed one by one is followed by bits again.
        if let Some(len) = self.few_len.take() {
            self.running.fill(0);
            for &slot in &self.few[..len] {
                self.running[slot as usize / 64] |= 1 << (slot % 64);
            }
        }
        let mut exact_here = [0u64; super::set::MAX_ENDPOINTS.div_ceil(64)];
        let exact_here = &mut exact_here[..words];
        // Whoever moves from one set to another is put into the second first: read it last.
        for (i, exact) in exact_here.iter_mut().enumerate() {
            let believed = dense(planes[BELIEVED], i);
            *exact = (0..BELIEVED).fold(0, |word, plane| word | dense(planes[plane], i));
            self.held[i] = *exact | believed;
        }
        self.keep_held(depth);
        for (exact, here) in self.exact.iter_mut().zip(&*exact_here) {
            *exact &= here;
        }
        for i in 0..words {
            let mut faster = dense(gpu, i);
            for (tier, &plane) in planes.iter().enumerate().take(BELIEVED).skip(1) {
                let here = dense(plane, i);
                let slowed = here & !faster & self.running[i];
                count_lower(self.lower, self.depths.len(), slowed, i * 64, tier, blocks);
                faster |= here;
            }
        }
    }

    fn finish(&mut self, depth: u32) {
        if depth == 0 {
            return;
        }
        match self.few_len {
            Some(len) => {
                for i in 0..len {
                    self.end_one(self.few[i], depth);
                }
            }
            None => {
                self.held.fill(0);
                self.keep_held(depth);
            }
        }
    }
}

fn count_lower(
    lower: &mut Vec<[u32; Tier::COUNT - 1]>,
    slots: usize,
    slowed: u64,
    first: usize,
    tier: usize,
    blocks: u32,
) {
    if slowed == 0 {
        return;
    }
    lower.resize(slots, [0; Tier::COUNT - 1]);
    for slot in bits(slowed, first as u32) {
        if let Some(of) = lower.get_mut(slot as usize) {
            of[tier - 1] += blocks;
        }
    }
}

/// Masks of four lanes, by the bits that choose them.
const LANES: [[u32; 4]; 16] = {
    let mut masks = [[0; 4]; 16];
    let mut bits = 0;
    while bits < 16 {
        let mut lane = 0;
        while lane < 4 {
            if bits >> lane & 1 != 0 {
                masks[bits][lane] = u32::MAX;
            }
            lane += 1;
        }
        bits += 1;
    }
    masks
};

/// Writes `depth` where `which` has its bits.
///
/// NOTE(perf): by masks of four lanes, which compile to blends on every x86-64 and on AArch64, where
/// many end at once, as at the end of a shared prefix; bit by bit where few do.
#[inline]
fn emit(which: u64, depth: u32, out: &mut [u32]) {
    if which.count_ones() <= 12 || out.len() < 64 {
        for slot in bits(which, 0) {
            if let Some(of) = out.get_mut(slot as usize) {
                *of = depth;
            }
        }
        return;
    }
    let (chunks, _) = out[..64].as_chunks_mut::<4>();
    for (i, chunk) in chunks.iter_mut().enumerate() {
        let mask = LANES[(which >> (i * 4) & 15) as usize];
        for lane in 0..4 {
            chunk[lane] = (chunk[lane] & !mask[lane]) | (depth & mask[lane]);
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn agreeing_finds_every_place_where_runs_part() {
        for most in 0..300 {
            for parts_at in 0..=most {
                assert_eq!(agreeing(most, |i| i < parts_at), parts_at);
            }
        }
    }

    #[test]
    fn depths_are_written_where_the_bits_are() {
        for which in [0, 1, 1 << 63, u64::MAX, 0x5555_5555_0000_FFFF] {
            let mut out = [7; 64];
            emit(which, 9, &mut out);
            for (i, &depth) in out.iter().enumerate() {
                assert_eq!(depth, if which >> i & 1 != 0 { 9 } else { 7 });
            }
        }
    }
}
