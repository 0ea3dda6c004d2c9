//! A discrete-event simulator at virtual time: traces in, the very brain of production, modelled
//! engines, results out.
//!
//! A [`Workload`] is who asks for what and when, a [`World`] the fleet that answers: engines by
//! [`crate::engine`] that may die and join, or that an [`Autoscale`] starts and drains, routers (each a whole [`crate::brain::Brain`]), and what lies
//! between them, which is lag. [`run`] plays one in the other and returns a row for each request ([`Outcome`]), of which
//! [`Outcome::summary`] makes figures.
//!
//! Guaranteed: nothing here scores or chooses; equal workloads, worlds and seeds give equal rows.
//! Not here: files (bodies read traces and pass their text), clocks, threads.

mod accuracy;
mod arrivals;
mod autoscale;
mod day;
mod engines;
mod error;
mod generate;
mod loads;
mod outage;
mod outcome;
mod routers;
mod run;
mod summary;
mod tenants;
#[cfg(test)]
mod tests;
mod toolmix;
mod trace;
mod workload;
mod world;

pub use accuracy::{Accuracy, LEARNING_REQUESTS};
pub use arrivals::Arrivals;
pub use autoscale::{Autoscale, Order, ScaleRule, Stint};
pub use day::Day;
pub use error::SimError;
pub use generate::{Agents, Chats, Gaps, GenerateError, Lognormal, PrefixModel};
pub use loads::{capacity_requests_per_s, goodput_requests_per_s};
pub use outage::Outage;
pub use outcome::{Fate, Outcome, Row};
pub use run::run;
pub use summary::{LONG_PROMPT_TOKENS, Summary};
pub use tenants::{FLOODING, QUIET, TwoTenants};
pub use toolmix::toolmix;
pub use trace::{
    DecisionLogTrace, LogGaps, TraceError, agent_sessions, azure, mooncake, prompt_sessions,
};
pub use workload::{Prompt, Workload};
pub use world::{Ends, SloRule, World};
