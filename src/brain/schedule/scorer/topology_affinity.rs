//! `topology-affinity-scorer`: the nearer to the request's origin, the better.
//!
//! Source: llm-d, whose curve follows the bandwidth of a KV transfer. Formula: the tightest level
//! that both share: host 1, rack 0.2, zone 0.05, region 0.02, none 0.
//!
//! Inputs: the endpoint's topology, the request's origin (the client's place or, for a prefill, the
//! decode endpoint's). Parameters: none.
//! Limits: an empty level never matches, not even another empty one, so a request without an
//! origin scores 0 everywhere.

use super::{Degraded, Scorer};
use crate::fleet::Topology;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "topology-affinity-scorer",
    build: |params| Ok(Box::new(registry::read::<TopologyAffinity>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyAffinity {}

fn nearness(a: &Topology, b: &Topology) -> f64 {
    let levels = [
        (&a.host, &b.host, 1.0),
        (&a.rack, &b.rack, 0.2),
        (&a.zone, &b.zone, 0.05),
        (&a.region, &b.region, 0.02),
    ];
    let shared = levels.into_iter().find(|(a, b, _)| !a.is_empty() && a == b);
    shared.map_or(0.0, |(_, _, score)| score)
}

impl Scorer for TopologyAffinity {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        for (out, spec) in out.iter_mut().zip(cx.specs()) {
            *out = spec.map_or(0.0, |spec| nearness(&spec.topology, &cx.request.origin));
        }
        Ok(())
    }
}
