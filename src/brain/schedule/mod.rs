//! Filter, score, pick: from the endpoints that could serve a request to the one that will.
//!
//! A *profile* is a list of filters, a list of weighted scorers and one picker, built from one
//! [`ProfileConfig`]; [`builtin_profiles`] are written that way too. Filters only ever remove; a
//! filter that would remove everybody is skipped and says so, except the *hard* ones (health,
//! role, model, allowed set, labels). Each scorer gives every remaining candidate a number in
//! `[0, 1]`, NaN counts as 0 and is counted; the weighted sum goes to the picker. Names are those
//! that llm-d's users know.
//!
//! A family of plugins is a folder: `mod.rs` holds its contract, each plugin is a file that states
//! its formula, source, inputs, defaults and limits. To add one, write the file and list it in the
//! family's table; the suite that walks the tables tests it.
//!
//! A decision has two halves. [`Scheduler::choose`] reads, and advances only the generator;
//! [`Scheduler::committed`] tells the plugins that remember. So a dry run is a choice that is not
//! committed and whose generator is put back ([`Scheduler::explain`]).
//!
//! Deterministic: candidates are visited in slot order, sums run in the order of the
//! configuration, ties are broken by the scheduler's own seeded generator. What is remembered is
//! bounded: per slot, or with a stated limit and eviction. In the steady state a decision allocates
//! once, for the scores that explain it ([`Reasons`]). Of a fleet a decision reads columns, in
//! vectors ([`crate::lanes`]), and only those that a plugin of the profile asks for: `default`
//! takes about 1 us over 64 endpoints and 4 to 7 us over 1,024 (`make bench-select`).
//!
//! Not here: booking (see [`crate::fleet`]) and holding (see [`crate::flow`]).

mod candidates;
mod compiled;
mod config;
mod context;
mod context_length;
mod decision;
mod error;
mod features;
mod filter;
mod headers;
mod headroom;
mod lru;
mod param;
mod picker;
mod profile;
mod reasons;
mod registry;
mod request;
mod rows;
mod scheduler;
mod scorer;

pub use crate::fleet::Predicted;
pub use config::{PluginConfig, ProfileChoice, ProfileConfig, ScheduleConfig, ScorerConfig};
pub use decision::{Decision, Explanation, FilterStep, Leg, Phase, ScoreColumn};
pub use error::{Exclusions, NoCandidate, ScheduleError};
pub use features::{Feature, Features};
pub use headers::{HeaderError, RequestHeaders};
pub use param::{Param, Params};
pub use profile::{builtin_profile, builtin_profiles};
pub use reasons::{Reasons, ScoreRow};
pub use registry::Family;
pub use request::{Ask, ForeignScore, Request, Slo};
pub use scheduler::{Choice, ScheduleCounters, Scheduler};
pub use scorer::builtin_scorers;

#[cfg(test)]
mod tests;
