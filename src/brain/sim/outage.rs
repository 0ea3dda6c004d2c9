use serde::{Deserialize, Serialize};

/// An engine is gone for a while, with its cache and all that it was doing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// Which, by its place in [`World::engines`](super::World::engines).
    pub engine: u32,
    /// When it dies, milliseconds; 0 for one that is not there when it all begins.
    pub fails_ms: f64,
    /// When it is there again, with an empty cache, milliseconds; infinite for never.
    pub returns_ms: f64,
}

impl Outage {
    /// It dies and does not come back.
    #[must_use]
    pub fn failure(engine: u32, fails_ms: f64) -> Self {
        Self { engine, fails_ms, returns_ms: f64::INFINITY }
    }

    /// It is added to the fleet.
    #[must_use]
    pub fn join(engine: u32, joins_ms: f64) -> Self {
        Self { engine, fails_ms: 0.0, returns_ms: joins_ms }
    }
}
