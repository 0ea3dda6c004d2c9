//! Latency of every endpoint, predicted and learned.

use super::coefficients::Coefficients;
use super::drift::Drift;
use super::fit::{Fit, dot};
use super::interference::{Interference, PrefillDone, RecentPrefills};
use super::margin::Margin;
use super::models::{Models, Part, Pool};
use super::prefill::{DecodesBeside, Prefill, PrefillRows, steps_in};
use super::{EngineProfile, PredictConfig, PredictError, Rates, SavedModels, Timing};
use crate::fleet::{Ahead, Columns, DecodeWindow, Predicted, Reservation};
use crate::{Slot, Time};
use std::ops::Range;

/// Decodes of fewer tokens are dominated by how tokens were bunched on the wire.
const LEAST_STEPS: u32 = 8;
/// What is subtracted from a measurement as others' work leaves at least this share of it.
const LEAST_OWN_SHARE: f64 = 0.25;
/// No engine steps faster, whatever has been learned.
const LEAST_STEP_MS: f64 = 1e-3;
/// Length of an answer before any was seen.
const FIRST_OUTPUT_TOKENS: f64 = 300.0;
/// Answers over which the mean length is taken, and the longest that one counts.
const MEMORY_ANSWERS: f64 = 50.0;
const MOST_OUTPUT_TOKENS: f64 = 4_000.0;
/// Observations after which a model is one to hold later ones against.
const SETTLED_OBSERVATIONS: u32 = 64;
/// What is taken for the 90th percentile of the time to first token over its mean, before any came.
const FIRST_TTFT_MARGIN: f64 = 1.2;
/// Longer latencies are broken clocks.
const DAY_MS: f64 = 86_400_000.0;

/// What is learned of one endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tenant {
    pub(super) pool: u32,
    pub(super) models: Models,
    recent: RecentPrefills,
    pub(super) ttft_margin: Margin,
    pub(super) tpot_margin: Margin,
    /// By [`Part`].
    pub(super) drift: [Drift; Part::COUNT],
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
    pub(super) occupied: Vec<bool>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) pools: Vec<Pool>,
    pub(super) mean_output_tokens: f64,
    /// What was restored of endpoints that have not joined.
    pub(super) absent: Option<SavedModels>,
    drift_alarms: u64,
    /// What the models come to, kept up as they learn: a prediction for a whole fleet reads this
    /// and no model.
    in_force: Coefficients,
}

/// Profile that unknown engines are measured against; it speaks only where it is configured to.
const GENERIC_PROFILE: usize = 1;

impl Tenant {
    fn of(pool: u32, models: Models) -> Self {
        Self {
            pool,
            models,
            recent: RecentPrefills::default(),
            ttft_margin: Margin::starting(FIRST_TTFT_MARGIN),
            tpot_margin: Margin::starting(1.0),
            drift: Default::default(),
        }
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
            tenants: Vec::new(),
            pools: Vec::new(),
            mean_output_tokens: FIRST_OUTPUT_TOKENS,
            absent: None,
            drift_alarms: 0,
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
            self.tenants.push(Tenant::of(0, self.generic));
            self.in_force.push_empty();
        }
        while self.pools.len() <= model as usize {
            self.pools.push(Pool {
                members: 0,
                models: self.generic,
                interference: Interference::default(),
                borrowers: Default::default(),
            });
        }
        let own = profile.map(|profile| Models::from_profile(profile, true));
        let pool = &mut self.pools[model as usize];
        if pool.members == 0 {
            pool.models = own.unwrap_or(self.generic);
            pool.interference = Interference::default();
        }
        pool.members += 1;
        pool.borrowers.iter_mut().for_each(|rows| rows.push(row as u32));
        self.occupied[row] = true;
        self.tenants[row] = Tenant::of(model, own.unwrap_or(self.generic));
        Part::ALL.into_iter().for_each(|part| self.put_in_force(row, part));
    }

    /// An endpoint leaves. The last of its model takes the pooled observations with it.
    pub fn reset(&mut self, slot: Slot) {
        let row = slot.index();
        if self.occupied.get(row).copied().unwrap_or_default() {
            self.occupied[row] = false;
            let pool = &mut self.pools[self.tenants[row].pool as usize];
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

    /// Time per output token, milliseconds, of a request of `prompt_tokens`, on average, if it is
    /// sent to the endpoint now and everything in flight there decodes beside it. `None` until there
    /// is a model of the endpoint.
    #[must_use]
    pub fn tpot_ms(
        &self,
        now: Time,
        slot: Slot,
        columns: &Columns,
        prompt_tokens: u32,
    ) -> Option<f64> {
        let (alone_ms, interference_ms) = self.tpot_parts(now, slot, columns, prompt_tokens)?;
        Some(alone_ms + interference_ms)
    }

    /// Everything that is predicted of a request of `prompt_tokens`, if it is sent to the endpoint
    /// now, where `ttft_ms` is to be its time to first token.
    #[must_use]
    pub fn predicted(
        &self,
        now: Time,
        slot: Slot,
        columns: &Columns,
        prompt_tokens: u32,
        ttft_ms: Option<f64>,
    ) -> Predicted {
        let Some(tenant) = self.tenant(slot) else { return Predicted::default() };
        let ttft_p90_ms = ttft_ms.map(|ms| ms * tenant.ttft_margin.factor());
        let ttft = Predicted { ttft_ms, ttft_p90_ms, ..Predicted::default() };
        let parts = self.tpot_parts(now, slot, columns, prompt_tokens);
        let Some((alone, interference)) = parts else { return ttft };
        let [p50, p90] = self.pools[tenant.pool as usize].interference.quantiles();
        Predicted {
            tpot_ms: Some(alone + interference),
            tpot_p50_ms: Some(alone + interference * p50),
            tpot_p90_ms: Some((alone + interference * p90) * tenant.tpot_margin.factor()),
            tpot_alone_ms: Some(alone),
            ..ttft
        }
    }

    /// Time per output token were no prefill to interrupt it, and what prefills add to it.
    fn tpot_parts(
        &self,
        now: Time,
        slot: Slot,
        columns: &Columns,
        prompt_tokens: u32,
    ) -> Option<(f64, f64)> {
        let decode = self.speaking(slot, Part::Decode)?.coefficients();
        let load = columns.load(slot);
        let most = columns.max_running_requests.get(slot.index()).copied().unwrap_or_default();
        let batch = load.inflight_requests.saturating_add(1);
        let batch = if most == 0 { batch } else { batch.min(most) };
        let context = load.inflight_context_tokens as f64 + f64::from(prompt_tokens);
        let step_ms = dot(&decode, &[1.0, f64::from(batch), context]).max(LEAST_STEP_MS);
        let span_ms = self.config.prefill_window_ms as f64;
        let share = self.tenants[slot.index()].recent.share(now, span_ms);
        Some((step_ms, step_ms * share / (1.0 - share)))
    }

    /// Milliseconds from the booking of a request to its first token, by what was before it then and
    /// the best model that there is of its endpoint, whether or not that is good enough to decide by.
    #[must_use]
    pub fn prefill_ms(&self, reservation: &Reservation) -> f64 {
        let (slot, ahead) = (reservation.endpoint.slot, &reservation.ahead);
        if !self.knows(slot) {
            return 0.0;
        }
        let cached = reservation.prompt_tokens - reservation.uncached_tokens;
        let features = prefill_features(ahead, reservation.uncached_tokens, cached);
        let progress =
            ahead.head.map_or(0.0, |head| reservation.booked_at.millis_since(head.since));
        let work_ms = dot(&self.best(slot, Part::Prefill).coefficients(), &features);
        (work_ms - progress).max(work_ms * LEAST_OWN_SHARE)
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
        let drag = self.decodes_beside(slot, reservation.booked_at, ahead).drag_ms(steps_in(
            slot,
            columns,
            features[1],
        ));
        let work_ms = (ttft_ms + progress - drag).max(ttft_ms * LEAST_OWN_SHARE);
        if ttft_ms > 0.0 && work_ms < DAY_MS {
            self.learn(slot, Part::Prefill, features, work_ms);
            if let Some(p90_ms) = reservation.predicted.ttft_p90_ms {
                self.tenants[slot.index()].ttft_margin.observe(ttft_ms, p90_ms);
            }
        }
        self.prefilled(columns, reservation, at);
    }

    /// A prefill is done, or taken to be: what it took of the endpoint's time counts for what
    /// prefills add to a token.
    pub fn prefilled(&mut self, columns: &Columns, reservation: &Reservation, at: Time) {
        let slot = reservation.endpoint.slot;
        if !self.knows(slot) {
            return;
        }
        let [base, per_token, per_pair] = self.best(slot, Part::Prefill).coefficients();
        let [decode_base, ..] = self.in_force.decode(slot.index());
        let tokens = f64::from(reservation.uncached_tokens);
        let batch = f64::from(columns.load(slot).decoding_requests);
        let done = PrefillDone {
            tokens_ms: per_token * tokens,
            pairs_ms: per_pair * reservation.prefill_pairs() as f64,
            steps: steps_in(slot, columns, tokens),
            step_ms: base + per_token * batch - decode_base,
        };
        let span_ms = self.config.prefill_window_ms as f64;
        self.tenants[slot.index()].recent.add(at, span_ms, done);
    }

    /// Learns from an output, by what it was like to decode it and by what was predicted of it.
    pub fn output(&mut self, slot: Slot, window: &DecodeWindow, predicted: &Predicted) {
        if !self.knows(slot) || window.duration_ms >= DAY_MS {
            return;
        }
        let row = slot.index();
        let measured_ms = window.duration_ms / f64::from(window.steps);
        if let Some(p90_ms) = predicted.tpot_p90_ms {
            self.tenants[row].tpot_margin.observe(measured_ms, p90_ms);
        }
        if let (Some(alone_ms), Some(mean_ms)) = (predicted.tpot_alone_ms, predicted.tpot_ms) {
            let pool = &mut self.pools[self.tenants[row].pool as usize];
            pool.interference.observe(measured_ms, alone_ms, mean_ms);
        }
        if window.steps < LEAST_STEPS {
            return;
        }
        // Steps with a prefill in them are decode steps too: what they took beyond one is the
        // prefill's.
        let [base, per_token, per_pair] = self.best(slot, Part::Prefill).coefficients();
        let steps = window.prefill_steps.min(window.steps.into());
        let batch = window.mean_batch_requests;
        let [decode_base, ..] = self.in_force.decode(row);
        let linear_ms =
            per_token * window.prefill_tokens + steps * (base + per_token * batch - decode_base);
        let others_ms = linear_ms.max(0.0) + per_pair * window.prefill_pairs;
        let decode_ms = (window.duration_ms - others_ms).max(window.duration_ms * LEAST_OWN_SHARE);
        let features = [1.0, batch, window.mean_context_tokens];
        self.learn(slot, Part::Decode, features, decode_ms / f64::from(window.steps));
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
        // An unknown prefill is NaN, an unknown decode takes no time. Of a known one any part may be 0: an
        // engine that is never nearly empty tells little of what a step takes alone.
        let is_known = rates.decode.iter().any(|it| *it > 0.0);
        (!rates.prefill[0].is_nan() && is_known).then_some(rates)
    }

    /// The coefficients by which an endpoint is predicted; `None` for an empty slot. Whether they
    /// speak is another question.
    #[must_use]
    pub fn timing(&self, slot: Slot) -> Option<Timing> {
        let tenant = self.tenant(slot)?;
        let own = &tenant.models;
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
            prefill_drift: tenant.drift[Part::Prefill as usize].ratio(),
            decode_drift: tenant.drift[Part::Decode as usize].ratio(),
        })
    }

    /// Alarms of drift that have been raised.
    #[must_use]
    pub fn drift_alarms(&self) -> u64 {
        self.drift_alarms
    }

    pub(super) fn tenant(&self, slot: Slot) -> Option<&Tenant> {
        self.knows(slot).then(|| &self.tenants[slot.index()])
    }

    fn knows(&self, slot: Slot) -> bool {
        self.occupied.get(slot.index()).copied().unwrap_or_default()
    }

    fn is_mature(&self, fit: &Fit) -> bool {
        fit.observations() >= self.config.min_observations
    }

    /// The best model of an endpoint: its own, else its pool's, else its prior.
    fn best(&self, slot: Slot, part: Part) -> &Fit {
        let tenant = &self.tenants[slot.index()];
        let own = tenant.models.part(part);
        let pooled = self.pools[tenant.pool as usize].models.part(part);
        if !self.is_mature(own) && self.is_mature(pooled) { pooled } else { own }
    }

    /// The best model of an endpoint, if it may speak.
    fn speaking(&self, slot: Slot, part: Part) -> Option<&Fit> {
        if !self.knows(slot) {
            return None;
        }
        let best = self.best(slot, part);
        (self.is_mature(best) || self.tenants[slot.index()].models.prior_speaks).then_some(best)
    }

    fn learn(&mut self, slot: Slot, part: Part, features: [f64; 3], measured_ms: f64) {
        let memory = f64::from(self.config.memory_observations);
        let row = slot.index();
        let pool = &mut self.pools[self.tenants[row].pool as usize];
        let pooled = &mut pool.models.fits[part as usize];
        let tenant = &mut self.tenants[row];
        let own = &mut tenant.models.fits[part as usize];
        if own.observations() == 0 && pooled.observations() >= self.config.min_observations {
            *own = pooled.fresh_copy();
        }
        let drift = &mut tenant.drift[part as usize];
        if let Some(reference) = drift.reference() {
            let current = own.coefficients();
            let log_of = |of: &[f64; 3]| libm::log(measured_ms / dot(of, &features));
            let (log, log_current) = (log_of(reference), log_of(&current));
            self.drift_alarms += u64::from(drift.observe(log, log_current, current));
        } else if own.observations() >= SETTLED_OBSERVATIONS.max(self.config.min_observations) {
            drift.refer_to(own.coefficients());
        }
        own.observe(features, measured_ms, memory);
        pooled.observe(features, measured_ms, memory);
        self.settle(slot, part);
        self.lend(row, part);
    }

    /// Puts an endpoint's best model in force; who has one of its own borrows no longer.
    pub(super) fn settle(&mut self, slot: Slot, part: Part) {
        let row = slot.index();
        if self.is_mature(self.tenants[row].models.part(part)) {
            let pool = &mut self.pools[self.tenants[row].pool as usize];
            pool.borrowers[part as usize].retain(|&other| other != row as u32);
        }
        self.put_in_force(row, part);
    }

    /// What an endpoint's best model says now.
    fn put_in_force(&mut self, row: usize, part: Part) {
        let fit = self.speaking(Slot(row as u32), part);
        let coefficients = fit.map(Fit::coefficients);
        match part {
            Part::Prefill => {
                let own = self.tenants[row].models.part(part);
                let error = if self.is_mature(own) { own.spread() } else { 0.0 };
                self.in_force.set_prefill(row, coefficients, error);
            }
            Part::Decode => self.in_force.set_decode(row, coefficients),
        }
    }

    /// What the pool of an endpoint has learned goes to all who borrow from it.
    pub(super) fn lend(&mut self, row: usize, part: Part) {
        let pool = &self.pools[self.tenants[row].pool as usize];
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
    fn decodes_beside(&self, slot: Slot, booked_at: Time, ahead: &Ahead) -> DecodesBeside {
        let step_ended_ms = ahead.step_ended_ms.unwrap_or(f64::NEG_INFINITY);
        DecodesBeside {
            coefficients: self.in_force.decode(slot.index()),
            requests: ahead.load.decoding_requests.into(),
            context_tokens: ahead.load.active_decode_tokens as f64,
            behind_prefill: ahead.head.is_some(),
            since_step_ms: booked_at.as_millis_f64() - step_ended_ms,
        }
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
