//! The predictor as the brain uses it: fleet, ledger and an engine whose timing is known.

use super::noise;
use super::stepped_engine::{BATCH_TOKENS, SteppedEngine, Token};
use crate::fleet::{Booking, EndpointSpec, Fleet, FleetConfig, prefill_pairs};
use crate::predict::{EngineProfile, PROFILES, PredictConfig, Predictor, Timing};
use crate::rng::Rng;
use crate::{ReservationId, Slot, Ticket, Time};
use std::collections::BTreeMap;

const SLOT: Slot = Slot(0);

/// Traffic of one engine.
struct Traffic {
    requests: u32,
    mean_gap_ms: f64,
    most_new_tokens: f64,
    most_cached_tokens: f64,
    most_output_tokens: f64,
    step_noise: f64,
}

/// What came of it, over the second half of the requests.
struct Outcome {
    ttft_errors: Vec<f64>,
    tpot_errors: Vec<f64>,
    timing: Timing,
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

/// The size of the relative errors.
fn size(errors: &[f64], q: f64) -> f64 {
    quantile(&errors.iter().map(|error| error.abs()).collect::<Vec<_>>(), q)
}

/// One engine, its fleet of one, and the predictor that watches.
struct Drive<'a> {
    traffic: &'a Traffic,
    rng: Rng,
    fleet: Fleet,
    predictor: Predictor,
    engine: SteppedEngine,
    arrived: u32,
    next: Time,
    counted: BTreeMap<ReservationId, bool>,
    ttft_errors: Vec<f64>,
    tpot_errors: Vec<f64>,
}

impl Drive<'_> {
    fn arrive(&mut self) {
        let (now, traffic) = (self.next, self.traffic);
        let mut up_to = |most: f64| most * self.rng.next_f64();
        let new = (8.0 + {
            let most = up_to(traffic.most_new_tokens);
            up_to(most)
        }) as u32;
        let cached = up_to(traffic.most_cached_tokens) as u32;
        let output = (2.0 + up_to(traffic.most_output_tokens)) as u32;
        let gap_ms = up_to(2.0 * traffic.mean_gap_ms);
        let prompt = new + cached;
        let columns = self.fleet.columns();
        let booking = Booking {
            ticket: Ticket(self.arrived.into()),
            prompt_tokens: prompt,
            uncached_tokens: new,
            predicted: self.predictor.predicted(
                now,
                SLOT,
                columns,
                prompt,
                self.predictor.ttft_ms(now, SLOT, columns, prompt, cached),
            ),
            objective_tpot_ms: None,
            expected_output_tokens: None,
            first_token_is_untold: false,
        };
        let endpoint = columns.id(SLOT).unwrap();
        let id = self.fleet.book(now, endpoint, &booking).unwrap();
        self.counted.insert(id, self.arrived > traffic.requests / 2);
        self.engine.push(now, id, prompt, cached, output);
        self.arrived += 1;
        self.next = Time::from_millis_f64(now.as_millis_f64() + gap_ms);
    }

    fn deliver(&mut self, at: Time, token: Token) {
        let is_first = self.fleet.progress(at, token.id, token.number).unwrap();
        let reservation = *self.fleet.reservation(token.id).unwrap();
        let counts = self.counted[&token.id];
        if is_first {
            self.predictor.first_token(self.fleet.columns(), &reservation);
            let actual = at.millis_since(reservation.booked_at);
            let predicted = reservation.predicted.ttft_ms.filter(|_| counts);
            self.ttft_errors.extend(predicted.map(|ms| ms / actual - 1.0));
        }
        if token.is_last {
            if let Some(window) = self.fleet.decode_window(at, token.id) {
                self.predictor.output(SLOT, &window, &reservation.predicted);
                let actual = window.duration_ms / f64::from(window.steps);
                let predicted = reservation.predicted.tpot_ms;
                let predicted = predicted.filter(|_| counts && window.steps >= 32);
                self.tpot_errors.extend(predicted.map(|ms| ms / actual - 1.0));
            }
            self.fleet.release(at, token.id);
        }
    }

    fn run(mut self) -> Outcome {
        while self.arrived < self.traffic.requests || !self.engine.is_idle() {
            if self.engine.is_idle() {
                self.arrive();
            }
            let (end, tokens) = self.engine.step(noise(&mut self.rng, self.traffic.step_noise));
            // Who arrives while a step runs is not in it.
            while self.arrived < self.traffic.requests && self.next < end {
                self.arrive();
            }
            for token in tokens {
                self.deliver(end, token);
            }
        }
        let timing = self.predictor.timing(SLOT).unwrap();
        Outcome { ttft_errors: self.ttft_errors, tpot_errors: self.tpot_errors, timing }
    }
}

fn drive(profile: &'static EngineProfile, traffic: &Traffic, seed: u64) -> Outcome {
    let mut fleet = Fleet::new(FleetConfig::default());
    let mut spec = EndpointSpec::new("e", "m");
    spec.capacity.max_batch_tokens = BATCH_TOKENS as u32;
    fleet.join(Time::ZERO, spec).unwrap();
    let mut predictor = Predictor::new(PredictConfig::default()).unwrap();
    predictor.admit(SLOT, 0, None);
    let drive = Drive {
        traffic,
        rng: Rng::new(seed),
        fleet,
        predictor,
        engine: SteppedEngine::new(profile),
        arrived: 0,
        next: Time::ZERO,
        counted: BTreeMap::new(),
        ttft_errors: Vec::new(),
        tpot_errors: Vec::new(),
    };
    drive.run()
}

/// Milliseconds that the learned coefficients give a prefill, over those of the profile.
fn prefill_ratio(timing: &Timing, profile: &EngineProfile, new: u32, cached: u32) -> f64 {
    let learned = timing.prefill_base_ms
        + timing.prefill_ms_per_token * f64::from(new)
        + timing.prefill_ms_per_pair * prefill_pairs(new, cached) as f64;
    learned / profile.prefill_ms(new.into(), cached.into())
}

#[test]
fn prefill_is_learned_behind_a_queue() {
    for (seed, profile) in PROFILES.iter().enumerate() {
        let traffic = Traffic {
            requests: 1_000,
            mean_gap_ms: 1.3 * profile.prefill_ms(4_000, 10_000),
            most_new_tokens: 16_000.0,
            most_cached_tokens: 20_000.0,
            most_output_tokens: 0.0,
            step_noise: 0.1,
        };

        let Outcome { ttft_errors, timing, .. } = drive(profile, &traffic, seed as u64);

        let name = profile.name;
        assert!(ttft_errors.len() > 400);
        let (p50, p90) = (size(&ttft_errors, 0.5), size(&ttft_errors, 0.9));
        assert!(p50 < 0.13 && p90 < 0.45, "{name}: TTFT is off by {p50} and {p90}");
        let bias = quantile(&ttft_errors, 0.5);
        assert!(bias.abs() < 0.08, "{name}: TTFT is biased by {bias}");
        for (new, cached) in [(2_000, 0), (4_000, 10_000), (12_000, 2_000)] {
            let ratio = prefill_ratio(&timing, profile, new, cached);
            assert!((0.9..1.15).contains(&ratio), "{name}: {new} after {cached}: {ratio}");
        }
    }
}

#[test]
fn prefills_and_decodes_that_share_an_engine_are_told_apart() {
    for (seed, profile) in PROFILES.iter().enumerate() {
        let traffic = Traffic {
            requests: 2_000,
            mean_gap_ms: 3.0 * profile.prefill_ms(2_000, 5_000),
            most_new_tokens: 8_000.0,
            most_cached_tokens: 10_000.0,
            most_output_tokens: 200.0,
            step_noise: 0.1,
        };

        let Outcome { ttft_errors, tpot_errors, timing } = drive(profile, &traffic, seed as u64);

        let name = profile.name;
        let (p50, p90) = (size(&ttft_errors, 0.5), size(&ttft_errors, 0.9));
        assert!(p50 < 0.10 && p90 < 0.30, "{name}: TTFT is off by {p50} and {p90}");
        // Outputs meet prefills that nobody could foresee: the middle must be right.
        let (bias, p50) = (quantile(&tpot_errors, 0.5), size(&tpot_errors, 0.5));
        assert!(bias.abs() < 0.08 && p50 < 0.25, "{name}: TPOT is biased by {bias}, off by {p50}");
        let ratio = prefill_ratio(&timing, profile, 4_000, 5_000);
        assert!((0.9..1.1).contains(&ratio), "{name}: prefill {ratio}");
        let decode = timing.decode_base_ms
            + timing.decode_ms_per_request * 8.0
            + timing.decode_ms_per_context_token * 60_000.0;
        let ratio = decode / profile.decode_ms(8, 60_000);
        assert!((0.95..1.05).contains(&ratio), "{name}: decode {ratio}");
    }
}
