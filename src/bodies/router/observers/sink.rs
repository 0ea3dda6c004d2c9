//! Where observations go: into turns of the brain.

use crate::http::HttpError;
use crate::observe::scraper::MetricsSink;
use crate::observe::{KvSink, LostReason};
use crate::router::LiveRouter;
use crate::router::error::RouterError;
use llmd_brain::EndpointId;
use llmd_brain::brain::Input;
use llmd_brain::fleet::MetricsSample;
use llmd_brain::index::KvEventBatch;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// The brain of a router that may be gone by now.
pub(super) struct Sink {
    router: Weak<LiveRouter>,
    is_about_gpus: bool,
}

impl Sink {
    /// For what an engine says itself.
    pub(super) fn new(router: &Arc<LiveRouter>) -> Self {
        Self { router: Arc::downgrade(router), is_about_gpus: false }
    }

    /// For what an exporter says of GPUs: the rest of its page is about the exporter, whose
    /// process is not the engine's.
    pub(super) fn of_gpus(router: &Arc<LiveRouter>) -> Self {
        Self { router: Arc::downgrade(router), is_about_gpus: true }
    }

    fn take(&self, input: Input) {
        self.tell(|router| router.step(input).map(drop));
    }

    fn tell(&self, tell: impl FnOnce(&LiveRouter) -> Result<(), RouterError>) {
        let Some(router) = self.router.upgrade() else { return };
        if let Err(error) = tell(&router) {
            // The endpoint has left, and its observers are about to.
            tracing::debug!(%error, "an observation came too late");
        }
    }
}

impl KvSink for Sink {
    fn events(&self, endpoint: EndpointId, _sequence: u64, batch: KvEventBatch) {
        self.take(Input::KvEvents(endpoint, batch));
    }

    fn lost(&self, endpoint: EndpointId, reason: &LostReason) {
        tracing::debug!(%endpoint, %reason, "what the endpoint holds is not known any more");
        self.take(Input::KvLost(endpoint));
    }
}

impl MetricsSink for Sink {
    fn sampled(&self, endpoint: EndpointId, sample: MetricsSample) {
        let sample = if self.is_about_gpus {
            MetricsSample {
                gpu_utilization: sample.gpu_utilization,
                gpu_memory_used_bytes: sample.gpu_memory_used_bytes,
                ..MetricsSample::default()
            }
        } else {
            sample
        };
        self.tell(|router| router.observed(endpoint, sample));
    }

    fn unreadable_lines(&self, url: &str, lines: u64) {
        tracing::debug!(url, lines, "lines of a metrics page made no sense");
        if let Some(router) = self.router.upgrade() {
            router.metrics_counts.unreadable_lines.fetch_add(lines, Relaxed);
        }
    }

    fn failed(&self, url: &str, error: &HttpError) {
        tracing::debug!(url, %error, "a metrics page could not be read");
        if let Some(router) = self.router.upgrade() {
            router.metrics_counts.failures.fetch_add(1, Relaxed);
        }
    }
}
