use super::noise;
use crate::fleet::{Booking, DecodeWindow, EndpointSpec, Fleet, FleetConfig, Predicted};
use crate::predict::{EngineProfile, PROFILES, PredictConfig, PredictError, Predictor};
use crate::rng::Rng;
use crate::{EndpointId, Slot, Ticket, Time};
use proptest::prelude::*;
use std::ops::Range;
use std::time::Duration;

const QWEN: &EngineProfile = &PROFILES[1];

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn after_ms(now: Time, ms: f64) -> Time {
    now + Duration::from_nanos((ms * 1e6) as u64)
}

fn predictor() -> Predictor {
    Predictor::new(PredictConfig::default()).unwrap()
}

fn fleet_of(n: usize) -> (Fleet, Vec<EndpointId>) {
    let mut fleet = Fleet::new(FleetConfig::default());
    let spec = |i| EndpointSpec::new(format!("e{i}"), "m");
    let ids = (0..n).map(|i| fleet.join(at(0), spec(i)).unwrap()).collect();
    (fleet, ids)
}

fn booking(prompt_tokens: u32, uncached_tokens: u32) -> Booking {
    Booking {
        ticket: Ticket(0),
        prompt_tokens,
        uncached_tokens,
        predicted: Predicted::default(),
        objective_tpot_ms: None,
        expected_output_tokens: None,
        first_token_is_untold: false,
    }
}

/// One request alone on an endpoint, whose first token comes after `ttft_ms`.
fn first_token(
    fleet: &mut Fleet,
    predictor: &mut Predictor,
    id: EndpointId,
    now: Time,
    (prompt, uncached): (u32, u32),
    ttft_ms: f64,
) {
    let request = fleet.book(now, id, &booking(prompt, uncached)).unwrap();
    fleet.first_token(after_ms(now, ttft_ms), request).unwrap();
    predictor.first_token(fleet.columns(), fleet.reservation(request).unwrap());
    fleet.release(after_ms(now, ttft_ms), request);
}

/// Lonely requests of many sizes, as QWEN would serve them, one every ten seconds.
fn teach(fleet: &mut Fleet, predictor: &mut Predictor, id: EndpointId, turns: Range<u64>) {
    let mut rng = Rng::new(turns.start);
    for i in turns {
        let uncached = 50 + rng.below(6_000) as u32;
        let cached = rng.below(10_000) as u32;
        let ttft_ms = QWEN.prefill_ms(uncached.into(), cached.into()) * noise(&mut rng, 0.05);
        let size = (uncached + cached, uncached);
        first_token(fleet, predictor, id, at(i * 10_000), size, ttft_ms);
    }
}

fn alone(batch: f64, context: f64, steps: u32, step_ms: f64) -> DecodeWindow {
    DecodeWindow {
        duration_ms: step_ms * f64::from(steps),
        steps,
        mean_batch_requests: batch,
        mean_context_tokens: context,
        prefill_tokens: 0.0,
        prefill_pairs: 0.0,
        prefill_steps: 0.0,
    }
}

fn ttft(predictor: &Predictor, fleet: &Fleet, slot: Slot) -> Option<f64> {
    predictor.ttft_ms(at(1 << 30), slot, fleet.columns(), 4_000, 1_000)
}

fn tpot(predictor: &Predictor, fleet: &Fleet, slot: Slot) -> Option<f64> {
    predictor.tpot_ms(at(1 << 30), slot, fleet.columns(), 4_000)
}

fn within(share: f64, value: Option<f64>, truth: f64) -> bool {
    value.is_some_and(|value| (value - truth).abs() <= share * truth)
}

#[test]
fn nothing_is_predicted_before_there_is_a_model() {
    let (mut fleet, ids) = fleet_of(1);
    let (mut predictor, slot) = (predictor(), ids[0].slot);
    assert_eq!(ttft(&predictor, &fleet, slot), None, "never admitted");
    predictor.admit(slot, 0, None);

    teach(&mut fleet, &mut predictor, ids[0], 0..15);
    assert_eq!(ttft(&predictor, &fleet, slot), None, "15 of 16");
    teach(&mut fleet, &mut predictor, ids[0], 15..16);

    assert!(within(0.3, ttft(&predictor, &fleet, slot), QWEN.prefill_ms(3_000, 1_000)));
    assert_eq!(tpot(&predictor, &fleet, slot), None, "no output was seen");
    for _ in 0..16 {
        predictor.output(slot, &alone(2.0, 9_000.0, 100, 17.0), &Predicted::default());
    }
    assert!(tpot(&predictor, &fleet, slot).is_some());
}

#[test]
fn a_known_engine_is_predicted_from_the_start() {
    let (fleet, ids) = fleet_of(1);
    let (mut predictor, slot) = (predictor(), ids[0].slot);

    predictor.admit(slot, 0, Some(QWEN));

    assert!(within(1e-9, ttft(&predictor, &fleet, slot), QWEN.prefill_ms(3_000, 1_000)));
    assert!(within(1e-9, tpot(&predictor, &fleet, slot), QWEN.decode_ms(1, 4_000)));
}

#[test]
fn a_configured_prior_speaks_for_everybody() {
    let (fleet, ids) = fleet_of(1);
    let prior_profile = "llama-3.1-8b_h100_tp1".to_owned();
    let config = PredictConfig { prior_profile, ..PredictConfig::default() };
    let mut predictor = Predictor::new(config).unwrap();

    predictor.admit(ids[0].slot, 0, None);

    let expected = PROFILES[0].prefill_ms(3_000, 1_000);
    assert!(within(1e-9, ttft(&predictor, &fleet, ids[0].slot), expected));
}

#[test]
fn a_configuration_that_cannot_work_is_named() {
    let error = |config| Predictor::new(config).unwrap_err().to_string();

    let unknown = PredictConfig { prior_profile: "gpt".into(), ..PredictConfig::default() };
    let message = error(unknown);
    assert!(message.contains("prior_profile is \"gpt\""), "{message}");
    assert!(message.contains("qwen3-32b_h100_tp2"), "{message}");
    let memory = PredictConfig { memory_observations: 1, ..PredictConfig::default() };
    let expected =
        PredictError::Config { field: "memory_observations", value: 1, low: 2, high: 1_000_000 };
    assert_eq!(error(memory), expected.to_string());
}

#[test]
fn endpoints_of_one_model_teach_each_other() {
    let (mut fleet, ids) = fleet_of(3);
    let mut predictor = predictor();
    predictor.admit(ids[0].slot, 0, None);
    predictor.admit(ids[1].slot, 0, None);
    predictor.admit(ids[2].slot, 1, None);

    teach(&mut fleet, &mut predictor, ids[0], 0..100);

    let truth = QWEN.prefill_ms(3_000, 1_000);
    assert!(within(0.1, ttft(&predictor, &fleet, ids[0].slot), truth));
    assert!(within(0.1, ttft(&predictor, &fleet, ids[1].slot), truth), "the same model");
    assert_eq!(ttft(&predictor, &fleet, ids[2].slot), None, "another model");
}

#[test]
fn an_endpoint_that_differs_from_its_siblings_is_known_by_its_own() {
    let (mut fleet, ids) = fleet_of(2);
    let mut predictor = predictor();
    predictor.admit(ids[0].slot, 0, None);
    predictor.admit(ids[1].slot, 0, None);
    teach(&mut fleet, &mut predictor, ids[0], 0..200);
    let mut rng = Rng::new(3);
    for i in 0..100 {
        let uncached = 50 + rng.below(6_000) as u32;
        let ttft_ms = 3.0 * QWEN.prefill_ms(uncached.into(), 0);
        let now = at((300 + i) * 10_000);
        first_token(&mut fleet, &mut predictor, ids[1], now, (uncached, uncached), ttft_ms);
    }

    let truth = QWEN.prefill_ms(3_000, 1_000);
    assert!(within(0.1, ttft(&predictor, &fleet, ids[0].slot), truth));
    assert!(within(0.2, ttft(&predictor, &fleet, ids[1].slot), 3.0 * truth));
}

#[test]
fn who_leaves_takes_its_observations_and_the_last_of_a_model_the_pool() {
    let (mut fleet, ids) = fleet_of(2);
    let mut predictor = predictor();
    predictor.admit(ids[0].slot, 0, None);
    predictor.admit(ids[1].slot, 0, None);
    teach(&mut fleet, &mut predictor, ids[0], 0..50);

    predictor.reset(ids[0].slot);
    assert_eq!(ttft(&predictor, &fleet, ids[0].slot), None);
    assert_eq!(predictor.timing(ids[0].slot), None);
    predictor.admit(ids[0].slot, 0, None);
    assert_eq!(predictor.timing(ids[0].slot).unwrap().prefills_observed, 0);
    assert!(ttft(&predictor, &fleet, ids[0].slot).is_some(), "e1 kept the pool");

    predictor.reset(ids[0].slot);
    predictor.reset(ids[0].slot);
    predictor.reset(ids[1].slot);
    predictor.admit(ids[0].slot, 0, None);
    assert_eq!(ttft(&predictor, &fleet, ids[0].slot), None, "index 0 may be another model now");
}

#[test]
fn a_queue_is_waited_for_less_the_progress_of_its_head() {
    let (mut fleet, ids) = fleet_of(1);
    let (mut predictor, slot) = (predictor(), ids[0].slot);
    predictor.admit(slot, 0, Some(QWEN));
    fleet.book(at(0), ids[0], &booking(8_000, 8_000)).unwrap();
    fleet.book(at(0), ids[0], &booking(6_000, 6_000)).unwrap();
    let predicted = |ms| predictor.ttft_ms(at(ms), slot, fleet.columns(), 100, 0).unwrap();
    let work = |tokens: f64| 0.05025 * tokens + 1.6e-6 * tokens * tokens / 2.0;
    let queue = 3.52 + work(8_000.0) + work(6_000.0) + work(100.0);

    assert!((predicted(0) - queue).abs() < 1e-6, "{} {queue}", predicted(0));
    assert!((predicted(200) - (queue - 200.0)).abs() < 1e-6);
    // After ten seconds without a token the first step's worth is done at most.
    assert!(predicted(10_000) >= queue - work(14_000.0), "{}", predicted(10_000));
    assert!(predicted(10_000) > work(5_000.0), "{}", predicted(10_000));
}

#[test]
fn decodes_slow_a_prefill_and_prefills_slow_decodes() {
    let (mut fleet, ids) = fleet_of(1);
    let (mut predictor, slot) = (predictor(), ids[0].slot);
    predictor.admit(slot, 0, Some(QWEN));
    let request = fleet.book(at(0), ids[0], &booking(50_000, 0)).unwrap();
    fleet.first_token(at(10), request).unwrap();
    let idle = QWEN.prefill_ms(1_000, 0);

    let ttft = predictor.ttft_ms(at(20), slot, fleet.columns(), 1_000, 0).unwrap();
    let beside = 0.0259 + 4.26e-5 * 50_001.0;
    let step = 15.28 + beside;
    assert!((ttft - (idle + step - 10.0 + beside)).abs() < 1e-6, "{ttft}: a step ended 10 ms ago");
    let ttft = predictor.ttft_ms(at(20_000), slot, fleet.columns(), 1_000, 0).unwrap();
    assert!((ttft - (idle + step / 2.0 + beside)).abs() < 1e-6, "{ttft}: none was seen lately");

    let quiet = predictor.tpot_ms(at(20), slot, fleet.columns(), 1_000).unwrap();
    for i in 0..20 {
        let ttft_ms = QWEN.prefill_ms(8_000, 0);
        first_token(&mut fleet, &mut predictor, ids[0], at(100 + i * 500), (8_000, 8_000), ttft_ms);
    }
    let busy = predictor.tpot_ms(at(10_100), slot, fleet.columns(), 1_000).unwrap();
    let later = predictor.tpot_ms(at(200_000), slot, fleet.columns(), 1_000).unwrap();
    assert!(busy > 1.5 * quiet, "{busy} {quiet}");
    assert!((later - quiet).abs() < 0.01 * quiet, "{later} {quiet}: prefills are forgotten");
}

/// Where no batch is small, all of a step may be put down to the requests in it.
#[test]
fn a_step_that_costs_nothing_alone_is_known_all_the_same() {
    let (_, ids) = fleet_of(1);
    let (mut predictor, slot) = (predictor(), ids[0].slot);
    predictor.admit(slot, 0, Some(QWEN));
    let mut rng = Rng::new(7);
    for _ in 0..3_000 {
        let requests = 100.0 + 150.0 * rng.next_f64();
        let context_tokens = 1e5 + 1e5 * rng.next_f64();
        let step_ms = 0.3 * requests + 4.26e-5 * context_tokens - 15.0;
        let window = alone(requests, context_tokens, 200, step_ms);
        predictor.output(slot, &window, &Predicted::default());
    }

    let rates = predictor.rates(slot).unwrap();

    assert!(rates.decode[0] <= 0.0, "{:?}", rates.decode);
    assert!(rates.decode[1] > 0.1, "{:?}", rates.decode);
    predictor.admit(slot, 1, None);
    assert!(predictor.rates(slot).is_none(), "another engine, of which nothing is known");
}

#[test]
fn a_batch_is_no_larger_than_the_engine_runs() {
    let mut fleet = Fleet::new(FleetConfig::default());
    let mut spec = EndpointSpec::new("e", "m");
    spec.capacity.max_running_requests = 2;
    let id = fleet.join(at(0), spec).unwrap();
    let mut predictor = predictor();
    predictor.admit(id.slot, 0, Some(QWEN));
    for _ in 0..10 {
        fleet.book(at(0), id, &booking(0, 0)).unwrap();
    }

    let tpot = predictor.tpot_ms(at(0), id.slot, fleet.columns(), 0);

    assert!(within(1e-9, tpot, QWEN.decode_ms(2, 0)));
}

#[test]
fn more_matched_than_prompted_is_the_whole_prompt() {
    let (fleet, ids) = fleet_of(1);
    let mut predictor = predictor();
    predictor.admit(ids[0].slot, 0, Some(QWEN));
    let predicted = predictor.ttft_ms(at(0), ids[0].slot, fleet.columns(), 100, u32::MAX);
    assert!(within(1e-9, predicted, 3.52));
}

#[test]
fn short_decodes_and_broken_clocks_teach_nothing() {
    let (_, ids) = fleet_of(1);
    let (mut predictor, slot) = (predictor(), ids[0].slot);
    predictor.admit(slot, 0, None);
    predictor.output(slot, &alone(1.0, 1_000.0, 7, 17.0), &Predicted::default());
    predictor.output(slot, &alone(1.0, 1_000.0, 100, 1e9), &Predicted::default());
    predictor.output(slot, &alone(f64::NAN, 1_000.0, 100, 17.0), &Predicted::default());
    predictor.output(Slot(77), &alone(1.0, 1_000.0, 100, 17.0), &Predicted::default());
    assert_eq!(predictor.timing(slot).unwrap().decodes_observed, 0);
}

#[derive(Debug, Clone)]
enum Step {
    Book(usize, u32, u32),
    Token(usize, u32),
    Release(usize),
    Wait(u64),
    Output(usize, [f64; 6]),
    Rejoin(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, any::<u32>(), any::<u32>()).prop_map(|(e, p, u)| Step::Book(e, p, u)),
        4 => (0..3usize, 0..20_000u32, 0..20_000u32).prop_map(|(e, p, u)| Step::Book(e, p, u)),
        6 => (0..64usize, 0..1_000u32).prop_map(|(which, tokens)| Step::Token(which, tokens)),
        3 => (0..64usize).prop_map(Step::Release),
        4 => (0..100_000u64).prop_map(Step::Wait),
        2 => (0..3usize, any::<[f64; 6]>()).prop_map(|(e, window)| Step::Output(e, window)),
        1 => (0..3usize).prop_map(Step::Rejoin),
    ]
}

/// Every prediction along a history, in bits.
fn follow(steps: &[Step]) -> Vec<Option<u64>> {
    let (mut fleet, mut ids) = fleet_of(3);
    let config = PredictConfig { min_observations: 2, ..PredictConfig::default() };
    let mut predictor = Predictor::new(config).unwrap();
    predictor.admit(Slot(0), 0, None);
    predictor.admit(Slot(1), 0, None);
    predictor.admit(Slot(2), 0, Some(QWEN));
    let mut now = at(0);
    let mut requests = Vec::new();
    let mut predictions = Vec::new();
    for step in steps {
        match *step {
            Step::Book(endpoint, prompt, uncached) => {
                let (slot, columns) = (ids[endpoint].slot, fleet.columns());
                let ttft_ms = predictor.ttft_ms(now, slot, columns, prompt, 0);
                let predicted = predictor.predicted(now, slot, columns, prompt, ttft_ms);
                let booking = Booking { predicted, ..booking(prompt, uncached) };
                requests.push(fleet.book(now, ids[endpoint], &booking).unwrap());
            }
            Step::Token(which, tokens) => {
                if let Some(&id) = requests.get(which)
                    && fleet.progress(now, id, tokens) == Ok(true)
                {
                    predictor.first_token(fleet.columns(), fleet.reservation(id).unwrap());
                }
            }
            Step::Release(which) => {
                if let Some(&id) = requests.get(which) {
                    if let Some(window) = fleet.decode_window(now, id) {
                        let it = fleet.reservation(id).unwrap();
                        predictor.output(it.endpoint.slot, &window, &it.predicted);
                    }
                    fleet.release(now, id);
                }
            }
            Step::Wait(micros) => now = now + Duration::from_micros(micros),
            Step::Output(endpoint, [duration_ms, batch, context, steps, tokens, pairs]) => {
                let window = DecodeWindow {
                    duration_ms,
                    steps: steps as u32,
                    mean_batch_requests: batch,
                    mean_context_tokens: context,
                    prefill_tokens: tokens,
                    prefill_pairs: pairs,
                    prefill_steps: pairs,
                };
                predictor.output(ids[endpoint].slot, &window, &Predicted::default());
            }
            Step::Rejoin(endpoint) => {
                fleet.leave(now, ids[endpoint]).unwrap();
                predictor.reset(ids[endpoint].slot);
                let spec = EndpointSpec::new(format!("e{endpoint}"), "m");
                ids[endpoint] = fleet.join(now, spec).unwrap();
                predictor.admit(ids[endpoint].slot, 0, None);
            }
        }
        for slot in 0..4 {
            let columns = fleet.columns();
            let ttft = predictor.ttft_ms(now, Slot(slot), columns, 3_000, 1_000);
            let of = predictor.predicted(now, Slot(slot), columns, u32::MAX, ttft);
            for predicted in [ttft, of.tpot_ms, of.ttft_p90_ms, of.tpot_p50_ms, of.tpot_p90_ms] {
                let good = |ms: f64| ms.is_finite() && ms >= 0.0;
                assert!(predicted.is_none_or(good), "{predicted:?} after {step:?}");
                predictions.push(predicted.map(f64::to_bits));
            }
        }
    }
    predictions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever happens, predictions are finite and not negative, and those of two predictors that
    /// are fed alike are equal to the bit.
    #[test]
    fn predictions_are_sane_and_repeatable(steps in prop::collection::vec(step(), 0..60)) {
        prop_assert_eq!(follow(&steps), follow(&steps));
    }
}
