//! Admission: requests that cannot be placed yet wait here, boundedly.
//!
//! [`Holding`] has them all. One leaves when it is let go ([`Holding::take`]), when its time is over
//! ([`Holding::expire`]), when its client goes away (`take` too), or when the queue is full and it is
//! the least important one that may be shed ([`Holding::push`]): exactly one of these hands its payload
//! back, and a refused one is handed back at once.
//!
//! What they wait for: an endpoint that can serve them at all, in order of priority and arrival; room
//! for their session in a KV cache (`sessions/`); or their turn, while every engine has enough to do
//! (`turns/`).
//!
//! Not here: where a request goes (see [`crate::schedule`]) and clocks; the caller asks for
//! [`Holding::next_deadline`] and calls when it has come.

mod config;
mod holding;
mod sessions;
mod turns;

pub use config::{FlowConfig, FlowError, WhenHeldTooLong};
pub use holding::{Held, HeldBands, HoldRefused, Holding, Pushed, RefusedWhy};
pub use sessions::SessionConfig;
pub(crate) use sessions::{Admission, Home, SessionId, Sessions, Waiter};
pub use turns::{Asked, Order, TurnConfig, TurnQueue, WaitWhen};
pub(crate) use turns::{PoolId, Room, Turns, room};

#[cfg(test)]
mod tests;
