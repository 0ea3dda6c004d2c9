//! What a plugin may look at.

use super::{Feature, Features, ForeignScore, Request};
use crate::fleet::{EndpointSpec, Fleet};
use crate::predict::Predictor;
use crate::{EndpointId, Time};

/// One request and its candidates, as every plugin of a profile sees them. Nothing here changes
/// while a decision is made, except that filters shorten [`features`](Self::features).
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time of the decision.
    pub now: Time,
    /// The request.
    pub request: &'a Request,
    /// The endpoints, for what is not a number: labels, topology, LoRA adapters.
    pub fleet: &'a Fleet,
    /// The latency models, for what a predicted latency is made of.
    pub predictor: &'a Predictor,
    /// The candidates and their numbers.
    pub features: &'a Features,
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
        self.features.column(feature)
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
    /// Prompt tokens that the best of all candidates is believed to hold.
    pub best_matched_tokens: u32,
}

/// Which predicted latencies a profile reads: a prediction nobody reads is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Predictions {
    /// None.
    Neither,
    /// Time to first token.
    Ttft,
    /// Time to first token and time per output token.
    Both,
}
