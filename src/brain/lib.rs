//! The scheduling brain of distributed LLM inference: which endpoint gets a request, and why.
//!
//! Sans-IO and deterministic: no sockets, no threads of its own, no clock. Time is an argument
//! ([`Time`]), randomness is a seeded generator that the brain owns ([`rng::Rng`]). Bodies own
//! sockets, timers and wakers, feed [`brain::Input`]s and carry out [`brain::Action`]s.
//!
//! The rooms, each of which imports only those listed above it:
//! `ids`, `lanes`, `rng`, `time`, `aliases`, `prompt`, `index`, `fleet`, `predict`, `schedule`, `flow`, `scale`, `moe`, `brain`, `engine`, `sim`.

pub mod ids;
pub mod lanes;
pub mod rng;
pub mod time;

pub mod aliases;

pub mod prompt;

pub mod index;

pub mod fleet;

pub mod predict;

pub mod schedule;

pub mod flow;

pub mod scale;

pub mod moe;

pub mod brain;

pub mod engine;

pub mod sim;

pub use ids::{BlockKey, EndpointId, EngineHash, ReservationId, Slot, Ticket, Tier};
pub use time::Time;
