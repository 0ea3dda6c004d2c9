//! Requests of whose ends nobody tells the router.

use super::{BLOCK, engine, keys};
use crate::fleet::FirstTokens;
use crate::rng::Rng;
use crate::sim::{Arrivals, Ends, Workload, World, run};

/// Prompts of 2,000 to 10,000 tokens that have nothing in common, with answers of 10 to 500 tokens.
fn strangers() -> Workload {
    let mut workload = Workload::new(BLOCK);
    let mut rng = Rng::new(11);
    let mut at_ms = 0.0;
    for number in 0..1_000 {
        at_ms += 160.0 * rng.next_f64();
        let blocks = 30 + rng.below(130) as u32;
        let answer = 10 + rng.below(490) as u32;
        workload.begin_session();
        workload.push(at_ms, blocks * BLOCK, answer, keys(1_000 + number, blocks));
    }
    workload
}

fn world(ends: Ends) -> World {
    let mut engine = engine();
    engine.kv_blocks = 8_000;
    let arrivals = Arrivals::Open { requests_per_s: None, jitter_ms: 0.0 };
    let mut world = World { ends, first_tokens_told: false, ..World::new(engine, 4, arrivals) };
    world.brain.fleet.first_tokens = FirstTokens::Guessed;
    world
}

/// Share of requests within their objectives, percent.
fn in_slo(world: &World) -> f64 {
    100.0 * run(&strangers(), world).unwrap().summary().slo_attainment
}

#[test]
fn guessed_ends_cost_little_and_untold_ones_much() {
    let told = in_slo(&world(Ends::Told));
    let guessed = in_slo(&world(Ends::Guessed));
    let blind = in_slo(&World { metrics_interval_ms: 0.0, ..world(Ends::Guessed) });
    let untold = in_slo(&world(Ends::Untold));
    assert!(told - guessed < 2.0, "{guessed} guessed, {told} told");
    assert!(told - blind < 5.0, "{blind} guessed without pages, {told} told");
    assert!(guessed - untold > 5.0, "{untold} untold, {guessed} guessed: nothing is asked");
}
