//! `running-requests-size-scorer`: the fewer requests the engine runs, the better.
//!
//! Source: llm-d. Formula: `(max - x) / (max - min)` over the candidates, 1 for all on a tie; `x` is
//! the number of running requests.
//!
//! Inputs: `running_requests`, as reported. Parameters: none.
//! Limits: as for `queue-scorer`; a long prompt counts like a short one.

use super::{Degraded, Scorer, less_is_better};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "running-requests-size-scorer",
    build: |params| Ok(Box::new(registry::read::<RunningRequests>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunningRequests {}

impl Scorer for RunningRequests {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        less_is_better(cx.column(Feature::RunningRequests), out);
        Ok(())
    }
}
