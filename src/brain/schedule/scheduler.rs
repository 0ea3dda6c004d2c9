//! One decision: eligible endpoints, filters, scorers, picker.

use super::compiled::{Profile, is_weight};
use super::config::{ProfileChoice, ScheduleConfig};
use super::context::{Context, Placed};
use super::decision::Explanation;
use super::features::Features;
use super::filter::{Eligible, Gate};
use super::profile::{builtin_profile, builtin_profiles};
use super::reasons::{Reasons, add_weighted};
use super::rows::Rows;
use super::scorer::{Degraded, NEUTRAL, foreign_column};
use super::{Ask, ForeignScore, NoCandidate, Request, ScheduleError};
use crate::fleet::Fleet;
use crate::fleet::Predicted;
use crate::index::{MatchSource, Matches};
use crate::lanes::vectorised;
use crate::predict::{Predictor, Prefill};
use crate::rng::Rng;
use crate::{EndpointId, Slot, Time};
use std::sync::Arc;

/// Where a request should go, before anything is booked.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Who gets it.
    pub endpoint: EndpointId,
    /// Prompt tokens that the endpoint is believed to hold.
    pub matched_tokens: u32,
    /// Prompt tokens that it has to compute, at least 1: what is to be booked.
    pub uncached_tokens: u32,
    /// Milliseconds that computing them takes, by the endpoint's model; 0 without one.
    pub prefill_ms: f64,
    /// What that belief rests on.
    pub match_source: MatchSource,
    /// What the latency model expects.
    pub predicted: Predicted,
    /// How it was chosen.
    pub reasons: Reasons,
}

impl Choice {
    /// How it was chosen, to be read.
    #[must_use]
    pub fn explanation(&self) -> Explanation {
        self.reasons.explanation()
    }
}

/// What went wrong without stopping any decision, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScheduleCounters {
    /// Choices made.
    pub choices: u64,
    /// Filters that would have removed everybody.
    pub filters_skipped: u64,
    /// Scores that were not a number and counted as 0.
    pub nan_scores: u64,
    /// Columns that were neutral because their scorer had no opinion, foreign ones above all.
    pub degraded_scorers: u64,
}

/// The profile that a configuration names, checked with all others that it has.
fn compiled(config: &ScheduleConfig) -> Result<Profile, ScheduleError> {
    for (name, profile) in &config.profiles {
        Profile::compile(name, profile)?;
    }
    match &config.profile {
        ProfileChoice::Inline(profile) => Profile::compile("inline", profile),
        ProfileChoice::Named(name) => {
            let written = config.profiles.get(name).cloned();
            let Some(profile) = written.or_else(|| builtin_profile(name)) else {
                let written = config.profiles.keys().cloned();
                let known = written.chain(builtin_profiles().map(str::to_owned)).collect();
                return Err(ScheduleError::UnknownProfile { name: name.clone(), known });
            };
            Profile::compile(name, &profile)
        }
    }
}

/// A compiled profile, its generator, and what its plugins remember.
pub struct Scheduler {
    profile: Profile,
    rng: Rng,
    counters: ScheduleCounters,
    gate: Gate,
    /// Slots that the plugins' memories have room for.
    slots: usize,
    scratch: Scratch,
}

/// Buffers that are kept between requests.
#[derive(Default)]
struct Scratch {
    rows: Rows,
    keep: Vec<bool>,
    totals: Vec<f64>,
}

impl Scheduler {
    /// Compiles the profile in use; the others in `config` are checked too, so that a mistake shows
    /// at the start and not when it is switched to.
    ///
    /// # Errors
    /// [`ScheduleError`] names the profile, the plugin and the parameter, and what is known there.
    pub fn new(config: &ScheduleConfig, seed: u64) -> Result<Self, ScheduleError> {
        let profile = compiled(config)?;
        Ok(Self {
            gate: Gate::new(profile.any_role),
            profile,
            rng: Rng::new(seed),
            counters: ScheduleCounters::default(),
            slots: 0,
            scratch: Scratch::default(),
        })
    }

    /// Goes on with another profile. What the plugins of the one before remember is gone; who is
    /// where, and what is known of latencies, is not theirs and stays.
    ///
    /// # Errors
    /// As [`new`](Self::new); the profile in use stays then.
    pub fn switch(&mut self, config: &ScheduleConfig) -> Result<(), ScheduleError> {
        let profile = compiled(config)?;
        self.gate = Gate::new(profile.any_role);
        self.profile = profile;
        self.slots = 0;
        Ok(())
    }

    /// The name of the profile in use; `inline` for one that was given in place.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile.names.profile
    }

    /// The names of the profile's foreign scorers, in its order.
    pub fn foreign_scorers(&self) -> impl Iterator<Item = &str> {
        self.profile.scorers.iter().filter_map(|entry| entry.scorer.foreign_name())
    }

    /// Whether the profile in use weighs what a placement evicts.
    #[must_use]
    pub fn weighs_evictions(&self) -> bool {
        self.profile.scorers.iter().any(|entry| entry.scorer.weighs_evictions())
    }

    /// What went wrong without stopping any decision.
    #[must_use]
    pub fn counters(&self) -> ScheduleCounters {
        self.counters
    }

    /// Who could take the request, in slot order, before the profile's filters: whom a foreign
    /// scorer is to score.
    ///
    /// # Errors
    /// [`NoCandidate`] where nobody could.
    pub fn candidates(
        &mut self,
        request: &Request,
        fleet: &Fleet,
    ) -> Result<Vec<EndpointId>, NoCandidate> {
        Ok(self.gate.eligible(request, fleet)?.candidates.ids.to_vec())
    }

    /// Everything known about the [`candidates`](Self::candidates), predictions included.
    ///
    /// # Errors
    /// [`NoCandidate`] where there is none.
    pub fn features(
        &mut self,
        now: Time,
        ask: Ask<'_>,
        fleet: &Fleet,
        predictor: &Predictor,
        matches: &Matches,
    ) -> Result<Features, NoCandidate> {
        self.start(ask.request, fleet, matches)?;
        let inputs = Inputs { now, ask, fleet, predictor, foreign: &[] };
        let rows = &self.scratch.rows;
        Ok(rows.features(&inputs.over(rows)))
    }

    /// Chooses. What the profile remembers does not change until the choice is
    /// [`committed`](Self::committed); only the generator advances.
    ///
    /// # Errors
    /// [`NoCandidate`] says how many endpoints each hard condition removed.
    pub fn choose(
        &mut self,
        now: Time,
        ask: Ask<'_>,
        fleet: &Fleet,
        predictor: &Predictor,
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Result<Choice, NoCandidate> {
        let request = ask.request;
        let eligible = self.start(ask.request, fleet, matches)?;
        let inputs = Inputs { now, ask, fleet, predictor, foreign };
        let mut reasons = Reasons::new(&self.profile.names);
        self.run_filters(&inputs, &eligible, &mut reasons)?;
        self.run_scorers(&inputs, &mut reasons);
        self.counters.choices += 1;

        let Scratch { rows, totals, .. } = &self.scratch;
        let cx = inputs.over(rows);
        let row = self.profile.picker.pick(&cx, totals, &mut self.rng);
        let endpoint = rows.ids()[row];
        let matched = rows.match_of(row);
        let matched_tokens = matched.map_or(0, |matched| matched.tokens as u32);
        Ok(Choice {
            endpoint,
            matched_tokens,
            uncached_tokens: request.prompt_tokens.saturating_sub(matched_tokens).max(1),
            prefill_ms: predictor.rates(endpoint.slot).map_or(0.0, |rates| {
                let own = Prefill::of(request.prompt_tokens, matched_tokens);
                rates.prefills_ms(1.0, own.uncached_tokens, own.pairs)
            }),
            match_source: matched.map_or(MatchSource::None, |matched| matched.source),
            predicted: cx.predicted(endpoint.slot, matched_tokens),
            reasons,
        })
    }

    /// What [`choose`](Self::choose) would choose, without changing anything: neither the
    /// generator, nor a counter, nor what the profile remembers.
    ///
    /// # Errors
    /// As `choose`.
    pub fn explain(
        &mut self,
        now: Time,
        ask: Ask<'_>,
        fleet: &Fleet,
        predictor: &Predictor,
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Result<Choice, NoCandidate> {
        let (rng, counters) = (self.rng.clone(), self.counters);
        let choice = self.choose(now, ask, fleet, predictor, matches, foreign);
        (self.rng, self.counters) = (rng, counters);
        choice
    }

    /// A choice is carried out: plugins that remember learn it.
    pub fn committed(&mut self, now: Time, request: &Request, choice: &Choice) {
        let placed = Placed {
            now,
            request,
            endpoint: choice.endpoint,
            matched_tokens: choice.matched_tokens,
            prefill_ms: choice.prefill_ms,
            best_matched_tokens: choice.reasons.best_matched_tokens(),
        };
        for entry in &mut self.profile.scorers {
            entry.scorer.placed(&placed);
        }
        self.profile.picker.placed(&placed);
    }

    /// Peers placed so many tokens on a slot, whose prefills take so long: plugins that remember learn it.
    pub fn placed_by_peers(
        &mut self,
        now: Time,
        slot: Slot,
        uncached_tokens: f64,
        prefill_ms: f64,
    ) {
        for entry in &mut self.profile.scorers {
            entry.scorer.placed_by_peers(now, slot, uncached_tokens, prefill_ms);
        }
    }

    /// The tenant of a slot left: what the profile remembers of it is forgotten.
    pub fn left(&mut self, slot: Slot) {
        for entry in &mut self.profile.scorers {
            entry.scorer.left(slot);
        }
    }

    /// Collects who may be scored, and what they match.
    fn start(
        &mut self,
        request: &Request,
        fleet: &Fleet,
        matches: &Matches,
    ) -> Result<Eligible, NoCandidate> {
        let slots = fleet.columns().slots();
        if self.slots != slots {
            self.slots = slots;
            for entry in &mut self.profile.scorers {
                entry.scorer.make_room(slots);
            }
        }
        let eligible = self.gate.eligible(request, fleet)?;
        self.scratch.rows.start(Arc::clone(&eligible.candidates), request, matches);
        Ok(eligible)
    }

    fn run_filters(
        &mut self,
        inputs: &Inputs<'_>,
        eligible: &Eligible,
        reasons: &mut Reasons,
    ) -> Result<(), NoCandidate> {
        let Scratch { rows, keep, .. } = &mut self.scratch;
        for (number, filter) in self.profile.filters.iter().enumerate() {
            keep.clear();
            keep.resize(rows.len(), true);
            filter.filter(&inputs.over(rows), &mut self.rng, keep);
            // Nearly always all: no count, which would go byte by byte, and no early exit.
            if keep.iter().fold(true, |all, &keep| all & keep) {
                continue;
            }
            let kept = keep.iter().filter(|&&keep| keep).count();
            if kept == 0 && filter.is_hard() {
                let mut exclusions = eligible.exclusions.as_ref().clone();
                let removed = reasons.removed().map(|(name, by)| (name.to_owned(), by as u32));
                exclusions.by_profile.extend(removed);
                let name = self.profile.names.filters[number].clone();
                exclusions.by_profile.push((name, rows.len() as u32));
                return Err(NoCandidate::Excluded(exclusions));
            }
            if kept == 0 {
                self.counters.filters_skipped += 1;
                reasons.narrowed(number, Vec::new());
                continue;
            }
            let removed = rows.ids().iter().zip(keep.iter()).filter(|(_, keep)| !**keep);
            reasons.narrowed(number, removed.map(|(id, _)| *id).collect());
            rows.retain(keep);
        }
        Ok(())
    }

    fn run_scorers(&mut self, inputs: &Inputs<'_>, reasons: &mut Reasons) {
        let Self { profile, counters, scratch, .. } = self;
        let Scratch { rows, totals, .. } = scratch;
        let cx = inputs.over(rows);
        totals.clear();
        reasons.scored(rows);
        let mut sum = Sum { totals, counters, reasons };
        for entry in &profile.scorers {
            let is_foreign = entry.scorer.foreign_name().is_some();
            sum.add(entry.weight, is_foreign, |column| entry.scorer.score(&cx, column));
        }
        for given in inputs.foreign {
            let is_listed = profile.scorers.iter().any(|entry| entry.name == given.name);
            match given.weight.filter(|_| !is_listed) {
                Some(weight) if is_weight(weight) => {
                    sum.reasons.unlisted(&given.name, weight);
                    sum.add(weight, true, |column| foreign_column(given, &cx, column));
                }
                Some(weight) => {
                    sum.reasons.unlisted(&given.name, 0.0);
                    sum.add(0.0, true, |_| {
                        let name = &given.name;
                        Err(format!("foreign scorer {name:?} has weight {weight}: use 0 or more"))
                    });
                }
                None => {}
            }
        }
        // Nobody scored.
        totals.resize(rows.len(), 0.0);
    }
}

/// The weighted sum of columns, as it grows; empty before the first.
struct Sum<'a> {
    totals: &'a mut Vec<f64>,
    counters: &'a mut ScheduleCounters,
    reasons: &'a mut Reasons,
}

impl Sum<'_> {
    /// Adds a column. Those of our own scorers are in range; what is foreign is brought there.
    fn add(
        &mut self,
        weight: f64,
        is_foreign: bool,
        score: impl FnOnce(&mut [f64]) -> Result<(), Degraded>,
    ) {
        let column = self.reasons.next_column();
        let degraded = score(column).err();
        if degraded.is_some() {
            column.fill(NEUTRAL);
        }
        if is_foreign {
            for score in column.iter_mut() {
                self.counters.nan_scores += u64::from(score.is_nan());
                *score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
            }
        }
        vectorised(
            #[inline(always)]
            || add_weighted(weight, column, self.totals),
        );
        if let Some(reason) = degraded {
            self.counters.degraded_scorers += 1;
            self.reasons.fell_back(&reason);
        }
    }
}

/// The arguments of a decision that its steps share.
struct Inputs<'a> {
    now: Time,
    ask: Ask<'a>,
    fleet: &'a Fleet,
    predictor: &'a Predictor,
    foreign: &'a [ForeignScore],
}

impl<'a> Inputs<'a> {
    fn over(&self, features: &'a Rows) -> Context<'a> {
        let Self { now, ask: Ask { request, keys }, fleet, predictor, foreign } = *self;
        Context { now, request, keys, fleet, predictor, features, foreign }
    }
}
