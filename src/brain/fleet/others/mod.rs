//! What other senders have in flight, where nobody tells: estimated from an engine's metrics pages.
//!
//! A page counts the prompt tokens that the engine looked up in its prefix cache, and those it found
//! there, since its start; vLLM counts a request when it leaves the queue. Between two pages the rise
//! is what was admitted, and what of it no booking of ours explains came from somebody else:
//!
//! ```text
//! own      = min(booked here and shown by no page yet, rise)
//! others   = rise - own          prompt tokens; the uncached ones of them are a prefill under way
//! requests = running + waiting - own in flight              the others', lower bounds
//! waiting  = waiting - own without a first token
//! ```
//!
//! A prefill counts from the middle between the two pages for as long as the latency model says, or
//! until a request that we sent later has its first token: engines prefill in the order of arrival.
//! Those that wait are taken to be as long as those seen before. Pages may be late: how late is learned
//! from requests of ours that have their first token and are on no page yet.
//!
//! Where more time passes unseen (the age of a page and what lies between two) than half a usual prefill,
//! pages are not asked: routers that see the same idle endpoint for so long all choose it.
//!
//! Guaranteed: while every request on every engine is ours, all of it is zero, however late pages come
//! (up to 10 s) and whatever was cached: a page cannot show more prompt tokens than were booked
//! before. A router that counts the tokens of its prompts otherwise than the engine does takes the
//! difference for somebody else's. Until others have been seen, and once they have not been for
//! [`REMEMBERED`], counts of requests are not compared: those lag.
//!
//! NOTE(perf): tried on the conversation trace, four routers, load 0.8. A cost of its own for each router
//! and endpoint (0 to 400 ms, by a hash), so that those who see the same choose otherwise: 0.6 points of
//! SLO less with pages every 50 ms, 1.2 with 1,000 ms; with pages every second up to 4,000 ms win 3 and
//! end where no estimate is.
//!
//! Not here: engines whose pages lack these counters, of which only queues and KV usage are seen.

mod row;

pub(super) use self::row::OthersPrefill;
use self::row::{Own, Probe, Row};
use super::{Fleet, FleetError, Load, MetricsSample, PrefillHead, Reservation, prefill_pairs};
use crate::{EndpointId, Slot, Time};
use std::time::Duration;

/// So long after the last request that was somebody else's, somebody else is taken to be there.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Share of a usual prefill that may pass unseen.
const MOST_UNSEEN: f64 = 0.5;
/// Requests over which the running means are taken.
const MEMORY_REQUESTS: f64 = 32.0;

/// A request of others, on average over the recent ones; zero before the first.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    prompt_tokens: f64,
    uncached_tokens: f64,
    prefill_ms: f64,
}

impl Mean {
    fn learn(&mut self, prompt_tokens: f64, uncached_tokens: f64, prefill_ms: Option<f64>) {
        let mean = |mean: &mut f64, value: f64| {
            *mean += if *mean == 0.0 { value } else { (value - *mean) / MEMORY_REQUESTS };
        };
        mean(&mut self.prompt_tokens, prompt_tokens);
        mean(&mut self.uncached_tokens, uncached_tokens);
        prefill_ms.into_iter().for_each(|ms| mean(&mut self.prefill_ms, ms));
    }

    /// Whether pages that leave so much time unseen tell of prefills before they are done.
    fn tells(&self, unseen: Duration) -> bool {
        unseen.as_secs_f64() * 1e3 <= self.prefill_ms * MOST_UNSEEN
    }
}

/// What others have in flight on each endpoint.
#[derive(Debug, Clone)]
pub(super) struct Others {
    rows: Vec<Row>,
    /// Pages older than this count for nothing.
    max_age: Duration,
    /// Before this [`settle`](Self::settle) has nothing to forget. Every decision asks, so it is kept; it
    /// may be too early, where what it stood for is gone.
    next_due: Option<Time>,
    seen_at: Option<Time>,
    /// How late pages were at most, of late.
    late: Duration,
    mean: Mean,
}

impl Others {
    pub(super) fn new(max_age: Duration) -> Self {
        Self {
            rows: Vec::new(),
            max_age,
            next_due: None,
            seen_at: None,
            late: Duration::ZERO,
            mean: Mean::default(),
        }
    }

    /// A slot has a new tenant.
    pub(super) fn admit(&mut self, slot: Slot) {
        self.rows.resize_with(self.rows.len().max(slot.index() + 1), Row::default);
        self.rows[slot.index()] = Row::default();
    }

    /// A request of ours was booked.
    pub(super) fn booked(
        &mut self,
        now: Time,
        slot: Slot,
        prompt_tokens: u32,
        uncached_tokens: u32,
    ) {
        if let Some(row) = self.rows.get_mut(slot.index()) {
            row.unshown.queries += f64::from(prompt_tokens);
            row.unshown.hits += f64::from(prompt_tokens.saturating_sub(uncached_tokens));
            row.booked_tokens += f64::from(prompt_tokens);
            row.probe.get_or_insert(Probe {
                booked_at: now,
                position: row.booked_tokens,
                first_token_at: None,
                missing_at: None,
            });
        }
    }

    /// A request of ours has its first token: what others sent before it is prefilled, and returned.
    pub(super) fn first_token(
        &mut self,
        now: Time,
        slot: Slot,
        it: &Reservation,
    ) -> Option<OthersPrefill> {
        let row = self.rows.get_mut(slot.index())?;
        row.is_past(now, it.prompt_tokens);
        if let Some(probe) = row.probe.as_mut().filter(|probe| probe.booked_at == it.booked_at) {
            probe.first_token_at = Some(now);
        }
        row.prefill.take_if(|prefill| prefill.since <= it.booked_at)
    }

    /// A request of ours ended, and nobody told of a token before.
    pub(super) fn gone(&mut self, now: Time, slot: Slot, it: &Reservation) {
        if let Some(row) = self.rows.get_mut(slot.index()) {
            row.is_past(now, it.prompt_tokens);
            row.probe.take_if(|probe| probe.booked_at == it.booked_at);
        }
    }

    /// A page was read; `prefill_ms` is how long uncached tokens and pairs take. Returns whether others
    /// are taken to be there.
    fn observe(
        &mut self,
        now: Time,
        slot: Slot,
        sample: &MetricsSample,
        own: &Own,
        prefill_ms: impl Fn(f64, f64) -> Option<f64>,
    ) -> bool {
        let Some(row) = self.rows.get_mut(slot.index()) else { return false };
        let before = row.sampled_at.replace(now).unwrap_or(now);
        let came = row.admitted(now, sample, &own.load);
        if let Some(late) = row.lateness(now) {
            let faded = self.late - self.late / MEMORY_REQUESTS as u32;
            self.late = late.max(faded);
        }
        // Between two pages, and before the first of them is read, nothing is known.
        let unseen = self.late + now.since(before);
        if let Some(came) = came {
            self.seen_at = Some(now);
            let uncached = came.queries - came.hits;
            let pairs = prefill_pairs(uncached as u32, came.hits as u32) as f64;
            let ms = prefill_ms(uncached, pairs);
            self.mean.learn(came.queries, uncached, ms);
            if let Some(ms) = ms.filter(|_| self.mean.tells(unseen)) {
                let since = now.before(self.late + now.since(before) / 2);
                row.add(
                    since,
                    ms,
                    OthersPrefill {
                        since,
                        done_at: since,
                        uncached_tokens: uncached,
                        pairs,
                        prompt_tokens: came.queries,
                    },
                );
            }
        }
        let is_shared = self.seen_at.is_some_and(|at| now.since(at) <= REMEMBERED);
        if is_shared && self.mean.tells(unseen) {
            row.count(sample, own);
        } else {
            row.forget();
        }
        self.next_due = earliest(self.next_due, row.next_due(self.max_age));
        is_shared
    }

    /// Forgets what is done by `now`, and counts on pages that are too old; returns where that was so,
    /// and the prefill that is done there.
    fn settle(&mut self, now: Time) -> Vec<(Slot, Option<OthersPrefill>)> {
        let mut settled = Vec::new();
        if self.next_due.is_none_or(|due| now < due) {
            return settled;
        }
        self.next_due = None;
        for (at, row) in self.rows.iter_mut().enumerate() {
            let done = row.prefill.take_if(|it| it.done_at <= now);
            let is_forgotten = row.stale_at(self.max_age).is_some_and(|stale_at| stale_at < now);
            if is_forgotten {
                row.forget();
            }
            if is_forgotten || done.is_some() {
                settled.push((Slot(at as u32), done));
            }
            self.next_due = earliest(self.next_due, row.next_due(self.max_age));
        }
        settled
    }

    /// What they have in flight on a slot.
    pub(super) fn load(&self, slot: Slot) -> Load {
        let Some(row) = self.rows.get(slot.index()).filter(|_| self.seen_at.is_some()) else {
            return Load::default();
        };
        let (mean_prompt, mean_uncached) = (self.mean.prompt_tokens, self.mean.uncached_tokens);
        let mean_pairs = prefill_pairs(mean_uncached as u32, (mean_prompt - mean_uncached) as u32);
        let (prefilling, prefill) = match row.prefill {
            Some(it) => (1.0, it),
            None => (0.0, OthersPrefill::default()),
        };
        let inflight = row.requests.max(prefilling + row.waiting);
        let decoding = inflight - prefilling - row.waiting;
        let in_decode = (row.context_tokens - prefill.prompt_tokens).max(0.0);
        let decode_tokens = if decoding > 0.0 { in_decode } else { 0.0 };
        let context = decode_tokens + prefill.prompt_tokens + row.waiting * mean_prompt;
        Load {
            inflight_requests: inflight as u32,
            decoding_requests: decoding as u32,
            pending_prefill_tokens: (prefill.uncached_tokens + row.waiting * mean_uncached) as u64,
            pending_prefill_pairs: (prefill.pairs + row.waiting * mean_pairs as f64) as u64,
            active_decode_tokens: decode_tokens as u64,
            inflight_context_tokens: context as u64,
        }
    }

    /// Their prefill in progress on a slot.
    pub(super) fn head(&self, slot: Slot) -> Option<PrefillHead> {
        let it = self.rows.get(slot.index())?.prefill?;
        Some(PrefillHead {
            since: it.since,
            uncached_tokens: it.uncached_tokens as u32,
            pairs: it.pairs as u64,
        })
    }
}

fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    one.into_iter().chain(other).min()
}

impl Fleet {
    /// Takes from the last page of an endpoint what others have in flight there. `prefill_ms` is how
    /// long uncached tokens and their pairs take there; where nobody knows, no prefill is estimated.
    ///
    /// # Errors
    /// [`FleetError::Unknown`].
    pub fn estimate_others(
        &mut self,
        now: Time,
        id: EndpointId,
        prefill_ms: impl Fn(f64, f64) -> Option<f64>,
    ) -> Result<(), FleetError> {
        let now = self.clamp(now);
        let slot = self.slot_of(id)?;
        let Some(Some(tenant)) = self.tenants.get(slot.index()) else {
            return Err(FleetError::Unknown(id));
        };
        let own = Own {
            load: self.ledger.load(slot),
            kv_capacity_tokens: self.columns.kv_capacity_tokens[slot.index()],
        };
        if self.others.observe(now, slot, &tenant.sample, &own, prefill_ms) {
            self.refresh_load(now, slot);
        }
        Ok(())
    }

    /// Whether somebody else is known to send requests to these endpoints.
    pub(super) fn is_shared(&self, now: Time) -> bool {
        let seen_at = self.others.seen_at;
        self.peers.is_told(now) || seen_at.is_some_and(|at| now.since(at) <= REMEMBERED)
    }

    /// Forgets what others had in flight that is done by `now`: before a decision.
    pub fn settle_others(&mut self, now: Time) {
        let now = self.clamp(now);
        for (slot, done) in self.others.settle(now) {
            self.others_prefilled(now, slot, done);
            self.refresh_load(now, slot);
        }
    }

    /// A prefill of others is done, which interrupted what we have in decode there.
    pub(super) fn others_prefilled(&mut self, now: Time, slot: Slot, done: Option<OthersPrefill>) {
        if let Some(done) = done.filter(|_| !self.peers.is_told(now)) {
            let steps = done.uncached_tokens * self.columns.steps_per_token[slot.index()];
            let (tokens, pairs) = (done.uncached_tokens as u64, done.pairs as u64);
            self.ledger.others_prefilled(now, slot, tokens, pairs, (steps.ceil() as u64).max(1));
        }
    }
}
