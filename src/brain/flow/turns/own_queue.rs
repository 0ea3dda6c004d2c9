//! The order of turns for a queue that is somebody else's: an engine's own, whose scheduler asks who
//! is next.
//!
//! The same bands, tenants, order and ageing as at the router; endpoints, holding and rejection are
//! not here. Whoever comes back (preempted, or passed over in a step) has paid for its turn.

use super::config::TurnConfig;
use super::queue::{FairQueue, Turn};
use super::start_times::TenantId;
use crate::{Ticket, Time};
use std::time::Duration;

/// What decides when it is a request's turn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Asked<'a> {
    /// When it came: it keeps that when it comes back.
    pub since: Time,
    /// Higher is more important.
    pub priority: i32,
    /// Who shares fairly with others.
    pub tenant: Option<&'a str>,
    /// When it is due, milliseconds after it came; where nobody said, when it has aged.
    pub due_ms: Option<f64>,
    /// Tokens of the prompt to compute.
    pub uncached_tokens: u32,
    /// Tokens of its answer, as far as they are known.
    pub output_tokens: u32,
    /// Whether its tenant was charged for it before.
    pub has_paid: bool,
}

/// Those who wait in one engine. Every operation takes `O(log n)`.
#[derive(Debug, Clone)]
pub struct TurnQueue {
    config: TurnConfig,
    queue: FairQueue,
}

impl TurnQueue {
    /// Nobody waits. The settings are valid ([`super::super::FlowConfig::validate`]).
    #[must_use]
    pub fn new(config: &TurnConfig) -> Self {
        let queue = FairQueue::new(Duration::from_secs_f64(config.age_s), config.aged_every);
        Self { config: config.clone(), queue }
    }

    /// One more waits. One that has the ticket already waits as it is told now.
    pub fn push(&mut self, ticket: Ticket, asked: &Asked<'_>) {
        self.queue.remove(ticket);
        let due_ms = asked.due_ms.unwrap_or(self.config.age_s * 1e3);
        let cost = match asked.has_paid {
            true => 0.0,
            false => self.config.cost(
                asked.tenant,
                asked.uncached_tokens,
                f64::from(asked.output_tokens),
            ),
        };
        self.queue.push(Turn {
            ticket,
            priority: asked.priority,
            tenant: TenantId::named(asked.tenant),
            rank: self.config.rank(asked.since, due_ms, asked.uncached_tokens),
            cost,
            since: asked.since,
        });
    }

    /// Whose turn it is.
    #[must_use]
    pub fn next(&self, now: Time) -> Option<Ticket> {
        self.queue.next(now)
    }

    /// One was let go, and its tenant pays. Says whether it waited.
    pub fn served(&mut self, ticket: Ticket) -> bool {
        self.queue.served(ticket).is_some()
    }

    /// One waits no longer, and pays nothing. Says whether it waited.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        self.queue.remove(ticket).is_some()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
