//! Who follows one endpoint's KV events and metrics, and where what they hear goes.
//!
//! Everything ends when its [`Observers`] is dropped. Nothing here waits for anything.

mod pages;
mod sink;

pub use pages::Page;
pub(super) use pages::{Pages, Reading};
use sink::Sink;

use super::LiveRouter;
use super::error::RouterError;
use crate::observe::discovery::KvEventSource;
use crate::observe::metrics::SeriesFilter;
use crate::observe::{EventFormat, Subscriber, SubscriberConfig, SubscriberStatus};
use llmd_brain::EndpointId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Where an endpoint's own news is to be had.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Its KV events.
    pub kv_events: Option<KvEvents>,
    /// Its metrics page.
    pub metrics: Option<Page>,
    /// An exporter's page about its GPUs.
    pub gpu_metrics: Option<Page>,
}

/// A stream of KV events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEvents {
    /// Addresses and topic, of the endpoint's own rank.
    pub source: KvEventSource,
    /// Whose format it has.
    pub format: EventFormat,
}

/// How engines are followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObserveConfig {
    /// How often a metrics page is read while it answers, in milliseconds.
    pub metrics_interval_ms: u64,
    /// How long one reading may take, in milliseconds.
    pub metrics_timeout_ms: u64,
    /// How often a replay socket is asked whether the end of the stream was missed, in
    /// milliseconds; 0 is never.
    pub kv_probe_interval_ms: u64,
    /// A replay that sends nothing for so long has failed, in milliseconds.
    pub kv_replay_timeout_ms: u64,
}

impl Default for ObserveConfig {
    fn default() -> Self {
        Self {
            metrics_interval_ms: 200,
            metrics_timeout_ms: 1_000,
            kv_probe_interval_ms: 10_000,
            kv_replay_timeout_ms: 10_000,
        }
    }
}

/// How far an engine's KV events have been followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KvPosition {
    /// Number of the last batch in the index.
    pub sequence: Option<u64>,
    /// Whether the subscription stands.
    pub connected: bool,
    /// Whether, besides, all that came is in the index, and no gap is being filled.
    pub settled: bool,
    /// Batches put into the index.
    pub batches: u64,
    /// Times that numbers were missing.
    pub gaps: u64,
    /// Times that batches were fetched again.
    pub replays: u64,
    /// Times that the engine was found to have started anew.
    pub restarts: u64,
    /// Times that what it holds had to be forgotten for another reason.
    pub losses: u64,
    /// Messages that could not be read.
    pub bad_messages: u64,
    /// Why the last connection or replay ended.
    pub last_error: Option<String>,
}

impl From<&SubscriberStatus> for KvPosition {
    fn from(status: &SubscriberStatus) -> Self {
        Self {
            sequence: status.position,
            connected: status.is_connected,
            settled: status.is_settled,
            batches: status.batches,
            gaps: status.recovery.gaps,
            replays: status.recovery.replays,
            restarts: status.recovery.restarts,
            losses: status.recovery.lost.saturating_sub(status.recovery.restarts)
                + status.undecodable_payloads,
            bad_messages: status.malformed_messages + status.undecodable_payloads,
            last_error: status.last_error.clone(),
        }
    }
}

/// What follows one endpoint.
#[derive(Default)]
pub(super) struct Observers {
    observed: Observed,
    subscriber: Option<Arc<Subscriber>>,
    /// Held to be dropped.
    _readings: Vec<Reading>,
}

impl Observers {
    /// Follows an endpoint.
    pub(super) fn start(
        router: &Arc<LiveRouter>,
        id: EndpointId,
        observed: Observed,
    ) -> Result<Self, RouterError> {
        let config = &router.config().observe;
        let subscriber = match &observed.kv_events {
            None => None,
            Some(events) => {
                let rank = router.spec(id).map(|spec| spec.dp_rank).unwrap_or_default();
                let stream = SubscriberConfig::of_source(&events.source, rank)?;
                let stream = SubscriberConfig {
                    format: events.format,
                    replay_timeout: Duration::from_millis(config.kv_replay_timeout_ms),
                    probe_interval: Duration::from_millis(config.kv_probe_interval_ms),
                    ..stream
                };
                let runtime = router.runtime()?;
                let _inside = runtime.enter();
                let sink = Arc::new(Sink::new(router));
                let seed = router.config().seed ^ u64::from(id.slot.0);
                Some(Arc::new(Subscriber::spawn(id, stream, sink, seed)))
            }
        };
        let mut readings = Vec::new();
        if let Some(page) = &observed.metrics {
            readings.push(router.read_page(page, id, false)?);
        }
        if let Some(page) = &observed.gpu_metrics {
            readings.push(router.read_page(page, id, true)?);
        }
        Ok(Self { observed, subscriber, _readings: readings })
    }

    /// What is followed.
    pub(super) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Who follows its KV events.
    pub(super) fn subscriber(&self) -> Option<&Arc<Subscriber>> {
        self.subscriber.as_ref()
    }
}

impl Page {
    /// An engine's own page, for one rank of it; `None` where it has but one.
    #[must_use]
    pub fn of_engine(url: String, dp_rank: Option<u32>) -> Self {
        Self { url, filter: SeriesFilter { dp_rank, ..SeriesFilter::default() } }
    }

    /// An exporter's page about GPUs; of those whose series have all these labels.
    #[must_use]
    pub fn of_gpus(url: String, gpu_labels: Vec<(String, String)>) -> Self {
        Self { url, filter: SeriesFilter { gpu_labels, ..SeriesFilter::default() } }
    }
}
