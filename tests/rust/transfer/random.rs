//! Thousands of random transfers through a peer in the middle that loses, repeats and cuts frames,
//! with owners that reuse blocks, posters that cancel, and peers that restart. Each ends right or
//! says that it did not; nothing is written after an end; nothing leaks.

use crate::pair::{PATIENCE, Side, config, paths, until};
use crate::proxy::{Faults, Proxy};
use llmd_brain::rng::Rng;
use llmd_data::transfer::{
    AgentConfig, Descriptor, Layout, Op, PathKind, Peer, Progress, TransferError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const LAYOUT: Layout = Layout { block_bytes: 2048, blocks: 24 };
const LAYERS: u64 = 3;
const WORKERS: u64 = 4;
/// Lost frames are noticed after so long; the machine may be loaded, which fails more transfers, or
/// emulated, as the one with an RDMA device is.
fn stall(path: PathKind) -> Duration {
    Duration::from_millis(if path == PathKind::Rdma { 1000 } else { 60 })
}

/// Enough for every kind of fault and of end to have happened.
const MANY: u64 = 5000;

fn transfers() -> u64 {
    let asked = std::env::var("LLMD_TRANSFERS").ok().map(|text| text.parse().unwrap());
    asked.unwrap_or(10_000)
}

fn fault_config(path: PathKind) -> AgentConfig {
    AgentConfig { stall_timeout: stall(path), ..config(path) }
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    done: u64,
    stale: u64,
    cancelled: u64,
    lost: u64,
    restarts: u64,
}

struct World {
    rng: Rng,
    path: PathKind,
    near: Side,
    far: Side,
    faults: Arc<Faults>,
    peer: Option<Peer>,
    proxy: Proxy,
    tally: Tally,
}

fn proxy(rng: &mut Rng, far: &Side, faults: &Arc<Faults>) -> Proxy {
    Proxy::start(far.address(), b"a key", rng.next_u64(), 90, faults.clone())
}

impl World {
    fn new(path: PathKind, seed: u64, faults: Arc<Faults>) -> Self {
        let mut rng = Rng::new(seed);
        let near = Side::new(fault_config(path), LAYOUT, LAYERS, 0x55);
        let far = Side::new(fault_config(path), LAYOUT, LAYERS, 0xaa);
        let proxy = proxy(&mut rng, &far, &faults);
        Self { rng, path, near, far, faults, peer: None, proxy, tally: Tally::default() }
    }

    fn restart(&mut self) {
        self.tally.restarts += 1;
        self.far = Side::new(fault_config(self.path), LAYOUT, LAYERS, 0xaa);
        self.proxy = proxy(&mut self.rng, &self.far, &self.faults);
    }

    fn blocks(&mut self, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..LAYOUT.blocks).collect();
        for i in (1..all.len()).rev() {
            all.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        all.truncate(count);
        all
    }

    /// One transfer, and what it must leave behind.
    fn turn(&mut self) {
        let op = if self.rng.below(2) == 0 { Op::Read } else { Op::Write };
        let count = 1 + self.rng.below(10) as usize;
        let pairs: Vec<(u32, u32)> =
            self.blocks(count).into_iter().zip(self.blocks(count)).collect();
        // Nothing was written since the last end.
        for &(near, far) in &pairs {
            assert!(self.near.holds_its_own(near), "{}: late bytes here", self.path);
            assert!(self.far.holds_its_own(far), "{}: late bytes there", self.path);
        }
        if self.rng.below(200) == 0 {
            self.restart();
        }
        let ended = self.transfer(op, &pairs);
        match &ended {
            Ok(()) => self.tally.done += 1,
            Err(TransferError::Stale { .. }) => self.tally.stale += 1,
            Err(TransferError::Cancelled) => self.tally.cancelled += 1,
            Err(_) => {
                self.tally.lost += 1;
                self.peer = None;
            }
        }
        for &(near, far) in &pairs {
            // At once: whoever ended holds nothing here.
            self.near.advance(near).unwrap();
            // The peer lets go when it hears that the transfer is over, or its connection ends.
            if op == Op::Write {
                let start = Instant::now();
                while self.far.advance(far).is_err() {
                    assert!(start.elapsed() < PATIENCE, "{}: {far} stays held", self.path);
                    if start.elapsed() > stall(self.path) * 2 {
                        self.peer = None;
                    }
                    std::thread::yield_now();
                }
            }
        }
    }

    fn transfer(&mut self, op: Op, pairs: &[(u32, u32)]) -> Result<(), TransferError> {
        if self.peer.is_none() {
            self.peer = Some(self.near.agent.connect(self.proxy.address)?);
        }
        let Some(peer) = &self.peer else { unreachable!() };
        let parts = 1 + self.rng.below(LAYERS) as usize;
        let mut lists: Vec<Vec<Descriptor>> = vec![Vec::new(); parts];
        for &(near, far) in pairs {
            for layer in 0..LAYERS {
                lists[layer as usize % parts].push(Descriptor {
                    local_offset: self.near.offset(layer, near),
                    remote_offset: self.far.offset(layer, far),
                    bytes: LAYOUT.block_bytes,
                    local_epoch: self.near.epoch(near),
                    remote_epoch: self.far.epoch(far),
                });
            }
        }
        let lists: Vec<&[Descriptor]> = lists.iter().map(Vec::as_slice).collect();
        let remote = self.far.region.remote();
        let prepared = peer.prepare(op, &self.near.region, &remote, &lists, None)?;
        let expected: Vec<u64> = pairs.iter().map(|&(_, far)| self.far.epoch(far)).collect();
        let tag = (self.rng.below(2) == 0).then(|| self.rng.next_u64());
        let reused = (self.rng.below(4) == 0).then(|| {
            let (_, far) = pairs[self.rng.below(pairs.len() as u64) as usize];
            (far, self.rng.below(400))
        });
        let cancel = self.rng.below(8) == 0;
        let over = AtomicBool::new(false);
        let (far, over) = (&self.far, &over);
        let ended = std::thread::scope(|scope| {
            if let Some((block, spins)) = reused {
                // The owner gives a block away while it moves.
                scope.spawn(move || {
                    (0..spins).for_each(|_| std::hint::spin_loop());
                    while far.advance(block).is_err() && !over.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                });
            }
            let run = || {
                let transfer = prepared.start(tag)?;
                // A part that cannot be posted fails the transfer, whose other parts then end.
                let _ = (0..parts).try_for_each(|part| transfer.post_part(part));
                if cancel {
                    transfer.cancel();
                }
                match transfer.wait(Some(PATIENCE))? {
                    Progress::Done(done) => Ok(done),
                    Progress::Pending { parts_done } => panic!("hangs after {parts_done} parts"),
                }
            };
            let ended = run();
            over.store(true, Ordering::Release);
            ended
        });
        let done = ended?;
        assert_eq!(done.bytes, pairs.len() as u64 * LAYERS * LAYOUT.block_bytes);
        assert_eq!(done.path, self.path);
        for (&(near, far), &epoch) in pairs.iter().zip(&expected) {
            for layer in 0..LAYERS {
                let (at_near, at_far) =
                    (self.near.offset(layer, near), self.far.offset(layer, far));
                match op {
                    Op::Read => assert_eq!(
                        self.near.get(at_near, LAYOUT.block_bytes),
                        self.far.pattern(layer, far, epoch),
                        "{}: wrong bytes with success",
                        self.path
                    ),
                    // The owner may have given the block away since; then it holds the owner's.
                    Op::Write if self.far.epoch(far) == epoch => assert_eq!(
                        self.far.get(at_far, LAYOUT.block_bytes),
                        self.near.pattern(layer, near, self.near.epoch(near)),
                        "{}: wrong bytes with success",
                        self.path
                    ),
                    Op::Write => assert_eq!(
                        self.far.get(at_far, LAYOUT.block_bytes),
                        self.far.pattern(layer, far, self.far.epoch(far)),
                        "{}: a late write",
                        self.path
                    ),
                }
            }
        }
        Ok(())
    }

    /// Nothing is left once all is over.
    fn close(mut self) -> Tally {
        self.peer = None;
        until("all near blocks are free", || self.near.region.held_blocks() == 0);
        until("all far blocks are free", || self.far.region.held_blocks() == 0);
        for Side { agent, region, .. } in [self.near, self.far] {
            drop(region);
            until("registered bytes go to zero", || agent.registered_bytes() == 0);
        }
        self.tally
    }
}

fn survives(path: PathKind) {
    let seed = std::env::var("LLMD_SEED").ok().map_or(0x5eed, |text| text.parse().unwrap());
    let faults = Arc::<Faults>::default();
    let tallies = std::thread::scope(|scope| {
        let worker = |worker: u64| {
            let faults = faults.clone();
            scope.spawn(move || {
                let mut world = World::new(path, seed + worker * 1_000_003, faults);
                (0..transfers() / WORKERS).for_each(|_| world.turn());
                world.close()
            })
        };
        let workers: Vec<_> = (0..WORKERS).map(worker).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let sum = |field: fn(&Tally) -> u64| tallies.iter().map(field).sum::<u64>();
    let (done, stale) = (sum(|t| t.done), sum(|t| t.stale));
    let (cancelled, lost, restarts) = (sum(|t| t.cancelled), sum(|t| t.lost), sum(|t| t.restarts));
    let faults = faults.counts();
    eprintln!(
        "{path}: {done} done, {stale} stale, {cancelled} cancelled, {lost} lost, {restarts} \
         restarts; frames dropped, delayed, duplicated, truncated, swapped: {faults:?}"
    );
    assert_eq!(done + stale + cancelled + lost, transfers() / WORKERS * WORKERS);
    // Each kind of fault and each kind of end happened, and most transfers went through.
    if transfers() >= MANY {
        assert!(faults.iter().all(|&frames| frames > 0), "{faults:?}");
        assert!(stale > 0 && lost > 0 && restarts > 0);
    }
    assert!(done > transfers() / 3, "only {done} went through");
}

#[test]
fn random_transfers_survive_faults() {
    paths().into_iter().for_each(survives);
}
