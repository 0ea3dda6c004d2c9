//! What a plugin may look at.

use super::rows::{Rows, reported};
use super::{Feature, ForeignScore, Request};
use crate::fleet::{EndpointSpec, Fleet, Predicted};
use crate::predict::Predictor;
use crate::{BlockKey, EndpointId, Slot, Time};

/// One request and its candidates, as every plugin of a profile sees them. Nothing here changes
/// while a decision is made, except that filters shorten [`features`](Self::features).
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time of the decision.
    pub now: Time,
    /// The request.
    pub request: &'a Request,
    /// The keys of its full blocks; none in a dry run without a prompt.
    pub keys: &'a [BlockKey],
    /// The endpoints, for what is not a number: labels, topology, LoRA adapters.
    pub fleet: &'a Fleet,
    /// The latency models, for what a predicted latency is made of.
    pub predictor: &'a Predictor,
    /// The candidates and their numbers.
    pub features: &'a Rows,
    /// Scores from outside.
    pub foreign: &'a [ForeignScore],
}

impl<'a> Context<'a> {
    /// Number of candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// The candidates, in slot order.
    #[must_use]
    pub fn ids(&self) -> &'a [EndpointId] {
        self.features.ids()
    }

    /// One number of each candidate, NaN where it is unknown.
    #[must_use]
    pub fn column(&self, feature: Feature) -> &'a [f64] {
        self.features.column(feature, self)
    }

    /// Whether any endpoint of the fleet has reported a signal lately. Where none has, its column
    /// is NaN throughout and need not be read.
    #[must_use]
    pub fn is_reported(&self, signal: Feature) -> bool {
        let column = reported(signal, self.fleet.columns());
        column.is_some_and(|column| column.any_fresh(self.now, self.fleet.metrics_max_age()))
    }

    /// Time to first token, milliseconds, of the request on an endpoint that holds so much of it.
    pub(super) fn ttft_ms(&self, slot: Slot, matched_tokens: u32) -> Option<f64> {
        let prompt_tokens = self.request.prompt_tokens;
        // An engine recomputes the last token of a prompt that it holds entirely.
        let cached = matched_tokens.min(prompt_tokens.saturating_sub(1));
        self.predictor.ttft_ms(self.now, slot, self.fleet.columns(), prompt_tokens, cached)
    }

    /// Time per output token, milliseconds, of the request on an endpoint.
    pub(super) fn tpot_ms(&self, slot: Slot) -> Option<f64> {
        let prompt_tokens = self.request.prompt_tokens;
        self.predictor.tpot_ms(self.now, slot, self.fleet.columns(), prompt_tokens)
    }

    /// Everything that is predicted of the request on an endpoint that holds so much of it.
    pub(super) fn predicted(&self, slot: Slot, matched_tokens: u32) -> Predicted {
        let prompt_tokens = self.request.prompt_tokens;
        let ttft_ms = self.ttft_ms(slot, matched_tokens);
        self.predictor.predicted(self.now, slot, self.fleet.columns(), prompt_tokens, ttft_ms)
    }

    /// What each candidate's owner said of it.
    pub fn specs(&self) -> impl Iterator<Item = Option<&'a EndpointSpec>> + use<'a> {
        let fleet = self.fleet;
        self.ids().iter().map(move |id| fleet.spec_at(id.slot))
    }
}

/// A request that was placed, for plugins that remember.
#[derive(Clone, Copy)]
pub struct Placed<'a> {
    /// When.
    pub now: Time,
    /// The request.
    pub request: &'a Request,
    /// Where.
    pub endpoint: EndpointId,
    /// Prompt tokens that it is believed to hold.
    pub matched_tokens: u32,
    /// Milliseconds that its prefill will take there, by the endpoint's model; 0 without one.
    pub prefill_ms: f64,
    /// Prompt tokens that the best of all candidates is believed to hold.
    pub best_matched_tokens: u32,
}
