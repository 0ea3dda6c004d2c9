//! One decision: eligible endpoints, filters, scorers, picker.

use super::compiled::{Profile, is_weight};
use super::config::{ProfileChoice, ScheduleConfig};
use super::context::{Context, Placed, Predictions};
use super::decision::{Explanation, FilterStep, Predicted, ScoreColumn};
use super::features::{Feature, Features, Freshness};
use super::filter::{Eligible, eligible};
use super::profile::{builtin_profile, builtin_profiles};
use super::scorer::{Degraded, NEUTRAL, foreign_column};
use super::{ForeignScore, NoCandidate, Request, ScheduleError};
use crate::fleet::Fleet;
use crate::index::{MatchSource, Matches};
use crate::predict::Predictor;
use crate::rng::Rng;
use crate::{EndpointId, Slot, Time};

/// Where a request should go, before anything is booked.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Who gets it.
    pub endpoint: EndpointId,
    /// Prompt tokens that the endpoint is believed to hold.
    pub matched_tokens: u32,
    /// Prompt tokens that it has to compute, at least 1: what is to be booked.
    pub uncached_tokens: u32,
    /// What that belief rests on.
    pub match_source: MatchSource,
    /// What the latency model expects.
    pub predicted: Predicted,
    /// How it was chosen.
    pub explanation: Explanation,
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

/// A compiled profile, its generator, and what its plugins remember.
pub struct Scheduler {
    profile: Profile,
    rng: Rng,
    counters: ScheduleCounters,
    scratch: Scratch,
}

/// Buffers that are kept between requests.
#[derive(Default)]
struct Scratch {
    eligible: Eligible,
    features: Features,
    keep: Vec<bool>,
    column: Vec<f64>,
    totals: Vec<f64>,
}

impl Scheduler {
    /// Compiles the profile in use; the others in `config` are checked too, so that a mistake shows
    /// at the start and not when it is switched to.
    ///
    /// # Errors
    /// [`ScheduleError`] names the profile, the plugin and the parameter, and what is known there.
    pub fn new(config: &ScheduleConfig, seed: u64) -> Result<Self, ScheduleError> {
        for (name, profile) in &config.profiles {
            Profile::compile(name, profile)?;
        }
        let profile = match &config.profile {
            ProfileChoice::Inline(profile) => Profile::compile("inline", profile)?,
            ProfileChoice::Named(name) => {
                let written = config.profiles.get(name).cloned();
                let Some(profile) = written.or_else(|| builtin_profile(name)) else {
                    let written = config.profiles.keys().cloned();
                    let known = written.chain(builtin_profiles().map(str::to_owned)).collect();
                    return Err(ScheduleError::UnknownProfile { name: name.clone(), known });
                };
                Profile::compile(name, &profile)?
            }
        };
        let (counters, scratch) = (ScheduleCounters::default(), Scratch::default());
        Ok(Self { profile, rng: Rng::new(seed), counters, scratch })
    }

    /// The name of the profile in use; `inline` for one that was given in place.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile.name
    }

    /// The names of the profile's foreign scorers, in its order.
    pub fn foreign_scorers(&self) -> impl Iterator<Item = &str> {
        self.profile.scorers.iter().filter_map(|entry| entry.scorer.foreign_name())
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
    ) -> Result<&[EndpointId], NoCandidate> {
        let eligible_now = &mut self.scratch.eligible;
        eligible(request, fleet, self.profile.any_role, eligible_now)?;
        Ok(&eligible_now.ids)
    }

    /// Everything known about the [`candidates`](Self::candidates), predictions included.
    ///
    /// # Errors
    /// [`NoCandidate`] where there is none.
    pub fn features(
        &mut self,
        now: Time,
        request: &Request,
        fleet: &Fleet,
        predictor: &Predictor,
        matches: &Matches,
    ) -> Result<&Features, NoCandidate> {
        self.fill(now, request, fleet, matches)?;
        let inputs = Inputs { now, request, fleet, predictor, foreign: &[] };
        inputs.predict(&mut self.scratch.features, Predictions::Both);
        Ok(&self.scratch.features)
    }

    /// Chooses. What the profile remembers does not change until the choice is
    /// [`committed`](Self::committed); only the generator advances.
    ///
    /// # Errors
    /// [`NoCandidate`] says how many endpoints each hard condition removed.
    pub fn choose(
        &mut self,
        now: Time,
        request: &Request,
        fleet: &Fleet,
        predictor: &Predictor,
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Result<Choice, NoCandidate> {
        self.fill(now, request, fleet, matches)?;
        let inputs = Inputs { now, request, fleet, predictor, foreign };
        inputs.predict(&mut self.scratch.features, self.profile.reads);
        let mut explanation = Explanation {
            profile: self.profile.name.clone(),
            picker: self.profile.picker_name.clone(),
            ..Explanation::default()
        };
        self.run_filters(&inputs, &mut explanation)?;
        self.run_scorers(&inputs, &mut explanation);
        self.counters.choices += 1;

        let Scratch { features, totals, .. } = &self.scratch;
        let row = self.profile.picker.pick(&inputs.over(features), totals, &mut self.rng);
        let endpoint = features.ids()[row];
        let matched_tokens = features.column(Feature::MatchedTokens);
        explanation.candidates = features.ids().to_vec();
        explanation.totals.clone_from(totals);
        explanation.matched_tokens = matched_tokens.iter().map(|&tokens| tokens as u32).collect();
        let matched_tokens = explanation.matched_tokens[row];
        Ok(Choice {
            endpoint,
            matched_tokens,
            uncached_tokens: request.prompt_tokens.saturating_sub(matched_tokens).max(1),
            match_source: features.sources()[row],
            predicted: Predicted {
                ttft_ms: inputs.ttft_ms(endpoint.slot, matched_tokens),
                tpot_ms: inputs.tpot_ms(endpoint.slot),
            },
            explanation,
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
        request: &Request,
        fleet: &Fleet,
        predictor: &Predictor,
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Result<Choice, NoCandidate> {
        let (rng, counters) = (self.rng.clone(), self.counters);
        let choice = self.choose(now, request, fleet, predictor, matches, foreign);
        (self.rng, self.counters) = (rng, counters);
        choice
    }

    /// A choice is carried out: plugins that remember learn it.
    pub fn committed(&mut self, now: Time, request: &Request, choice: &Choice) {
        let best = choice.explanation.matched_tokens.iter().copied().max();
        let placed = Placed {
            now,
            request,
            endpoint: choice.endpoint,
            matched_tokens: choice.matched_tokens,
            best_matched_tokens: best.unwrap_or_default(),
        };
        for entry in &mut self.profile.scorers {
            entry.scorer.placed(&placed);
        }
        self.profile.picker.placed(&placed);
    }

    /// The tenant of a slot left: what the profile remembers of it is forgotten.
    pub fn left(&mut self, slot: Slot) {
        for entry in &mut self.profile.scorers {
            entry.scorer.left(slot);
        }
    }

    fn fill(
        &mut self,
        now: Time,
        request: &Request,
        fleet: &Fleet,
        matches: &Matches,
    ) -> Result<(), NoCandidate> {
        let Scratch { eligible: eligible_now, features, .. } = &mut self.scratch;
        eligible(request, fleet, self.profile.any_role, eligible_now)?;
        let view = Freshness { now, max_age: fleet.metrics_max_age() };
        features.fill(&eligible_now.ids, request, fleet.columns(), matches, view);
        Ok(())
    }

    fn run_filters(
        &mut self,
        inputs: &Inputs<'_>,
        explanation: &mut Explanation,
    ) -> Result<(), NoCandidate> {
        let Scratch { eligible: eligible_now, features, keep, .. } = &mut self.scratch;
        for entry in &self.profile.filters {
            keep.clear();
            keep.resize(features.len(), true);
            entry.filter.filter(&inputs.over(features), &mut self.rng, keep);
            let kept = keep.iter().filter(|&&keep| keep).count();
            let removes_all = kept == 0;
            if removes_all && entry.filter.is_hard() {
                let mut exclusions = eligible_now.exclusions.clone();
                for step in &explanation.filters {
                    let removed = step.removed.len() as u32;
                    if removed > 0 {
                        exclusions.by_profile.push((step.name.clone(), removed));
                    }
                }
                exclusions.by_profile.push((entry.name.clone(), features.len() as u32));
                return Err(NoCandidate::Excluded(exclusions));
            }
            let mut step =
                FilterStep { name: entry.name.clone(), removed: Vec::new(), skipped: removes_all };
            if removes_all {
                self.counters.filters_skipped += 1;
            } else if kept < features.len() {
                let rows = features.ids().iter().zip(keep.iter());
                step.removed = rows.filter(|(_, keep)| !**keep).map(|(id, _)| *id).collect();
                features.retain(keep);
            }
            explanation.filters.push(step);
        }
        Ok(())
    }

    fn run_scorers(&mut self, inputs: &Inputs<'_>, explanation: &mut Explanation) {
        let Self { profile, counters, scratch, .. } = self;
        let Scratch { features, column, totals, .. } = scratch;
        let cx = inputs.over(features);
        totals.clear();
        totals.resize(features.len(), 0.0);
        let mut sum = Sum { column, totals, counters, explanation };
        for entry in &profile.scorers {
            sum.add(&entry.name, entry.weight, |column| entry.scorer.score(&cx, column));
        }
        for given in inputs.foreign {
            let is_listed = profile.scorers.iter().any(|entry| entry.name == given.name);
            match given.weight.filter(|_| !is_listed) {
                Some(weight) if is_weight(weight) => {
                    sum.add(&given.name, weight, |column| foreign_column(given, &cx, column));
                }
                Some(weight) => sum.add(&given.name, 0.0, |_| {
                    let name = &given.name;
                    Err(format!("foreign scorer {name:?} has weight {weight}: use 0 or more"))
                }),
                None => {}
            }
        }
    }
}

/// The weighted sum of columns, as it grows.
struct Sum<'a> {
    column: &'a mut Vec<f64>,
    totals: &'a mut [f64],
    counters: &'a mut ScheduleCounters,
    explanation: &'a mut Explanation,
}

impl Sum<'_> {
    fn add(
        &mut self,
        name: &str,
        weight: f64,
        score: impl FnOnce(&mut [f64]) -> Result<(), Degraded>,
    ) {
        self.column.clear();
        self.column.resize(self.totals.len(), 0.0);
        if let Err(reason) = score(self.column) {
            self.column.fill(NEUTRAL);
            self.counters.degraded_scorers += 1;
            match &mut self.explanation.fallback {
                Some(reasons) => {
                    reasons.push_str("; ");
                    reasons.push_str(&reason);
                }
                none => *none = Some(reason),
            }
        }
        for (score, total) in self.column.iter_mut().zip(self.totals.iter_mut()) {
            if score.is_nan() {
                self.counters.nan_scores += 1;
                *score = 0.0;
            }
            *score = score.clamp(0.0, 1.0);
            *total += weight * *score;
        }
        let values = self.column.clone();
        self.explanation.scores.push(ScoreColumn { name: name.to_owned(), weight, values });
    }
}

/// The arguments of a decision that its steps share.
struct Inputs<'a> {
    now: Time,
    request: &'a Request,
    fleet: &'a Fleet,
    predictor: &'a Predictor,
    foreign: &'a [ForeignScore],
}

impl<'a> Inputs<'a> {
    fn over(&self, features: &'a Features) -> Context<'a> {
        let Self { now, request, fleet, predictor, foreign } = *self;
        Context { now, request, fleet, predictor, features, foreign }
    }

    fn ttft_ms(&self, slot: Slot, matched_tokens: u32) -> Option<f64> {
        let prompt_tokens = self.request.prompt_tokens;
        // An engine recomputes the last token of a prompt that it holds entirely.
        let cached = matched_tokens.min(prompt_tokens.saturating_sub(1));
        self.predictor.ttft_ms(self.now, slot, self.fleet.columns(), prompt_tokens, cached)
    }

    fn tpot_ms(&self, slot: Slot) -> Option<f64> {
        let prompt_tokens = self.request.prompt_tokens;
        self.predictor.tpot_ms(self.now, slot, self.fleet.columns(), prompt_tokens)
    }

    /// Fills in the predictions that are read.
    fn predict(&self, features: &mut Features, read: Predictions) {
        if read == Predictions::Neither {
            return;
        }
        for row in 0..features.len() {
            let slot = features.ids()[row].slot;
            let matched = features.column(Feature::MatchedTokens)[row] as u32;
            let ttft_ms = self.ttft_ms(slot, matched).unwrap_or(f64::NAN);
            features.column_mut(Feature::PredictedTtftMs)[row] = ttft_ms;
            if read == Predictions::Both {
                let tpot_ms = self.tpot_ms(slot).unwrap_or(f64::NAN);
                features.column_mut(Feature::PredictedTpotMs)[row] = tpot_ms;
            }
        }
    }
}
