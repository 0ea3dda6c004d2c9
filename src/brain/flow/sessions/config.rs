//! Settings of sessions.

use serde::{Deserialize, Serialize};

/// When sessions wait for room. Shares are of the endpoints' KV capacity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Whether sessions have homes at all, where their blocks are too many.
    pub admission: bool,
    /// Demand above which the fleet is tight.
    pub tight_share: f64,
    /// Time over which demand is averaged, seconds.
    pub demand_window_s: f64,
    /// Demand below which it no longer is.
    pub loose_share: f64,
    /// Up to here a home is filled.
    pub fill_share: f64,
    /// Above this a home sheds residents.
    pub overflow_share: f64,
    /// Tokens by which a resident is taken to grow.
    pub growth_tokens: u32,
    /// How much shorter sessions come first.
    pub short_first: f64,
    /// Who has waited so long may take the place of any resident, seconds.
    pub patience_s: f64,
    /// Who has waited so long gets a home reserved, seconds.
    pub age_s: f64,
    /// Who has been served so long gives way there, seconds.
    pub quantum_s: f64,
    /// Most that the guests of a shared endpoint may ask of its KV before another is shared too.
    pub crowd_share: f64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            admission: true,
            tight_share: 1.25,
            demand_window_s: 240.0,
            loose_share: 1.1,
            fill_share: 1.0,
            overflow_share: 1.1,
            growth_tokens: 2_048,
            short_first: 1.0,
            patience_s: 450.0,
            age_s: 300.0,
            quantum_s: 1_200.0,
            crowd_share: 4.0,
        }
    }
}
