//! Random histories, step by step against the oracle.

use super::Structure;
use super::world::{BLOCK, Happening, MODEL, Prompt, batch, config, engine_block_size};
use crate::index::oracle::Oracle;
use crate::index::{ApplyOutcome, IndexConfig, Matches, Source};
use crate::{BlockKey, EndpointId, Slot, Time};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::time::Duration;

/// Slots in play: neighbours, and one past the first word of a bit set.
const SLOTS: [u32; 3] = [0, 1, 70];

#[derive(Debug, Clone)]
enum Step {
    Events(Vec<Happening>),
    LateEvents(Happening),
    Book(Prompt, usize),
    BookText(Prompt, usize),
    Lost,
    Leave,
    LeaveLate,
    Join(Source),
    SetSource(Source),
    SetCapacity(u64),
    Wait(u64),
    Expire,
    Reload,
}

#[derive(Debug, Clone)]
struct History {
    config: IndexConfig,
    engine_block_sizes: [u32; SLOTS.len()],
    /// Each at one of the slots.
    steps: Vec<(usize, Step)>,
}

fn history() -> impl Strategy<Value = History> {
    let sizes = [engine_block_size(), engine_block_size(), engine_block_size()];
    let steps = proptest::bool::weighted(0.3)
        .prop_flat_map(|hybrid| prop::collection::vec((0..SLOTS.len(), step(hybrid)), 1..24));
    (config(), sizes, steps).prop_map(|(config, engine_block_sizes, steps)| History {
        config,
        engine_block_sizes,
        steps,
    })
}

fn step(hybrid: bool) -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => prop::collection::vec(Happening::any(hybrid), 1..4).prop_map(Step::Events),
        1 => Happening::any(hybrid).prop_map(Step::LateEvents),
        12 => (Prompt::any(), 1..7usize).prop_map(|(prompt, len)| Step::Book(prompt, len)),
        3 => (Prompt::any(), 1..7usize).prop_map(|(prompt, len)| Step::BookText(prompt, len)),
        1 => Just(Step::Lost),
        2 => Just(Step::Leave),
        1 => Just(Step::LeaveLate),
        2 => source().prop_map(Step::Join),
        2 => source().prop_map(Step::SetSource),
        2 => (0..8u64).prop_map(Step::SetCapacity),
        6 => (1..60u64).prop_map(Step::Wait),
        2 => Just(Step::Expire),
        8 => Just(Step::Reload),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Events),
        (0..8u64).prop_map(|capacity_blocks| Source::Approximate { capacity_blocks }),
    ]
}

/// Runs `count` histories; returns how many it ran.
pub(super) fn agree_with_the_oracle<S: Structure>(count: u32) -> u32 {
    let ran = Cell::new(0);
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&history(), |history| {
        run::<S>(&history);
        ran.set(ran.get() + 1);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    ran.get()
}

struct Run<S> {
    index: S,
    oracle: Oracle,
    now: Time,
    tenants: [EndpointId; SLOTS.len()],
    applied: ApplyOutcome,
    ours: Matches,
    truth: Matches,
}

fn run<S: Structure>(history: &History) {
    let tenants = SLOTS.map(|slot| EndpointId { slot: Slot(slot), generation: 1 });
    let mut run = Run {
        index: S::new(history.config.clone(), BLOCK),
        oracle: Oracle::new(history.config.clone(), BLOCK),
        now: Time::ZERO,
        tenants,
        applied: ApplyOutcome::default(),
        ours: Matches::new(),
        truth: Matches::new(),
    };
    for tenant in tenants {
        run.index.join(tenant, MODEL, Source::Events);
        run.oracle.join(tenant, MODEL, Source::Events);
    }
    let mut prompts = Prompt::all().cycle();
    for (at, step) in &history.steps {
        run.step(*at, step, history.engine_block_sizes[*at]);
        run.check_keys(prompts.next().unwrap().keys());
    }
    for prompt in prompts.step_by(3).take(12) {
        run.check_keys(prompt.keys());
    }
    for prompt in Prompt::all().step_by(8) {
        run.check_keys(prompt.text_keys());
    }
    run.check_inspection();
    run.check_nothing_stays();
}

impl<S: Structure> Run<S> {
    fn step(&mut self, at: usize, step: &Step, engine_block_size: u32) {
        let Self { index, oracle, now, .. } = self;
        let tenant = self.tenants[at];
        let late = EndpointId { generation: tenant.generation - 1, ..tenant };
        match step {
            Step::Events(happenings) => {
                self.apply(tenant, happenings, engine_block_size);
            }
            Step::LateEvents(happening) => {
                let outcome = self.apply(late, &[*happening], engine_block_size);
                assert_eq!(outcome, ApplyOutcome { stale_events: 1, ..ApplyOutcome::default() });
            }
            Step::Book(prompt, len) => {
                let keys = prompt.keys();
                index.book(*now, tenant, &keys[..*len]);
                oracle.book(*now, tenant, &keys[..*len]);
            }
            Step::BookText(prompt, len) => {
                let keys = prompt.text_keys();
                index.book_text(*now, tenant, &keys[..*len]);
                oracle.book_text(*now, tenant, &keys[..*len]);
                self.check_keys(keys);
            }
            Step::Lost => {
                index.clear(tenant);
                oracle.clear(tenant);
            }
            Step::Leave => {
                index.leave(tenant);
                oracle.leave(tenant);
            }
            Step::LeaveLate => {
                index.leave(late);
                oracle.leave(late);
            }
            Step::Join(source) => {
                let next = EndpointId { generation: tenant.generation + 1, ..tenant };
                index.join(next, MODEL, *source);
                oracle.join(next, MODEL, *source);
                self.tenants[at] = next;
            }
            Step::SetSource(source) => {
                index.set_source(*now, tenant, *source);
                oracle.set_source(*now, tenant, *source);
            }
            Step::SetCapacity(blocks) => {
                index.set_capacity(tenant, *blocks);
                oracle.set_capacity(tenant, *blocks);
            }
            Step::Wait(ms) => *now = *now + Duration::from_millis(*ms),
            Step::Expire => index.expire(*now),
            Step::Reload => index.reload(*now, tenant),
        }
    }

    fn apply(&mut self, to: EndpointId, happenings: &[Happening], size: u32) -> ApplyOutcome {
        let events = batch(happenings.iter().map(|happening| happening.event(size)).collect());
        let outcome = self.index.apply(self.now, to, &events);
        assert_eq!(outcome, self.oracle.apply(self.now, to, &events));
        self.applied += outcome;
        outcome
    }

    fn check_keys(&mut self, keys: &[BlockKey]) {
        self.index.matches(self.now, keys, &mut self.ours);
        self.oracle.matches(self.now, keys, &mut self.truth);
        assert_eq!(self.ours, self.truth);
    }

    fn check_inspection(&mut self) {
        let Self { index, oracle, now, .. } = self;
        if let Some(first) = oracle.next_expiry(*now) {
            assert!(index.next_expiry().is_some_and(|next| next <= first));
        }
        index.expire(*now);
        for tenant in self.tenants {
            assert_eq!(index.blocks(tenant), oracle.blocks(*now, tenant));
            for keys in Prompt::all().step_by(6).map(Prompt::keys) {
                for keys in (1..=keys.len()).map(|len| &keys[..len]) {
                    assert_eq!(index.holds(tenant, keys), oracle.holds(*now, tenant, keys));
                }
            }
        }
        assert_eq!(index.keys(), oracle.keys(*now).len() as u64);
        assert_eq!(index.applied(), self.applied);
    }

    fn check_nothing_stays(&mut self) {
        for tenant in self.tenants {
            self.index.leave(tenant);
            assert_eq!(self.index.blocks(tenant), None);
        }
        assert_eq!(self.index.keys(), 0);
    }
}
