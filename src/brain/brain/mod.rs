//! Composes the rooms into one contract: [`Brain::step`]`(now, Input) -> Actions` and
//! [`Brain::next_wakeup`]`() -> Option<Time>`.
//!
//! What it guarantees: equal configuration and equal turns (time, input, index answers) give equal
//! actions, bit for bit. Every arrival ends in exactly one of `Route`, `Release`, `Reject` or the
//! caller's own cancel. Load is booked in the same turn as the decision. Time that goes back is
//! clamped to the latest seen, and counted.
//!
//! Concurrency: every method takes `&self`. [`Brain::matches`] reads the index without the brain's
//! mutex; everything else holds that one mutex for a short, allocation-light turn that calls
//! nobody outside the brain but the log sink. The index's locks are only ever taken inside the
//! mutex or without it, never the other way round.
//!
//! What it does not do: IO, timers, retries. Bodies do.

mod answers;
mod config;
mod contract;
mod demand;
mod ends;
#[cfg(test)]
mod ends_tests;
mod guesses;
mod hot;
mod log;
mod pace;
mod peers;
mod state;
#[cfg(test)]
mod tests;
mod turns;
mod view;
mod waiting;
#[cfg(test)]
mod waiting_tests;

pub use config::BrainConfig;
pub use contract::{Action, Input, RejectReason, Rejected};
pub use log::{LogEntry, LogSink, Replay, ReplayReport, SparseMatch, SparseMatches, decision_bits};
pub use view::{BrainStats, EndpointView};

pub use crate::fleet::{EndpointChange, PeerLoad, PeerTotals};

use crate::Time;
use crate::fleet::FleetError;
use crate::flow::FlowError;
use crate::index::{IndexError, Residency};
use crate::predict::PredictError;
use crate::schedule::ScheduleError;
use answers::IndexAnswers;
use parking_lot::Mutex;
use state::State;

/// Why a brain refused something.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BrainError {
    /// The fleet did.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The holding of requests did.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// The index did.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The latency models' configuration cannot be.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// The schedule's configuration cannot be.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Features that scores were made for no longer hold.
    #[error(
        "the fleet changed (version {current}) since the features were taken (version {given}): take them again"
    )]
    StaleFeatures {
        /// Version that the scores were made for.
        given: u64,
        /// Version now.
        current: u64,
    },
}

/// The scheduling brain. See the module's documentation for what it guarantees.
pub struct Brain {
    config: BrainConfig,
    residency: Residency,
    state: Mutex<State>,
}

impl Brain {
    /// A brain without endpoints.
    ///
    /// # Errors
    /// [`BrainError`] where a part of the configuration cannot be.
    pub fn new(config: BrainConfig) -> Result<Self, BrainError> {
        config.fleet.validate()?;
        config.flow.validate()?;
        let residency = Residency::new(config.index.clone(), config.block_size)?;
        let state = Mutex::new(State::new(&config)?);
        Ok(Self { config, residency, state })
    }

    /// The configuration that it was made with.
    #[must_use]
    pub fn config(&self) -> &BrainConfig {
        &self.config
    }

    /// The KV index.
    #[must_use]
    pub fn residency(&self) -> &Residency {
        &self.residency
    }

    /// One turn: takes what happened, returns what is to be done, in order.
    ///
    /// # Errors
    /// [`BrainError::Fleet`] where the input names an endpoint that is not there, or one joins
    /// that cannot. Nothing has changed then.
    pub fn step(&self, now: Time, input: Input) -> Result<Vec<Action>, BrainError> {
        // Events go to the index without the mutex: a burst of them must not delay a decision.
        match &input {
            Input::KvEvents(endpoint, batch) => {
                self.residency.apply(now, *endpoint, batch);
            }
            Input::KvLost(endpoint) => self.residency.clear(*endpoint),
            Input::Tick => self.residency.expire(now),
            _ => {}
        }
        self.state.lock().turn(now, input, &mut IndexAnswers::live(&self.residency))
    }

    /// When [`Input::Tick`] is due next, if nothing else happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Time> {
        let timed = self.state.lock().next_wakeup();
        [timed, self.residency.next_expiry()].into_iter().flatten().min()
    }

    /// Writes every turn from now on to `sink`; `None` stops.
    pub fn record(&self, sink: Option<LogSink>) {
        self.state.lock().record(sink);
    }

    /// A turn of a replay: index answers come from the log.
    pub(super) fn turn_again(
        &self,
        now: Time,
        input: Input,
        matches: &[SparseMatches],
    ) -> Vec<Action> {
        self.state.lock().turn(now, input, &mut IndexAnswers::recorded(matches)).unwrap_or_default()
    }
}
