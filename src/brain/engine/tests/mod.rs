//! What the engine does, rule by rule; `properties` then compares it with a naive engine.

mod faults;
mod naive;
mod properties;
mod runs;

use super::{
    Admission, EngineConfig, EngineConfigError, EngineModel, EngineRequest, KvChange, RequestId,
    Step, SubmitError,
};
use crate::Time;
use crate::predict::EngineProfile;

/// Four tokens a block; room for `kv_blocks`.
fn config(kv_blocks: u32) -> EngineConfig {
    let profile = *EngineProfile::named("qwen3-32b_h100_tp2").unwrap();
    EngineConfig { block_size: 4, kv_blocks, ..EngineConfig::new(profile) }
}

fn engine(config: EngineConfig) -> EngineModel<u64> {
    EngineModel::new(config).unwrap()
}

/// A request whose blocks are called `name * 1000 + position`, output included.
fn request(id: u64, name: u64, prompt_tokens: u32, output_tokens: u32) -> EngineRequest<u64> {
    let blocks = u64::from((prompt_tokens + output_tokens) / 4);
    let keys = (0..blocks).map(|position| name * 1000 + position).collect();
    EngineRequest { id: RequestId(id), prompt_tokens, output_tokens, keys }
}

fn run(engine: &mut EngineModel<u64>) -> Vec<Step<u64>> {
    let mut steps = Vec::new();
    let mut now = Time::ZERO;
    while let Some(step) = engine.step(now) {
        now = step.ended;
        steps.push(step);
    }
    steps
}

fn hits(steps: &[Step<u64>]) -> Vec<u32> {
    steps.iter().flat_map(|step| &step.admitted).map(|admission| admission.hit_tokens).collect()
}

fn removed(steps: &[Step<u64>]) -> Vec<u64> {
    let changes = steps.iter().flat_map(|step| &step.changes);
    changes
        .flat_map(|change| match change {
            KvChange::Removed(keys) => keys.clone(),
            _ => vec![],
        })
        .collect()
}

#[test]
fn a_step_lasts_what_the_profile_says() {
    let mut engine = engine(config(1_000));
    let profile = engine.config().profile;
    engine.submit(request(1, 1, 40, 3)).unwrap();

    let steps = run(&mut engine);

    let durations: Vec<f64> = steps.iter().map(|step| step.duration_ms).collect();
    let prefill = profile.step_ms(40, 40.0 * 20.0, 0, 0);
    let expected = [prefill, profile.step_ms(0, 0.0, 1, 41), profile.step_ms(0, 0.0, 1, 42)];
    assert_eq!(durations.len(), expected.len());
    let same = |(one, other): (&f64, &f64)| (one - other).abs() < 1e-9;
    assert!(durations.iter().zip(&expected).all(same), "{durations:?} is not {expected:?}");
    assert_eq!(steps[0].first_tokens, [RequestId(1)]);
    assert_eq!(steps[2].finished, [RequestId(1)]);
    assert_eq!(steps[1].started, steps[0].ended);
}

#[test]
fn a_hit_is_whole_blocks_and_leaves_a_token_to_compute() {
    let mut engine = engine(config(1_000));
    for (id, prompt_tokens) in [(1, 12), (2, 12), (3, 13), (4, 3)] {
        engine.submit(request(id, 1, prompt_tokens, 1)).unwrap();
        run(&mut engine);
    }
    // 12 = 3 blocks: all resident, but the last token is recomputed, and with it its block.
    assert_eq!(engine.counters().prefix_queries_tokens, 12 + 12 + 13 + 3);
    assert_eq!(engine.counters().prefix_hits_tokens, 8 + 12);
}

#[test]
fn blocks_are_hittable_at_the_end_of_the_step_that_computed_them() {
    let mut engine = engine(config(1_000));
    engine.submit(request(1, 1, 41, 5)).unwrap();
    engine.submit(request(2, 1, 41, 5)).unwrap();
    engine.begin_step(Time::ZERO).unwrap();
    engine.submit(request(3, 1, 41, 5)).unwrap();

    let mut step = Step::default();
    assert!(engine.finish_step(&mut step));
    assert_eq!(hits(std::slice::from_ref(&step)), [0, 0], "both computed it in the same step");
    let stored = step.changes.iter().filter(|change| matches!(change, KvChange::Stored { .. }));
    assert_eq!(stored.count(), 2, "and both copies are reported");
    assert_eq!(hits(&run(&mut engine)), [40]);
}

#[test]
fn output_is_cached_where_its_blocks_have_names_and_the_engine_caches_output() {
    for (cache_output, expected) in [(true, [0, 20]), (false, [0, 8])] {
        let mut engine = engine(EngineConfig { cache_output, ..config(100) });
        engine.submit(request(1, 1, 10, 12)).unwrap();
        let mut steps = run(&mut engine);
        // 22 tokens, of which the last was never an input: 5 full blocks.
        engine.submit(request(2, 1, 24, 1)).unwrap();
        steps.extend(run(&mut engine));
        assert_eq!(hits(&steps), expected);
    }
}

#[test]
fn the_least_recently_released_goes_first_and_of_one_request_the_tail() {
    let mut engine = engine(config(8));
    engine.submit(request(1, 1, 13, 1)).unwrap(); // 1000..1002 and a blank one
    run(&mut engine);
    engine.submit(request(2, 2, 13, 1)).unwrap(); // the same of 2
    run(&mut engine);
    engine.submit(request(3, 1, 9, 1)).unwrap(); // uses 1000 and 1001 again
    run(&mut engine);

    engine.submit(request(4, 4, 21, 1)).unwrap(); // 6 blocks, of which 2 are blank
    let steps = run(&mut engine);

    assert_eq!(removed(&steps), [1002, 2002, 2001, 2000]);
}

#[test]
fn a_prompt_waits_until_all_its_blocks_are_free() {
    let mut engine = engine(config(6));
    engine.submit(request(1, 1, 13, 3)).unwrap();
    engine.submit(request(2, 2, 12, 1)).unwrap();
    engine.submit(request(3, 3, 1, 1)).unwrap();

    let steps = run(&mut engine);

    let admitted: Vec<Vec<u64>> =
        steps.iter().map(|s| s.admitted.iter().map(|a| a.id.0).collect()).collect();
    // 2 needs 3 blocks and finds 2; 3 would fit, but is behind it.
    assert_eq!(admitted, [vec![1], vec![], vec![], vec![2, 3]]);
}

#[test]
fn long_prompts_are_computed_in_chunks_beside_the_decodes() {
    let mut engine = engine(EngineConfig { max_batch_tokens: 10, ..config(100) });
    engine.submit(request(1, 1, 5, 9)).unwrap();
    engine.submit(request(2, 2, 20, 1)).unwrap();
    engine.submit(request(3, 3, 4, 1)).unwrap();

    let steps = run(&mut engine);

    let prefills: Vec<(u32, u32)> =
        steps.iter().map(|s| (s.prefill_tokens, s.decode_requests)).take(4).collect();
    assert_eq!(prefills, [(10, 0), (9, 1), (9, 1), (1, 1)]);
    assert_eq!(steps[2].first_tokens, [RequestId(2)]);
}

#[test]
fn no_more_requests_run_than_allowed() {
    let mut engine = engine(EngineConfig { max_sequences: 2, ..config(100) });
    for id in 1..=3 {
        engine.submit(request(id, id, 4, 2)).unwrap();
    }
    engine.begin_step(Time::ZERO);
    assert_eq!(engine.load().running_requests, 2);
    assert_eq!(engine.load().waiting_requests, 1);
    assert_eq!(engine.load().used_blocks, 2);
}

#[test]
fn exhaustion_preempts_the_request_admitted_last_and_recomputes_it() {
    let mut engine = engine(config(6));
    engine.submit(request(1, 1, 8, 10)).unwrap(); // 17 tokens in the cache at its end: 5 blocks
    engine.submit(request(2, 2, 8, 10)).unwrap();

    let steps = run(&mut engine);

    let preempted: Vec<RequestId> = steps.iter().flat_map(|s| s.preempted.clone()).collect();
    assert_eq!(preempted, [RequestId(2)]);
    assert_eq!(engine.counters().preemptions, 1);
    assert_eq!(engine.counters().finished_requests, 2);
    assert_eq!(engine.counters().generated_tokens, 20);
    let resumed: Vec<Admission> =
        steps.iter().flat_map(|s| s.admitted.clone()).filter(|a| a.resumed).collect();
    assert_eq!(resumed[0].id, RequestId(2));
    assert_eq!(engine.counters().prefix_queries_tokens, 16, "a resumption is no new lookup");
    let first: Vec<RequestId> = steps.iter().flat_map(|s| s.first_tokens.clone()).collect();
    assert_eq!(first, [RequestId(1), RequestId(2)]);
}

#[test]
fn evicted_blocks_are_hit_on_the_host_at_a_price() {
    let mut engine = engine(EngineConfig { host_blocks: 2, ..config(4) });
    engine.submit(request(1, 1, 13, 1)).unwrap();
    run(&mut engine);
    engine.submit(request(2, 2, 13, 1)).unwrap();
    let evicting = run(&mut engine);
    let moves: Vec<&KvChange<u64>> =
        evicting[0].changes.iter().filter(|c| !matches!(c, KvChange::Stored { .. })).collect();
    let expected = [
        KvChange::Removed(vec![1002]),
        KvChange::HostStored(1002),
        KvChange::Removed(vec![1001]),
        KvChange::HostStored(1001),
        KvChange::Removed(vec![1000]),
        KvChange::HostRemoved(1002),
        KvChange::HostStored(1000),
    ];
    assert_eq!(moves, expected.iter().collect::<Vec<_>>());

    engine.submit(request(3, 1, 13, 1)).unwrap();
    let steps = run(&mut engine);

    let admission = steps[0].admitted[0];
    assert_eq!((admission.hit_tokens, admission.host_hit_tokens), (0, 8));
    assert_eq!(engine.counters().host_hits_tokens, 8);
    let profile = engine.config().profile;
    let loading = 8.0 * engine.config().host_ms_per_token;
    let expected_ms = profile.step_ms(5, 5.0 * (8.0 + 2.5), 0, 0) + loading;
    assert!((steps[0].duration_ms - expected_ms).abs() < 1e-9);
    let stored = &steps[0].changes[steps[0].changes.len() - 1];
    assert!(matches!(stored, KvChange::Stored { first_block: 0, keys, .. } if keys.len() == 3));
}

#[test]
fn an_abort_frees_what_was_held_and_keeps_what_was_computed() {
    let mut engine = engine(EngineConfig { max_batch_tokens: 8, ..config(100) });
    engine.submit(request(1, 1, 20, 4)).unwrap();
    engine.submit(request(2, 2, 20, 4)).unwrap();
    engine.begin_step(Time::ZERO).unwrap();

    assert!(engine.abort(RequestId(1)), "running");
    assert!(engine.abort(RequestId(2)), "waiting");
    assert!(!engine.abort(RequestId(1)), "twice");
    assert!(!engine.abort(RequestId(3)), "unknown");
    let mut step = Step::default();
    engine.finish_step(&mut step);

    assert_eq!(step.tokens, []);
    assert_eq!(step.aborted, [RequestId(1)]);
    assert_eq!(engine.load().used_blocks, 0);
    assert!(!engine.has_work());
    assert_eq!(engine.counters().aborted_requests, 2);
    engine.submit(request(1, 1, 20, 1)).unwrap();
    assert_eq!(hits(&run(&mut engine)), [8]);
}

#[test]
fn a_reset_forgets_everything_once_nothing_runs() {
    let mut engine = engine(config(10));
    engine.submit(request(1, 1, 9, 3)).unwrap();
    engine.step(Time::ZERO);
    assert!(!engine.reset_prefix_cache());
    run(&mut engine);

    assert!(engine.reset_prefix_cache());

    engine.submit(request(2, 1, 9, 1)).unwrap();
    let steps = run(&mut engine);
    assert_eq!(hits(&steps), [0]);
    assert_eq!(steps[0].changes[0], KvChange::Cleared);
}

#[test]
fn what_cannot_be_served_is_refused_with_its_reason() {
    let mut engine = engine(config(2));
    let refusals = [
        (request(1, 1, 0, 1), "request 1: the prompt is empty: give at least one token"),
        (
            request(1, 1, 1, 0),
            "request 1: output_tokens is 0: an engine generates at least one token",
        ),
        (
            request(1, 1, 8, 2),
            "request 1: 10 tokens do not fit the KV cache of 8 tokens: shorten the request or \
             raise kv_blocks",
        ),
    ];
    for (request, message) in refusals {
        assert_eq!(engine.submit(request).unwrap_err().to_string(), message);
    }
    engine.submit(request(1, 1, 8, 1)).unwrap();
    let twice = engine.submit(request(1, 1, 8, 1));
    assert_eq!(twice, Err(SubmitError::DuplicateId(RequestId(1))));

    let refused = EngineModel::<u64>::new(EngineConfig { block_size: 0, ..config(2) }).unwrap_err();
    let expected =
        EngineConfigError::OutOfRange { name: "block_size", value: 0, min: 1, max: 65_536 };
    assert_eq!(refused, expected);
    assert!(EngineModel::<u64>::new(EngineConfig { kv_blocks: 0, ..config(2) }).is_err());
    let no_time = EngineConfig { host_ms_per_token: f64::NAN, ..config(2) };
    assert!(EngineModel::<u64>::new(no_time).is_err());
}
