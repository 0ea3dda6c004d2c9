//! How much a fleet can take.

use super::{Arrivals, SimError, Workload, World, run};

/// Requests a second that the engines complete when all of a workload comes at once (in a thousandth
/// of its time) and goes to whoever has the fewest: what a load of 1 means.
///
/// # Errors
/// As [`run`].
pub fn capacity_requests_per_s(workload: &Workload, world: &World) -> Result<f64, SimError> {
    let span_ms = workload.prompts().iter().map(|it| it.at_ms).fold(0.0, f64::max).max(1.0);
    let rate = workload.prompts().len() as f64 / (span_ms / 1e3) * 1e3;
    let mut flood = world.clone().with_policy("least-request");
    flood.arrivals = Arrivals::at_rate(rate, 0.0);
    flood.routers = 1;
    flood.hold_ms = 0;
    // A load is a share of what the fleet can do by itself.
    flood.outages.clear();
    flood.autoscale = None;
    flood.shared_cache = false;
    let outcome = run(workload, &flood)?;
    let first = outcome.rows.first().map_or(0.0, |row| row.arrived_ms);
    Ok(outcome.rows.len() as f64 / ((outcome.ended_ms - first) / 1e3).max(1e-9))
}

/// Goodput of an open loop as DistServe defines it (arXiv 2401.09670): the highest rate, requests a
/// second, at which a share of at least `attainment` of the requests is served within its objectives.
///
/// Found by `halvings` runs, each of which halves what is left of 0 to `most_requests_per_s`; the rate
/// returned is one that attained it, or 0. Attainment falls with the rate but for noise, which makes
/// it one of the rates where the share is crossed.
///
/// # Errors
/// As [`run`].
pub fn goodput_requests_per_s(
    workload: &Workload,
    world: &World,
    attainment: f64,
    most_requests_per_s: f64,
    halvings: u32,
) -> Result<f64, SimError> {
    let jitter_ms = match world.arrivals {
        Arrivals::Open { jitter_ms, .. } => jitter_ms,
        Arrivals::Closed { .. } => 0.0,
    };
    let (mut attained, mut missed) = (0.0, most_requests_per_s);
    for _ in 0..halvings {
        let rate = f64::midpoint(attained, missed);
        let mut world = world.clone();
        world.arrivals = Arrivals::at_rate(rate, jitter_ms);
        if run(workload, &world)?.summary().slo_attainment >= attainment {
            attained = rate;
        } else {
            missed = rate;
        }
    }
    Ok(attained)
}
