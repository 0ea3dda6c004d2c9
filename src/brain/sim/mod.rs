//! A discrete-event simulator at virtual time: traces in, the very brain of production, modelled
//! engines, results out.
//!
//! A [`Workload`] is who asks for what and when, a [`World`] the fleet that answers: engines by
//! [`crate::engine`], routers (each a whole [`crate::brain::Brain`]), and what lies between them, which is
//! lag. [`run`] plays one in the other and returns a row for each request ([`Outcome`]), of which
//! [`Outcome::summary`] makes figures.
//!
//! Guaranteed: nothing here scores or chooses; equal workloads, worlds and seeds give equal rows.
//! Not here: files (bodies read traces and pass their text), clocks, threads.

mod accuracy;
mod arrivals;
mod engines;
mod outcome;
mod routers;
mod run;
mod summary;
#[cfg(test)]
mod tests;
mod toolmix;
mod trace;
mod workload;
mod world;

pub use accuracy::{Accuracy, LEARNING_REQUESTS};
pub use arrivals::Arrivals;
pub use outcome::{Fate, Outcome, Row};
pub use run::{SimError, capacity_requests_per_s, run};
pub use summary::Summary;
pub use toolmix::toolmix;
pub use trace::{TraceError, agent_sessions, mooncake, prompt_sessions};
pub use workload::{Prompt, Workload};
pub use world::{SloRule, World};
