//! Fleets whose size follows the load.

use crate::scale::{OngoingConfig, ScaleConfig, ScaleError};

/// By which rule.
#[derive(Debug, Clone, PartialEq)]
pub enum ScaleRule {
    /// How near the objectives are, by what the routers count ([`crate::scale::Scaler`]).
    Slo(ScaleConfig),
    /// How many requests are open, as Ray Serve does ([`crate::scale::OngoingRequests`]).
    Ongoing(OngoingConfig),
}

impl ScaleRule {
    /// Fewest and most replicas.
    pub(super) fn bounds(&self) -> (u32, u32) {
        match self {
            Self::Slo(config) => (config.min_replicas, config.max_replicas),
            Self::Ongoing(config) => (config.min_replicas, config.max_replicas),
        }
    }
}

/// An autoscaler. It begins with the first of [`World::engines`](super::World::engines); more are
/// started in their order, and serve, with an empty cache, after a while. Those that are to go get no
/// new requests, finish what they have, and are paid for until then.
#[derive(Debug, Clone, PartialEq)]
pub struct Autoscale {
    /// The rule.
    pub rule: ScaleRule,
    /// How often it is asked, seconds.
    pub period_s: f64,
    /// What a replica takes from the order until it serves, seconds; it is paid for.
    pub startup_s: f64,
    /// Replicas in the beginning.
    pub initial_replicas: u32,
}

impl Autoscale {
    pub(super) fn validate(&self, engines: usize) -> Result<(), ScaleError> {
        let err = |name, value, range| Err(ScaleError { name, value, range });
        if !(1.0..=3_600.0).contains(&self.period_s) {
            return err("period_s", self.period_s, "1 to 3600 seconds");
        }
        if !(0.0..=86_400.0).contains(&self.startup_s) {
            return err("startup_s", self.startup_s, "0 to 86400 seconds");
        }
        let (min, max) = self.rule.bounds();
        if max as usize > engines {
            return err("max_replicas", max.into(), "up to the number of engines of the world");
        }
        if !(min..=max).contains(&self.initial_replicas) {
            let value = self.initial_replicas.into();
            return err("initial_replicas", value, "min_replicas to max_replicas");
        }
        Ok(())
    }
}

/// A replica was there, starting and draining included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stint {
    /// Which engine.
    pub engine: u32,
    /// From when, milliseconds.
    pub from_ms: f64,
    /// Until when, milliseconds.
    pub to_ms: f64,
}

/// An order of the autoscaler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Order {
    /// When, milliseconds.
    pub at_ms: f64,
    /// Replicas that are wanted from now on.
    pub replicas: u32,
}
