//! Whether an engine has enough to do.
//!
//! Engines serve first come first served, so what waits in one can no longer be overtaken. One is kept
//! just busy enough: its queued prefill is at most `queue_ms` by its latency model (without a model: a
//! batch of tokens), it runs fewer requests than it can, and its KV is not all asked for. What is
//! asked for is what the engine reports in use and what is queued there; where it reports nothing,
//! half of the context in flight, since prefixes are shared.

use super::TurnConfig;
use crate::fleet::{DEFAULT_BATCH_TOKENS, Fleet};
use crate::predict::Predictor;
use crate::{Slot, Time};

/// Share of the context in flight that is distinct, where nothing is reported.
const DISTINCT_SHARE: f64 = 0.5;
/// Share of the oldest prefill that may be taken to be done.
const MOST_PASSED: f64 = 0.9;

/// What an engine is short of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Room {
    /// Of nothing.
    Open,
    /// Of time: its queue is longer than it should be by so many milliseconds.
    QueueOver(f64),
    /// Of something whose end nobody knows.
    Full,
}

/// What the endpoint of a slot is short of now.
pub(crate) fn room(
    config: &TurnConfig,
    now: Time,
    fleet: &Fleet,
    predictor: &Predictor,
    slot: Slot,
) -> Room {
    let (columns, at) = (fleet.columns(), slot.index());
    let most = columns.max_running_requests[at];
    if most > 0 && columns.inflight_requests[at] >= f64::from(most) {
        return Room::Full;
    }
    let pending = columns.pending_prefill_tokens[at];
    let capacity = columns.kv_capacity_tokens[at];
    let reported = columns.kv_usage.get(slot).fresh(now, fleet.metrics_max_age());
    let asked = match reported {
        Some(usage) => usage * capacity + pending,
        None => DISTINCT_SHARE * columns.inflight_context_tokens[at],
    };
    // An unknown capacity is NaN: never full.
    if asked >= config.kv_share * capacity && columns.inflight_requests[at] > 0.0 {
        return Room::Full;
    }
    if pending == 0.0 {
        return Room::Open;
    }
    let Some(rates) = predictor.rates(slot) else {
        let batch = match columns.max_batch_tokens[at] {
            0 => DEFAULT_BATCH_TOKENS,
            tokens => tokens,
        };
        return if pending >= f64::from(batch) { Room::Full } else { Room::Open };
    };
    let [base, per_token, per_pair] = rates.prefill;
    let work_ms = |tokens: f64, pairs: f64| per_token * tokens + per_pair * pairs;
    let head_ms = work_ms(columns.head_tokens[at], columns.head_pairs[at]);
    let since_ms = now.as_millis_f64() - columns.head_since_ms[at];
    let passed_ms = since_ms.clamp(0.0, MOST_PASSED * head_ms);
    let queued_ms = base + work_ms(pending, columns.pending_prefill_pairs[at]) - passed_ms;
    match queued_ms - config.queue_ms {
        over if over > 0.0 => Room::QueueOver(over),
        _ => Room::Open,
    }
}
