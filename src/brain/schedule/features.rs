//! What is known about every candidate, as columns: the one thing that filters, scorers and
//! foreign scorers read.

use super::Request;
use crate::fleet::{Columns, Signal};
use crate::index::{MatchSource, Matches};
use crate::{EndpointId, Slot, Tier, Time};
use std::time::Duration;

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
    sources: Vec<MatchSource>,
    /// Column after column, each as long as `ids`.
    values: Vec<f64>,
    /// Prompt tokens in blocks that have a key: what could be matched.
    keyed_tokens: f64,
}

impl Features {
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

    /// What each one's match rests on.
    #[must_use]
    pub fn sources(&self) -> &[MatchSource] {
        &self.sources
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

    /// Matched share of the blocks that have a key, 0 to 1; 0 for a prompt without a full block.
    #[must_use]
    pub fn hit_ratio(&self, row: usize) -> f64 {
        self.share_of_keyed(self.column(Feature::MatchedTokens)[row])
    }

    /// `tokens` as a share of those in blocks that have a key.
    pub(super) fn share_of_keyed(&self, tokens: f64) -> f64 {
        if self.keyed_tokens > 0.0 { (tokens / self.keyed_tokens).min(1.0) } else { 0.0 }
    }

    /// The row of the candidate in this slot.
    #[must_use]
    pub fn row(&self, slot: Slot) -> Option<usize> {
        self.ids.binary_search_by_key(&slot, |id| id.slot).ok()
    }

    pub(super) fn column_mut(&mut self, feature: Feature) -> &mut [f64] {
        let rows = self.len();
        &mut self.values[feature as usize * rows..][..rows]
    }

    /// Fills the rows of `candidates`; predictions stay unknown.
    pub(super) fn fill(
        &mut self,
        candidates: &[EndpointId],
        request: &Request,
        columns: &Columns,
        matches: &Matches,
        view: Freshness,
    ) {
        self.ids.clear();
        self.ids.extend_from_slice(candidates);
        self.keyed_tokens = f64::from(matches.query_blocks) * f64::from(request.block_tokens);
        self.values.clear();
        self.values.resize(Feature::COUNT * candidates.len(), f64::NAN);
        self.sources.clear();
        self.fill_matches(request, matches);

        self.signals(Feature::WaitingRequests, &columns.waiting_requests, view);
        self.signals(Feature::RunningRequests, &columns.running_requests, view);
        self.signals(Feature::KvUsage, &columns.kv_usage, view);
        self.signals(Feature::GpuUtilization, &columns.gpu_utilization, view);
        self.counts(Feature::InflightRequests, |row| columns.inflight_requests[row].into());
        self.counts(Feature::DecodingRequests, |row| columns.decoding_requests[row].into());
        self.counts(Feature::PendingPrefillTokens, |row| columns.pending_prefill_tokens[row]);
        self.counts(Feature::ActiveDecodeTokens, |row| columns.active_decode_tokens[row]);
        self.counts(Feature::InflightContextTokens, |row| columns.inflight_context_tokens[row]);
        self.limits(Feature::KvCapacityTokens, |row| columns.kv_capacity_tokens[row]);
        self.limits(Feature::MaxRunningRequests, |row| columns.max_running_requests[row].into());
    }

    fn fill_matches(&mut self, request: &Request, matches: &Matches) {
        let rows = self.ids.len();
        let prompt_tokens = f64::from(request.prompt_tokens);
        let block_tokens = f64::from(request.block_tokens);
        for row in 0..rows {
            let id = self.ids[row];
            let depth_blocks = matches.depth_of(id.slot, id.generation);
            let matched = (f64::from(depth_blocks) * block_tokens).min(prompt_tokens);
            let mut source = MatchSource::None;
            let mut lower_tiers = [0.0; Tier::COUNT - 1];
            if depth_blocks > 0 {
                source = matches.source[id.slot.index()];
                let blocks = matches.lower_tier_blocks[id.slot.index()];
                let mut left = matched;
                for (tokens, blocks) in lower_tiers.iter_mut().zip(blocks) {
                    *tokens = (f64::from(blocks) * block_tokens).min(left);
                    left -= *tokens;
                }
            }
            self.sources.push(source);
            self.values[Feature::PromptTokens as usize * rows + row] = prompt_tokens;
            self.values[Feature::MatchedTokens as usize * rows + row] = matched;
            for (tier, tokens) in lower_tiers.into_iter().enumerate() {
                self.values[(Feature::CpuMatchedTokens as usize + tier) * rows + row] = tokens;
            }
            self.values[Feature::UncachedTokens as usize * rows + row] =
                (prompt_tokens - matched).max(1.0);
        }
    }

    fn signals(&mut self, feature: Feature, signals: &[Signal], view: Freshness) {
        self.gather(feature, |row| signals[row].fresh(view.now, view.max_age).unwrap_or(f64::NAN));
    }

    fn counts(&mut self, feature: Feature, count: impl Fn(usize) -> u64) {
        self.gather(feature, |row| count(row) as f64);
    }

    /// Like `counts`, for what is 0 where it is unknown.
    fn limits(&mut self, feature: Feature, limit: impl Fn(usize) -> u64) {
        self.gather(feature, |row| match limit(row) {
            0 => f64::NAN,
            known => known as f64,
        });
    }

    fn gather(&mut self, feature: Feature, value: impl Fn(usize) -> f64) {
        let rows = self.ids.len();
        let column = &mut self.values[feature as usize * rows..][..rows];
        for (cell, id) in column.iter_mut().zip(&self.ids) {
            *cell = value(id.slot.index());
        }
    }

    /// Removes the candidates that are not kept.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        let rows = self.ids.len();
        let mut kept = 0;
        // In place: a cell never moves to a higher index than its own.
        for column in 0..Feature::COUNT {
            for (row, keep) in keep.iter().enumerate() {
                if *keep {
                    self.values[kept] = self.values[column * rows + row];
                    kept += 1;
                }
            }
        }
        self.values.truncate(kept);
        retain_by(&mut self.ids, keep);
        retain_by(&mut self.sources, keep);
    }
}

/// How old a reported signal may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freshness {
    pub now: Time,
    pub max_age: Duration,
}

fn retain_by<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(false));
}
