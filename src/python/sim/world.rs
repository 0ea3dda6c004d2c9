//! Worlds as plain documents; `llmd_sched.sim.World` writes them and has the defaults.

use super::workload::Workload;
use crate::errors::ConfigError;
use crate::json;
use crate::router;
use llmd_bodies::router::RouterConfig;
use llmd_brain::brain::BrainConfig;
use llmd_brain::engine::EngineConfig;
use llmd_brain::predict::EngineProfile;
use llmd_brain::sim::{Arrivals, Ends, Outage, SloRule, World};
use pyo3::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    engines: Vec<EngineDocument>,
    routers: u32,
    outages: Vec<OutageDocument>,
    outage_notice_ms: f64,
    retry_ms: f64,
    shared_cache: bool,
    kv_lag_ms: f64,
    metrics_lag_ms: f64,
    metrics_interval_ms: f64,
    pages_at_step_end: bool,
    first_tokens_told: bool,
    ends: EndsDocument,
    exchange_interval_ms: f64,
    profiles_known: bool,
    slo: SloDocument,
    hold_ms: u64,
    arrivals: ArrivalsDocument,
    warmup_share: f64,
    seed: u64,
    usd_per_replica_hour: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineDocument {
    profile: String,
    kv_tokens: Option<u64>,
    host_tier: f64,
    step_jitter: f64,
    max_batch_tokens: u32,
    max_sequences: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutageDocument {
    engine: u32,
    fails_ms: f64,
    /// `None` for never.
    returns_ms: Option<f64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EndsDocument {
    Told,
    Untold,
    Guessed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SloDocument {
    ttft_ms: f64,
    tpot_ms: f64,
    isolated_factor: f64,
}

#[derive(Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase", deny_unknown_fields)]
enum ArrivalsDocument {
    Open {
        requests_per_s: Option<f64>,
        jitter_ms: f64,
    },
    Closed {
        sessions: u32,
        horizon_s: f64,
        think_cap_s: f64,
        replace_after_s: f64,
        session_cap: Option<u32>,
    },
}

/// The world that a document says, for a workload.
pub fn read(world: &Bound<'_, PyAny>, workload: &Workload) -> PyResult<World> {
    let value = json::from_python(world)
        .map_err(|error| ConfigError::new_err(format!("world: {}", error.value(world.py()))))?;
    let it: Document = serde_json::from_value(value)
        .map_err(|error| ConfigError::new_err(format!("world: {error}")))?;
    it.check(workload).map_err(ConfigError::new_err)?;
    let engines = it.engines.iter().enumerate().map(|(at, engine)| engine.read(at, workload));
    let mut read = World::new(EngineConfig::new(EngineProfile::custom([0.0; 6], 0, 0)), 0, {
        match it.arrivals {
            ArrivalsDocument::Open { requests_per_s, jitter_ms } => {
                Arrivals::Open { requests_per_s, jitter_ms }
            }
            ArrivalsDocument::Closed {
                sessions,
                horizon_s,
                think_cap_s,
                replace_after_s,
                session_cap,
            } => {
                Arrivals::Closed { sessions, horizon_s, think_cap_s, replace_after_s, session_cap }
            }
        }
    });
    read.engines = engines.collect::<Result<_, _>>().map_err(ConfigError::new_err)?;
    read.routers = it.routers;
    let outages = it.outages.iter().map(|outage| Outage {
        engine: outage.engine,
        fails_ms: outage.fails_ms,
        returns_ms: outage.returns_ms.unwrap_or(f64::INFINITY),
    });
    read.outages = outages.collect();
    read.outage_notice_ms = it.outage_notice_ms;
    read.retry_ms = it.retry_ms;
    read.shared_cache = it.shared_cache;
    read.kv_lag_ms = it.kv_lag_ms;
    read.metrics_lag_ms = it.metrics_lag_ms;
    read.metrics_interval_ms = it.metrics_interval_ms;
    read.pages_at_step_end = it.pages_at_step_end;
    read.first_tokens_told = it.first_tokens_told;
    read.ends = match it.ends {
        EndsDocument::Told => Ends::Told,
        EndsDocument::Untold => Ends::Untold,
        EndsDocument::Guessed => Ends::Guessed,
    };
    read.exchange_interval_ms = it.exchange_interval_ms;
    read.profiles_known = it.profiles_known;
    read.slo = SloRule {
        ttft_ms: it.slo.ttft_ms,
        tpot_ms: it.slo.tpot_ms,
        isolated_factor: it.slo.isolated_factor,
    };
    read.hold_ms = it.hold_ms;
    read.warmup_share = it.warmup_share;
    read.seed = it.seed;
    read.usd_per_replica_hour = it.usd_per_replica_hour;
    Ok(read)
}

/// The routers' settings: the name of a policy, or what a `Router` takes.
pub fn policy(given: &Bound<'_, PyAny>) -> PyResult<BrainConfig> {
    Ok(RouterConfig::from_value(router::read(given)?)
        .map_err(|error| crate::errors::router(error.into()))?
        .brain())
}

impl Document {
    fn check(&self, workload: &Workload) -> Result<(), String> {
        let (mut least_zero, mut above_zero) = (Vec::new(), Vec::new());
        least_zero.extend([
            ("kv_lag_ms", self.kv_lag_ms),
            ("outage_notice_ms", self.outage_notice_ms),
            ("retry_ms", self.retry_ms),
            ("metrics_lag_ms", self.metrics_lag_ms),
            ("metrics_interval_ms", self.metrics_interval_ms),
            ("exchange_interval_ms", self.exchange_interval_ms),
            ("usd_per_replica_hour", self.usd_per_replica_hour),
            ("slo.isolated_factor", self.slo.isolated_factor),
        ]);
        above_zero.extend([("slo.ttft_ms", self.slo.ttft_ms), ("slo.tpot_ms", self.slo.tpot_ms)]);
        match self.arrivals {
            ArrivalsDocument::Open { requests_per_s, jitter_ms } => {
                if workload.is_closed_loop {
                    return Err(
                        "the workload's times are pauses between the turns of sessions: give \
                                the world arrivals=ClosedLoop(...)"
                            .to_owned(),
                    );
                }
                least_zero.push(("arrivals.jitter_ms", jitter_ms));
                above_zero.extend(requests_per_s.map(|rate| ("arrivals.requests_per_s", rate)));
            }
            ArrivalsDocument::Closed {
                sessions,
                horizon_s,
                think_cap_s,
                replace_after_s,
                session_cap,
            } => {
                if !workload.is_closed_loop {
                    return Err("the workload's times are arrivals, not pauses: give the world \
                                arrivals=OpenLoop(...)"
                        .to_owned());
                }
                above_zero.extend([
                    ("arrivals.sessions", sessions.into()),
                    ("arrivals.horizon_s", horizon_s),
                ]);
                above_zero.extend(session_cap.map(|cap| ("arrivals.session_cap", cap.into())));
                least_zero.extend([
                    ("arrivals.think_cap_s", think_cap_s),
                    ("arrivals.replace_after_s", replace_after_s),
                ]);
            }
        }
        for outage in &self.outages {
            least_zero.push(("outages.fails_ms", outage.fails_ms));
            if let Some(returns_ms) = outage.returns_ms {
                least_zero.push(("outages.returns_ms", returns_ms));
            }
        }
        for (name, value) in least_zero {
            if value < 0.0 {
                return Err(format!("world.{name} is {value}: give 0 or more"));
            }
        }
        for (name, value) in above_zero {
            if value <= 0.0 {
                return Err(format!("world.{name} is {value}: give more than 0"));
            }
        }
        if !(0.0..1.0).contains(&self.warmup_share) {
            let share = self.warmup_share;
            return Err(format!("world.warmup_share is {share}: give a share from 0 to below 1"));
        }
        Ok(())
    }
}

impl EngineDocument {
    fn read(&self, at: usize, workload: &Workload) -> Result<EngineConfig, String> {
        let name = &self.profile;
        let mut profile = EngineProfile::of_label(name).ok_or_else(|| {
            let known: Vec<&str> = EngineProfile::names().collect();
            format!(
                "engine {at}: profile {name:?} is unknown: use {}, or the six step costs",
                known.join(", ")
            )
        })?;
        if let Some(kv_tokens) = self.kv_tokens {
            profile.kv_tokens = kv_tokens;
        }
        if profile.kv_tokens == 0 {
            return Err(format!("engine {at}: say kv_tokens, which {name:?} does not"));
        }
        if self.host_tier < 0.0 {
            return Err(format!("engine {at}: host_tier is {}: give 0 or more", self.host_tier));
        }
        let mut engine = EngineConfig::of_trace(profile, workload.inner.block_size());
        engine.host_blocks = (self.host_tier * f64::from(engine.kv_blocks)) as u32;
        engine.step_jitter = self.step_jitter;
        engine.max_batch_tokens = self.max_batch_tokens;
        engine.max_sequences = self.max_sequences;
        Ok(engine)
    }
}
