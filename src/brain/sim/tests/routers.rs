//! Several routers, which share nothing but what engines say.

use super::{BLOCK, engine, keys};
use crate::rng::Rng;
use crate::sim::{Arrivals, Workload, World, run};

/// Prompts of 10,000 to 60,000 tokens that have nothing in common, at random times: engines prefill most of
/// the time, a second or two each.
fn strangers() -> Workload {
    let mut workload = Workload::new(BLOCK);
    let mut rng = Rng::new(7);
    let mut at_ms = 0.0;
    for number in 0..600 {
        at_ms += 600.0 * rng.next_f64();
        let blocks = 160 + rng.below(780) as u32;
        workload.begin_session();
        workload.push(at_ms, blocks * BLOCK, 60, keys(1_000 + number, blocks));
    }
    workload
}

fn world(routers: u32) -> World {
    let mut engine = engine();
    engine.kv_blocks = 8_000;
    let arrivals = Arrivals::Open { requests_per_s: None, jitter_ms: 0.0 };
    World { routers, ..World::new(engine, 8, arrivals) }
}

/// Share of requests within their objectives, percent.
fn in_slo(world: &World) -> f64 {
    100.0 * run(&strangers(), world).unwrap().summary().slo_attainment
}

#[test]
fn routers_that_share_nothing_see_each_other_s_prefills_on_the_engines_pages() {
    let (one, four) = (in_slo(&world(1)), in_slo(&world(4)));
    let blind = in_slo(&World { metrics_interval_ms: 0.0, ..world(4) });
    assert!(blind < one - 5.0, "{blind} without pages, {one} alone: nothing is asked");
    assert!(one - four < (one - blind) / 2.0, "{four} with pages, {blind} without, {one} alone");
}

#[test]
fn pages_that_are_seconds_late_mislead_nobody() {
    let late = World { metrics_lag_ms: 3_000.0, ..world(4) };
    let blind = World { metrics_interval_ms: 0.0, ..world(4) };
    let (late, blind) = (in_slo(&late), in_slo(&blind));
    assert!(late > blind - 4.0, "{late} with late pages, {blind} without");
}
