//! The last minutes of a gateway, in steps: what pages draw lines of, so that whoever opens one sees
//! what was before.

use super::Gateway;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

const STEP: Duration = Duration::from_secs(1);
/// Steps that are kept.
const KEPT: usize = 120;

/// Counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    requests: u64,
    prompt_tokens: u64,
    matched_tokens: u64,
    output_tokens: u64,
}

/// Counters at the last moments.
#[derive(Default)]
pub(super) struct History {
    samples: Mutex<VecDeque<Sample>>,
}

/// What happened in each step, the last one last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryDocument {
    /// Length of a step, nominal.
    pub step_ms: u64,
    /// Requests that came for engines, a second.
    pub requests_per_s: Vec<f64>,
    /// Share of the prompt tokens placed in it that are believed to be cached where they went; none
    /// where nothing was placed.
    pub hit_ratio: Vec<Option<f64>>,
    /// Tokens of answers that ended, a second.
    pub output_tokens_per_s: Vec<f64>,
}

impl History {
    fn take(&self, gateway: &Gateway) {
        let placed = gateway.live.brain().stats();
        let sample = Sample {
            at: Instant::now(),
            requests: gateway.counts.requests.load(Relaxed),
            prompt_tokens: placed.prompt_tokens,
            matched_tokens: placed.matched_tokens,
            output_tokens: gateway.counts.output_tokens.load(Relaxed),
        };
        let mut samples = self.samples.lock();
        samples.push_back(sample);
        if samples.len() > KEPT + 1 {
            samples.pop_front();
        }
    }

    pub(super) fn document(&self) -> HistoryDocument {
        let samples = self.samples.lock();
        let mut document = HistoryDocument {
            step_ms: u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX),
            ..HistoryDocument::default()
        };
        for (before, after) in samples.iter().zip(samples.iter().skip(1)) {
            let seconds = (after.at - before.at).as_secs_f64().max(1e-3);
            let rate = |count: u64| count as f64 / seconds;
            document.requests_per_s.push(rate(after.requests.saturating_sub(before.requests)));
            let output_tokens = after.output_tokens.saturating_sub(before.output_tokens);
            document.output_tokens_per_s.push(rate(output_tokens));
            let prompt_tokens = after.prompt_tokens.saturating_sub(before.prompt_tokens);
            let matched_tokens = after.matched_tokens.saturating_sub(before.matched_tokens);
            let ratio = (prompt_tokens > 0).then(|| matched_tokens as f64 / prompt_tokens as f64);
            document.hit_ratio.push(ratio);
        }
        document
    }
}

/// Looks at the counters for as long as the gateway is there.
pub(super) async fn keep(gateway: Weak<Gateway>) {
    let mut step = tokio::time::interval(STEP);
    // After a stall one long step, not many short ones.
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        step.tick().await;
        let Some(gateway) = gateway.upgrade() else { return };
        gateway.history.take(&gateway);
    }
}
