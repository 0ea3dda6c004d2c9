//! What was predicted of a request when it was placed.

use serde::{Deserialize, Serialize};

/// Predicted latencies, milliseconds; `None` until there is a model of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Predicted {
    /// Time to first token, the mean.
    pub ttft_ms: Option<f64>,
    /// Time per output token, the mean.
    pub tpot_ms: Option<f64>,
    /// Time to first token that nine of ten such requests do not pass.
    #[serde(default)]
    pub ttft_p90_ms: Option<f64>,
    /// Time per output token that half of such requests do not pass: below the mean, since few
    /// prefills interrupt most answers, and many a few.
    #[serde(default)]
    pub tpot_p50_ms: Option<f64>,
    /// Time per output token that nine of ten do not pass.
    #[serde(default)]
    pub tpot_p90_ms: Option<f64>,
    /// Time per output token were no prefill to interrupt it.
    #[serde(default)]
    pub tpot_alone_ms: Option<f64>,
}
