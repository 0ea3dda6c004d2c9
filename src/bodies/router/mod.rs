//! The live body of a brain inside somebody's process: clock, threads, and what engines tell.
//!
//! A [`LiveRouter`] is what the Python module wraps. It gives the brain the time, starts a small
//! runtime when something needs one (a timer, a subscription, a scrape, the admin server), follows
//! each endpoint's KV events and metrics, wakes whoever waits for a held request, and writes the
//! decision log.
//!
//! Guarantees: a request costs no thread switch; nothing here calls foreign code with a lock held;
//! what a turn of the brain asks for is carried out by the thread that took the turn, after the
//! brain's mutex is free.
//!
//! Lock order: members, then the brain's mutex. Nothing is locked the other way round.
//!
//! Not here: any decision (see [`llmd_brain`]), and Python.

mod admin;
mod aliases;
mod body;
mod clock;
mod config;
mod discover;
mod document;
mod error;
pub mod fork;
mod held;
mod learned;
mod members;
mod observers;
pub mod peers;
mod request;
mod runtime;
mod snapshot;
mod stats;
mod tier_blocks;

pub use clock::Clock;
pub use config::{ConfigError, RouterConfig, from_value, overlay, read_file};
pub use discover::{DescribedEndpoint, describe_engine};
pub use document::{
    EndpointDocument, ExplainRequest, ExplanationDocument, FilterDocument, HealthName,
    LoadDocument, ScoreDocument,
};
pub use error::RouterError;
pub use held::{HeldRequests, Outcome, Waiter};
pub use learned::LearnedError;
pub use members::MemberRef;
pub use observers::{KvEvents, KvPosition, ObserveConfig, Observed, Page};
pub use request::{Placed, Placement, Prompt, Scratch};
pub use snapshot::{SnapshotError, SnapshotSummary};
pub use stats::RouterStats;
pub use tier_blocks::TierBlocks;

use crate::telemetry::decision_log::DecisionLog;
use aliases::AliasCounts;
use llmd_brain::Time;
use llmd_brain::brain::{Action, Brain, Input, Rejected};
use llmd_brain::schedule::ScheduleConfig;
use members::Members;
use observers::Pages;
use parking_lot::Mutex;
use peers::Peers;
use runtime::Threads;
use stats::MetricsCounts;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A brain with a clock, threads and observers.
pub struct LiveRouter {
    config: RouterConfig,
    /// The schedule in force, where it is another than the configuration's.
    switched: Mutex<Option<ScheduleConfig>>,
    brain: Brain,
    clock: Clock,
    members: Members,
    held: HeldRequests,
    threads: Threads,
    log: Mutex<Option<DecisionLog>>,
    closed: AtomicBool,
    pages: Pages,
    peers: Peers,
    metrics_counts: MetricsCounts,
    scorer_failures: AtomicU64,
    alias_counts: AliasCounts,
}

impl LiveRouter {
    /// A router without endpoints and without threads.
    ///
    /// # Errors
    /// [`RouterError::Brain`] for settings that cannot be, [`RouterError::Record`] where the
    /// decision log cannot be begun, [`RouterError::Learned`] where saved latency models are damaged.
    pub fn new(config: RouterConfig) -> Result<Arc<Self>, RouterError> {
        let brain = Brain::new(config.brain())?;
        let log = match &config.record {
            None => None,
            Some(path) => {
                let log = DecisionLog::create(path, brain.config())
                    .map_err(|source| RouterError::Record { path: path.clone(), source })?;
                brain.record(Some(log.sink()));
                Some(log)
            }
        };
        let router = Arc::new(Self {
            alias_counts: AliasCounts::new(&config.aliases),
            config,
            switched: Mutex::default(),
            brain,
            clock: Clock::start(),
            members: Members::default(),
            held: HeldRequests::default(),
            threads: Threads::default(),
            log: Mutex::new(log),
            closed: AtomicBool::new(false),
            pages: Pages::default(),
            peers: Peers::new(),
            metrics_counts: MetricsCounts::default(),
            scorer_failures: AtomicU64::new(0),
        });
        if let Some(path) = &router.config.predictor {
            router.load_predictor(path)?;
        }
        fork::register(&router);
        Ok(router)
    }

    /// The settings that it was made with.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// The settings that it goes by now.
    #[must_use]
    pub fn config_in_force(&self) -> RouterConfig {
        let mut config = self.config.clone();
        if let Some(schedule) = &*self.switched.lock() {
            config.schedule = schedule.clone();
        }
        config
    }

    /// The brain, to look at: turns that are taken on it directly are not carried out.
    #[must_use]
    pub fn brain(&self) -> &Brain {
        &self.brain
    }

    /// Places requests by another profile from now on. What [`config`](Self::config) says stays what
    /// it was made with.
    ///
    /// # Errors
    /// [`RouterError::Brain`] for a profile that cannot be; the one in use stays then.
    pub fn switch_schedule(&self, schedule: ScheduleConfig) -> Result<(), RouterError> {
        self.check_open()?;
        // Held meanwhile: of two who switch at once, the last one's is said to be in force.
        let mut switched = self.switched.lock();
        self.step(Input::Schedule(Box::new(schedule.clone())))?;
        *switched = Some(schedule);
        Ok(())
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Who waits for held requests.
    #[must_use]
    pub fn held(&self) -> &HeldRequests {
        &self.held
    }

    /// Ends subscriptions, scrapes, what goes between peers and the admin server, turns held requests away, and ends the
    /// decision log. Idempotent.
    pub fn close(&self) {
        if self.closed.swap(true, Relaxed) {
            return;
        }
        self.held.decide_all(&Outcome::Closed);
        self.members.drop_observers();
        self.peers.close();
        self.threads.stop();
        self.brain.record(None);
        // Waits for the disk, with no other lock held.
        let log = self.log.lock().take();
        drop(log);
    }

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    fn check_open(&self) -> Result<(), RouterError> {
        if self.is_closed() { Err(RouterError::Closed) } else { Ok(()) }
    }

    /// A turn of the brain, carried out.
    fn step(&self, input: Input) -> Result<Vec<Action>, RouterError> {
        let actions = self.brain.step(self.now(), input)?;
        self.carry_out(&actions);
        Ok(actions)
    }

    /// Does what a turn asked for, where it is not the caller's own request.
    fn carry_out(&self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Release(decision) => {
                    self.peers.stir();
                    self.held.decide(decision.ticket, Outcome::Placed(decision.clone()));
                }
                Action::Reject { ticket, why, retry_after_ms } => {
                    let (why, retry_after_ms) = (why.clone(), *retry_after_ms);
                    let rejected = Rejected { why, retry_after_ms };
                    self.held.decide(*ticket, Outcome::Rejected(rejected));
                }
                Action::Left(endpoint) => self.members.depart(*endpoint),
                Action::Resync(endpoint) => self.resync(*endpoint),
                // What a cancelled request's client has to know, its own connection to the
                // endpoint tells it. The others are answers to a call, which returns them.
                Action::Cancel { .. } | Action::Route(_) | Action::Hold(_) | Action::Joined(_) => {}
            }
        }
    }
}

impl Drop for LiveRouter {
    fn drop(&mut self) {
        self.close();
    }
}
