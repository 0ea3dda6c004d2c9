//! `aibrix-scorer`: the longest match among those who are not overloaded.
//!
//! Source: AIBrix, `prefix-cache` routing. Formula: where the most and the least requests in flight
//! are more than `imbalance` apart, the fewest requests; else the longest match among those with at
//! most the mean and `sigmas` standard deviations of requests, of equal ones the fewest requests.
//! Defaults: 8, 1.

use super::{ByRule, Rule, inflight_range};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "aibrix-scorer",
    build: |params| {
        let rule: Aibrix = registry::read(params)?;
        in_range("imbalance", rule.imbalance, AMOUNT)?;
        in_range("sigmas", rule.sigmas, AMOUNT)?;
        Ok(Box::new(ByRule(rule)))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Aibrix {
    imbalance: f64,
    sigmas: f64,
}

impl Default for Aibrix {
    fn default() -> Self {
        Self { imbalance: 8.0, sigmas: 1.0 }
    }
}

/// More requests than any endpoint has: what a token of match outweighs.
const MANY_REQUESTS: f64 = 1e5;

impl Rule for Aibrix {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let inflight = cx.column(Feature::InflightRequests);
        let (least, most) = inflight_range(cx);
        if most - least > self.imbalance {
            out.copy_from_slice(inflight);
            return;
        }
        let rows = out.len() as f64;
        let mean = inflight.iter().sum::<f64>() / rows;
        let variance = inflight.iter().map(|it| (it - mean) * (it - mean)).sum::<f64>() / rows;
        let limit = mean + self.sigmas * variance.sqrt();
        let uncached = cx.column(Feature::UncachedTokens);
        for (row, out) in out.iter_mut().enumerate() {
            let cost = uncached[row] * MANY_REQUESTS + inflight[row];
            *out = if inflight[row] <= limit { cost } else { f64::INFINITY };
        }
    }
}
