//! The rule against a plant whose load is stated.

use super::*;
use crate::Time;
use crate::fleet::Predicted;
use proptest::prelude::*;

const PERIOD_S: u64 = 10;

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

fn config() -> ScaleConfig {
    ScaleConfig { max_replicas: 32, ..ScaleConfig::default() }
}

/// Requests of `prefill_ms`, answered with 200 tokens at objectives of 1 s and 60 ms.
#[derive(Debug, Clone, Copy)]
struct Load {
    per_s: f64,
    prefill_ms: f64,
    missed_share: f64,
    resident_tokens: f64,
}

impl Load {
    fn of(per_s: f64) -> Self {
        Self { per_s, prefill_ms: 200.0, missed_share: 0.0, resident_tokens: per_s * 10_000.0 }
    }

    /// Adds what comes in a period.
    fn count(self, demand: &mut Demand) {
        let requests = self.per_s * PERIOD_S as f64;
        demand.requests += requests;
        demand.prefill_ms += requests * self.prefill_ms;
        demand.prefill_ms_squared += 2.0 * requests * self.prefill_ms * self.prefill_ms;
        demand.overlap_ms += requests * self.prefill_ms.min(15.0);
        demand.decode_ms += requests * 40.0;
        demand.tpot_floor += requests * 0.25;
        demand.ttft_bounded_requests += requests;
        demand.wait_allowance_ms +=
            requests * (1_000.0 - self.prefill_ms).max(0.5 * self.prefill_ms);
        demand.missed_requests += requests * self.missed_share;
        demand.resident_tokens = self.resident_tokens;
        demand.kv_tokens_per_replica = 250_000.0;
    }
}

/// A fleet that does as it is told, at once; gives the target after each look.
struct Plant {
    scaler: Scaler,
    demand: Demand,
    second: u64,
    target: u32,
}

impl Plant {
    fn new(config: ScaleConfig) -> Self {
        let scaler = Scaler::new(config).unwrap();
        Self { scaler, demand: Demand::default(), second: 0, target: 1 }
    }

    fn play(&mut self, load: impl Fn(u32) -> Load, looks: u64) -> Vec<u32> {
        (0..looks).map(|_| self.look(load(self.target))).collect()
    }

    fn look(&mut self, load: Load) -> u32 {
        self.second += PERIOD_S;
        load.count(&mut self.demand);
        self.scaler.read(at(self.second), "router", &self.demand).unwrap();
        let replicas = Replicas { ready: self.target, target: self.target };
        self.target = self.scaler.look(at(self.second), replicas).desired;
        self.target
    }
}

fn strain_of(load: Load) -> Strain {
    let mut came = Demand::default();
    load.count(&mut came);
    Strain::of(&config(), &came, PERIOD_S as f64)
}

#[test]
fn a_placement_counts_what_the_formulas_say() {
    let mut demand = Demand::default();
    let mut placement = Placement {
        rates: Some(([1.0, 0.05, 1e-6], [15.0, 0.02, 4e-5])),
        prompt_tokens: 3_000,
        cached_tokens: 1_000,
        output_tokens: 100.0,
        predicted: Predicted { ttft_ms: Some(900.0), tpot_ms: Some(20.0), ..Predicted::default() },
        ttft_ms: Some(500.0),
        tpot_ms: Some(60.0),
    };
    demand.placed(&placement);
    let prefill_ms = 1.0 + 0.05 * 2_000.0 + 1e-6 * 2_000.0 * 2_000.0;
    assert!((demand.prefill_ms - prefill_ms).abs() < 1e-9);
    assert!((demand.decode_ms - 100.0 * (0.02 + 4e-5 * 3_050.0)).abs() < 1e-9);
    assert!((demand.tpot_floor - 0.25).abs() < 1e-12);
    assert!((demand.wait_allowance_ms - (500.0 - prefill_ms)).abs() < 1e-9);
    assert!((demand.missed_requests - 1.0).abs() < 1e-12);

    // Nobody could answer it in time; and one of which nothing is known.
    placement.tpot_ms = Some(10.0);
    placement.ttft_ms = None;
    demand.placed(&placement);
    demand.placed(&Placement { rates: None, ..placement });
    assert_eq!((demand.requests, demand.unmodelled_requests), (2.0, 1.0));
    assert_eq!((demand.missed_requests, demand.tpot_floor), (1.0, 0.25));
}

#[test]
fn a_token_takes_d_over_what_prefills_and_decodes_leave() {
    // Work of 3 replicas, of which 12.5 times 15 ms a second is done by the way, and no objective of
    // the first token: of the rest each may have 1 - 0.25.
    let mut load = Load::of(12.5);
    load.resident_tokens = 0.0;
    let mut came = Demand::default();
    load.count(&mut came);
    came.ttft_bounded_requests = 0.0;
    let strain = Strain::of(&config(), &came, PERIOD_S as f64);
    assert!((strain.work() - 3.0).abs() < 1e-9);
    assert_eq!(strain.at(4).1, Bound::Tpot);
    assert!((strain.at(4).0 - (3.0 - 0.1875) / 4.0 / 0.75).abs() < 1e-9, "{:?}", strain.at(4));
}

#[test]
fn kv_that_is_held_asks_for_replicas_too() {
    let load = Load { resident_tokens: 2e6, ..Load::of(1.0) };
    let strain = strain_of(load);
    assert_eq!(strain.at(4).1, Bound::Kv);
    assert_eq!(strain.needed(&config(), 1.0), 10, "2 M tokens, of each 250 k 80 %");
}

#[test]
fn a_step_is_followed_and_an_idle_fleet_shrinks_to_the_least() {
    let mut plant = Plant::new(config());
    let low = *plant.play(|_| Load::of(2.0), 60).last().unwrap();
    let high = plant.play(|_| Load::of(20.0), 60);
    let idle = plant.play(|_| Load::of(0.0), 60);
    assert!(low <= 2, "{low}");
    // Nearly five replicas' work.
    assert!((6..=8).contains(high.last().unwrap()), "{high:?}");
    assert!(high[11] >= 6, "within two minutes: {high:?}");
    assert_eq!(idle.last(), Some(&1), "{idle:?}");
}

#[test]
fn one_odd_reading_changes_nothing() {
    let mut plant = Plant::new(ScaleConfig { window_s: PERIOD_S as f64, ..config() });
    let settled = *plant.play(|_| Load::of(10.0), 90).last().unwrap();
    for odd in [Load::of(200.0), Load::of(0.0)] {
        plant.look(odd);
        assert_eq!(plant.target, settled);
        let after = plant.play(|_| Load::of(10.0), 60);
        assert!(after.iter().all(|it| *it == settled), "{odd:?}: {after:?}");
    }
}

#[test]
fn who_is_told_nothing_keeps_the_size() {
    let mut plant = Plant::new(config());
    let settled = *plant.play(|_| Load::of(10.0), 60).last().unwrap();
    for second in (plant.second..plant.second + 3_600).step_by(PERIOD_S as usize) {
        let verdict =
            plant.scaler.look(at(second + PERIOD_S), Replicas { ready: settled, target: settled });
        assert_eq!((verdict.desired, verdict.is_informed), (settled, false));
    }
    // The router that is back has begun to count anew.
    plant.second += 3_600;
    plant.demand = Demand::default();
    assert!(plant.play(|_| Load::of(10.0), 60).iter().all(|it| *it == settled));
}

#[test]
fn misses_that_the_formulas_did_not_see_are_learned_once() {
    // Truly, each replica can do no more than 2 requests a second.
    let truly = |replicas: u32| {
        let missed_share = if 20.0 / f64::from(replicas) > 2.0 { 0.3 } else { 0.01 };
        Load { missed_share, ..Load::of(20.0) }
    };
    let mut plant = Plant::new(config());
    let targets = plant.play(truly, 400);
    assert!((10..=12).contains(targets.last().unwrap()), "{targets:?}");
    assert!(targets[100..].windows(2).all(|two| two[0] == two[1]), "{targets:?}");
}

#[test]
fn what_cannot_be_is_said() {
    let say = |config: ScaleConfig| Scaler::new(config).unwrap_err().to_string();
    let none = say(ScaleConfig { min_replicas: 0, ..config() });
    assert_eq!(none, "min_replicas = 0 is out of range: use 1 to 1024");
    let crossed = say(ScaleConfig { min_replicas: 9, max_replicas: 8, ..config() });
    assert_eq!(crossed, "max_replicas = 8 is out of range: use min_replicas to 1024");
    let mut scaler = Scaler::new(config()).unwrap();
    let bad = Demand { backlog_ms: f64::NAN, ..Demand::default() };
    assert!(scaler.read(at(1), "r", &bad).is_err());
}

#[test]
fn the_rule_on_open_requests_waits_as_ray_does() {
    let mut rule = OngoingRequests::new(OngoingConfig::default()).unwrap();
    let mut target = 1;
    let mut orders = vec![];
    for second in (0..1_200).step_by(10) {
        let open = if second < 300 { 10.0 } else { 3.0 };
        let wanted = rule.look(at(second), Replicas { ready: target, target }, open);
        if wanted != target {
            orders.push((second, wanted));
            target = wanted;
        }
    }
    assert_eq!(orders, [(30, 5), (910, 2)]);
}

proptest! {
    #[test]
    fn strain_falls_with_replicas_and_rises_with_work(
        per_s in 0.1..100.0, more in 1.0..3.0, prefill_ms in 5.0..3_000.0, replicas in 1_u32..64,
    ) {
        let load = Load { prefill_ms, ..Load::of(per_s) };
        let (one, other) = (strain_of(load), strain_of(Load { per_s: per_s * more, ..load }));
        prop_assert!(one.at(replicas).0 >= one.at(replicas + 1).0);
        prop_assert!(one.at(replicas).0 <= other.at(replicas).0 + 1e-9);
        prop_assert!(one.needed(&config(), 0.9) <= other.needed(&config(), 0.9));
    }

    #[test]
    fn within_bounds_and_without_swinging_at_constant_load(
        per_s in 0.0..200.0, prefill_ms in 5.0..2_000.0, misses_above in 0.2..5.0_f64,
        min_replicas in 1_u32..4, more in 0_u32..20,
    ) {
        let config = ScaleConfig { min_replicas, max_replicas: min_replicas + more, ..config() };
        let bounds = config.min_replicas..=config.max_replicas;
        let mut plant = Plant::new(config);
        let truly = |replicas: u32| {
            let over = per_s / f64::from(replicas) > misses_above;
            Load { prefill_ms, missed_share: if over { 0.5 } else { 0.0 }, ..Load::of(per_s) }
        };
        let targets = plant.play(truly, 300);
        prop_assert!(targets.iter().all(|it| bounds.contains(it)), "{:?}", targets);
        prop_assert!(targets[200..].windows(2).all(|two| two[0] == two[1]), "{:?}", targets);
    }

    #[test]
    fn more_work_never_asks_for_fewer(loads in prop::collection::vec(0.0..40.0, 60), more in 1.0..2.0) {
        let (mut one, mut other) = (Plant::new(config()), Plant::new(config()));
        // So many that nothing is learned of it.
        let load = |per_s: f64| Load { missed_share: 0.05, ..Load::of(per_s) };
        for per_s in loads {
            one.look(load(per_s));
            other.look(load(per_s * more));
            prop_assert!(other.target >= one.target);
        }
    }
}
