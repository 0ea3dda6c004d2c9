//! Filter, score and pick over a whole fleet, and what a decision allocates: `make bench-select`.
//!
//! Three states of a fleet whose load, matches and time change from request to request: *cold*,
//! where nothing is known of any engine; *learned*, where every endpoint has shown how fast it is;
//! and *reported*, where it also reports its queue and its KV. Thread CPU time, medians of 9
//! batches, each less the same batch without the
//! decisions; `copy_column` is a yardstick of the same run.
//!
//! A word on the command line picks the figures whose names contain it (for a profiler).

use allocation_counter::measure;
use cpu_time::ThreadTime;
use llmd_brain::fleet::{Booking, EndpointSpec, Fleet, FleetConfig, MetricsSample};
use llmd_brain::index::{MatchSource, Matches};
use llmd_brain::predict::{PredictConfig, Predictor, Prefill};
use llmd_brain::rng::Rng;
use llmd_brain::schedule::{ProfileChoice, Request, ScheduleConfig, Scheduler};
use llmd_brain::{EndpointId, Ticket, Time};
use std::hint::black_box;
use std::time::Duration;

const BATCHES: usize = 9;
const BLOCK_TOKENS: u32 = 16;
const PROMPT_TOKENS: u32 = 8_192;

#[derive(Clone, Copy, PartialEq)]
enum Knowledge {
    Cold,
    Learned,
    Reported,
}

struct World {
    fleet: Fleet,
    predictor: Predictor,
    matches: Matches,
    ids: Vec<EndpointId>,
    now: Time,
    rng: Rng,
}

impl World {
    fn new(endpoints: usize, knowledge: Knowledge) -> Self {
        let mut fleet = Fleet::new(FleetConfig::default());
        let prior = if knowledge == Knowledge::Cold { "" } else { "qwen3-32b_h100_tp2" };
        let config = PredictConfig { prior_profile: prior.into(), ..PredictConfig::default() };
        let Ok(mut predictor) = Predictor::new(config) else { unreachable!("a known profile") };
        let mut ids = Vec::new();
        for number in 0..endpoints {
            let mut spec = EndpointSpec::new(format!("http://10.0.{number}:8000"), "m");
            spec.capacity.kv_blocks = 20_000;
            spec.capacity.block_size = BLOCK_TOKENS;
            let Ok(id) = fleet.join(Time::ZERO, spec) else { unreachable!("it fits") };
            predictor.admit(id.slot, 0, None);
            ids.push(id);
        }
        let now = Time::from_nanos(1_000_000_000);
        let mut world =
            Self { fleet, predictor, matches: Matches::new(), ids, now, rng: Rng::new(1) };
        for row in 0..endpoints {
            for _ in 0..world.rng.below(8) {
                let tokens = world.rng.below(8_192) as u32 + 1;
                let endpoint = world.ids[row];
                if let Some(id) = world.book(endpoint, tokens)
                    && tokens.is_multiple_of(3)
                {
                    let later = world.now + Duration::from_millis(40);
                    let _ = world.fleet.first_token(later, id);
                    if let Some(booked) = world.fleet.reservation(id) {
                        world.predictor.first_token(world.fleet.columns(), booked);
                    }
                }
            }
            if knowledge == Knowledge::Reported {
                let sample = MetricsSample {
                    waiting_requests: Some(world.rng.below(9) as f64),
                    running_requests: Some(world.rng.below(60) as f64),
                    kv_usage: Some(world.rng.next_f64()),
                    gpu_utilization: Some(world.rng.next_f64()),
                    ..MetricsSample::default()
                };
                let _ = world.fleet.observe(world.now, world.ids[row], &sample);
            }
        }
        world.matches.reset(endpoints, PROMPT_TOKENS / BLOCK_TOKENS);
        for row in 0..endpoints {
            world.matches.generation[row] = world.ids[row].generation;
        }
        world
    }

    fn book(&mut self, endpoint: EndpointId, uncached: u32) -> Option<llmd_brain::ReservationId> {
        let booking = Booking {
            ticket: Ticket(0),
            prompt_tokens: PROMPT_TOKENS,
            uncached_tokens: uncached,
            predicted: Default::default(),
            objective_tpot_ms: None,
            expected_output_tokens: None,
            first_token_is_untold: false,
        };
        self.fleet.book(self.now, endpoint, &booking).ok()
    }

    /// Another request: other endpoints hold a part of it, and time has passed.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_micros(50);
        let rows = self.ids.len() as u64;
        self.matches.depth_blocks.fill(0);
        for _ in 0..4 {
            let row = self.rng.below(rows) as usize;
            self.matches.depth_blocks[row] = self.rng.below(512) as u32;
            self.matches.source[row] = MatchSource::Exact;
        }
    }
}

fn main() {
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let mut figures = Vec::new();
    for profile in ["default", "llm-d", "least-request"] {
        let states: &[_] = match profile {
            "default" => &[
                (Knowledge::Cold, "cold"),
                (Knowledge::Learned, "learned"),
                (Knowledge::Reported, "reported"),
            ],
            _ => &[(Knowledge::Reported, "reported")],
        };
        for &(knowledge, name) in states {
            for endpoints in [64, 1_024] {
                let key = format!("select_{profile}_{name}_{endpoints}w");
                if !key.contains(&only) {
                    continue;
                }
                let (micros, allocations) = select(profile, endpoints, knowledge);
                println!(
                    "{profile:14} {name:9} {endpoints:5} endpoints {micros:8.2} us  {allocations:.2} allocations"
                );
                figures.push(format!(
                    "\"{key}_us\": {micros:.3}, \"{key}_allocations\": {allocations:.2}"
                ));
            }
        }
    }
    let prediction = predictions_us(64);
    println!("predictions    learned      64 endpoints {prediction:8.2} us");
    figures.push(format!("\"predict_64w_us\": {prediction:.3}"));
    let block = column_us();
    figures.push(format!("\"copy_column_1024_us\": {block:.3}"));
    println!("BENCH {{{}}}", figures.join(", "));
}

/// Score, pick and tell the plugins, microseconds a request; and the allocations of one.
fn select(profile: &str, endpoints: usize, knowledge: Knowledge) -> (f64, f64) {
    let mut world = World::new(endpoints, knowledge);
    let config = ScheduleConfig {
        profile: ProfileChoice::Named(profile.into()),
        ..ScheduleConfig::default()
    };
    let Ok(mut scheduler) = Scheduler::new(&config, 1) else { unreachable!("a built-in profile") };
    let request = Request {
        model: "m".into(),
        prompt_tokens: PROMPT_TOKENS,
        block_tokens: BLOCK_TOKENS,
        ..Request::default()
    };
    let requests: u32 = if endpoints > 64 { 400 } else { 4_000 };
    let mut batch = |decides: bool| {
        let start = ThreadTime::now();
        for _ in 0..requests {
            world.turn();
            let World { fleet, predictor, matches, now, .. } = &world;
            if !decides {
                black_box(matches);
                continue;
            }
            let chosen = scheduler.choose(*now, (&request).into(), fleet, predictor, matches, &[]);
            if let Ok(choice) = black_box(&chosen) {
                scheduler.committed(*now, &request, choice);
            }
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(requests)
    };
    batch(true);
    let allocations = measure(|| {
        batch(true);
    });
    let both = median((0..BATCHES).map(|_| batch(true)));
    let micros = both - median((0..BATCHES).map(|_| batch(false)));
    (micros, allocations.count_total as f64 / f64::from(requests))
}

/// Everything that is predicted of a request on every endpoint, means and percentiles, microseconds.
fn predictions_us(endpoints: usize) -> f64 {
    const TURNS: u32 = 4_000;
    let World { fleet, predictor, now, ids, .. } = World::new(endpoints, Knowledge::Learned);
    let (columns, mut ttft_ms) = (fleet.columns(), vec![0.0; endpoints]);
    median((0..BATCHES).map(|_| {
        let start = ThreadTime::now();
        for turn in 0..TURNS {
            let own = Prefill::of(PROMPT_TOKENS, turn % PROMPT_TOKENS);
            if let Some(rows) = predictor.prefill_rows(0..endpoints, columns) {
                rows.fill(now.as_millis_f64(), &own, &mut ttft_ms);
            }
            for (id, &ttft_ms) in ids.iter().zip(black_box(&ttft_ms)) {
                let ttft_ms = Some(ttft_ms);
                black_box(predictor.predicted(now, id.slot, columns, PROMPT_TOKENS, ttft_ms));
            }
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(TURNS)
    }))
}

/// Copying one column of 1,024 numbers.
fn column_us() -> f64 {
    let (from, mut to) = (vec![1.0_f64; 1_024], vec![0.0_f64; 1_024]);
    median((0..BATCHES).map(|_| {
        let start = ThreadTime::now();
        for _ in 0..1_000 {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }
        start.elapsed().as_secs_f64() * 1e6 / 1e3
    }))
}

fn median(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
