//! What is known about every candidate, as columns: the names of the columns, which filters and
//! scorers read by [`Context::column`](super::context::Context::column), and all of them together,
//! which foreign scorers get.

use crate::EndpointId;

/// A column of [`Features`]. NaN is unknown in each of them: never reported, too old, or without a
/// model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Feature {
    /// Length of the prompt, tokens; the same for everybody.
    PromptTokens,
    /// Prompt tokens that the endpoint is believed to hold, on any tier.
    MatchedTokens,
    /// Those of them in host memory.
    CpuMatchedTokens,
    /// Those of them on disk.
    StorageMatchedTokens,
    /// Those of them on another server or in a shared store.
    RemoteMatchedTokens,
    /// Prompt tokens that it would have to compute: at least 1, since an engine recomputes the last
    /// token of a prompt that it holds entirely.
    UncachedTokens,
    /// Requests in the engine's queue, as it reported.
    WaitingRequests,
    /// Requests running, as it reported.
    RunningRequests,
    /// Share of its KV cache in use, 0 to 1, as it reported.
    KvUsage,
    /// Share of time its GPU was busy, 0 to 1, by whatever process.
    GpuUtilization,
    /// Requests sent and not finished.
    InflightRequests,
    /// Those of them that have had a token.
    DecodingRequests,
    /// Uncached prompt tokens sent whose request has had no token yet.
    PendingPrefillTokens,
    /// Context tokens of the requests that are being decoded.
    ActiveDecodeTokens,
    /// Context tokens of everything in flight.
    InflightContextTokens,
    /// KV cache capacity, tokens.
    KvCapacityTokens,
    /// Most requests that the engine runs at once.
    MaxRunningRequests,
    /// Time to first token that the latency model expects of this request there, milliseconds.
    PredictedTtftMs,
    /// Time per output token that it expects, milliseconds.
    PredictedTpotMs,
}

impl Feature {
    /// Every column, in the order in which they lie in memory.
    pub const ALL: [Self; 19] = [
        Self::PromptTokens,
        Self::MatchedTokens,
        Self::CpuMatchedTokens,
        Self::StorageMatchedTokens,
        Self::RemoteMatchedTokens,
        Self::UncachedTokens,
        Self::WaitingRequests,
        Self::RunningRequests,
        Self::KvUsage,
        Self::GpuUtilization,
        Self::InflightRequests,
        Self::DecodingRequests,
        Self::PendingPrefillTokens,
        Self::ActiveDecodeTokens,
        Self::InflightContextTokens,
        Self::KvCapacityTokens,
        Self::MaxRunningRequests,
        Self::PredictedTtftMs,
        Self::PredictedTpotMs,
    ];
    /// Number of columns.
    pub const COUNT: usize = Self::ALL.len();

    /// Its name, as foreign scorers see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PromptTokens => "prompt_tokens",
            Self::MatchedTokens => "matched_tokens",
            Self::CpuMatchedTokens => "cpu_matched_tokens",
            Self::StorageMatchedTokens => "storage_matched_tokens",
            Self::RemoteMatchedTokens => "remote_matched_tokens",
            Self::UncachedTokens => "uncached_tokens",
            Self::WaitingRequests => "waiting_requests",
            Self::RunningRequests => "running_requests",
            Self::KvUsage => "kv_usage",
            Self::GpuUtilization => "gpu_utilization",
            Self::InflightRequests => "inflight_requests",
            Self::DecodingRequests => "decoding_requests",
            Self::PendingPrefillTokens => "pending_prefill_tokens",
            Self::ActiveDecodeTokens => "active_decode_tokens",
            Self::InflightContextTokens => "inflight_context_tokens",
            Self::KvCapacityTokens => "kv_capacity_tokens",
            Self::MaxRunningRequests => "max_running_requests",
            Self::PredictedTtftMs => "predicted_ttft_ms",
            Self::PredictedTpotMs => "predicted_tpot_ms",
        }
    }
}

/// The candidates and their features, one row each, in slot order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    ids: Vec<EndpointId>,
    /// Column after column, each as long as `ids`.
    values: Vec<f64>,
}

impl Features {
    pub(super) fn new(ids: Vec<EndpointId>, values: Vec<f64>) -> Self {
        Self { ids, values }
    }

    /// Number of candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no candidate.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The candidates.
    #[must_use]
    pub fn ids(&self) -> &[EndpointId] {
        &self.ids
    }

    /// One column.
    #[must_use]
    pub fn column(&self, feature: Feature) -> &[f64] {
        let rows = self.len();
        &self.values[feature as usize * rows..][..rows]
    }

    /// All columns, one after the other in the order of [`Feature::ALL`].
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}
