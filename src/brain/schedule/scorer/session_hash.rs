//! `session-hash-scorer`: a session goes to the endpoint that its name hashes to.
//!
//! Source: rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit
//! rates", 1998). Formula: `xxh3(session, name, dp_rank) / 2^64`; the highest wins, so that an
//! endpoint that leaves moves its own sessions only.
//!
//! Inputs: the request's `session_id`, the endpoints' names: the label that `label` says, of those
//! that have it, else the address. A name that outlives a restart, as a replica's number does and a
//! port does not, keeps its sessions. Parameters: `label` (none).
//! Limits: blind to load and cache; every router agrees without talking. 0.5 for all where the
//! request has no session.

use super::{Degraded, NEUTRAL, Scorer};
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "session-hash-scorer",
    build: |params| Ok(Box::new(registry::read::<SessionHash>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionHash {
    #[serde(default)]
    label: String,
}

impl Scorer for SessionHash {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let Some(session) = &cx.request.session_id else {
            out.fill(NEUTRAL);
            return Ok(());
        };
        let session = xxh3_64(session.as_bytes());
        for (out, spec) in out.iter_mut().zip(cx.specs()) {
            let Some(spec) = spec else { continue };
            let name = spec.labels.get(&self.label).unwrap_or(&spec.address);
            let name = xxh3_64_with_seed(name.as_bytes(), session);
            let hash = xxh3_64_with_seed(&spec.dp_rank.to_le_bytes(), name);
            // The upper 53 bits: what a float in [0, 1) holds.
            *out = (hash >> 11) as f64 / (1_u64 << 53) as f64;
        }
        Ok(())
    }
}
