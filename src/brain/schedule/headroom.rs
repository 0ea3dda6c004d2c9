//! How far a prediction is below the request's latency objectives.

use super::Feature;
use super::context::Context;

/// Objective minus prediction, milliseconds; negative where the objective would be missed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Headroom {
    pub ttft_ms: f64,
    pub tpot_ms: f64,
}

impl Headroom {
    /// The headroom of one candidate; `None` where it has no prediction of the time to first
    /// token. A time per output token that is not predicted counts as just in time.
    ///
    /// An objective that the request does not give is taken as llm-d takes it: 0 where neither is
    /// given, so that less latency is always better; otherwise as met by whatever is predicted.
    pub(super) fn of(cx: &Context<'_>, row: usize) -> Option<Self> {
        let ttft_ms = cx.column(Feature::PredictedTtftMs)[row];
        let tpot_ms = cx.column(Feature::PredictedTpotMs)[row];
        if ttft_ms.is_nan() {
            return None;
        }
        let slo = cx.request.slo;
        let none_given = slo.ttft_ms.is_none() && slo.tpot_ms.is_none();
        let below = |objective: Option<f64>, predicted: f64| match objective {
            _ if predicted.is_nan() => 0.0,
            Some(objective) => objective - predicted,
            None if none_given => -predicted,
            None => 0.0,
        };
        Some(Self { ttft_ms: below(slo.ttft_ms, ttft_ms), tpot_ms: below(slo.tpot_ms, tpot_ms) })
    }

    /// Whether both objectives would be met.
    pub(super) fn is_met(&self) -> bool {
        self.ttft_ms >= 0.0 && self.tpot_ms >= 0.0
    }
}
