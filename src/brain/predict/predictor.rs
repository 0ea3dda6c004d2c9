//! Latency of every endpoint, predicted and learned.

use super::fit::{Fit, dot};
use super::{EngineProfile, PredictConfig, PredictError};
use crate::fleet::{Ahead, Columns, DecodeWindow, Reservation, prefill_pairs};
use crate::{Slot, Time};
use serde::{Deserialize, Serialize};

/// Tokens of one engine step where the endpoint's are unknown (vLLM's default on large GPUs).
const DEFAULT_BATCH_TOKENS: u32 = 8_192;
/// Decodes of fewer tokens are dominated by how tokens were bunched on the wire.
const LEAST_STEPS: u32 = 8;
/// What is subtracted from a measurement as others' work leaves at least this share of it.
const LEAST_OWN_SHARE: f64 = 0.25;
/// Prefills are taken to occupy at most this share of an engine's time.
const MOST_PREFILL_SHARE: f64 = 0.75;
/// No engine steps faster, whatever has been learned.
const LEAST_STEP_MS: f64 = 1e-3;
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

/// A pair of models, and whether the prior that they started from may speak.
#[derive(Debug, Clone, Copy)]
struct Models {
    prefill: Fit,
    decode: Fit,
    prior_speaks: bool,
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
        let (prefill, decode) = (Fit::from_prior(prefill), Fit::from_prior(decode));
        Self { prefill, decode, prior_speaks }
    }
}

/// What all endpoints that serve one model have shown together.
#[derive(Debug, Clone)]
struct Pool {
    members: u32,
    models: Models,
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
}

/// Profile that unknown engines are measured against; it speaks only where it is configured to.
const GENERIC_PROFILE: usize = 1;

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
        }
        while self.pools.len() <= model as usize {
            self.pools.push(Pool { members: 0, models: self.generic });
        }
        let own = profile.map(|profile| Models::from_profile(profile, true));
        let pool = &mut self.pools[model as usize];
        if pool.members == 0 {
            pool.models = own.unwrap_or(self.generic);
        }
        pool.members += 1;
        self.occupied[row] = true;
        self.pool[row] = model;
        self.models[row] = own.unwrap_or(self.generic);
        self.recent[row] = RecentPrefills::default();
    }

    /// An endpoint leaves. The last of its model takes the pooled observations with it.
    pub fn reset(&mut self, slot: Slot) {
        let row = slot.index();
        if self.occupied.get(row).copied().unwrap_or_default() {
            self.occupied[row] = false;
            self.pools[self.pool[row] as usize].members -= 1;
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
        let prefill = self.speaking(slot, |models| &models.prefill)?.coefficients();
        let cached = matched_tokens.min(prompt_tokens);
        let ahead = columns.ahead(slot);
        let features = prefill_features(&ahead, prompt_tokens - cached, cached);
        let in_hand = step_in_hand_ms(slot, columns, &ahead, &prefill);
        let progress = ahead.head.map_or(0.0, |head| now.millis_since(head.since).min(in_hand));
        let work = (dot(&prefill, &features) - progress).max(0.0);
        Some(work + self.decode_drag_ms(slot, columns, &ahead, features[1]))
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
        let decode = self.speaking(slot, |models| &models.decode)?.coefficients();
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
        let drag = self.decode_drag_ms(slot, columns, ahead, features[1]);
        let work_ms = (ttft_ms + progress - drag).max(ttft_ms * LEAST_OWN_SHARE);
        if ttft_ms > 0.0 && work_ms < DAY_MS {
            self.learn(slot, |models| &mut models.prefill, features, work_ms);
        }
        let prefill = self.best(slot, |models| &models.prefill).coefficients();
        let own_ms = prefill[0]
            + prefill[1] * f64::from(reservation.uncached_tokens)
            + prefill[2] * reservation.prefill_pairs() as f64;
        let tokens = f64::from(reservation.uncached_tokens);
        let steps = libm::ceil(tokens / batch_tokens(slot, columns)).max(1.0);
        self.add_prefill(at, slot, own_ms, steps);
    }

    /// Learns from an output, by what it was like to decode it.
    pub fn output(&mut self, slot: Slot, window: &DecodeWindow) {
        if !self.knows(slot) || window.steps < LEAST_STEPS || window.duration_ms >= DAY_MS {
            return;
        }
        let prefill = self.best(slot, |models| &models.prefill).coefficients();
        let others_ms = prefill[1] * window.prefill_tokens + prefill[2] * window.prefill_pairs;
        let decode_ms = (window.duration_ms - others_ms).max(window.duration_ms * LEAST_OWN_SHARE);
        let features = [1.0, window.mean_batch_requests, window.mean_context_tokens];
        let tpot_ms = decode_ms / f64::from(window.steps);
        self.learn(slot, |models| &mut models.decode, features, tpot_ms);
    }

    /// The coefficients by which an endpoint is predicted; `None` for an empty slot. Whether they
    /// speak is another question.
    #[must_use]
    pub fn timing(&self, slot: Slot) -> Option<Timing> {
        let own = self.knows(slot).then(|| &self.models[slot.index()])?;
        let prefill = self.best(slot, |models| &models.prefill).coefficients();
        let decode = self.best(slot, |models| &models.decode).coefficients();
        let error = |fit: &Fit| self.is_mature(fit).then(|| fit.spread());
        Some(Timing {
            prefill_base_ms: prefill[0],
            prefill_ms_per_token: prefill[1],
            prefill_ms_per_pair: prefill[2],
            decode_base_ms: decode[0],
            decode_ms_per_request: decode[1],
            decode_ms_per_context_token: decode[2],
            prefills_observed: own.prefill.observations(),
            decodes_observed: own.decode.observations(),
            prefill_error: error(&own.prefill),
            decode_error: error(&own.decode),
        })
    }

    fn knows(&self, slot: Slot) -> bool {
        self.occupied.get(slot.index()).copied().unwrap_or_default()
    }

    fn is_mature(&self, fit: &Fit) -> bool {
        fit.observations() >= self.config.min_observations
    }

    /// The best model of an endpoint: its own, else its pool's, else its prior.
    fn best(&self, slot: Slot, which: impl Fn(&Models) -> &Fit) -> &Fit {
        let own = which(&self.models[slot.index()]);
        let pooled = which(&self.pools[self.pool[slot.index()] as usize].models);
        if !self.is_mature(own) && self.is_mature(pooled) { pooled } else { own }
    }

    /// The best model of an endpoint, if it may speak.
    fn speaking(&self, slot: Slot, which: impl Fn(&Models) -> &Fit) -> Option<&Fit> {
        if !self.knows(slot) {
            return None;
        }
        let best = self.best(slot, which);
        (self.is_mature(best) || self.models[slot.index()].prior_speaks).then_some(best)
    }

    fn learn(
        &mut self,
        slot: Slot,
        which: impl Fn(&mut Models) -> &mut Fit,
        features: [f64; 3],
        measured_ms: f64,
    ) {
        let memory = f64::from(self.config.memory_observations);
        let pooled = which(&mut self.pools[self.pool[slot.index()] as usize].models);
        let own = which(&mut self.models[slot.index()]);
        if own.observations() == 0 && pooled.observations() >= self.config.min_observations {
            *own = pooled.fresh_copy();
        }
        own.observe(features, measured_ms, memory);
        pooled.observe(features, measured_ms, memory);
    }

    /// How much those who decode slow a prefill of `work_tokens`: half a step until the one that
    /// runs ends, and their part of each step that the prefill takes.
    fn decode_drag_ms(
        &self,
        slot: Slot,
        columns: &Columns,
        ahead: &Ahead,
        work_tokens: f64,
    ) -> f64 {
        let load = &ahead.load;
        if load.decoding_requests == 0 {
            return 0.0;
        }
        let Some(fit) = self.speaking(slot, |models| &models.decode) else { return 0.0 };
        let decode = fit.coefficients();
        let batch = f64::from(load.decoding_requests);
        let beside = decode[1] * batch + decode[2] * load.active_decode_tokens as f64;
        let steps = libm::ceil(work_tokens / batch_tokens(slot, columns)).max(1.0);
        let current = if ahead.head.is_none() { (decode[0] + beside) / 2.0 } else { 0.0 };
        current + steps * beside
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

/// What the engine works on now takes this long: the first prefill of the queue, and those
/// behind it that fit into one step with it. More progress than that it cannot have made.
fn step_in_hand_ms(slot: Slot, columns: &Columns, ahead: &Ahead, prefill: &[f64; 3]) -> f64 {
    let Some(head) = ahead.head else { return 0.0 };
    let pending_tokens = ahead.load.pending_prefill_tokens as f64;
    let step_tokens = pending_tokens.min(batch_tokens(slot, columns));
    let share = if pending_tokens > 0.0 { step_tokens / pending_tokens } else { 0.0 };
    let step_pairs = share * ahead.load.pending_prefill_pairs as f64;
    let head_ms = prefill[1] * f64::from(head.uncached_tokens) + prefill[2] * head.pairs as f64;
    head_ms.max(prefill[1] * step_tokens + prefill[2] * step_pairs)
}

/// Most tokens in one step of the engine.
fn batch_tokens(slot: Slot, columns: &Columns) -> f64 {
    let most = columns.max_batch_tokens.get(slot.index()).copied().unwrap_or_default();
    f64::from(if most == 0 { DEFAULT_BATCH_TOKENS } else { most })
}

/// What a prefill takes, in the units of the coefficients: once the base, every token of the queue
/// and its own, and every pair.
fn prefill_features(ahead: &Ahead, uncached_tokens: u32, cached_tokens: u32) -> [f64; 3] {
    let tokens = ahead.load.pending_prefill_tokens as f64 + f64::from(uncached_tokens);
    let pairs = ahead.load.pending_prefill_pairs as f64
        + prefill_pairs(uncached_tokens, cached_tokens) as f64;
    [1.0, tokens, pairs]
}
