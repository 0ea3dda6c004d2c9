//! Fleets that are scaled: nothing is lost, replicas cost what they were there for.

use super::*;
use crate::scale::{OngoingConfig, ScaleConfig};

fn day(count: u32, mean_gap_ms: f64) -> Workload {
    let mut workload = prompts(count, mean_gap_ms);
    Day { trough: 0.1, burst: 1.0, burst_at: 0.0, burst_for: 0.0 }.shape(&mut workload);
    workload
}

fn scaled(rule: ScaleRule) -> World {
    let mut world = open(6);
    world.warmup_share = 0.0;
    world.autoscale = Some(Autoscale { rule, period_s: 5.0, startup_s: 20.0, initial_replicas: 1 });
    world
}

fn slo() -> ScaleRule {
    ScaleRule::Slo(ScaleConfig {
        max_replicas: 6,
        startup_s: 20.0,
        window_s: 20.0,
        up_after_s: 5.0,
        down_after_s: 40.0,
        ..ScaleConfig::default()
    })
}

fn ongoing() -> ScaleRule {
    ScaleRule::Ongoing(OngoingConfig {
        max_replicas: 6,
        upscale_delay_s: 5.0,
        downscale_delay_s: 40.0,
        ..OngoingConfig::default()
    })
}

#[test]
fn a_fleet_follows_the_day_and_loses_no_request() {
    let workload = day(12_000, 25.0);
    for rule in [slo(), ongoing()] {
        let world = scaled(rule);
        let outcome = run(&workload, &world).unwrap();
        assert!(outcome.rows.iter().all(|row| row.fate == Fate::Served && row.retries == 0));
        let most = outcome.orders.iter().map(|it| it.replicas).max().unwrap_or(0);
        let last = outcome.orders.last().map_or(0, |it| it.replicas);
        assert!(most >= 2 && last < most, "{:?}", outcome.orders);
        for row in &outcome.rows {
            let served = outcome.stints.iter().filter(|it| it.engine == row.engine);
            let there =
                served.clone().any(|it| it.from_ms <= row.sent_ms && row.finished_ms <= it.to_ms);
            assert!(there, "{row:?}");
        }
        assert!(run(&workload, &world).unwrap() == outcome);
        let summary = outcome.summary();
        let all_day = 6.0 * workload.prompts().last().unwrap().at_ms / 3_600e3;
        assert!(summary.replica_hours < 0.8 * all_day, "{}", summary.replica_hours);
    }
}

#[test]
fn replicas_serve_only_once_they_have_started() {
    let outcome = run(&day(6_000, 25.0), &scaled(slo())).unwrap();
    for stint in outcome.stints.iter().filter(|it| it.from_ms > 0.0) {
        let first = outcome.rows.iter().filter(|row| {
            row.engine == stint.engine && (stint.from_ms..stint.to_ms).contains(&row.sent_ms)
        });
        assert!(first.clone().all(|row| row.sent_ms >= stint.from_ms + 20_000.0), "{stint:?}");
    }
}

#[test]
fn what_cannot_be_scaled_is_said() {
    let mut world = scaled(slo());
    world.engines.truncate(4);
    let why = run(&prompts(5, 10.0), &world).unwrap_err().to_string();
    assert!(why.contains("max_replicas = 6"), "{why}");
    let mut world = scaled(slo());
    world.outages = vec![Outage::failure(1, 5.0)];
    let why = run(&prompts(5, 10.0), &world).unwrap_err().to_string();
    assert!(why.contains("not modelled"), "{why}");
}
