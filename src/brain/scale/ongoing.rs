//! Ray Serve's rule, to be compared with: replicas by how many requests are open.
//!
//! As Ray 2.60 documents and does it (`AutoscalingConfig`, `replica_queue_length_autoscaling_policy`):
//! the open requests, averaged over `look_back_period_s`, are to be `target_ongoing_requests` a replica;
//! wishes are rounded up; an order goes out once every look for `upscale_delay_s` (30 s) has wished for
//! more, or for `downscale_delay_s` (600 s) for fewer, and is the last wish.

use super::{Replicas, ScaleError, within};
use crate::Time;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Settings of [`OngoingRequests`]; the defaults are Ray's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OngoingConfig {
    /// Fewest replicas.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// Open requests a replica should have.
    pub target_ongoing_requests: f64,
    /// Open requests are averaged over so many seconds.
    pub look_back_s: f64,
    /// Replicas are added after so many seconds of wishing for more.
    pub upscale_delay_s: f64,
    /// Replicas are removed after so many seconds of wishing for fewer.
    pub downscale_delay_s: f64,
}

impl Default for OngoingConfig {
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 8,
            target_ongoing_requests: 2.0,
            look_back_s: 30.0,
            upscale_delay_s: 30.0,
            downscale_delay_s: 600.0,
        }
    }
}

/// The rule.
#[derive(Debug, Clone)]
pub struct OngoingRequests {
    config: OngoingConfig,
    seen: VecDeque<(Time, f64)>,
    /// Since when every look has wished for more (or fewer) replicas.
    wishing: Option<(bool, Time)>,
}

impl OngoingRequests {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// [`ScaleError`] names the setting that cannot be.
    pub fn new(config: OngoingConfig) -> Result<Self, ScaleError> {
        let (min, max) = (f64::from(config.min_replicas), f64::from(config.max_replicas));
        within("min_replicas", min, 1.0..=1_024.0, "1 to 1024")?;
        within("max_replicas", max, min..=1_024.0, "min_replicas to 1024")?;
        within(
            "target_ongoing_requests",
            config.target_ongoing_requests,
            0.01..=1e6,
            "0.01 to 1e6",
        )?;
        for (name, seconds) in [
            ("look_back_s", config.look_back_s),
            ("upscale_delay_s", config.upscale_delay_s),
            ("downscale_delay_s", config.downscale_delay_s),
        ] {
            within(name, seconds, 0.0..=86_400.0, "0 to 86400 seconds")?;
        }
        Ok(Self { config, seen: VecDeque::new(), wishing: None })
    }

    /// How many replicas there should be, with so many requests open now.
    pub fn look(&mut self, now: Time, replicas: Replicas, ongoing_requests: f64) -> u32 {
        let config = &self.config;
        self.seen.push_back((now, ongoing_requests));
        let since = now.before(Duration::from_secs_f64(config.look_back_s));
        while self.seen.front().is_some_and(|(at, _)| *at < since) {
            self.seen.pop_front();
        }
        let mean = self.seen.iter().map(|(_, open)| open).sum::<f64>() / self.seen.len() as f64;
        let wish = libm::ceil(mean / config.target_ongoing_requests) as u32;
        let wish = wish.clamp(config.min_replicas, config.max_replicas);
        if wish == replicas.target {
            self.wishing = None;
            return replicas.target;
        }
        let more = wish > replicas.target;
        let since = match self.wishing {
            Some((before, since)) if before == more => since,
            _ => now,
        };
        self.wishing = Some((more, since));
        let delay_s = if more { config.upscale_delay_s } else { config.downscale_delay_s };
        if now.since(since) < Duration::from_secs_f64(delay_s) {
            return replicas.target;
        }
        self.wishing = None;
        wish
    }
}
