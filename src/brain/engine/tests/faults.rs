//! What breaks an engine, what makes its steps uneven, and a cache that several share.

use super::*;
use crate::engine::SharedCache;

#[test]
fn an_engine_that_crashed_is_a_new_one_with_the_old_totals() {
    let mut engine = engine(EngineConfig { max_batch_tokens: 16, ..config(100) });
    engine.submit(request(1, 1, 12, 3)).unwrap();
    engine.step(Time::ZERO).unwrap();
    engine.submit(request(2, 2, 40, 3)).unwrap();
    engine.submit(request(3, 3, 8, 3)).unwrap();
    engine.begin_step(Time::ZERO).unwrap();

    assert_eq!(engine.crash(), [RequestId(1), RequestId(2), RequestId(3)]);

    assert!(!engine.has_work() && engine.planned().is_none());
    assert_eq!(engine.load().used_blocks, 0);
    assert_eq!(engine.counters().aborted_requests, 3);
    engine.submit(request(1, 1, 12, 3)).unwrap();
    assert_eq!(hits(&run(&mut engine)), [0], "nothing is cached");
    assert_eq!(engine.counters().finished_requests, 1);
}

#[test]
fn steps_jitter_around_what_the_profile_says() {
    let mut config = EngineConfig { step_jitter: 0.3, jitter_seed: 1, ..config(10_000) };
    let mean =
        |config: &EngineConfig| (0..20_000).map(|step| config.jitter(step)).sum::<f64>() / 20_000.0;
    assert!((mean(&config) - 1.0).abs() < 0.01, "{}", mean(&config));
    let bits = |config: &EngineConfig, step| config.jitter(step).to_bits();
    let one = bits(&config, 1);
    assert_ne!(bits(&config, 2), one);
    config.jitter_seed = 2;
    assert_ne!(bits(&config, 1), one);
    config.step_jitter = 0.0;
    assert_eq!(bits(&config, 1), 1.0_f64.to_bits());
}

#[test]
fn what_one_engine_computed_all_find_and_all_forget_nothing() {
    let cache = SharedCache::default();
    let free = EngineConfig { host_ms_per_token: 0.0, ..config(4) };
    let mut engines = [engine(free.clone()).sharing(cache.clone()), engine(free).sharing(cache)];
    engines[0].submit(request(1, 1, 13, 1)).unwrap();
    run(&mut engines[0]);
    engines[0].submit(request(2, 2, 13, 1)).unwrap();
    run(&mut engines[0]);

    for engine in &mut engines {
        engine.submit(request(3, 1, 13, 1)).unwrap();
        let admitted = run(engine)[0].admitted[0];
        assert_eq!((admitted.hit_tokens, admitted.host_hit_tokens), (0, 12));
    }
}
