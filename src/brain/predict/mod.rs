//! Latency models: what a decision costs, in milliseconds, before it is made.
//!
//! Two linear models for each endpoint, in the shapes that engines show (see [`EngineProfile`]):
//! - time to first token: what is queued before the request, less the progress of the prefill in
//!   hand, and its own prefill `a + b*new + c*new*(cached + new/2)`, slowed by those who decode; and
//! - time per output token: `d + e*batch + f*context`, slowed by the prefills in between.
//!
//! Their coefficients start from a prior (the profile of a known engine, or a generic one) and
//! are learned online from first tokens and finished outputs. An endpoint with too few
//! observations of its own borrows from all that serve the same model. Where neither is there and
//! no prior may speak, a prediction is `None`: it is never invented.
//!
//! Deterministic: arithmetic in a fixed order, no clock, transcendentals from `libm`; two
//! predictors that are fed alike agree to the bit. Predictions are finite and not negative.
//! No prediction or observation allocates.
//!
//! Not here: what a latency is worth (see [`crate::schedule`]), and waits that no queue of ours
//! explains (an engine whose KV cache is full): they count as outliers.

mod coefficients;
mod config;
mod drift;
mod fit;
mod interference;
mod margin;
mod models;
mod predictor;
mod prefill;
mod profile;
mod restore;
mod saved;
mod timing;

pub use config::{PredictConfig, PredictError};
pub use predictor::Predictor;
pub use prefill::{Prefill, PrefillRows};
pub use profile::{EngineProfile, PROFILES};
pub use saved::{MAX_SAVED_BYTES, SavedModels, SavedModelsError};
pub use timing::{Rates, Timing};

#[cfg(test)]
mod tests;
