//! What the plugins of one decision read, computed when the first of them reads it.
//!
//! A column that lies in the fleet as it is needed is read there. Any other is made once, into a
//! buffer that is kept between decisions: what no plugin of the profile reads costs nothing.
//! Matches are columns too: where prompts begin alike, nearly everybody holds a part of each.

use super::Request;
use super::candidates::{Candidates, Run};
use super::context::Context;
use super::features::{Feature, Features};
use crate::fleet::{Columns, SignalColumn};
use crate::index::{MatchSource, Matches};
use crate::lanes::vectorised;
use crate::predict::Prefill;
use crate::{EndpointId, Slot, Tier};
use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

/// Those who hold a part of the prompt are treated one by one where they are fewer than one in so
/// many.
pub(super) const FEW: usize = 8;
/// Rows that are passed over together where they match nothing.
const CHUNK: usize = 16;

/// Tokens on each tier below the GPU.
pub(super) type LowerTiers = [f64; Tier::COUNT - 1];

/// A candidate that holds a part of the prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MatchedRow {
    pub(super) row: usize,
    pub(super) source: MatchSource,
    /// Prompt tokens that it is believed to hold, on any tier.
    pub(super) tokens: f64,
    /// Those of them on each tier below the GPU.
    pub(super) lower_tiers: LowerTiers,
}

/// The candidates of one decision, one row each, in slot order.
#[derive(Default)]
pub struct Rows {
    candidates: Arc<Candidates>,
    /// Prompt tokens that each is believed to hold, on any tier.
    tokens: Vec<f64>,
    /// Those of them on each tier below the GPU; empty where nobody has any there.
    lower_tiers: Vec<LowerTiers>,
    sources: Vec<MatchSource>,
    /// How many hold anything.
    matching: usize,
    prompt_tokens: f64,
    /// Prompt tokens in blocks that have a key: what could be matched.
    keyed_tokens: f64,
    columns: [OnceCell<Vec<f64>>; Feature::COUNT],
    spare: RefCell<Vec<Vec<f64>>>,
}

impl Rows {
    #[cfg(test)]
    pub(super) fn for_test(ids: &[EndpointId], tokens: &[f64]) -> Self {
        let candidates = Arc::new(Candidates::new(ids));
        let sources = vec![MatchSource::Exact; ids.len()];
        let matching = matching(tokens);
        Self { candidates, tokens: tokens.to_vec(), sources, matching, ..Self::default() }
    }

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
    pub(super) fn matched(&self) -> impl Iterator<Item = MatchedRow> + '_ {
        holders(&self.tokens).filter_map(|row| self.match_of(row))
    }

    /// What one of them holds.
    pub(super) fn match_of(&self, row: usize) -> Option<MatchedRow> {
        let tokens = self.tokens[row];
        (tokens > 0.0).then(|| MatchedRow {
            row,
            source: self.sources[row],
            tokens,
            lower_tiers: self.lower_tiers.get(row).copied().unwrap_or_default(),
        })
    }

    /// How many hold a part of the prompt.
    pub(super) fn matching(&self) -> usize {
        self.matching
    }

    /// What all hold, on any tier; 0 where nothing.
    pub(super) fn matched_tokens(&self) -> &[f64] {
        &self.tokens
    }

    /// What all hold below the GPU; empty where nobody holds anything there.
    pub(super) fn lower_tiers(&self) -> &[LowerTiers] {
        &self.lower_tiers
    }

    /// Matched share of the blocks that have a key, 0 to 1; 0 for a prompt without a full block.
    #[must_use]
    pub fn hit_ratio(&self, row: usize) -> f64 {
        self.share_of_keyed(self.match_of(row).map_or(0.0, |matched| matched.tokens))
    }

    /// `tokens` as a share of those in blocks that have a key.
    #[inline(always)]
    pub(super) fn share_of_keyed(&self, tokens: f64) -> f64 {
        let share = tokens / self.keyed_tokens;
        let share = if share < 1.0 { share } else { 1.0 };
        if self.keyed_tokens > 0.0 { share } else { 0.0 }
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
        let rows = self.candidates.ids.len();
        self.tokens.resize(rows, 0.0);
        self.sources.resize(rows, MatchSource::None);
        self.lower_tiers.clear();
        let known = matches.depth_blocks.len();
        for run in self.candidates.runs() {
            let slots = run.slots().start.min(known)..run.slots().end.min(known);
            let rows = run.rows().start..run.rows().start + slots.len();
            // Slots that the matches have no word of: an endpoint that has just joined.
            self.tokens[rows.end..run.rows().end].fill(0.0);
            let depths = &matches.depth_blocks[slots.clone()];
            let theirs = &matches.generation[slots.clone()];
            let ours = &self.candidates.generations[rows.clone()];
            let (out, most) = (&mut self.tokens[rows.clone()], self.prompt_tokens);
            vectorised(
                #[inline(always)]
                || held_tokens(depths, (theirs, ours), block_tokens, most, out),
            );
            self.sources[rows].copy_from_slice(&matches.source[slots]);
        }
        self.matching = matching(&self.tokens);
        let lower = &matches.lower_tier_blocks;
        let is_lower = |row: usize| {
            let slot = self.candidates.ids[row].slot.index();
            lower.get(slot).is_some_and(|blocks| *blocks != [0; Tier::COUNT - 1])
        };
        let any_lower = match self.matching * FEW < rows {
            true => holders(&self.tokens).take(self.matching).any(is_lower),
            false => vectorised(
                #[inline(always)]
                || lower.as_flattened().iter().fold(0, |any, &of| any | of) > 0,
            ),
        };
        if any_lower {
            self.find_lower_tiers(block_tokens, matches);
        }
    }

    fn find_lower_tiers(&mut self, block_tokens: f64, matches: &Matches) {
        let rows = self.candidates.ids.iter().zip(&self.tokens);
        self.lower_tiers.extend(rows.map(|(id, &tokens)| {
            let mut left = tokens;
            let known = matches.lower_tier_blocks.get(id.slot.index());
            known.copied().unwrap_or_default().map(|blocks| {
                let here = (f64::from(blocks) * block_tokens).min(left);
                left -= here;
                here
            })
        }));
    }

    /// Removes the candidates that are not kept.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        for column in self.columns.iter_mut().filter_map(OnceCell::get_mut) {
            retain_by(column, keep);
        }
        let mut ids = self.ids().to_vec();
        retain_by(&mut ids, keep);
        self.candidates = Arc::new(Candidates::new(&ids));
        retain_by(&mut self.tokens, keep);
        retain_by(&mut self.sources, keep);
        retain_by(&mut self.lower_tiers, keep);
        self.matching = matching(&self.tokens);
    }

    /// One column of the decision that `cx` is of.
    pub(super) fn column<'a>(&'a self, feature: Feature, cx: &Context<'a>) -> &'a [f64] {
        if feature == Feature::MatchedTokens {
            return &self.tokens;
        }
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
            Feature::MatchedTokens => out.copy_from_slice(&self.tokens),
            Feature::CpuMatchedTokens => self.lower_tier(0, out),
            Feature::StorageMatchedTokens => self.lower_tier(1, out),
            Feature::RemoteMatchedTokens => self.lower_tier(2, out),
            Feature::UncachedTokens => {
                for (out, tokens) in out.iter_mut().zip(&self.tokens) {
                    *out = (self.prompt_tokens - tokens).max(1.0);
                }
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

    fn lower_tier(&self, tier: usize, out: &mut [f64]) {
        out.fill(0.0);
        for (out, tiers) in out.iter_mut().zip(&self.lower_tiers) {
            *out = tiers[tier];
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
        for matched in self.matched() {
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

/// The rows that hold something: where few do, most are passed over many at a time.
pub(super) fn holders(held: &[f64]) -> impl Iterator<Item = usize> + '_ {
    let chunks = held.chunks(CHUNK).enumerate();
    // No early exit, and no sum, which has an order: this compiles to a few comparisons of vectors.
    let any = |tokens: &[f64]| tokens.iter().fold(false, |any, &tokens| any | (tokens > 0.0));
    let some = chunks.filter(move |(_, tokens)| any(tokens));
    some.flat_map(|(chunk, tokens)| {
        let rows = (chunk * CHUNK..).zip(tokens);
        rows.filter(|&(_, &tokens)| tokens > 0.0).map(|(row, _)| row)
    })
}

/// How many hold something.
pub(super) fn matching(held: &[f64]) -> usize {
    vectorised(
        #[inline(always)]
        || held.iter().map(|&tokens| usize::from(tokens > 0.0)).sum(),
    )
}

/// Tokens that each holds of a prompt of `most`; the match of a former tenant counts for nothing.
#[inline(always)]
fn held_tokens(
    depths: &[u32],
    (theirs, ours): (&[u32], &[u32]),
    block_tokens: f64,
    most: f64,
    out: &mut [f64],
) {
    let rows = out.len();
    let (depths, theirs, ours) = (&depths[..rows], &theirs[..rows], &ours[..rows]);
    for (row, out) in out.iter_mut().enumerate() {
        let tokens = f64::from(depths[row]) * block_tokens;
        let tokens = if tokens < most { tokens } else { most };
        *out = if theirs[row] == ours[row] { tokens } else { 0.0 };
    }
}

fn retain_by<T>(items: &mut Vec<T>, keep: &[bool]) {
    let mut keep = keep.iter();
    items.retain(|_| keep.next().copied().unwrap_or(false));
}
