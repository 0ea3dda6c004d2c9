use super::{ScaleError, within};
use serde::{Deserialize, Serialize};

/// Settings of a [`Scaler`](super::Scaler).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScaleConfig {
    /// Fewest replicas; at least 1, since nothing here would see the request that wakes an empty fleet.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// Share of the requests that is to be within its objectives, as predicted when each is placed.
    pub attainment: f64,
    /// Share of a replica's KV cache that requests in flight may hold; the rest keeps prefixes.
    pub kv_share: f64,
    /// What a new replica takes until it serves, seconds: growth of the load over that time is added,
    /// and what waits now is to be gone by then.
    pub startup_s: f64,
    /// Work is averaged over so many seconds.
    pub window_s: f64,
    /// Replicas are added once every look for so many seconds has asked for them.
    pub up_after_s: f64,
    /// Replicas are removed once no look for so many seconds has asked for them.
    pub down_after_s: f64,
    /// A fleet is only made smaller where it keeps so large a share of what it may be strained: what
    /// keeps it from growing again at once.
    pub slack: f64,
}

impl Default for ScaleConfig {
    /// 1 to 8 replicas, 95 % of the requests in time, replicas that start in a minute; removed after
    /// five minutes, as Kubernetes' autoscaler has it.
    fn default() -> Self {
        Self {
            min_replicas: 1,
            max_replicas: 8,
            attainment: 0.95,
            kv_share: 0.8,
            startup_s: 60.0,
            window_s: 60.0,
            up_after_s: 20.0,
            down_after_s: 300.0,
            slack: 0.2,
        }
    }
}

impl ScaleConfig {
    pub(super) fn validate(&self) -> Result<(), ScaleError> {
        let (min, max) = (f64::from(self.min_replicas), f64::from(self.max_replicas));
        within("min_replicas", min, 1.0..=1_024.0, "1 to 1024")?;
        within("max_replicas", max, min..=1_024.0, "min_replicas to 1024")?;
        within("attainment", self.attainment, 0.5..=0.9999, "0.5 to 0.9999")?;
        within("kv_share", self.kv_share, 0.05..=1.0, "0.05 to 1")?;
        within("slack", self.slack, 0.0..=0.5, "0 to 0.5")?;
        within("window_s", self.window_s, 1.0..=3_600.0, "1 to 3600 seconds")?;
        for (name, seconds) in [
            ("startup_s", self.startup_s),
            ("up_after_s", self.up_after_s),
            ("down_after_s", self.down_after_s),
        ] {
            within(name, seconds, 0.0..=86_400.0, "0 to 86400 seconds")?;
        }
        Ok(())
    }
}
