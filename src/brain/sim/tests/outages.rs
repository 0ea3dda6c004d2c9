//! Engines that die, come back, and join.

use super::*;
use proptest::prelude::*;

fn served_once(outcome: &Outcome) {
    let finished: u64 = outcome.engines.iter().map(|engine| engine.finished_requests).sum();
    assert!(outcome.rows.iter().all(|row| row.fate == Fate::Served));
    assert_eq!(finished, outcome.rows.len() as u64);
    let lost: u64 = outcome.engines.iter().map(|engine| engine.aborted_requests).sum();
    let retries: u64 = outcome.rows.iter().map(|row| u64::from(row.retries)).sum();
    assert!(retries >= lost, "who was in a dead engine asked again: {retries} and {lost}");
}

#[test]
fn what_a_dead_engine_had_is_served_by_others_under_every_policy() {
    let workload = prompts(200, 12.0);
    for policy in builtin_profiles() {
        let mut world = open(4).with_policy(policy);
        world.outages = vec![
            Outage::failure(2, 900.0),
            Outage { engine: 1, fails_ms: 700.0, returns_ms: 1_300.0 },
        ];
        world.outage_notice_ms = 300.0;
        let outcome = run(&workload, &world).unwrap();
        served_once(&outcome);
        assert!(outcome.summary().retries > 0, "{policy}");
        for row in &outcome.rows {
            assert!(row.engine != 2 || row.finished_ms < 900.0, "{policy}: {row:?}");
            let waited = f64::from(row.retries) * world.retry_ms;
            assert!(row.sent_ms >= row.arrived_ms + waited - 1e-3, "{row:?}");
            assert!(row.ttft_ms() > waited, "counted from the first time it came: {row:?}");
        }
        let back = outcome.rows.iter().filter(|row| row.engine == 1 && row.sent_ms > 1_300.0);
        // By prefixes alone nobody goes where none are.
        assert!(
            policy == "prefix" || back.count() > 0,
            "{policy}: nobody went to the engine that came back"
        );
        assert!(run(&workload, &world).unwrap() == outcome, "{policy}");
    }
}

#[test]
fn an_engine_that_is_back_before_anybody_noticed_says_that_it_is_empty() {
    let workload = prompts(60, 400.0);
    let mut world = open(1);
    world.kv_lag_ms = 0.0;
    world.outages = vec![Outage { engine: 0, fails_ms: 10_001.0, returns_ms: 10_100.0 }];
    world.outage_notice_ms = 60_000.0;
    let outcome = run(&workload, &world).unwrap();
    served_once(&outcome);
    for row in outcome.rows.iter().filter(|row| row.retries == 0) {
        assert_eq!(row.matched_tokens, row.hit_tokens, "{row:?}");
    }
    let cold = outcome.rows.iter().filter(|row| row.hit_tokens == 0).count();
    assert!(cold > 4, "its four shared prefixes were computed twice: {cold}");
}

#[test]
fn an_engine_that_joins_gets_work_from_then_on() {
    let workload = prompts(300, 10.0);
    let mut world = open(2).with_policy("least-request");
    world.outages = vec![Outage::join(1, 1_500.0)];
    let outcome = run(&workload, &world).unwrap();
    served_once(&outcome);
    assert_eq!(outcome.summary().retries, 0, "nobody knew of it before");
    let (before, after): (Vec<&Row>, Vec<&Row>) =
        outcome.rows.iter().partition(|row| row.sent_ms < 1_500.0);
    assert!(before.iter().all(|row| row.engine == 0));
    assert!(after.iter().filter(|row| row.engine == 1).count() > after.len() / 4);
}

#[test]
fn who_has_nobody_left_rejects() {
    let workload = prompts(100, 20.0);
    let mut world = open(2);
    world.outages = vec![Outage::failure(0, 500.0), Outage::failure(1, 500.0)];
    let outcome = run(&workload, &world).unwrap();
    assert!(outcome.rows.iter().all(|row| matches!(row.fate, Fate::Served | Fate::Rejected)));
    assert!(outcome.rows.iter().any(|row| row.fate == Fate::Rejected));
    world.outages = vec![Outage::failure(2, 1.0)];
    let message = run(&workload, &world).unwrap_err().to_string();
    assert!(message.contains("engine 2") && message.contains("there are 2"), "{message}");
}

#[test]
fn sessions_that_wait_for_room_outlive_an_engine() {
    let workload = sessions(30, 12);
    let mut world = World::new(engine(), 3, Arrivals::closed(16));
    world.hold_ms = 3_600_000;
    world.outages = vec![Outage { engine: 1, fails_ms: 9_000.0, returns_ms: 20_000.0 }];
    let outcome = run(&workload, &world).unwrap();
    assert_eq!(outcome.rows.len(), 30 * 12);
    served_once(&outcome);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever dies and returns whenever: all that came is answered once or rejected, and the same
    /// again.
    #[test]
    fn every_request_ends_once(
        outages in prop::collection::vec((0_u32..4, 0.0..2_500.0_f64, 0.0..1_500.0_f64), 0..6),
        routers in 1_u32..4,
        notice_ms in 0.0..600.0_f64,
        hold_ms in prop::sample::select(vec![0_u64, 600_000]),
        step_jitter in prop::sample::select(vec![0.0, 0.2]),
        policy in prop::sample::select(vec!["default", "llm-d-precise", "session-hash"]),
    ) {
        let workload = prompts(120, 15.0);
        let mut world = open(4).with_policy(policy);
        world.routers = routers;
        world.hold_ms = hold_ms;
        world.outage_notice_ms = notice_ms;
        world.engines.iter_mut().for_each(|engine| engine.step_jitter = step_jitter);
        let outage = |(engine, fails_ms, lasts_ms)| Outage {
            engine,
            fails_ms,
            returns_ms: fails_ms + lasts_ms,
        };
        world.outages = outages.into_iter().map(outage).collect();
        let outcome = run(&workload, &world).unwrap();
        prop_assert_eq!(outcome.rows.len(), 120);
        let served = outcome.rows.iter().filter(|row| row.fate == Fate::Served).count() as u64;
        let rejected = outcome.rows.iter().filter(|row| row.fate == Fate::Rejected).count() as u64;
        prop_assert_eq!(served + rejected, 120);
        let finished: u64 = outcome.engines.iter().map(|engine| engine.finished_requests).sum();
        prop_assert_eq!(finished, served);
        let same = run(&workload, &world).unwrap().summary();
        prop_assert_eq!(format!("{same:?}"), format!("{:?}", outcome.summary()));
    }
}
