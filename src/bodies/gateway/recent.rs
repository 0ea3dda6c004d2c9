//! The last decisions, for whoever looks.
//!
//! Each thread keeps its own in a ring, and takes no lock that another thread of the request path
//! takes: the only other one is that of a page which is being made. What is kept are numbers, texts
//! cut short in buffers that stay, and what decisions share anyway; nothing of a prompt, and no key.

use llmd_brain::fleet::{EndpointSpec, Predicted};
use llmd_brain::index::MatchSource;
use llmd_brain::schedule::{Decision, Request, ScoreRow};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Decisions that are kept, and shown.
pub(super) const KEPT: usize = 64;
/// What is kept of a name that a client sent.
const MAX_NAME_BYTES: usize = 64;

/// The rings of all threads.
#[derive(Default)]
pub(super) struct Recent {
    rings: Mutex<Vec<Arc<Ring>>>,
}

/// The last decisions of one thread.
pub(super) struct Ring(Mutex<Entries>);

struct Entries {
    entries: Vec<Entry>,
    /// Decisions since the start.
    count: u64,
}

/// What became of a request that was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is not answered to the end yet.
    Running,
    /// It was.
    Answered,
    /// The engine failed or declined; it may have been placed again.
    Failed,
    /// Another engine that was asked besides was quicker.
    Outrun,
    /// Its client went away.
    Left,
}

/// A decision, and what came of it.
#[derive(Clone)]
pub(super) struct Entry {
    number: u64,
    pub(super) spec: Arc<EndpointSpec>,
    pub(super) model: String,
    pub(super) tenant: String,
    pub(super) placed_at: Instant,
    pub(super) held: Duration,
    pub(super) prompt_tokens: u32,
    pub(super) matched_tokens: u32,
    pub(super) best_matched_tokens: u32,
    pub(super) match_source: MatchSource,
    pub(super) candidates: usize,
    pub(super) scores: ScoreRow,
    pub(super) predicted: Predicted,
    pub(super) status: Option<u16>,
    pub(super) ttft: Option<Duration>,
    pub(super) took: Option<Duration>,
    pub(super) output_tokens: Option<u32>,
    pub(super) fate: Fate,
}

/// Where one decision is kept, until others have taken its place.
#[derive(Clone)]
pub(super) struct Kept {
    ring: Arc<Ring>,
    number: u64,
}

impl Recent {
    /// A ring for one more thread.
    pub(super) fn ring(&self) -> Arc<Ring> {
        let ring = Arc::new(Ring(Mutex::new(Entries { entries: Vec::new(), count: 0 })));
        self.rings.lock().push(Arc::clone(&ring));
        ring
    }

    /// The last decisions of all threads, the last first.
    pub(super) fn last(&self) -> Vec<Entry> {
        let rings = self.rings.lock().clone();
        let mut all: Vec<Entry> =
            rings.iter().flat_map(|ring| ring.0.lock().entries.clone()).collect();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.placed_at));
        all.truncate(KEPT);
        all
    }
}

impl Ring {
    /// Keeps a decision for a request that came at `came`.
    pub(super) fn keep(
        self: &Arc<Self>,
        decision: &Decision,
        spec: &Arc<EndpointSpec>,
        request: &Request,
        model: &str,
        came: Instant,
    ) -> Kept {
        let mut ring = self.0.lock();
        let number = ring.count;
        ring.count += 1;
        let at = number as usize % KEPT;
        let (mut kept_model, mut kept_tenant) = match ring.entries.get_mut(at) {
            Some(old) => (std::mem::take(&mut old.model), std::mem::take(&mut old.tenant)),
            None => (String::new(), String::new()),
        };
        cut_into(&mut kept_model, model);
        cut_into(&mut kept_tenant, request.tenant.as_deref().unwrap_or_default());
        let placed_at = Instant::now();
        let entry = Entry {
            number,
            spec: Arc::clone(spec),
            model: kept_model,
            tenant: kept_tenant,
            placed_at,
            held: placed_at - came,
            prompt_tokens: request.prompt_tokens,
            matched_tokens: decision.matched_tokens,
            best_matched_tokens: decision.reasons.best_matched_tokens(),
            match_source: decision.match_source,
            candidates: decision.reasons.candidates().len(),
            scores: decision.reasons.row(decision.endpoint),
            predicted: decision.predicted,
            status: None,
            ttft: None,
            took: None,
            output_tokens: None,
            fate: Fate::Running,
        };
        match ring.entries.get_mut(at) {
            Some(old) => *old = entry,
            None => ring.entries.push(entry),
        }
        Kept { ring: Arc::clone(self), number }
    }
}

impl Kept {
    /// The engine's answer began.
    pub(super) fn answered(&self, status: u16) {
        self.update(|entry| entry.status = Some(status));
    }

    /// The first token came.
    pub(super) fn first_token(&self) {
        self.update(|entry| entry.ttft = Some(entry.placed_at.elapsed()));
    }

    /// It ended. What is said first counts: a booking that is dropped says no more than that.
    pub(super) fn ended(&self, fate: Fate, output_tokens: Option<u32>) {
        self.update(|entry| {
            if entry.fate == Fate::Running {
                entry.took = Some(entry.placed_at.elapsed());
                entry.output_tokens = output_tokens;
                entry.fate = fate;
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        let mut ring = self.ring.0.lock();
        let entry = ring.entries.get_mut(self.number as usize % KEPT);
        // Others may have taken its place.
        if let Some(entry) = entry.filter(|entry| entry.number == self.number) {
            change(entry);
        }
    }
}

/// Makes `kept` the beginning of `text`.
fn cut_into(kept: &mut String, text: &str) {
    let mut end = text.len().min(MAX_NAME_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    kept.clear();
    kept.push_str(&text[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmd_brain::{EndpointId, ReservationId, Slot, Ticket};

    fn keep(ring: &Arc<Ring>, prompt_tokens: u32, model: &str) -> Kept {
        let endpoint = EndpointId { slot: Slot(0), generation: 1 };
        let decision = Decision {
            ticket: Ticket(0),
            endpoint,
            legs: Default::default(),
            matched_tokens: 0,
            match_source: MatchSource::None,
            predicted: Predicted::default(),
            reservation: ReservationId(0),
            reasons: Default::default(),
        };
        let spec = Arc::new(EndpointSpec::new("http://a:1", ""));
        let request = Request { prompt_tokens, ..Request::default() };
        ring.keep(&decision, &spec, &request, model, Instant::now())
    }

    #[test]
    fn the_last_of_all_threads_are_kept_the_last_first() {
        let recent = Recent::default();
        let rings = [recent.ring(), recent.ring()];
        for number in 0..200 {
            keep(&rings[number as usize % 2], number, "m");
        }
        let last: Vec<u32> = recent.last().iter().map(|it| it.prompt_tokens).collect();
        assert_eq!(last, (200 - KEPT as u32..200).rev().collect::<Vec<_>>());
    }

    #[test]
    fn news_of_a_decision_whose_place_is_taken_changes_no_other() {
        let recent = Recent::default();
        let ring = recent.ring();
        let first = keep(&ring, 0, "m");
        first.answered(200);
        first.first_token();
        assert!(recent.last()[0].status == Some(200) && recent.last()[0].ttft.is_some());
        for number in 1..=KEPT as u32 {
            keep(&ring, number, "m");
        }
        first.ended(Fate::Answered, Some(7));
        assert!(recent.last().iter().all(|it| it.fate == Fate::Running));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let recent = Recent::default();
        keep(&recent.ring(), 0, &"ä".repeat(1_000_000).replacen('ä', "a", 1));
        assert_eq!(recent.last()[0].model.len(), MAX_NAME_BYTES - 1);
    }
}
