//! Small fleets for the tests.

use crate::fleet::{EndpointSpec, Fleet, FleetConfig, MetricsSample};
use crate::index::{MatchSource, Matches};
use crate::predict::{PredictConfig, Predictor};
use crate::schedule::{
    Choice, ForeignScore, NoCandidate, ProfileChoice, ProfileConfig, Request, ScheduleConfig,
    Scheduler, ScorerConfig,
};
use crate::{EndpointId, Time};

pub const BLOCK_TOKENS: u32 = 16;
pub const NOW: Time = Time::from_nanos(1_000_000_000);

pub fn named(profile: &str) -> ScheduleConfig {
    ScheduleConfig { profile: ProfileChoice::Named(profile.into()), ..ScheduleConfig::default() }
}

pub fn inline(profile: ProfileConfig) -> ScheduleConfig {
    ScheduleConfig { profile: ProfileChoice::Inline(profile), ..ScheduleConfig::default() }
}

/// A profile of one scorer.
pub fn scorer(scorer: ScorerConfig) -> ScheduleConfig {
    inline(ProfileConfig { scorers: vec![scorer], ..ProfileConfig::default() })
}

pub fn prompt(prompt_tokens: u32) -> Request {
    Request { prompt_tokens, block_tokens: BLOCK_TOKENS, ..Request::default() }
}

/// A fleet, what its endpoints hold of the prompt at hand, and a latency model.
pub struct World {
    pub fleet: Fleet,
    pub predictor: Predictor,
    pub matches: Matches,
    pub ids: Vec<EndpointId>,
}

impl World {
    pub fn new(specs: impl IntoIterator<Item = EndpointSpec>) -> Self {
        Self::with_prior(specs, "")
    }

    /// Endpoints whose latency is that of a known engine.
    pub fn with_prior(specs: impl IntoIterator<Item = EndpointSpec>, prior: &str) -> Self {
        let mut fleet = Fleet::new(FleetConfig::default());
        let config = PredictConfig { prior_profile: prior.into(), ..PredictConfig::default() };
        let mut predictor = Predictor::new(config).unwrap();
        let mut ids = Vec::new();
        for spec in specs {
            let id = fleet.join(Time::ZERO, spec).unwrap();
            predictor.admit(id.slot, fleet.columns().model[id.slot.index()], None);
            ids.push(id);
        }
        let mut world = Self { fleet, predictor, matches: Matches::new(), ids };
        world.holds(0, &[]);
        world
    }

    /// `count` endpoints that differ in their addresses only.
    pub fn alike(count: usize) -> Self {
        Self::new((0..count).map(spec))
    }

    /// Sets the matched blocks of each endpoint for a prompt of `query_blocks`.
    pub fn holds(&mut self, query_blocks: u32, depth_blocks: &[u32]) {
        self.matches.reset(self.fleet.columns().slots(), query_blocks);
        for (id, &depth) in self.ids.iter().zip(depth_blocks) {
            self.matches.depth_blocks[id.slot.index()] = depth;
            self.matches.source[id.slot.index()] = MatchSource::Exact;
        }
        for id in &self.ids {
            self.matches.generation[id.slot.index()] = id.generation;
        }
    }

    pub fn observe(&mut self, endpoint: usize, sample: &MetricsSample) {
        self.fleet.observe(NOW, self.ids[endpoint], sample).unwrap();
    }

    pub fn book(&mut self, endpoint: usize, uncached_tokens: u32) {
        let booking = crate::fleet::Booking {
            ticket: crate::Ticket(0),
            prompt_tokens: uncached_tokens,
            uncached_tokens,
            predicted: Default::default(),
            objective_tpot_ms: None,
            expected_output_tokens: None,
            first_token_is_untold: false,
        };
        self.fleet.book(NOW, self.ids[endpoint], &booking).unwrap();
    }

    pub fn choose(
        &self,
        scheduler: &mut Scheduler,
        request: &Request,
    ) -> Result<Choice, NoCandidate> {
        self.choose_with(scheduler, request, &[])
    }

    pub fn choose_with(
        &self,
        scheduler: &mut Scheduler,
        request: &Request,
        foreign: &[ForeignScore],
    ) -> Result<Choice, NoCandidate> {
        scheduler.choose(NOW, request.into(), &self.fleet, &self.predictor, &self.matches, foreign)
    }

    /// The scores that a fresh scheduler of one scorer gives.
    pub fn scores(&self, config: ScorerConfig, request: &Request) -> Vec<f64> {
        let mut scheduler = Scheduler::new(&scorer(config), 1).unwrap();
        let choice = self.choose(&mut scheduler, request).unwrap();
        choice.explanation().scores[0].values.clone()
    }
}

pub fn spec(number: usize) -> EndpointSpec {
    EndpointSpec::new(format!("http://endpoint-{number}:8000"), "model")
}

pub fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?} against {expected:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-9, "{found:?} against {expected:?}");
    }
}
