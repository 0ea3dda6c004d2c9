//! Latency of every endpoint, predicted and learned.

use super::coefficients::Coefficients;
use super::fit::{Fit, dot};
use super::prefill::{DecodesBeside, Prefill, PrefillRows, steps_in};
use super::{EngineProfile, PredictConfig, PredictError};
use crate::fleet::{Ahead, Columns, DecodeWindow, InFlight, Reservation};
use crate::{Slot, Time};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Decodes of fewer tokens are dominated by how tokens were bunched on the wire.
const LEAST_STEPS: u32 = 8;
/// What is subtracted from a measurement as others' work leaves at least this share of it.
const LEAST_OWN_SHARE: f64 = 0.25;
/// Prefills are taken to occupy at most this share of an engine's time.
const MOST_PREFILL_SHARE: f64 = 0.75;
/// No engine steps faster, whatever has been learned.
const LEAST_STEP_MS: f64 = 1e-3;
/// Length of an answer before any was seen.
const FIRST_OUTPUT_TOKENS: f64 = 300.0;
/// Answers over which the mean length is taken, and the longest that one counts.
const MEMORY_ANSWERS: f64 = 50.0;
const MOST_OUTPUT_TOKENS: f64 = 4_000.0;
/// Longer latencies are broken clocks.
const DAY_MS: f64 = 86_400_000.0;

/// The coefficients of an endpoint's models, see [`EngineProfile`] for the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// `a`, milliseconds.
    pub prefill_base_ms: f64,
    /// `b`, milliseconds.
    pub prefill_ms_per_token: f64,
    /// `c`, milliseconds.
    pub prefill_ms_per_pair: f64,
    /// `d`, milliseconds.
    pub decode_base_ms: f64,
    /// `e`, milliseconds.
    pub decode_ms_per_request: f64,
    /// `f`, milliseconds.
    pub decode_ms_per_context_token: f64,
    /// First tokens that the endpoint itself has shown.
    pub prefills_observed: u32,
    /// Outputs that the endpoint itself has shown.
    pub decodes_observed: u32,
    /// Usual relative error of its prefill model, once it has one of its own.
    pub prefill_error: Option<f64>,
    /// Usual relative error of its decode model, once it has one of its own.
    pub decode_error: Option<f64>,
}

/// `a, b, c` and `d, e, f` of an endpoint, see [`EngineProfile`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of a prefill: base, each token, each pair.
    pub prefill: [f64; 3],
    /// Of a step that decodes: base, each request, each token of context.
    pub decode: [f64; 3],
}

/// A pair of models, by [`Part`], and whether the prior that they started from may speak.
#[derive(Debug, Clone, Copy)]
struct Models {
    fits: [Fit; Part::COUNT],
    prior_speaks: bool,
}

/// Which of an endpoint's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Prefill,
    Decode,
}

impl Part {
    const COUNT: usize = 2;
    const ALL: [Self; Self::COUNT] = [Self::Prefill, Self::Decode];
}

impl Models {
    fn from_profile(profile: &EngineProfile, prior_speaks: bool) -> Self {
        // A prior of zero has no unit to be a multiple of.
        let least = |value: f64, least: f64| value.max(least);
        let prefill = [
            least(profile.prefill_base_ms, 1.0),
            least(profile.prefill_ms_per_token, 1e-4),
            least(profile.prefill_ms_per_pair, 1e-9),
        ];
        let decode = [
            least(profile.decode_base_ms, 1.0),
            least(profile.decode_ms_per_request, 1e-4),
            least(profile.decode_ms_per_context_token, 1e-8),
        ];
        Self { fits: [Fit::from_prior(prefill), Fit::from_prior(decode)], prior_speaks }
    }

    fn part(&self, part: Part) -> &Fit {
        &self.fits[part as usize]
    }
}

/// What all endpoints that serve one model have shown together.
#[derive(Debug, Clone)]
struct Pool {
    members: u32,
    models: Models,
    /// By [`Part`]: members with too few observations of their own, who borrow.
    borrowers: [Vec<u32>; Part::COUNT],
}

/// Prefills of the recent past, exponentially weighted.
#[derive(Debug, Clone, Copy, Default)]
struct RecentPrefills {
    at: Time,
    work_ms: f64,
    steps: f64,
}

impl RecentPrefills {
    /// What is left of the weight at `now`.
    fn fade(&self, now: Time, span_ms: f64) -> f64 {
        libm::exp(-now.millis_since(self.at) / span_ms)
    }
}

/// Latency models of all endpoints, one row a [`Slot`].
///
/// ```
/// use llmd_brain::fleet::{EndpointSpec, Fleet, FleetConfig};
/// use llmd_brain::predict::{EngineProfile, PredictConfig, Predictor};
/// use llmd_brain::Time;
///
/// let mut fleet = Fleet::new(FleetConfig::default());
/// let a = fleet.join(Time::ZERO, EndpointSpec::new("http://a:8000", "qwen")).unwrap();
/// let mut predictor = Predictor::new(PredictConfig::default()).unwrap();
/// let model = fleet.columns().model[a.slot.index()];
/// predictor.admit(a.slot, model, EngineProfile::named("qwen3-32b_h100_tp2"));
///
/// let ttft = predictor.ttft_ms(Time::ZERO, a.slot, fleet.columns(), 2_000, 500).unwrap();
/// assert!((ttft - (3.52 + 0.05025 * 1_500.0 + 1.6e-6 * 1_500.0 * 1_250.0)).abs() < 1e-6);
/// ```
#[derive(Debug, Clone)]
pub struct Predictor {
    config: PredictConfig,
    generic: Models,
    occupied: Vec<bool>,
    pool: Vec<u32>,
    models: Vec<Models>,
    recent: Vec<RecentPrefills>,
    pools: Vec<Pool>,
    mean_output_tokens: f64,
    /// What the models come to, kept up as they learn: a prediction for a whole fleet reads this
    /// and no model.
    in_force: Coefficients,
}

/// Profile that unknown engines are measured against; it speaks only where it is configured to.
const GENERIC_PROFILE: usize = 1;

impl Rates {
    /// Milliseconds of a step that decodes everything in flight on a slot.
    #[must_use]
    pub fn step_ms(&self, columns: &Columns, slot: Slot) -> f64 {
        let [base, per_request, per_token] = self.decode;
        let at = slot.index();
        base + per_request * columns.inflight_requests[at]
            + per_token * columns.inflight_context_tokens[at]
    }

    /// Output tokens that a request has had by its time, if nobody counted them: one a step of
    /// `step_ms`, but for the time that prefills took meanwhile.
    #[must_use]
    pub fn generated_tokens(&self, now: Time, it: &InFlight, step_ms: f64) -> f64 {
        let Some(first) = it.first_token_at else { return 0.0 };
        let interrupted = self.prefill[1] * it.prefill_tokens + self.prefill[2] * it.prefill_pairs;
        ((now.millis_since(first) - interrupted) / step_ms).max(f64::from(it.output_tokens))
    }
}

impl Predictor {
    /// A predictor that knows no endpoint.
    ///
    /// # Errors
    /// [`PredictError`] where a value of `config` cannot work.
    pub fn new(config: PredictConfig) -> Result<Self, PredictError> {
        config.validate()?;
        let generic = match EngineProfile::named(&config.prior_profile) {
            Some(profile) => Models::from_profile(profile, true),
            None => Models::from_profile(&super::PROFILES[GENERIC_PROFILE], false),
        };
        Ok(Self {
            config,
            generic,
            occupied: Vec::new(),
            pool: Vec::new(),
            models: Vec::new(),
            recent: Vec::new(),
            pools: Vec::new(),
            mean_output_tokens: FIRST_OUTPUT_TOKENS,
            in_force: Coefficients::default(),
        })
    }

    /// An endpoint joins: `model` is its index in [`Columns::model`], `profile` the timing of its
    /// engine where it is known, which then speaks until the endpoint has shown its own.
    pub fn admit(&mut self, slot: Slot, model: u32, profile: Option<&EngineProfile>) {
        self.reset(slot);
        let row = slot.index();
        while self.occupied.len() <= row {
            self.occupied.push(false);
            self.pool.push(0);
            self.models.push(self.generic);
            self.recent.push(RecentPrefills::default());
            self.in_force.push_empty();
        }
        while self.pools.len() <= model as usize {
            let borrowers = Default::default();
            self.pools.push(Pool { members: 0, models: self.generic, borrowers });
        }
        let own = profile.map(|profile| Models::from_profile(profile, true));
        let pool = &mut self.pools[model as usize];
        if pool.members == 0 {
            pool.models = own.unwrap_or(self.generic);
        }
        pool.members += 1;
        pool.borrowers.iter_mut().for_each(|rows| rows.push(row as u32));
        self.occupied[row] = true;
        self.pool[row] = model;
        self.models[row] = own.unwrap_or(self.generic);
        self.recent[row] = RecentPrefills::default();
        Part::ALL.into_iter().for_each(|part| self.put_in_force(row, part));
    }

    /// An endpoint leaves. The last of its model takes the pooled observations with it.
    pub fn reset(&mut self, slot: Slot) {
        let row = slot.index();
        if self.occupied.get(row).copied().unwrap_or_default() {
            self.occupied[row] = false;
            let pool = &mut self.pools[self.pool[row] as usize];
            pool.members -= 1;
            pool.borrowers.iter_mut().for_each(|rows| rows.retain(|&other| other != row as u32));
            self.in_force.clear(row);
        }
    }

    /// Time to first token, milliseconds, of a prompt of which the endpoint holds
    /// `matched_tokens`, if it is sent there now. `None` until there is a model of the endpoint.
    #[must_use]
    pub fn ttft_ms(
        &self,
        now: Time,
        slot: Slot,
        columns: &Columns,
        prompt_tokens: u32,
        matched_tokens: u32,
    ) -> Option<f64> {
        let row = slot.index();
        let rows = self.prefill_rows(row..row + 1, columns)?;
        let prefill = Prefill::of(prompt_tokens, matched_tokens);
        let ttft_ms = rows.ttft_ms(0, now.as_millis_f64(), &prefill);
        (!ttft_ms.is_nan()).then_some(ttft_ms)
    }

    /// What predicts the time to first token on a run of slots; `None` where the predictor has not
    /// been told of all of them.
    #[must_use]
    pub fn prefill_rows<'a>(
        &'a self,
        slots: Range<usize>,
        columns: &'a Columns,
    ) -> Option<PrefillRows<'a>> {
        let known = self.occupied.len().min(columns.slots());
        (slots.end <= known).then(|| PrefillRows::new(slots, &self.in_force, columns))
    }

    /// Time per output token, milliseconds, of a request of `prompt_tokens`, if it is sent to the
    /// endpoint now and everything in flight there decodes beside it. `None` until there is a
    /// model of the endpoint.
    #[must_use]
    pub fn tpot_ms(
        &self,
        now: Time,
        slot: Slot,
        columns: &Columns,
        prompt_tokens: u32,
    ) -> Option<f64> {
        let decode = self.speaking(slot, Part::Decode)?.coefficients();
        let load = columns.load(slot);
        let most = columns.max_running_requests.get(slot.index()).copied().unwrap_or_default();
        let batch = load.inflight_requests.saturating_add(1);
        let batch = if most == 0 { batch } else { batch.min(most) };
        let context = load.inflight_context_tokens as f64 + f64::from(prompt_tokens);
        let step_ms = dot(&decode, &[1.0, f64::from(batch), context]).max(LEAST_STEP_MS);
        // Of the recent past the part that prefills left went into steps that only decode, each a
        // token; and each step with a prefill in it made a token, too.
        let span_ms = self.config.prefill_window_ms as f64;
        let recent = &self.recent[slot.index()];
        let fade = recent.fade(now, span_ms);
        let share = (fade * recent.work_ms / span_ms).min(MOST_PREFILL_SHARE);
        Some(1.0 / ((1.0 - share) / step_ms + fade * recent.steps / span_ms))
    }

    /// Learns from the first token of a request that is still reserved.
    pub fn first_token(&mut self, columns: &Columns, reservation: &Reservation) {
        let Some(at) = reservation.first_token_at else { return };
        let slot = reservation.endpoint.slot;
        if !self.knows(slot) {
            return;
        }
        let cached = reservation.prompt_tokens - reservation.uncached_tokens;
        let ahead = &reservation.ahead;
        let features = prefill_features(ahead, reservation.uncached_tokens, cached);
        let ttft_ms = at.millis_since(reservation.booked_at);
        let progress =
            ahead.head.map_or(0.0, |head| reservation.booked_at.millis_since(head.since));
        let drag = self.decodes_beside(slot, ahead).drag_ms(steps_in(slot, columns, features[1]));
        let work_ms = (ttft_ms + progress - drag).max(ttft_ms * LEAST_OWN_SHARE);
        if ttft_ms > 0.0 && work_ms < DAY_MS {
            self.learn(slot, Part::Prefill, features, work_ms);
        }
        let prefill = self.best(slot, Part::Prefill).coefficients();
        let own_ms = prefill[0]
            + prefill[1] * f64::from(reservation.uncached_tokens)
            + prefill[2] * reservation.prefill_pairs() as f64;
        let tokens = f64::from(reservation.uncached_tokens);
        let steps = steps_in(slot, columns, tokens);
        self.add_prefill(at, slot, own_ms, steps);
    }

    /// Learns from an output, by what it was like to decode it.
    pub fn output(&mut self, slot: Slot, window: &DecodeWindow) {
        if !self.knows(slot) || window.steps < LEAST_STEPS || window.duration_ms >= DAY_MS {
            return;
        }
        let prefill = self.best(slot, Part::Prefill).coefficients();
        let others_ms = prefill[1] * window.prefill_tokens + prefill[2] * window.prefill_pairs;
        let decode_ms = (window.duration_ms - others_ms).max(window.duration_ms * LEAST_OWN_SHARE);
        let features = [1.0, window.mean_batch_requests, window.mean_context_tokens];
        let tpot_ms = decode_ms / f64::from(window.steps);
        self.learn(slot, Part::Decode, features, tpot_ms);
    }

    /// Learns how long answers are.
    pub fn answered(&mut self, output_tokens: u32) {
        let tokens = f64::from(output_tokens).min(MOST_OUTPUT_TOKENS);
        self.mean_output_tokens += (tokens - self.mean_output_tokens) / MEMORY_ANSWERS;
    }

    /// Tokens of an answer, on average over the recent ones.
    #[must_use]
    pub fn mean_output_tokens(&self) -> f64 {
        self.mean_output_tokens
    }

    /// The coefficients of an endpoint's two models where both may speak.
    #[must_use]
    pub fn rates(&self, slot: Slot) -> Option<Rates> {
        let row = slot.index();
        let known = row < self.occupied.len();
        let rates = known.then(|| Rates {
            prefill: self.in_force.prefill.each_ref().map(|column| column[row]),
            decode: self.in_force.decode(row),
        })?;
        // An unknown prefill is NaN, an unknown decode takes no time.
        (!rates.prefill[0].is_nan() && rates.decode[0] > 0.0).then_some(rates)
    }

    /// The coefficients by which an endpoint is predicted; `None` for an empty slot. Whether they
    /// speak is another question.
    #[must_use]
    pub fn timing(&self, slot: Slot) -> Option<Timing> {
        let own = self.knows(slot).then(|| &self.models[slot.index()])?;
        let prefill = self.best(slot, Part::Prefill).coefficients();
        let decode = self.best(slot, Part::Decode).coefficients();
        let error = |fit: &Fit| self.is_mature(fit).then(|| fit.spread());
        Some(Timing {
            prefill_base_ms: prefill[0],
            prefill_ms_per_token: prefill[1],
            prefill_ms_per_pair: prefill[2],
            decode_base_ms: decode[0],
            decode_ms_per_request: decode[1],
            decode_ms_per_context_token: decode[2],
            prefills_observed: own.part(Part::Prefill).observations(),
            decodes_observed: own.part(Part::Decode).observations(),
            prefill_error: error(own.part(Part::Prefill)),
            decode_error: error(own.part(Part::Decode)),
        })
    }

    fn knows(&self, slot: Slot) -> bool {
        self.occupied.get(slot.index()).copied().unwrap_or_default()
    }

    fn is_mature(&self, fit: &Fit) -> bool {
        fit.observations() >= self.config.min_observations
    }

    /// The best model of an endpoint: its own, else its pool's, else its prior.
    fn best(&self, slot: Slot, part: Part) -> &Fit {
        let own = self.models[slot.index()].part(part);
        let pooled = self.pools[self.pool[slot.index()] as usize].models.part(part);
        if !self.is_mature(own) && self.is_mature(pooled) { pooled } else { own }
    }

    /// The best model of an endpoint, if it may speak.
    fn speaking(&self, slot: Slot, part: Part) -> Option<&Fit> {
        if !self.knows(slot) {
            return None;
        }
        let best = self.best(slot, part);
        (self.is_mature(best) || self.models[slot.index()].prior_speaks).then_some(best)
    }

    fn learn(&mut self, slot: Slot, part: Part, features: [f64; 3], measured_ms: f64) {
        let memory = f64::from(self.config.memory_observations);
        let row = slot.index();
        let pool = &mut self.pools[self.pool[row] as usize];
        let pooled = &mut pool.models.fits[part as usize];
        let own = &mut self.models[row].fits[part as usize];
        if own.observations() == 0 && pooled.observations() >= self.config.min_observations {
            *own = pooled.fresh_copy();
        }
        own.observe(features, measured_ms, memory);
        pooled.observe(features, measured_ms, memory);
        if own.observations() >= self.config.min_observations {
            pool.borrowers[part as usize].retain(|&other| other != row as u32);
        }
        self.put_in_force(row, part);
        self.lend(row, part);
    }

    /// What an endpoint's best model says now.
    fn put_in_force(&mut self, row: usize, part: Part) {
        let fit = self.speaking(Slot(row as u32), part);
        let coefficients = fit.map(Fit::coefficients);
        match part {
            Part::Prefill => {
                let own = self.models[row].part(part);
                let error = if self.is_mature(own) { own.spread() } else { 0.0 };
                self.in_force.set_prefill(row, coefficients, error);
            }
            Part::Decode => self.in_force.set_decode(row, coefficients),
        }
    }

    /// What the pool of an endpoint has learned goes to all who borrow from it.
    fn lend(&mut self, row: usize, part: Part) {
        let pool = &self.pools[self.pool[row] as usize];
        let pooled = pool.models.part(part);
        if !self.is_mature(pooled) {
            return;
        }
        let coefficients = Some(pooled.coefficients());
        for &borrower in &pool.borrowers[part as usize] {
            match part {
                Part::Prefill => self.in_force.set_prefill(borrower as usize, coefficients, 0.0),
                Part::Decode => self.in_force.set_decode(borrower as usize, coefficients),
            }
        }
    }

    /// The decodes that a prefill found when it was sent.
    fn decodes_beside(&self, slot: Slot, ahead: &Ahead) -> DecodesBeside {
        DecodesBeside {
            coefficients: self.in_force.decode(slot.index()),
            requests: ahead.load.decoding_requests.into(),
            context_tokens: ahead.load.active_decode_tokens as f64,
            behind_prefill: ahead.head.is_some(),
        }
    }

    fn add_prefill(&mut self, at: Time, slot: Slot, work_ms: f64, steps: f64) {
        let span_ms = self.config.prefill_window_ms as f64;
        let recent = &mut self.recent[slot.index()];
        let at = at.max(recent.at);
        let fade = recent.fade(at, span_ms);
        recent.work_ms = fade * recent.work_ms + work_ms;
        recent.steps = fade * recent.steps + steps;
        recent.at = at;
    }
}

/// What a prefill takes, in the units of the coefficients: once the base, every token of the queue
/// and its own, and every pair.
fn prefill_features(ahead: &Ahead, uncached_tokens: u32, cached_tokens: u32) -> [f64; 3] {
    let tokens = ahead.load.pending_prefill_tokens as f64 + f64::from(uncached_tokens);
    let pairs = ahead.load.pending_prefill_pairs as f64
        + crate::fleet::prefill_pairs(uncached_tokens, cached_tokens) as f64;
    [1.0, tokens, pairs]
}
