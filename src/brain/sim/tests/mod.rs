//! The simulator on small worlds whose outcome is known.

mod decision_log;
mod ends;
mod generated;
mod loads;
mod outages;
mod routers;
mod scaling;

use super::*;
use crate::BlockKey;
use crate::engine::EngineConfig;
use crate::predict::EngineProfile;
use crate::schedule::builtin_profiles;

const BLOCK: u32 = 64;

fn engine() -> EngineConfig {
    let profile = *EngineProfile::named("llama-3.1-8b_h100_tp1").unwrap();
    let mut engine = EngineConfig::new(profile);
    engine.block_size = BLOCK;
    engine.kv_blocks = 400;
    engine.cache_output = false;
    engine
}

fn keys(scope: u64, blocks: u32) -> impl Iterator<Item = BlockKey> {
    (0..u64::from(blocks))
        .map(move |at| BlockKey(crate::rng::Rng::new(scope << 20 | at).next_u64()))
}

/// `count` prompts, every `gap_ms`, the half of each shared by every fourth.
fn prompts(count: u32, gap_ms: f64) -> Workload {
    let mut workload = Workload::new(BLOCK);
    for number in 0..count {
        let (shared, own) = (keys(u64::from(number % 4), 10), keys(100 + u64::from(number), 10));
        workload.begin_session();
        workload.push(f64::from(number) * gap_ms, 20 * BLOCK, 20, shared.chain(own));
    }
    workload
}

/// Sessions of `turns`, each of which repeats the turn before and adds to it.
fn sessions(count: u32, turns: u32) -> Workload {
    let mut workload = Workload::new(BLOCK);
    for session in 0..count {
        workload.begin_session();
        for turn in 0..turns {
            let blocks = 40 + 4 * turn;
            workload.push(500.0, blocks * BLOCK + 9, 30, keys(1_000 + u64::from(session), blocks));
        }
    }
    workload
}

fn open(count: usize) -> World {
    World::new(engine(), count, Arrivals::Open { requests_per_s: None, jitter_ms: 0.0 })
}

#[test]
fn a_request_alone_takes_what_the_formula_says() {
    let mut workload = Workload::new(BLOCK);
    workload.push(0.0, 1_000, 11, keys(1, 15));
    let outcome = run(&workload, &open(1)).unwrap();

    let (row, profile) = (outcome.rows[0], engine().profile);
    assert_eq!(row.fate, Fate::Served);
    assert!((row.ttft_ms() - profile.prefill_ms(1_000, 0)).abs() < 1e-3, "{row:?}");
    let step = profile.decode_ms(1, 1_005);
    assert!((row.tpot_ms() - step).abs() < 1e-3, "{} against {step}", row.tpot_ms());
    assert!(row.is_in_slo());
}

#[test]
fn every_policy_serves_everything_and_repeats_itself() {
    let workload = prompts(200, 12.0);
    for policy in builtin_profiles() {
        let mut world = open(4).with_policy(policy);
        world.seed = 3;
        let outcome = run(&workload, &world).unwrap();
        assert_eq!(outcome.rows.len(), 200);
        assert!(outcome.rows.iter().all(|row| row.fate == Fate::Served), "{policy}");
        let finished: u64 = outcome.engines.iter().map(|engine| engine.finished_requests).sum();
        assert_eq!(finished, 200);
        let hits: u64 = outcome.engines.iter().map(|engine| engine.prefix_hits_tokens).sum();
        assert_eq!(hits, outcome.rows.iter().map(|row| u64::from(row.hit_tokens)).sum::<u64>());
        assert_eq!(run(&workload, &world).unwrap().rows, outcome.rows, "{policy}");
    }
}

#[test]
fn a_match_is_what_the_engine_finds_where_nothing_is_late() {
    let workload = prompts(100, 400.0);
    let mut world = open(1);
    world.kv_lag_ms = 0.0;
    let outcome = run(&workload, &world).unwrap();
    for row in &outcome.rows {
        assert_eq!(row.matched_tokens, row.hit_tokens, "{row:?}");
    }
    assert!(outcome.summary().hit_ratio > 0.4);
}

#[test]
fn events_that_come_late_are_believed_too_long() {
    let workload = prompts(300, 150.0);
    let wrong = |lag_ms| {
        let mut world = open(1);
        world.engines.iter_mut().for_each(|engine| engine.kv_blocks = 45);
        world.kv_lag_ms = lag_ms;
        let rows = run(&workload, &world).unwrap().rows;
        rows.iter().map(|row| u64::from(row.matched_tokens.abs_diff(row.hit_tokens))).sum::<u64>()
    };
    assert!(wrong(5_000.0) > wrong(1.0), "{} {}", wrong(5_000.0), wrong(1.0));
}

#[test]
fn what_fits_no_engine_is_refused_and_not_counted() {
    let mut workload = prompts(20, 10.0);
    workload.begin_session();
    workload.push(1.0, 401 * BLOCK, 5, keys(9, 401));
    let outcome = run(&workload, &open(2)).unwrap();
    assert_eq!(outcome.rows.iter().filter(|row| row.fate == Fate::Refused).count(), 1);
    assert_eq!(outcome.summary().requests, outcome.summary().served);
}

#[test]
fn turns_of_a_session_follow_each_other() {
    let workload = sessions(6, 8);
    let outcome = run(&workload, &World::new(engine(), 2, Arrivals::closed(3))).unwrap();
    assert_eq!(outcome.rows.len(), 48);
    for session in 0..6 {
        let turns: Vec<&Row> = outcome.rows.iter().filter(|row| row.session == session).collect();
        assert_eq!(turns.len(), 8);
        for pair in turns.windows(2) {
            let pause = pair[1].arrived_ms - pair[0].finished_ms;
            assert!((pause - 500.0).abs() < 1e-3, "{pause}");
        }
    }
}

/// What waits at the proxy waits in order of arrival, and its wait is counted.
#[test]
fn a_cap_lets_in_so_many_sessions_and_the_others_wait_their_turn() {
    let workload = sessions(9, 4);
    let mut world = World::new(engine(), 2, Arrivals::closed(7));
    world.warmup_share = 0.0;
    let free = run(&workload, &world).unwrap();
    let Arrivals::Closed { session_cap, .. } = &mut world.arrivals else { unreachable!() };
    *session_cap = Some(3);
    let capped = run(&workload, &world).unwrap();

    assert!(capped.rows.iter().all(|row| row.fate == Fate::Served));
    assert_eq!(capped.rows.len(), 9 * 4);
    let mut stays: Vec<(f64, f64)> = Vec::new();
    let firsts = capped.rows.iter().filter(|row| row.prompt % 4 == 0);
    for first in firsts {
        let turns = capped.rows.iter().filter(|row| row.session == first.session);
        let ended_ms = turns.map(|row| row.finished_ms).fold(0.0, f64::max);
        let inside = stays.iter().filter(|(_, ended_ms)| *ended_ms > first.sent_ms).count();
        assert!(inside < 3, "{inside} are inside already");
        assert!(stays.last().is_none_or(|(sent_ms, _)| *sent_ms <= first.sent_ms), "in order");
        stays.push((first.sent_ms, ended_ms));
    }
    let (free, capped) = (free.summary(), capped.summary());
    assert!(capped.longest_wait_ms > 10.0 * free.longest_wait_ms, "{}", capped.longest_wait_ms);
}

/// More sessions than the KV holds: without admission each turn evicts another's cache.
#[test]
fn admission_keeps_caches_where_sessions_are_too_many_and_starves_nobody() {
    let workload = sessions(40, 30);
    let play = |hold_ms, admission| {
        let mut world = World::new(engine(), 2, Arrivals::closed(28));
        world.hold_ms = hold_ms;
        // Turns are short here.
        world.brain.flow.sessions.demand_window_s = 2.0;
        world.brain.flow.sessions.admission = admission;
        let outcome = run(&workload, &world).unwrap();
        assert!(outcome.rows.iter().all(|row| row.fate == Fate::Served));
        assert_eq!(outcome.rows.len(), 40 * 30);
        outcome.summary().hit_ratio
    };
    let (placed, apart, admitted) = (play(0, false), play(0, true), play(3_600_000, true));
    assert!(admitted > placed + 0.1, "held {admitted}, against {placed}");
    assert!(apart > placed + 0.05, "not held, but guests apart {apart}, against {placed}");
}

/// Two tenants, of whom the second asks for ten times as much, and both together for more than there is.
#[test]
fn a_tenant_is_served_as_if_alone_while_another_floods() {
    let play = |flood, hold_ms| {
        let asked = TwoTenants { quiet_per_s: 14.0, flood, seconds: 40.0, seed: 5 };
        let mut world = open(8);
        world.engines.iter_mut().for_each(|engine| engine.kv_blocks = 6_000);
        world.hold_ms = hold_ms;
        run(&asked.workload(), &world).unwrap()
    };
    let p99 = |outcome: &Outcome| outcome.summary_of(QUIET).ttft_p99_ms;
    let (alone, queued, fair) = (play(0.0, 0), play(10.0, 0), play(10.0, 600_000));
    assert!(p99(&queued) > 10.0 * p99(&alone), "they do contend: {}", p99(&queued));
    assert!(p99(&fair) < 1.5 * p99(&alone), "{} against {} alone", p99(&fair), p99(&alone));
    assert!(fair.rows.iter().all(|row| row.fate == Fate::Served), "and nobody starves");
    let served = |of: &Outcome| of.ended_ms;
    assert!(served(&fair) < 1.15 * served(&queued), "{} {}", served(&fair), served(&queued));
}

#[test]
fn routers_that_tell_each_other_share_the_load_better() {
    let workload = prompts(600, 5.0);
    let wait = |exchange_ms| {
        let mut world = open(4).with_policy("least-request");
        world.routers = 4;
        world.metrics_interval_ms = 0.0;
        world.exchange_interval_ms = exchange_ms;
        run(&workload, &world).unwrap().summary().ttft_p90_ms
    };
    assert!(wait(1.0) < wait(0.0), "{} against {}", wait(1.0), wait(0.0));
}

#[test]
fn worlds_that_cannot_be_say_why() {
    let workload = prompts(2, 1.0);
    let message = |world: &World| run(&workload, world).unwrap_err().to_string();
    assert!(message(&open(0)).contains("no engine"));
    let mut world = open(1);
    world.engines[0].block_size = 16;
    assert!(message(&world).contains("16 tokens"), "{}", message(&world));
    let mut world = open(1);
    world.routers = 0;
    assert!(message(&world).contains("no router"));
}

#[test]
fn traces_that_are_none_say_where() {
    assert!(mooncake("").unwrap_err().to_string().contains("no request"));
    let message = mooncake("{\"timestamp\": 1}\n").unwrap_err().to_string();
    assert!(message.contains("line 1") && message.contains("input_length"), "{message}");
    let two = "{\"block_size\":64,\"requests\":[]}\n{\"block_size\":16,\"requests\":[]}";
    assert!(agent_sessions(two).unwrap_err().to_string().contains("block_size is 16"));
}

#[test]
fn tools_share_their_system_prompts() {
    let mix = toolmix(&prompts(300, 10.0), 1);
    assert!(mix.prompts().len() > 600);
    assert!(mix.infinite_cache_hit_ratio() > 0.5);
}
