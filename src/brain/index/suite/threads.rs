//! Many threads at once: each engine's events from a thread of its own, and matches meanwhile.

use super::Structure;
use super::world::{BLOCK, Happening, MODEL, Prompt, batch};
use crate::index::oracle::Oracle;
use crate::index::sync::{AtomicBool, AtomicU64, Ordering};
use crate::index::{Held, IndexConfig, KvEvent, Matches, Source};
use crate::{BlockKey, EndpointId, Slot, Time};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeSet;
use std::sync::Barrier;

/// Engines, each with a thread that applies its events.
pub(super) const WRITERS: u32 = 4;
/// Threads that match meanwhile.
const MATCHERS: u32 = 2;
/// Histories that one start of the threads runs.
const ROUND: u32 = 25;

fn endpoint(number: u32, generation: u32) -> EndpointId {
    EndpointId { slot: Slot(number * 40), generation }
}

/// What one writer does, and which keys its engine held after any of its events.
struct Script {
    events: Vec<KvEvent>,
    ever_held: BTreeSet<BlockKey>,
}

impl Script {
    fn new(runner: &mut TestRunner, id: EndpointId) -> Self {
        let happenings =
            prop::collection::vec(Happening::any(false), 20).new_tree(runner).unwrap().current();
        let events: Vec<_> = happenings.into_iter().map(|one| one.event(BLOCK)).collect();
        let mut oracle = Oracle::new(IndexConfig::default(), BLOCK);
        oracle.join(id, MODEL, Source::Events);
        let mut ever_held = BTreeSet::new();
        for event in &events {
            oracle.apply(Time::ZERO, id, &batch(vec![event.clone()]));
            ever_held.extend(oracle.keys(Time::ZERO));
        }
        Self { events, ever_held }
    }
}

fn seeded(round: u32) -> TestRunner {
    let seed = [round.to_le_bytes(); 8].concat();
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

/// Runs `count` histories on each of [`WRITERS`] engines at once while others match. No match may
/// credit an endpoint with a block that its engine never held, and in the end all is as the oracle
/// says. Returns histories and matches run.
#[allow(clippy::disallowed_methods)] // Threads are what is tested.
pub(super) fn never_over_credit<S: Structure>(count: u32) -> (u32, u64) {
    let (mut ran, matches) = (0, AtomicU64::new(0));
    for round in 0..count.div_ceil(ROUND) {
        let histories = ROUND.min(count - round * ROUND);
        let mut runner = seeded(round);
        let scripts: Vec<Script> =
            (0..WRITERS).map(|number| Script::new(&mut runner, endpoint(number, 1))).collect();
        let index = S::new(IndexConfig::default(), BLOCK);
        for number in 0..WRITERS {
            index.join(endpoint(number, 1), MODEL, Source::Events);
        }
        let (done, start) = (AtomicBool::new(false), Barrier::new((WRITERS + MATCHERS) as usize));
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .zip(&scripts)
                .map(|(number, script)| {
                    let (index, start) = (&index, &start);
                    scope.spawn(move || {
                        start.wait();
                        for history in 0..histories {
                            if history > 0 {
                                index.clear(endpoint(number, 1));
                            }
                            for event in &script.events {
                                let event = batch(vec![event.clone()]);
                                index.apply(Time::ZERO, endpoint(number, 1), &event);
                            }
                        }
                    })
                })
                .collect();
            let match_all = || {
                start.wait();
                let mut out = Matches::new();
                while !done.load(Ordering::Relaxed) {
                    for prompt in Prompt::all() {
                        let keys = prompt.keys();
                        index.matches(Time::ZERO, keys, &mut out);
                        matches.fetch_add(1, Ordering::Relaxed);
                        for (number, script) in (0..WRITERS).zip(&scripts) {
                            let id = endpoint(number, 1);
                            let depth = out.depth_of(id.slot, id.generation) as usize;
                            for key in &keys[..depth] {
                                assert!(script.ever_held.contains(key));
                            }
                        }
                    }
                }
            };
            let matchers: Vec<_> = (0..MATCHERS).map(|_| scope.spawn(match_all)).collect();
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            for matcher in matchers {
                matcher.join().unwrap();
            }
        });
        check_quiescent(&index, &scripts);
        ran += histories * WRITERS;
    }
    (ran, matches.into_inner())
}

fn check_quiescent<S: Structure>(index: &S, scripts: &[Script]) {
    let mut oracle = Oracle::new(IndexConfig::default(), BLOCK);
    for (number, script) in (0..).zip(scripts) {
        oracle.join(endpoint(number, 1), MODEL, Source::Events);
        oracle.apply(Time::ZERO, endpoint(number, 1), &batch(script.events.clone()));
    }
    let (mut ours, mut truth) = (Matches::new(), Matches::new());
    for prompt in Prompt::all() {
        index.matches(Time::ZERO, prompt.keys(), &mut ours);
        oracle.matches(Time::ZERO, prompt.keys(), &mut truth);
        assert_eq!(ours, truth);
    }
    assert_eq!(index.keys(), oracle.keys(Time::ZERO).len() as u64);
}

/// A slot changes tenants `count` times while events and bookings of old tenants still come in.
/// A tenant that stores nothing must hold nothing, and in the end nothing is left.
#[allow(clippy::disallowed_methods)] // Threads are what is tested.
pub(super) fn leave_no_ghosts<S: Structure>(count: u32) {
    let index = S::new(IndexConfig::default(), BLOCK);
    let prompt = Prompt::all().next().unwrap();
    let keys = prompt.keys();
    let (newest, written) = (AtomicU64::new(1), AtomicU64::new(0));
    let id = |generation: u64| endpoint(0, generation as u32);
    index.join(id(1), MODEL, Source::Events);
    std::thread::scope(|scope| {
        // Even generations get events and bookings, odd ones never do.
        let writer = |booking: bool| {
            let (index, newest, written) = (&index, &newest, &written);
            scope.spawn(move || {
                let stored = batch(vec![prompt.stored_whole(BLOCK)]);
                loop {
                    let generation = newest.load(Ordering::Relaxed);
                    if generation > u64::from(count) {
                        return;
                    }
                    let target = id(generation & !1);
                    if booking {
                        index.book(Time::ZERO, target, keys);
                    } else {
                        index.apply(Time::ZERO, target, &stored);
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        writer(false);
        writer(true);
        let mut out = Matches::new();
        for generation in 2..=u64::from(count) {
            if generation % 3 == 0 {
                index.leave(id(generation - 1));
            }
            index.join(id(generation), MODEL, Source::Events);
            newest.store(generation, Ordering::Relaxed);
            let before = written.load(Ordering::Relaxed);
            while generation % 2 == 0 && written.load(Ordering::Relaxed) < before + 3 {
                std::thread::yield_now();
            }
            if generation % 2 == 1 {
                index.matches(Time::ZERO, keys, &mut out);
                assert_eq!(out.depth_of(Slot(0), generation as u32), 0);
                assert_eq!(index.holds(id(generation), &keys[..1]), None::<Held>);
                assert_eq!(index.keys(), 0);
            }
        }
        newest.store(u64::from(count) + 1, Ordering::Relaxed);
    });
    index.leave(id(u64::from(count)));
    assert_eq!(index.keys(), 0);
}
