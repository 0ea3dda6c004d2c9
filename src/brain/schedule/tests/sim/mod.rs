//! A small deterministic simulation of a fleet: enough of an engine for the order of policies to
//! show, and what a router sees of it. Events come 10 ms late, metrics are sampled every 50 ms, own
//! bookings are exact.

pub mod cache;
pub mod chat;
pub mod engine;

use self::cache::Change;
use self::chat::{Chat, Session, working_set_blocks};
use self::engine::{BLOCK_TOKENS, Engine, Job, Output};
use crate::fleet::{Booking, Capacity, EndpointSpec, Fleet, FleetConfig, MetricsSample};
use crate::index::{MatchSource, Matches};
use crate::predict::{EngineProfile, PredictConfig, Predictor};
use crate::rng::Rng;
use crate::schedule::{Request, ScheduleConfig, Scheduler};
use crate::{EndpointId, ReservationId, Ticket, Time};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

const EVENT_LAG_NS: u64 = 10_000_000;
const METRICS_EVERY_NS: u64 = 50_000_000;
const SPECULATIVE_TTL_NS: u64 = 2_000_000_000;

/// A fleet for a chat.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub chat: Chat,
    pub endpoints: usize,
    /// KV cache of the whole fleet as a share of the working set.
    pub kv_share: f64,
    pub engine: &'static EngineProfile,
    pub noise: Noise,
    /// Whether the router has latency models.
    pub predicts: bool,
    /// Whether metrics are sampled at all.
    pub samples: bool,
}

/// How the length of steps varies.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    /// Standard deviation of the logarithm of a step's length.
    pub sigma: f64,
    /// Correlation of that logarithm between a step and the next of the same engine.
    pub persistence: f64,
}

impl Noise {
    pub const NONE: Self = Self { sigma: 0.0, persistence: 0.0 };

    /// The deviation after one of `last`.
    fn next(self, last: f64, rng: &mut Rng) -> f64 {
        // Twelve uniforms, summed, are normal enough.
        let normal = (0..12).map(|_| rng.next_f64()).sum::<f64>() - 6.0;
        let fresh = libm::sqrt(1.0 - self.persistence * self.persistence);
        self.persistence * last + fresh * self.sigma * normal
    }
}

/// What a policy achieved.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub hit_tokens: u64,
    pub prompt_tokens: u64,
    pub ttft_ms: Vec<f64>,
    pub requests: Vec<usize>,
    pub makespan_ms: f64,
    pub preemptions: u64,
}

impl Outcome {
    pub fn ttft_percentile_ms(&self, percent: usize) -> f64 {
        self.ttft_ms[(self.ttft_ms.len() - 1) * percent / 100]
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    StepEnds(usize),
    Seen(usize),
    Sample,
    Arrives(usize),
}

struct InFlight {
    session: usize,
    arrived: u64,
    endpoint: EndpointId,
    reservation: ReservationId,
}

/// What the router believes that an endpoint holds.
#[derive(Default)]
struct View {
    held: HashMap<u64, u64>,
    /// When an unconfirmed booking stops counting.
    booked: HashMap<u64, u64>,
    late: std::collections::VecDeque<(u64, Change)>,
}

impl View {
    fn holds(&self, content: u64, now: u64) -> bool {
        self.held.contains_key(&content)
            || self.booked.get(&content).is_some_and(|&until| until > now)
    }

    fn see(&mut self, now: u64) {
        while let Some((at, change)) = self.late.front().copied().filter(|(at, _)| *at <= now) {
            self.late.pop_front();
            match change {
                Change::Stored(content) => drop(self.held.insert(content, at)),
                Change::Removed(content) => {
                    self.held.remove(&content);
                    self.booked.remove(&content);
                }
            }
        }
    }
}

struct Simulation {
    sessions: Vec<Session>,
    turn: Vec<usize>,
    engines: Vec<Engine>,
    stepping: Vec<bool>,
    noise: Noise,
    /// Logarithm of what the step in hand takes, relative to the profile.
    deviation: Vec<f64>,
    rng: Rng,
    views: Vec<View>,
    ids: Vec<EndpointId>,
    fleet: Fleet,
    predictor: Predictor,
    scheduler: Scheduler,
    matches: Matches,
    queue: BinaryHeap<Reverse<(u64, Happening)>>,
    in_flight: Vec<InFlight>,
    finished: usize,
    outcome: Outcome,
    samples: bool,
}

/// Runs a chat to its end under one profile.
pub fn run(scenario: &Scenario, config: &ScheduleConfig, seed: u64) -> Outcome {
    let mut simulation = Simulation::new(scenario, config, seed);
    simulation.run();
    simulation.outcome
}

impl Simulation {
    fn new(scenario: &Scenario, config: &ScheduleConfig, seed: u64) -> Self {
        let sessions = scenario.chat.sessions(seed);
        let working_set = working_set_blocks(&sessions) as f64;
        let capacity = (working_set * scenario.kv_share / scenario.endpoints as f64) as usize;
        let mut fleet = Fleet::new(FleetConfig::default());
        let mut predictor = Predictor::new(PredictConfig {
            min_observations: if scenario.predicts { 16 } else { 1_000_000 },
            ..PredictConfig::default()
        })
        .unwrap();
        let mut ids = Vec::new();
        for engine in 0..scenario.endpoints {
            let mut spec = EndpointSpec::new(format!("http://engine-{engine}:8000"), "model");
            spec.capacity = Capacity {
                kv_blocks: capacity as u64,
                block_size: BLOCK_TOKENS as u32,
                ..Capacity::default()
            };
            let id = fleet.join(Time::ZERO, spec).unwrap();
            predictor.admit(id.slot, fleet.columns().model[id.slot.index()], None);
            ids.push(id);
        }
        let mut queue = BinaryHeap::new();
        for (number, session) in sessions.iter().enumerate() {
            let at = (session.turns[0].pause_ms * 1e6) as u64;
            queue.push(Reverse((at, Happening::Arrives(number))));
        }
        queue.push(Reverse((0, Happening::Sample)));
        Self {
            turn: vec![0; sessions.len()],
            engines: (0..scenario.endpoints)
                .map(|_| Engine::new(scenario.engine, capacity))
                .collect(),
            stepping: vec![false; scenario.endpoints],
            noise: scenario.noise,
            deviation: vec![0.0; scenario.endpoints],
            rng: Rng::new(seed ^ 0x6E_6F69_7365),
            views: (0..scenario.endpoints).map(|_| View::default()).collect(),
            ids,
            fleet,
            predictor,
            scheduler: Scheduler::new(config, seed).unwrap(),
            matches: Matches::new(),
            queue,
            in_flight: Vec::new(),
            finished: 0,
            outcome: Outcome {
                hit_tokens: 0,
                prompt_tokens: 0,
                ttft_ms: Vec::new(),
                requests: vec![0; scenario.endpoints],
                makespan_ms: 0.0,
                preemptions: 0,
            },
            samples: scenario.samples,
            sessions,
        }
    }

    fn run(&mut self) {
        let total: usize = self.sessions.iter().map(|session| session.turns.len()).sum();
        while self.finished < total {
            let Reverse((now, happening)) = self.queue.pop().unwrap();
            match happening {
                Happening::Arrives(session) => self.arrive(now, session),
                Happening::StepEnds(engine) => self.end_step(now, engine),
                Happening::Seen(engine) => self.views[engine].see(now),
                Happening::Sample => self.sample(now),
            }
            self.outcome.makespan_ms = now as f64 / 1e6;
        }
        for engine in &self.engines {
            self.outcome.hit_tokens += engine.hit_tokens;
            self.outcome.prompt_tokens += engine.prompt_tokens;
            self.outcome.preemptions += engine.preemptions;
        }
        self.outcome.ttft_ms.sort_by(f64::total_cmp);
    }

    fn arrive(&mut self, now: u64, session: usize) {
        let Session { name, contents, turns } = &self.sessions[session];
        let turn = &turns[self.turn[session]];
        let prompt = &contents[..turn.prompt_tokens / BLOCK_TOKENS];
        self.matches.reset(self.ids.len(), prompt.len() as u32);
        for (id, view) in self.ids.iter().zip(&self.views) {
            let depth = prompt.iter().take_while(|&&content| view.holds(content, now)).count();
            let row = id.slot.index();
            self.matches.depth_blocks[row] = depth as u32;
            self.matches.source[row] = MatchSource::Speculative;
            self.matches.generation[row] = id.generation;
        }
        let request = Request {
            prompt_tokens: turn.prompt_tokens as u32,
            block_tokens: BLOCK_TOKENS as u32,
            session_id: Some(name.clone()),
            ..Request::default()
        };
        let time = Time::from_nanos(now);
        let choice = self
            .scheduler
            .choose(time, (&request).into(), &self.fleet, &self.predictor, &self.matches, &[])
            .unwrap();
        let booking = Booking {
            ticket: Ticket(self.in_flight.len() as u64),
            prompt_tokens: request.prompt_tokens,
            uncached_tokens: choice.uncached_tokens,
            predicted: choice.predicted,
            objective_tpot_ms: request.slo.tpot_ms,
            expected_output_tokens: None,
            first_token_is_untold: false,
        };
        let reservation = self.fleet.book(time, choice.endpoint, &booking).unwrap();
        self.scheduler.committed(time, &request, &choice);

        let engine = choice.endpoint.slot.index();
        for &content in prompt {
            self.views[engine].booked.insert(content, now + SPECULATIVE_TTL_NS);
        }
        self.outcome.requests[engine] += 1;
        self.engines[engine].submit(Job {
            request: self.in_flight.len(),
            contents: contents.clone(),
            prompt_tokens: turn.prompt_tokens,
            output_tokens: turn.output_tokens,
        });
        self.in_flight.push(InFlight {
            session,
            arrived: now,
            endpoint: choice.endpoint,
            reservation,
        });
        self.start_step(now, engine);
    }

    fn start_step(&mut self, now: u64, engine: usize) {
        if self.stepping[engine] {
            return;
        }
        if let Some(step_ms) = self.engines[engine].start_step() {
            self.stepping[engine] = true;
            let deviation = self.noise.next(self.deviation[engine], &mut self.rng);
            self.deviation[engine] = deviation;
            let end = now + (step_ms * libm::exp(deviation) * 1e6) as u64;
            self.queue.push(Reverse((end, Happening::StepEnds(engine))));
        }
        let seen = now + EVENT_LAG_NS;
        let changes = self.engines[engine].cache.changes.drain(..);
        self.views[engine].late.extend(changes.map(|change| (seen, change)));
        self.queue.push(Reverse((seen, Happening::Seen(engine))));
    }

    fn end_step(&mut self, now: u64, engine: usize) {
        let time = Time::from_nanos(now);
        let mut outputs = Vec::new();
        self.engines[engine].finish_step(&mut outputs);
        self.stepping[engine] = false;
        for output in outputs {
            match output {
                Output::FirstToken(request) => {
                    let InFlight { arrived, reservation, .. } = self.in_flight[request];
                    self.outcome.ttft_ms.push((now - arrived) as f64 / 1e6);
                    self.fleet.first_token(time, reservation).unwrap();
                    let reservation = self.fleet.reservation(reservation).unwrap();
                    self.predictor.first_token(self.fleet.columns(), reservation);
                }
                Output::Finished(request) => self.finish(now, request),
            }
        }
        self.start_step(now, engine);
    }

    fn finish(&mut self, now: u64, request: usize) {
        let time = Time::from_nanos(now);
        let InFlight { session, endpoint, reservation, .. } = self.in_flight[request];
        let turns = &self.sessions[session].turns;
        let output_tokens = turns[self.turn[session]].output_tokens as u32;
        self.fleet.progress(time, reservation, output_tokens).unwrap();
        if let Some(window) = self.fleet.decode_window(time, reservation) {
            let predicted = self.fleet.reservation(reservation).unwrap().predicted;
            self.predictor.output(endpoint.slot, &window, &predicted);
        }
        assert!(self.fleet.release(time, reservation));
        self.finished += 1;
        self.turn[session] += 1;
        if let Some(next) = turns.get(self.turn[session]) {
            let at = now + (next.pause_ms * 1e6) as u64;
            self.queue.push(Reverse((at, Happening::Arrives(session))));
        }
    }

    fn sample(&mut self, now: u64) {
        if !self.samples {
            return;
        }
        for (id, engine) in self.ids.iter().zip(&self.engines) {
            let sample = MetricsSample {
                waiting_requests: Some(engine.waiting() as f64),
                running_requests: Some(engine.running() as f64),
                kv_usage: Some(engine.cache.usage()),
                ..MetricsSample::default()
            };
            self.fleet.observe(Time::from_nanos(now), *id, &sample).unwrap();
        }
        self.queue.push(Reverse((now + METRICS_EVERY_NS, Happening::Sample)));
    }
}
