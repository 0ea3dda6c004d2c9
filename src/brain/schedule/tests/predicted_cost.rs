//! The terms of `predicted-cost-scorer`, each worked out by hand.

use super::fixture::{NOW, World, assert_close, prompt, scorer, spec};
use crate::Ticket;
use crate::fleet::{Booking, EndpointSpec, MetricsSample, Predicted};
use crate::predict::EngineProfile;
use crate::schedule::{Scheduler, ScorerConfig};

fn cost() -> ScorerConfig {
    ScorerConfig::new("predicted-cost-scorer", 1.0)
}

/// An endpoint whose KV cache holds 16,000 tokens.
fn sized(number: usize) -> EndpointSpec {
    let mut spec = spec(number);
    spec.capacity.kv_blocks = 1_000;
    spec.capacity.block_size = 16;
    spec
}

#[test]
fn in_tokens_where_there_is_no_model() {
    let mut world = World::new((0..2).map(sized));
    world.holds(62, &[0, 50]);
    world.book(1, 300);

    let scores = world.scores(cost(), &prompt(1_000));

    // Cold and idle: 1,000. 800 held, behind 300: 300 + 200, and 0.1 * 200 * 1 in the way of one.
    assert_close(&scores, &[521.0 / 1_001.0, 1.0]);
}

#[test]
fn what_is_pushed_out() {
    let world = World::new((0..2).map(sized));
    let mut scheduler = Scheduler::new(&scorer(cost()), 1).unwrap();
    let stored = world.choose(&mut scheduler, &prompt(3_200)).unwrap();
    scheduler.committed(NOW, &prompt(3_200), &stored);

    let choice = world.choose(&mut scheduler, &prompt(1_000)).unwrap();

    // A fifth of the cache was stored just now, so what it pushes out is half young; and of 128
    // requests one has hit nothing, so that reuse is 127/128 of a half.
    let pushed_out = 10.0 * (0.5 * 127.0 / 128.0) * 0.5 * 1_000.0;
    let scores = choice.explanation().totals;
    let row = stored.endpoint.slot.index();
    assert_close(&[scores[row], scores[1 - row]], &[1_001.0 / (1_001.0 + pushed_out), 1.0]);
}

#[test]
fn kv_that_must_be_waited_for() {
    let mut world = World::new((0..2).map(sized));
    let usage = |kv_usage| MetricsSample { kv_usage: Some(kv_usage), ..MetricsSample::default() };
    world.observe(0, &usage(0.0));
    world.observe(1, &usage(0.9));

    let scores = world.scores(cost(), &prompt(1_000));

    // 0.9 * 16,000 + 1,000 tokens are 4,200 more than 0.7 * 16,000.
    assert_close(&scores, &[1.0, 1_001.0 / 5_201.0]);
}

#[test]
fn load_that_others_sent() {
    let mut world = World::alike(2);
    let busy = |waiting, running| MetricsSample {
        waiting_requests: Some(waiting),
        running_requests: Some(running),
        ..MetricsSample::default()
    };
    world.observe(0, &busy(0.0, 2.0));
    world.observe(1, &busy(6.0, 6.0));

    let scores = world.scores(cost(), &prompt(1_000));

    // Without a capacity nothing is evicted. 10 requests more than booked and a slack of 2, half
    // of them waiting, at 512 tokens each.
    assert_close(&scores, &[1.0, 1_001.0 / 3_561.0]);
}

#[test]
fn what_loading_a_lower_tier_takes() {
    let mut world = World::alike(2);
    world.holds(10, &[10, 10]);
    world.matches.lower_tier_blocks[1] = [10, 0, 0];

    let scores = world.scores(cost(), &prompt(170));

    // 10 tokens to compute; the second also loads 160 at a fifth of a prefill.
    assert_close(&scores, &[1.0, 11.0 / 43.0]);
}

#[test]
fn in_milliseconds_where_every_candidate_has_a_model() {
    let mut world = World::with_prior((0..2).map(sized), "qwen3-32b_h100_tp2");
    world.holds(62, &[0, 50]);
    world.book(1, 300);

    let scores = world.scores(cost(), &prompt(1_000));

    let (base, token, pair) = (3.52, 0.05025, 1.60e-6);
    let cold = base + 1_000.0 * token + 1_000.0 * 500.0 * pair;
    let own = 200.0 * token + 200.0 * 900.0 * pair;
    let warm = base + 300.0 * token + 300.0 * 150.0 * pair + own + 0.1 * own;
    assert_close(&scores, &[(warm + 1.0) / (cold + 1.0), 1.0]);
}

/// Misses are counted of the 16 cheapest: here all miss, and the last four would seem cheap.
#[test]
fn who_is_not_looked_at_seems_no_cheaper_for_that() {
    let mut world = World::with_prior((0..20).map(sized), "qwen3-32b_h100_tp2");
    for endpoint in 0..20 {
        world.book(endpoint, 4_000 + 10 * endpoint as u32);
    }
    let mut request = prompt(1_000);
    request.slo.ttft_ms = Some(1.0);

    let scores = world.scores(cost(), &request);

    assert!(scores.is_sorted_by(|one, other| one > other), "{scores:?}");
}

/// A fleet of two: one whose prefills wait and who decodes nothing, one that decodes for as many as
/// told, whose clients ask for a time per output token, behind so much prefill.
fn waiting_or_decoding(waiting_tokens: u32, decoding: (usize, f64), queued_tokens: u32) -> World {
    let mut world = World::with_prior((0..2).map(spec), "qwen3-32b_h100_tp2");
    world.book(0, waiting_tokens);
    for _ in 0..decoding.0 {
        let booking = Booking {
            ticket: Ticket(0),
            prompt_tokens: 100,
            uncached_tokens: 100,
            predicted: Predicted::default(),
            objective_tpot_ms: Some(decoding.1),
            expected_output_tokens: Some(256),
            first_token_is_untold: false,
        };
        let id = world.fleet.book(NOW, world.ids[1], &booking).unwrap();
        world.fleet.first_token(NOW, id).unwrap();
    }
    world.book(1, queued_tokens);
    world
}

fn chosen(world: &World, prompt_tokens: u32) -> usize {
    let mut request = prompt(prompt_tokens);
    request.slo.ttft_ms = Some(1_000.0);
    let scores = world.scores(cost(), &request);
    usize::from(scores[1] > scores[0])
}

#[test]
fn decodes_are_spared_for_as_long_as_a_client_waits() {
    let spared = |waiting_tokens| {
        chosen(&waiting_or_decoding(waiting_tokens, (40, 50.0), 72_000), 16_000) == 0
    };

    // Behind 8 s of prefill it costs four decodes; the others wait 9 s and 21 s.
    assert!(spared(78_000));
    assert!(!spared(135_000));
}

#[test]
fn a_long_prompt_weighs_more_than_the_decodes_that_it_slows() {
    let world = waiting_or_decoding(52_000, (20, 45.0), 1);

    // Among those who decode it is in time, at the cost of 1.3 of them.
    assert_eq!(chosen(&world, 30_000), 1);
}

#[test]
fn a_model_of_one_candidate_alone_says_nothing() {
    let mut world = World::alike(2);
    let profile = EngineProfile::named("qwen3-32b_h100_tp2");
    world.predictor.admit(world.ids[0].slot, 0, profile);

    let scores = world.scores(cost(), &prompt(1_000));

    assert_close(&scores, &[1.0, 1.0]);
}
