//! Admission: requests that cannot be placed yet wait here, boundedly.
//!
//! A held request is let go when an endpoint becomes available ([`Holding::pop_ready`]), and given
//! up at its deadline ([`Holding::expire`]) or when its client goes away ([`Holding::cancel`]);
//! exactly one of the three hands its payload back, and a refused one is handed back at once.
//! Order: higher priority first, first come first served within a priority.
//!
//! Not here: whether an endpoint can take a request (see [`crate::schedule`]) and clocks; the
//! caller asks for [`Holding::next_deadline`] and calls when it has come.

mod config;
mod holding;
mod sessions;

pub use config::{FlowConfig, FlowError, WhenHeldTooLong};
pub use holding::{Attempt, Held, HoldRefused, Holding, RefusedWhy};
pub use sessions::SessionConfig;
pub(crate) use sessions::{Admission, Home, SessionId, Sessions, Waiter};

#[cfg(test)]
mod tests;
