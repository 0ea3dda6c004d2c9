//! How many replicas a fleet should have: a pure rule on what its routers see.
//!
//! A router's brain counts the work that it places ([`Demand`]); a [`Scaler`] reads one or many of
//! those counts and, when it is asked ([`Scaler::look`]), says a number of replicas and why. It asks
//! how near the fleet is to missing its objectives ([`strain`](Strain)), from the engines' own step
//! costs, and not how many requests are open: an open request is no unit of work where one prompt has
//! a hundred tokens and the next a hundred thousand.
//!
//! Guaranteed: the answer lies within the bounds given; more work never asks for fewer replicas; one
//! odd reading changes nothing; at constant load the answer stops changing; a fleet that nobody tells
//! of keeps its size. Time is an argument, and equal readings give equal answers.
//!
//! Not here: starting and draining replicas (bodies and the simulator do), placement, prices.

mod config;
mod demand;
mod ongoing;
mod scaler;
mod stabilise;
mod strain;
#[cfg(test)]
mod tests;
mod window;

pub use config::ScaleConfig;
pub use demand::{Demand, Placement};
pub use ongoing::{OngoingConfig, OngoingRequests};
pub use scaler::{Replicas, Scaler, Verdict};
pub use strain::{Bound, Strain};

/// Why there can be no such rule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} = {value} is out of range: use {range}")]
pub struct ScaleError {
    /// Which setting.
    pub name: &'static str,
    /// What it was.
    pub value: f64,
    /// What it can be.
    pub range: &'static str,
}

fn within(
    name: &'static str,
    value: f64,
    valid: impl std::ops::RangeBounds<f64>,
    range: &'static str,
) -> Result<(), ScaleError> {
    if valid.contains(&value) { Ok(()) } else { Err(ScaleError { name, value, range }) }
}
