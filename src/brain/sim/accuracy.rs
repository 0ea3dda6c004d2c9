//! How well a router's predictions came true.
//!
//! Over all requests that were served, but for the first [`LEARNING_REQUESTS`] to arrive: errors are
//! mean absolute percentage errors, `mean(|predicted - measured| / measured)`, of what was predicted
//! at the decision, when neither the length of the answer nor what will come beside it is known.
//! Times per output token are of answers of at least two tokens. Coverage is the share of requests
//! that were no slower than their 90th percentile said.

use super::{Fate, Outcome, Row};
use crate::predict::Timing;
use serde::{Deserialize, Serialize};

/// Requests from which models have learned before predictions count.
pub const LEARNING_REQUESTS: usize = 500;

/// Endpoints that have shown fewer outputs say little of their models.
const SEEN: u32 = 100;

/// Errors of a router's predictions, as shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Of the mean time to first token.
    pub ttft_mape: f64,
    /// Of the mean time per output token.
    pub tpot_mape: f64,
    /// Of the median time per output token.
    pub tpot_p50_mape: f64,
    /// Share of the times to first token within their 90th percentile.
    pub ttft_p90_coverage: f64,
    /// The same of times per output token.
    pub tpot_p90_coverage: f64,
    /// Usual relative error of what the endpoints' models say of a time to first token, once it is
    /// known what the request met; NaN where no model has learned.
    pub ttft_hindsight_error: f64,
    /// The same of a time per output token: what is left when arrivals and the length of the answer
    /// are known.
    pub tpot_hindsight_error: f64,
    /// Alarms of drift, all of them false: the engines of a simulation stay as they are.
    pub drift_alarms: u64,
}

impl Accuracy {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let served = || {
            let learned = outcome.rows.iter().skip(LEARNING_REQUESTS);
            learned.filter(|row| row.fate == Fate::Served)
        };
        let ttft = |of: fn(&Row) -> Option<f64>| {
            Pairs(
                served()
                    .filter_map(|row| Some((of(row)?, row.first_token_ms - row.sent_ms)))
                    .collect(),
            )
        };
        let tpot = |of: fn(&Row) -> Option<f64>| {
            let several = served().filter(|row| row.output_tokens > 1);
            Pairs(several.filter_map(|row| Some((of(row)?, row.tpot_ms()))).collect())
        };
        let mean = |of: fn(&Timing) -> Option<f64>| {
            let seen = |it: &&Timing| it.decodes_observed.min(it.prefills_observed) >= SEEN;
            let errors: Vec<f64> = outcome.timings.iter().filter(seen).filter_map(of).collect();
            errors.iter().sum::<f64>() / errors.len() as f64
        };
        Self {
            ttft_mape: ttft(|row| row.predicted.ttft_ms).mape(),
            tpot_mape: tpot(|row| row.predicted.tpot_ms).mape(),
            tpot_p50_mape: tpot(|row| row.predicted.tpot_p50_ms).mape(),
            ttft_p90_coverage: ttft(|row| row.predicted.ttft_p90_ms).coverage(),
            tpot_p90_coverage: tpot(|row| row.predicted.tpot_p90_ms).coverage(),
            ttft_hindsight_error: mean(|it| it.prefill_error),
            tpot_hindsight_error: mean(|it| it.decode_error),
            drift_alarms: outcome.drift_alarms,
        }
    }
}

/// What was predicted, and what was measured.
struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    fn mean(&self, of: impl Fn(f64, f64) -> f64) -> f64 {
        let known = self.0.iter().filter(|(_, measured)| *measured > 0.0);
        let (sum, count) = known.fold((0.0, 0_u64), |(sum, count), (predicted, measured)| {
            (sum + of(*predicted, *measured), count + 1)
        });
        sum / count.max(1) as f64
    }

    fn mape(&self) -> f64 {
        self.mean(|predicted, measured| (predicted - measured).abs() / measured)
    }

    fn coverage(&self) -> f64 {
        self.mean(|predicted, measured| f64::from(u8::from(measured <= predicted)))
    }
}
