//! `session-affinity-scorer`: a session stays where it was.
//!
//! Source: llm-d (server-side binding by session id). Formula: 1 for the endpoint that the session
//! was last placed on, 0 for the others; 0.5 for all where the session is new, has been silent for
//! `ttl_s`, or its endpoint is not a candidate.
//!
//! Inputs: the request's `session_id`; its own table. Defaults: `ttl_s` 300, `max_sessions` 65,536
//! (the session placed longest ago is forgotten; about 40 bytes each).
//! Limits: each router remembers its own sessions; sessions are told apart by a 64-bit hash.

use super::{Degraded, NEUTRAL, Scorer};
use crate::schedule::context::{Context, Placed};
use crate::schedule::lru::LruMap;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::{EndpointId, Time};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "session-affinity-scorer",
    build: |params| {
        let Params { ttl_s, max_sessions } = registry::read(params)?;
        in_range("ttl_s", ttl_s, AMOUNT)?;
        in_range("max_sessions", f64::from(max_sessions), 1.0..=16_777_216.0)?;
        let sessions = LruMap::new(max_sessions as usize);
        Ok(Box::new(SessionAffinity { ttl_ms: ttl_s * 1e3, sessions }))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    ttl_s: f64,
    max_sessions: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { ttl_s: 300.0, max_sessions: 65_536 }
    }
}

struct SessionAffinity {
    ttl_ms: f64,
    sessions: LruMap<u64, (EndpointId, Time)>,
}

impl SessionAffinity {
    fn home(&self, now: Time, session: &str) -> Option<EndpointId> {
        let (endpoint, at) = *self.sessions.get(&xxh3_64(session.as_bytes()))?;
        (now.millis_since(at) <= self.ttl_ms).then_some(endpoint)
    }
}

impl Scorer for SessionAffinity {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let session = cx.request.session_id.as_deref();
        let home = session.and_then(|session| self.home(cx.now, session));
        let row =
            home.and_then(|home| cx.features.row(home.slot).filter(|&row| cx.ids()[row] == home));
        match row {
            Some(row) => {
                out.fill(0.0);
                out[row] = 1.0;
            }
            None => out.fill(NEUTRAL),
        }
        Ok(())
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        if let Some(session) = &placed.request.session_id {
            self.sessions.insert(xxh3_64(session.as_bytes()), (placed.endpoint, placed.now));
        }
    }
}
