//! Fleets of several kinds, jitter, bounds, and what a fleet can take.

use super::*;

/// The same engine, whose steps last `factor` times as long.
fn slower(factor: f64) -> EngineConfig {
    let mut engine = engine();
    let it = engine.profile;
    let steps = [
        it.prefill_base_ms,
        it.prefill_ms_per_token,
        it.prefill_ms_per_pair,
        it.decode_base_ms,
        it.decode_ms_per_request,
        it.decode_ms_per_context_token,
    ];
    engine.profile =
        EngineProfile::custom(steps.map(|step| step * factor), it.kv_tokens, it.kv_bytes_per_token);
    engine
}

#[test]
fn of_two_kinds_of_engines_the_faster_gets_more_and_all_are_asked_the_same() {
    let workload = prompts(400, 12.0);
    let mut world = open(2);
    world.engines.extend([slower(3.0), slower(3.0)]);
    let outcome = run(&workload, &world).unwrap();
    assert!(outcome.rows.iter().all(|row| row.fate == Fate::Served));
    let fast = outcome.rows.iter().filter(|row| row.engine < 2).count();
    assert!((240..400).contains(&fast), "{fast} of 400");
    let first = outcome.rows[0].ttft_limit_ms;
    assert!(outcome.rows.iter().all(|row| row.ttft_limit_ms.total_cmp(&first).is_eq()));
}

#[test]
fn who_is_sent_where_it_cannot_fit_counts_as_missed_if_another_had_room() {
    let mut workload = Workload::new(BLOCK);
    for at in 0..4_u32 {
        workload.begin_session();
        workload.push(f64::from(at) * 3_000.0, 300 * BLOCK, 5, keys(u64::from(at), 300));
    }
    let mut world = open(2).with_policy("round-robin");
    world.warmup_share = 0.0;
    world.engines[1].kv_blocks = 200;
    let outcome = run(&workload, &world).unwrap();
    assert_eq!(outcome.rows.iter().filter(|row| row.fate == Fate::Refused).count(), 2);
    assert_eq!((outcome.summary().requests, outcome.summary().in_slo), (4, 2));
}

#[test]
fn steps_that_jitter_do_so_by_the_seed() {
    let workload = prompts(200, 12.0);
    let play = |seed, step_jitter| {
        let mut world = open(2).with_policy("least-request");
        world.seed = seed;
        world.engines.iter_mut().for_each(|engine| engine.step_jitter = step_jitter);
        run(&workload, &world).unwrap().rows
    };
    assert!(play(1, 0.2) == play(1, 0.2));
    assert!(play(1, 0.2) != play(2, 0.2) && play(1, 0.2) != play(1, 0.0));
    let mut world = open(1);
    world.engines[0].step_jitter = 3.0;
    assert!(run(&workload, &world).unwrap_err().to_string().contains("step_jitter = 3"));
}

#[test]
fn behind_a_shared_cache_only_what_is_new_is_computed() {
    let workload = prompts(120, 400.0);
    let mut world = open(3).with_policy("round-robin");
    world.warmup_share = 0.0;
    world.kv_lag_ms = 0.0;
    let apart = run(&workload, &world).unwrap().summary();
    world.shared_cache = true;
    let outcome = run(&workload, &world).unwrap();
    let shared = outcome.summary();
    assert!((shared.hit_ratio_with_host - workload.infinite_cache_hit_ratio()).abs() < 1e-9);
    assert!(shared.hit_ratio_with_host > apart.hit_ratio_with_host + 0.01);
    for row in &outcome.rows {
        assert_eq!(row.matched_tokens, row.hit_tokens + row.host_hit_tokens, "{row:?}");
    }
}

#[test]
fn goodput_is_the_rate_at_which_the_share_is_crossed() {
    let workload = prompts(300, 10.0);
    let mut world = open(2).with_policy("least-request");
    world.slo.ttft_ms = 150.0;
    let capacity = capacity_requests_per_s(&workload, &world).unwrap();
    let goodput = || goodput_requests_per_s(&workload, &world, 0.9, 2.0 * capacity, 6).unwrap();
    let rate = goodput();
    assert_eq!(rate.to_bits(), goodput().to_bits());
    let attained = |rate| {
        let mut world = world.clone();
        world.arrivals = Arrivals::at_rate(rate, 0.0);
        run(&workload, &world).unwrap().summary().slo_attainment
    };
    assert!(rate > 0.0 && attained(rate) >= 0.9, "{rate}");
    assert!(attained(rate + 2.0 * capacity / 64.0) < 0.9, "{rate}");
}

#[test]
fn long_prompts_are_counted_apart() {
    let mut workload = prompts(20, 50.0);
    workload.begin_session();
    workload.push(1_000.0, LONG_PROMPT_TOKENS + 1, 3, keys(7, 312));
    let summary = run(&workload, &open(2)).unwrap().summary();
    assert_eq!((summary.long_prompts, summary.slo_attainment_long_prompts), (1, 1.0));
}
