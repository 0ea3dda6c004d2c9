//! Counters of a router, for people and metrics pages.

use super::LiveRouter;
use super::peers::PeersTotals;
use crate::telemetry::decision_log::LogStats;
use llmd_brain::brain::BrainStats;
use llmd_brain::index::ApplyOutcome;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since a router was made.
#[derive(Debug, Clone, Serialize)]
pub struct RouterStats {
    /// What became of requests.
    pub requests: BrainStats,
    /// The KV index.
    pub index: IndexTotals,
    /// Metrics pages.
    pub metrics: MetricsTotals,
    /// What goes between this router and its peers.
    pub peers: PeersTotals,
    /// The decision log, where there is one.
    pub record: Option<LogStats>,
    /// Times that a scorer outside the brain failed.
    pub scorer_failures: u64,
    /// By alias and by the model that they got, requests that came for one.
    pub aliases: BTreeMap<String, BTreeMap<String, u64>>,
}

/// How reading metrics pages went.
#[derive(Debug, Clone, Serialize)]
pub struct MetricsTotals {
    /// Times that a page could not be read.
    pub failures: u64,
    /// Lines that made no sense.
    pub unreadable_lines: u64,
}

#[derive(Debug, Default)]
pub(super) struct MetricsCounts {
    pub(super) failures: AtomicU64,
    pub(super) unreadable_lines: AtomicU64,
}

/// The KV index as a whole.
#[derive(Debug, Clone, Serialize)]
pub struct IndexTotals {
    /// Distinct blocks held anywhere.
    pub blocks: u64,
    /// Bytes that it keeps allocated, estimated.
    pub memory_bytes: usize,
    /// What applying events did.
    pub applied: ApplyOutcome,
}

impl LiveRouter {
    /// What this router has been asked for, for whoever sizes the fleet.
    #[must_use]
    pub fn demand(&self) -> llmd_brain::scale::Demand {
        self.brain.demand()
    }

    /// Counters since it was made.
    #[must_use]
    pub fn stats(&self) -> RouterStats {
        let index = self.brain.residency().stats();
        RouterStats {
            requests: self.brain.stats(),
            index: IndexTotals {
                blocks: index.keys,
                memory_bytes: self.brain.residency().memory_bytes(),
                applied: index.applied,
            },
            metrics: MetricsTotals {
                failures: self.metrics_counts.failures.load(Relaxed),
                unreadable_lines: self.metrics_counts.unreadable_lines.load(Relaxed),
            },
            peers: self.peers.totals(),
            record: self
                .log
                .lock()
                .as_ref()
                .map(crate::telemetry::decision_log::DecisionLog::stats),
            scorer_failures: self.scorer_failures.load(Relaxed),
            aliases: self.alias_counts.totals(),
        }
    }
}
