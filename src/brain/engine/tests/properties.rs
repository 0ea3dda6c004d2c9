use super::super::sequence::Sequence;
use super::super::{EngineConfig, EngineModel, EngineRequest, KvChange, RequestId, Step};
use super::naive::NaiveEngine;
use crate::Time;
use crate::predict::EngineProfile;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Operation {
    /// A prompt of one of a few families: `shared` blocks in common with the family, then its own.
    Submit {
        family: u64,
        shared: u32,
        own_tokens: u32,
        output_tokens: u32,
        named: bool,
    },
    /// The nth request ever submitted.
    Abort(usize),
    Begin,
    Finish,
    Reset,
}

fn operation() -> impl Strategy<Value = Operation> {
    let submit = (0..4u64, 0..6u32, 1..20u32, 1..12u32, any::<bool>()).prop_map(
        |(family, shared, own_tokens, output_tokens, named)| Operation::Submit {
            family,
            shared,
            own_tokens,
            output_tokens,
            named,
        },
    );
    prop_oneof![
        4 => submit,
        1 => any::<usize>().prop_map(Operation::Abort),
        6 => Just(Operation::Begin),
        6 => Just(Operation::Finish),
        1 => Just(Operation::Reset),
    ]
}

fn config() -> impl Strategy<Value = EngineConfig> {
    (1..5u32, 10..24u32, 4..40u32, 1..6u32, any::<bool>(), 0..8u32).prop_map(
        |(block_size, kv_blocks, max_batch_tokens, max_sequences, cache_output, host_blocks)| {
            let profile = *EngineProfile::named("llama-70b_h100_tp4").unwrap();
            EngineConfig {
                block_size,
                kv_blocks,
                max_batch_tokens,
                max_sequences,
                cache_output,
                host_blocks,
                ..EngineConfig::new(profile)
            }
        },
    )
}

fn request(id: u64, operation: &Operation, block_size: u32) -> EngineRequest<u64> {
    let Operation::Submit { family, shared, own_tokens, output_tokens, named } = *operation else {
        unreachable!("only submissions are requests")
    };
    let prompt_tokens = shared * block_size + own_tokens;
    let blocks = if named { prompt_tokens + output_tokens } else { prompt_tokens } / block_size;
    let key = |position: u32| {
        // Past the shared part, every second request of a family has the same blocks.
        let variant = if position < shared { 0 } else { 1 + id % 2 };
        family * 10_000 + variant * 1_000 + u64::from(position)
    };
    EngineRequest {
        id: RequestId(id),
        prompt_tokens,
        output_tokens,
        keys: (0..blocks).map(key).collect(),
    }
}

/// Copies of each block, by what the events say.
#[derive(Default)]
struct Copies(BTreeMap<u64, u32>);

impl Copies {
    fn apply(&mut self, changes: &[KvChange<u64>]) {
        for change in changes {
            match change {
                KvChange::Stored { keys, .. } => {
                    keys.iter().for_each(|key| *self.0.entry(*key).or_default() += 1);
                }
                KvChange::Removed(keys) => {
                    for key in keys {
                        let copies =
                            self.0.get_mut(key).expect("removed without having been stored");
                        *copies -= 1;
                        if *copies == 0 {
                            self.0.remove(key);
                        }
                    }
                }
                KvChange::Cleared => self.0.clear(),
                KvChange::HostStored(_) | KvChange::HostRemoved(_) => {}
            }
        }
    }
}

fn check_accounting(engine: &EngineModel<u64>) {
    let load = engine.load();
    let cache = engine.memory().cache();
    assert_eq!(cache.used_blocks(), load.used_blocks);
    assert_eq!(cache.used_blocks() + cache.free_blocks(), cache.total_blocks());
    let held: usize = engine.running().iter().map(|sequence| sequence.blocks.len()).sum();
    assert_eq!(cache.references(), held as u64);
    // A step too small for its decodes leaves some of them behind, by one token.
    let behind = |sequence: &&Sequence<u64>| sequence.uncomputed_tokens() - sequence.scheduled > 1;
    let unfinished = engine.running().iter().rev().skip(1).filter(behind);
    assert_eq!(unfinished.count(), 0, "only the last admitted has a prefill to finish");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_naive_engine(
        config in config(),
        operations in prop::collection::vec(operation(), 1..80),
    ) {
        let mut engine = EngineModel::<u64>::new(config.clone()).unwrap();
        let mut naive = NaiveEngine::new(config.clone());
        let mut copies = Copies::default();
        let mut step = Step::default();
        let (mut submitted, mut in_flight) = (0, false);
        for operation in &operations {
            match operation {
                Operation::Submit { .. } => {
                    let request = request(submitted, operation, config.block_size);
                    let fits = u64::from(request.prompt_tokens + request.output_tokens) - 1
                        <= config.kv_tokens();
                    prop_assert_eq!(engine.submit(request.clone()).is_ok(), fits);
                    if fits {
                        naive.submit(request);
                    }
                    submitted += 1;
                }
                Operation::Abort(which) => {
                    let id = RequestId((*which as u64) % submitted.max(1));
                    engine.abort(id);
                    naive.abort(id);
                }
                Operation::Begin if in_flight => {}
                Operation::Begin => {
                    in_flight = engine.begin_step(Time::ZERO).is_some();
                    prop_assert_eq!(in_flight, naive.begin());
                }
                Operation::Finish => {
                    prop_assert_eq!(engine.finish_step(&mut step), in_flight);
                    if in_flight {
                        let expected = naive.finish();
                        prop_assert_eq!(&step.changes, &expected.changes);
                        prop_assert_eq!(&step.tokens, &expected.tokens);
                        prop_assert_eq!(&step.finished, &expected.finished);
                        prop_assert_eq!(&step.admitted, &expected.admitted);
                        prop_assert_eq!(&step.preempted, &expected.preempted);
                        prop_assert_eq!(step.prefill_tokens, expected.prefill_tokens);
                        prop_assert_eq!(step.decode_requests, expected.decode_requests);
                        copies.apply(&step.changes);
                    }
                    in_flight = false;
                }
                Operation::Reset => prop_assert_eq!(engine.reset_prefix_cache(), naive.reset()),
            }
            check_accounting(&engine);
            prop_assert_eq!(engine.memory().free_blocks() as usize, naive.free_blocks());
        }
    }

    #[test]
    fn everything_submitted_finishes(
        config in config(),
        submissions in prop::collection::vec(operation(), 1..40),
    ) {
        let mut engine = EngineModel::<u64>::new(config.clone()).unwrap();
        let mut accepted = 0;
        let mut outputs = 0;
        for (id, operation) in submissions.iter().enumerate() {
            if matches!(operation, Operation::Submit { .. }) {
                let request = request(id as u64, operation, config.block_size);
                let output_tokens = u64::from(request.output_tokens);
                if engine.submit(request).is_ok() {
                    accepted += 1;
                    outputs += output_tokens;
                }
            }
        }
        let mut again = engine.clone();
        let (mut now, mut steps) = (Time::ZERO, Vec::new());
        while let Some(step) = engine.step(now) {
            prop_assert!(step.duration_ms > 0.0);
            now = step.ended;
            steps.push(step);
        }
        prop_assert_eq!(engine.counters().finished_requests, accepted);
        prop_assert_eq!(engine.counters().generated_tokens, outputs);
        prop_assert_eq!(engine.load().used_blocks, 0);

        let mut now = Time::ZERO;
        for step in &steps {
            let repeated = again.step(now);
            prop_assert_eq!(Some(step), repeated.as_ref(), "not deterministic");
            now = step.ended;
        }
    }
}
