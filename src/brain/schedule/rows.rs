//! What the plugins of one decision read, computed when the first of them reads it.
//!
//! A column that lies in the fleet as it is needed is read there. Any other is made once, into a
//! buffer that is kept between decisions: what no plugin of the profile reads costs nothing.
//! Matches are kept as the few rows that have one, since of a large fleet few hold a prompt.

use super::Request;
use super::candidates::{Candidates, Run};
use super::context::Context;
use super::features::{Feature, Features};
use crate::fleet::{Columns, SignalColumn};
use crate::index::{MatchSource, Matches};
use crate::predict::Prefill;
use crate::{EndpointId, Slot, Tier};
use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

/// Slots that are passed over together where they match nothing.
const CHUNK: usize = 16;

/// A candidate that holds a part of the prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MatchedRow {
    pub(super) row: usize,
    pub(super) source: MatchSource,
    /// Prompt tokens that it is believed to hold, on any tier.
    pub(super) tokens: f64,
    /// Those of them on each tier below the GPU.
    pub(super) lower_tiers: [f64; Tier::COUNT - 1],
}

/// The candidates of one decision, one row each, in slot order.
#[derive(Default)]
pub struct Rows {
    candidates: Arc<Candidates>,
    matched: Vec<MatchedRow>,
    prompt_tokens: f64,
    /// Prompt tokens in blocks that have a key: what could be matched.
    keyed_tokens: f64,
    columns: [OnceCell<Vec<f64>>; Feature::COUNT],
    spare: RefCell<Vec<Vec<f64>>>,
}

impl Rows {
    /// Number of candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids().len()
    }

    /// The candidates.
    #[must_use]
    pub fn ids(&self) -> &[EndpointId] {
        &self.candidates.ids
    }

    pub(super) fn shared_ids(&self) -> Arc<[EndpointId]> {
        Arc::clone(&self.candidates.ids)
    }

    /// The runs of adjacent slots that the candidates make up.
    pub(super) fn runs(&self) -> &[Run] {
        self.candidates.runs()
    }

    /// Those that hold a part of the prompt, in the order of their rows.
    pub(super) fn matched(&self) -> &[MatchedRow] {
        &self.matched
    }

    /// What one of them holds.
    pub(super) fn match_of(&self, row: usize) -> Option<&MatchedRow> {
        let at = self.matched.binary_search_by_key(&row, |matched| matched.row).ok()?;
        Some(&self.matched[at])
    }

    /// Matched share of the blocks that have a key, 0 to 1; 0 for a prompt without a full block.
    #[must_use]
    pub fn hit_ratio(&self, row: usize) -> f64 {
        self.share_of_keyed(self.match_of(row).map_or(0.0, |matched| matched.tokens))
    }

    /// `tokens` as a share of those in blocks that have a key.
    pub(super) fn share_of_keyed(&self, tokens: f64) -> f64 {
        if self.keyed_tokens > 0.0 { (tokens / self.keyed_tokens).min(1.0) } else { 0.0 }
    }

    /// The row of the candidate in this slot.
    #[must_use]
    pub fn row(&self, slot: Slot) -> Option<usize> {
        self.ids().binary_search_by_key(&slot, |id| id.slot).ok()
    }

    /// Begins a decision.
    pub(super) fn start(
        &mut self,
        candidates: Arc<Candidates>,
        request: &Request,
        matches: &Matches,
    ) {
        self.candidates = candidates;
        self.prompt_tokens = request.prompt_tokens.into();
        let block_tokens = f64::from(request.block_tokens);
        self.keyed_tokens = f64::from(matches.query_blocks) * block_tokens;
        let spare = self.spare.get_mut();
        spare.extend(self.columns.iter_mut().filter_map(OnceCell::take));
        self.find_matched(block_tokens, matches);
    }

    fn find_matched(&mut self, block_tokens: f64, matches: &Matches) {
        self.matched.clear();
        let known = matches.depth_blocks.len();
        for run in self.candidates.runs() {
            let slots = run.slots();
            let first_row = run.rows().start;
            let depths = &matches.depth_blocks[slots.start.min(known)..slots.end.min(known)];
            // Most slots match nothing: they are passed over many at a time.
            let (chunks, rest) = depths.as_chunks::<CHUNK>();
            let chunks = chunks.iter().map(<[u32; CHUNK]>::as_slice).chain([rest]);
            for (chunk, depths) in chunks.enumerate() {
                if depths.iter().fold(0, |any, depth| any | depth) == 0 {
                    continue;
                }
                for (offset, &depth_blocks) in depths.iter().enumerate() {
                    let offset = chunk * CHUNK + offset;
                    let (row, slot) = (first_row + offset, slots.start + offset);
                    // The match of a former tenant counts for nothing.
                    if depth_blocks == 0
                        || matches.generation[slot] != self.candidates.ids[row].generation
                    {
                        continue;
                    }
                    let tokens = (f64::from(depth_blocks) * block_tokens).min(self.prompt_tokens);
                    let mut left = tokens;
                    let lower_tiers = matches.lower_tier_blocks[slot].map(|blocks| {
                        let here = (f64::from(blocks) * block_tokens).min(left);
                        left -= here;
                        here
                    });
                    let source = matches.source[slot];
                    self.matched.push(MatchedRow { row, source, tokens, lower_tiers });
                }
            }
        }
    }

    /// Removes the candidates that are not kept.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        for column in self.columns.iter_mut().filter_map(OnceCell::get_mut) {
            retain_by(column, keep);
        }
        let mut ids = self.ids().to_vec();
        retain_by(&mut ids, keep);
        self.candidates = Arc::new(Candidates::new(&ids));
        self.matched.retain(|matched| keep[matched.row]);
        let (mut seen, mut kept) = (0, 0);
        for matched in &mut self.matched {
            kept += keep[seen..matched.row].iter().filter(|&&keep| keep).count();
            seen = matched.row;
            matched.row = kept;
        }
    }

    /// One column of the decision that `cx` is of.
    pub(super) fn column<'a>(&'a self, feature: Feature, cx: &Context<'a>) -> &'a [f64] {
        if let (Some(slots), Some(column)) = (self.candidates.sole_run(), lies_in(feature, cx)) {
            return &column[slots];
        }
        self.columns[feature as usize].get_or_init(|| {
            let mut column = self.spare.borrow_mut().pop().unwrap_or_default();
            column.resize(self.len(), 0.0);
            self.fill(feature, cx, &mut column);
            column
        })
    }

    /// Writes every row of a column.
    fn fill(&self, feature: Feature, cx: &Context<'_>, out: &mut [f64]) {
        let fleet = cx.fleet.columns();
        match feature {
            Feature::PromptTokens => out.fill(self.prompt_tokens),
            Feature::MatchedTokens => self.spread(0.0, |matched| matched.tokens, out),
            Feature::CpuMatchedTokens => self.spread(0.0, |matched| matched.lower_tiers[0], out),
            Feature::StorageMatchedTokens => {
                self.spread(0.0, |matched| matched.lower_tiers[1], out);
            }
            Feature::RemoteMatchedTokens => self.spread(0.0, |matched| matched.lower_tiers[2], out),
            Feature::UncachedTokens => {
                let uncached = |tokens: f64| (self.prompt_tokens - tokens).max(1.0);
                self.spread(uncached(0.0), |matched| uncached(matched.tokens), out);
            }
            Feature::WaitingRequests => self.signals(&fleet.waiting_requests, cx, out),
            Feature::RunningRequests => self.signals(&fleet.running_requests, cx, out),
            Feature::KvUsage => self.signals(&fleet.kv_usage, cx, out),
            Feature::GpuUtilization => self.signals(&fleet.gpu_utilization, cx, out),
            Feature::MaxRunningRequests => {
                for run in self.runs() {
                    let limits = &fleet.max_running_requests[run.slots()];
                    for (out, &limit) in out[run.rows()].iter_mut().zip(limits) {
                        *out = if limit == 0 { f64::NAN } else { f64::from(limit) };
                    }
                }
            }
            Feature::PredictedTtftMs => self.ttft_ms(cx, out),
            Feature::PredictedTpotMs => {
                for (out, id) in out.iter_mut().zip(self.ids()) {
                    *out = cx.tpot_ms(id.slot).unwrap_or(f64::NAN);
                }
            }
            Feature::InflightRequests
            | Feature::DecodingRequests
            | Feature::PendingPrefillTokens
            | Feature::ActiveDecodeTokens
            | Feature::InflightContextTokens
            | Feature::KvCapacityTokens => {
                if let Some(column) = lies_in(feature, cx) {
                    for run in self.runs() {
                        out[run.rows()].copy_from_slice(&column[run.slots()]);
                    }
                }
            }
        }
    }

    /// `nothing` for those that match nothing.
    fn spread(&self, nothing: f64, value: impl Fn(&MatchedRow) -> f64, out: &mut [f64]) {
        out.fill(nothing);
        for matched in &self.matched {
            out[matched.row] = value(matched);
        }
    }

    fn signals(&self, column: &SignalColumn, cx: &Context<'_>, out: &mut [f64]) {
        let max_age = cx.fleet.metrics_max_age();
        for run in self.runs() {
            column.fresh(run.slots(), cx.now, max_age, &mut out[run.rows()]);
        }
    }

    fn ttft_ms(&self, cx: &Context<'_>, out: &mut [f64]) {
        let now_ms = cx.now.as_millis_f64();
        let own = Prefill::of(cx.request.prompt_tokens, 0);
        out.fill(f64::NAN);
        for run in self.runs() {
            if let Some(rows) = cx.predictor.prefill_rows(run.slots(), cx.fleet.columns()) {
                rows.fill(now_ms, &own, &mut out[run.rows()]);
            }
        }
        for matched in &self.matched {
            let slot = self.ids()[matched.row].slot;
            out[matched.row] = cx.ttft_ms(slot, matched.tokens as u32).unwrap_or(f64::NAN);
        }
    }

    /// All columns, for those who are not plugins.
    pub(super) fn features(&self, cx: &Context<'_>) -> Features {
        let mut values = Vec::with_capacity(Feature::COUNT * self.len());
        for feature in Feature::ALL {
            values.extend_from_slice(self.column(feature, cx));
        }
        Features::new(self.ids().to_vec(), values)
    }
}

/// The fleet's own column of a feature, where it has one of that form.
fn lies_in<'a>(feature: Feature, cx: &Context<'a>) -> Option<&'a [f64]> {
    let fleet = cx.fleet.columns();
    if let Some(signals) = reported(feature, fleet) {
        return signals.all_fresh(cx.now, cx.fleet.metrics_max_age());
    }
    Some(match feature {
        Feature::InflightRequests => &fleet.inflight_requests,
        Feature::DecodingRequests => &fleet.decoding_requests,
        Feature::PendingPrefillTokens => &fleet.pending_prefill_tokens,
        Feature::ActiveDecodeTokens => &fleet.active_decode_tokens,
        Feature::InflightContextTokens => &fleet.inflight_context_tokens,
        Feature::KvCapacityTokens => &fleet.kv_capacity_tokens,
        _ => return None,
    })
}

/// The signal that a feature is.
pub(super) fn reported(feature: Feature, fleet: &Columns) -> Option<&SignalColumn> {
    Some(match feature {
        Feature::WaitingRequests => &fleet.waiting_requests,
        Feature::RunningRequests => &fleet.running_requests,
        Feature::KvUsage => &fleet.kv_usage,
        Feature::GpuUtilization => &fleet.gpu_utilization,
        _ => return None,
    })
}

fn retain_by<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(false));
}
