//! Sends spans to the collector, in batches.

use super::otlp::document;
use super::{Finished, Flush, Waiting};
use crate::gateway::Gateway;
use crate::http::HttpClient;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Traces in one request to the collector.
const BATCH: usize = 256;
/// Longest that a span waits for others.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the collector may take; what came meanwhile waits, and then is dropped.
const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT_BYTES: usize = 64 << 10;

/// Sends what is finished until the gateway is gone.
pub(in crate::gateway) async fn export(gateway: Weak<Gateway>, mut waiting: Waiting) {
    let client = HttpClient::default();
    let mut batch = Vec::new();
    let mut is_failing = false;
    loop {
        let mut flush: Option<Flush> = None;
        tokio::select! {
            count = waiting.finished.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
                if batch.len() < BATCH {
                    // More will come, most likely.
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        asked = waiting.flush.recv() => flush = asked,
                    }
                }
            }
            asked = waiting.flush.recv() => flush = asked,
        }
        loop {
            while batch.len() < BATCH
                && let Ok(finished) = waiting.finished.try_recv()
            {
                batch.push(finished);
            }
            if batch.is_empty() {
                break;
            }
            let Some(gateway) = gateway.upgrade() else { return };
            is_failing = send(&gateway, &client, &batch, is_failing).await;
            let is_full = batch.len() == BATCH;
            batch.clear();
            if !is_full {
                break;
            }
        }
        if let Some(flush) = flush {
            let _ = flush.send(());
        }
    }
}

/// Sends a batch. Returns whether that failed: it is said once, not for each batch.
async fn send(
    gateway: &Gateway,
    client: &HttpClient,
    batch: &[Finished],
    was_failing: bool,
) -> bool {
    let settings = gateway.settings();
    let config = &settings.config.tracing;
    let count: usize = batch.iter().map(|it| it.spans.len()).sum();
    let sent = match (&config.otlp_endpoint, document(&config.service_name, batch)) {
        (Some(url), Ok(body)) => {
            let body = body.into();
            client
                .post(url, "application/json", body, ANSWER_LIMIT_BYTES, TIMEOUT)
                .await
                .map_err(|error| error.to_string())
        }
        (None, _) => Err("tracing was switched off".to_owned()),
        (_, Err(error)) => Err(error.to_string()),
    };
    match sent {
        Ok(_) => {
            gateway.spans.exported.fetch_add(count as u64, Relaxed);
            false
        }
        Err(why) => {
            gateway.spans.dropped.fetch_add(count as u64, Relaxed);
            if !was_failing {
                tracing::warn!(why, "the collector does not take spans");
            }
            true
        }
    }
}
