//! `queue-scorer`: the shorter the engine's queue, the better.
//!
//! Source: llm-d. Formula: `(max - x) / (max - min)` over the candidates, 1 for all on a tie; `x` is
//! the number of waiting requests.
//!
//! Inputs: `waiting_requests`, as reported. Parameters: none.
//! Limits: relative, so one request more or less decides as much as a hundred; a scraped queue
//! lags, and a burst between two scrapes sees the same shortest one ("herding").

use super::{Degraded, Scorer, less_is_better};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> =
    Plugin { name: "queue-scorer", build: |params| Ok(Box::new(registry::read::<Queue>(params)?)) };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Queue {}

impl Scorer for Queue {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        less_is_better(cx.column(Feature::WaitingRequests), out);
        Ok(())
    }
}
