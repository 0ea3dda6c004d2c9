//! The decision log: enough to make every decision again, bit for bit.
//!
//! Entries are written in the order in which the brain's mutex was taken, so that concurrent
//! callers leave one history. What an index match answered is part of the entry, since the index
//! is read without the mutex: a replay is fed those answers and needs no index.

use super::{Action, Brain, BrainConfig, BrainError, Input};
use crate::Time;
use crate::index::{MatchSource, Matches};
use crate::schedule::Decision;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// One turn of the brain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The time that the turn was given.
    pub now: Time,
    /// What happened.
    pub input: Input,
    /// What the index answered, once for each placement that the turn tried.
    pub matches: Vec<SparseMatches>,
    /// What the brain did.
    pub actions: Vec<Action>,
}

/// Where entries go. Called under the brain's mutex: it must not block, nor call the brain.
pub type LogSink = Box<dyn FnMut(LogEntry) + Send>;

/// A match without its zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseMatches {
    /// Number of slots.
    pub slots: u32,
    /// Blocks of the query.
    pub query_blocks: u32,
    /// Endpoints with a match, in slot order.
    pub rows: Vec<SparseMatch>,
}

/// One endpoint's match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseMatch {
    /// Slot.
    pub slot: u32,
    /// Tenant of the slot.
    pub generation: u32,
    /// Matched blocks.
    pub depth_blocks: u32,
    /// How many of them on the lower tiers.
    pub lower_tier_blocks: [u32; 3],
    /// What it rests on.
    pub source: MatchSource,
}

impl From<&Matches> for SparseMatches {
    fn from(dense: &Matches) -> Self {
        let rows = dense
            .depth_blocks
            .iter()
            .enumerate()
            .filter(|&(_, &depth)| depth > 0)
            .map(|(row, &depth_blocks)| SparseMatch {
                slot: row as u32,
                generation: dense.generation[row],
                depth_blocks,
                lower_tier_blocks: dense.lower_tier_blocks[row],
                source: dense.source[row],
            })
            .collect();
        Self { slots: dense.depth_blocks.len() as u32, query_blocks: dense.query_blocks, rows }
    }
}

impl SparseMatches {
    /// Puts the zeros back. Rows beyond `slots` (a damaged log) are dropped.
    pub fn expand(&self, dense: &mut Matches) {
        dense.reset(self.slots as usize, self.query_blocks);
        for row in &self.rows {
            let at = row.slot as usize;
            if at < dense.depth_blocks.len() {
                dense.generation[at] = row.generation;
                dense.depth_blocks[at] = row.depth_blocks;
                dense.lower_tier_blocks[at] = row.lower_tier_blocks;
                dense.source[at] = row.source;
            }
        }
    }
}

/// What came of making a log's decisions again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Entries read.
    pub entries: u64,
    /// Decisions among them.
    pub decisions: u64,
    /// Decisions whose bits differ from the log's.
    pub different_decisions: u64,
    /// Entries whose other actions (holds, rejections, cancellations) differ.
    pub different_entries: u64,
    /// Number of the first entry that differs.
    pub first_difference: Option<u64>,
}

impl ReplayReport {
    /// Whether everything came out the same.
    #[must_use]
    pub fn is_identical(&self) -> bool {
        self.different_decisions == 0 && self.different_entries == 0
    }
}

/// Makes a log's decisions again, with the brain that the log was made by or with another one
/// ("would policy B have been better?").
pub struct Replay {
    brain: Brain,
    report: ReplayReport,
}

impl Replay {
    /// A replay that starts as the recorded brain did.
    ///
    /// # Errors
    /// [`BrainError`] where the configuration cannot be.
    pub fn new(config: BrainConfig) -> Result<Self, BrainError> {
        Ok(Self { brain: Brain::new(config)?, report: ReplayReport::default() })
    }

    /// Makes one turn again; returns what the brain does now.
    pub fn turn(&mut self, entry: &LogEntry) -> Vec<Action> {
        let actions = self.brain.turn_again(entry.now, entry.input.clone(), &entry.matches);
        let number = self.report.entries;
        self.report.entries += 1;
        let then = || entry.actions.iter().filter_map(decision_of);
        let now = || actions.iter().filter_map(decision_of);
        let decisions = then().count() as u64;
        let same = then().zip(now()).filter(|(a, b)| decision_bits(a) == decision_bits(b)).count();
        self.report.decisions += decisions;
        let different = decisions.max(now().count() as u64) - same as u64;
        self.report.different_decisions += different;
        let others_differ = !entry
            .actions
            .iter()
            .filter(|action| decision_of(action).is_none())
            .eq(actions.iter().filter(|action| decision_of(action).is_none()));
        self.report.different_entries += u64::from(others_differ);
        if different > 0 || others_differ {
            self.report.first_difference.get_or_insert(number);
        }
        actions
    }

    /// What has come of it so far.
    #[must_use]
    pub fn report(&self) -> &ReplayReport {
        &self.report
    }
}

fn decision_of(action: &Action) -> Option<&Decision> {
    match action {
        Action::Route(decision) | Action::Release(decision) => Some(decision),
        _ => None,
    }
}

/// A digest over every bit of a decision: floats by their bits, so that -0.0 and 0.0 differ.
#[must_use]
pub fn decision_bits(decision: &Decision) -> u64 {
    let mut digest = Xxh3::new();
    let mut word = |value: u64| digest.update(&value.to_le_bytes());
    word(decision.ticket.0);
    word(u64::from(decision.endpoint.slot.0));
    word(u64::from(decision.endpoint.generation));
    for leg in &decision.legs {
        word(leg.phase as u64);
        for endpoint in &leg.endpoints {
            word(u64::from(endpoint.slot.0) << 32 | u64::from(endpoint.generation));
        }
    }
    word(u64::from(decision.matched_tokens));
    word(decision.match_source as u64);
    let of = decision.predicted;
    for it in [of.ttft_ms, of.tpot_ms, of.ttft_p90_ms, of.tpot_p50_ms, of.tpot_p90_ms] {
        word(it.map_or(u64::MAX, f64::to_bits));
    }
    word(decision.reservation.0);
    let why = decision.explanation();
    for (candidate, tokens) in why.candidates.iter().zip(&why.matched_tokens) {
        word(u64::from(candidate.slot.0));
        word(u64::from(*tokens));
    }
    for total in &why.totals {
        word(total.to_bits());
    }
    for step in &why.filters {
        digest.update(step.name.as_bytes());
        digest.update(&[u8::from(step.skipped)]);
        for removed in &step.removed {
            digest.update(&removed.slot.0.to_le_bytes());
        }
    }
    for column in &why.scores {
        digest.update(column.name.as_bytes());
        digest.update(&column.weight.to_bits().to_le_bytes());
        for value in &column.values {
            digest.update(&value.to_bits().to_le_bytes());
        }
    }
    digest.update(why.profile.as_bytes());
    digest.update(why.picker.as_bytes());
    digest.update(why.fallback.as_deref().unwrap_or_default().as_bytes());
    digest.digest()
}
