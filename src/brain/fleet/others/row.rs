//! What the pages of one endpoint say of others, and what of them is ours.

use crate::Time;
use crate::fleet::{Load, MetricsSample};
use std::time::Duration;

/// A page shows what was admitted at most so long ago.
const MOST_LATE: Duration = Duration::from_secs(10);

/// Prompt tokens looked up in a prefix cache, and found there.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Lookups {
    pub(super) queries: f64,
    pub(super) hits: f64,
}

/// A prefill of somebody else's, or several behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::fleet) struct OthersPrefill {
    pub(super) since: Time,
    pub(super) done_at: Time,
    pub(super) uncached_tokens: f64,
    pub(super) pairs: f64,
    pub(super) prompt_tokens: f64,
}

/// A request of ours by which it shows how late pages are: one that is past its prefill was admitted
/// before, and a page without it is older than its first token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) booked_at: Time,
    /// Prompt tokens booked up to it.
    pub(super) position: f64,
    pub(super) first_token_at: Option<Time>,
    pub(super) missing_at: Option<Time>,
}

/// What is known of an endpoint besides its page.
pub(super) struct Own {
    pub(super) load: Load,
    pub(super) kv_capacity_tokens: f64,
}

/// What the pages of one endpoint say.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// The counters on the last page.
    pub(super) shown: Option<Lookups>,
    pub(super) sampled_at: Option<Time>,
    /// Of our own bookings, what no page has shown.
    pub(super) unshown: Lookups,
    pub(super) booked_tokens: f64,
    pub(super) probe: Option<Probe>,
    /// Prompt tokens of our requests that are past their prefill: since `turned_at`, and in as long
    /// a time before.
    pub(super) past: [f64; 2],
    pub(super) turned_at: Time,
    pub(super) prefill: Option<OthersPrefill>,
    pub(super) requests: f64,
    pub(super) waiting: f64,
    pub(super) context_tokens: f64,
}

impl Row {
    pub(super) fn forget(&mut self) {
        (self.requests, self.waiting, self.context_tokens) = (0.0, 0.0, 0.0);
    }

    /// Until when the requests counted here are believed; `None` where none are.
    pub(super) fn stale_at(&self, max_age: Duration) -> Option<Time> {
        self.sampled_at.filter(|_| self.requests > 0.0).map(|at| at + max_age)
    }

    /// When there is something to forget, unless news comes before.
    pub(super) fn next_due(&self, max_age: Duration) -> Option<Time> {
        let done_at = self.prefill.map(|it| it.done_at);
        done_at.into_iter().chain(self.stale_at(max_age)).min()
    }

    /// How late the page just read is; `None` where nothing is learned of it.
    pub(super) fn lateness(&mut self, now: Time) -> Option<Duration> {
        let shown = self.booked_tokens - self.unshown.queries;
        let probe = self.probe.as_mut()?;
        let first_token_at = probe.first_token_at?;
        if shown + 0.5 < probe.position && now.since(first_token_at) < MOST_LATE {
            probe.missing_at = Some(now);
            return None;
        }
        let missing_at = probe.missing_at;
        self.probe = None;
        Some(missing_at.map_or(Duration::ZERO, |at| at.since(first_token_at)))
    }

    pub(super) fn is_past(&mut self, now: Time, prompt_tokens: u32) {
        self.turn(now);
        self.past[0] += f64::from(prompt_tokens);
    }

    fn turn(&mut self, now: Time) {
        let passed = now.since(self.turned_at);
        if passed >= MOST_LATE {
            self.past = if passed < 2 * MOST_LATE { [0.0, self.past[0]] } else { [0.0; 2] };
            self.turned_at = now;
        }
    }

    /// What somebody else's requests looked up between the last page and this.
    pub(super) fn admitted(
        &mut self,
        now: Time,
        sample: &MetricsSample,
        own: &Load,
    ) -> Option<Lookups> {
        self.turn(now);
        let page = Lookups {
            queries: sample.prefix_cache_queries_tokens?,
            hits: sample.prefix_cache_hits_tokens?,
        };
        let last = self.shown.replace(page)?;
        // An engine that started again counts from zero.
        let rise = (page.queries >= last.queries).then_some(page.queries - last.queries)?;
        let hits = (page.hits - last.hits).max(0.0);
        // What of ours is long past its prefill has been shown, or never will be.
        let pending = own.inflight_context_tokens - own.active_decode_tokens;
        let most = pending as f64 + self.past[0] + self.past[1];
        if self.unshown.queries > most {
            let kept = most / self.unshown.queries;
            self.unshown = Lookups { queries: most, hits: self.unshown.hits * kept };
        }
        let ours = rise.min(self.unshown.queries);
        let share = if ours > 0.0 { ours / self.unshown.queries } else { 0.0 };
        let our_hits = self.unshown.hits * share;
        self.unshown.queries -= ours;
        self.unshown.hits -= our_hits;
        let queries = rise - ours;
        (queries >= 1.0)
            .then(|| Lookups { queries, hits: (hits - our_hits).clamp(0.0, queries - 1.0) })
    }

    /// One more prefill: behind that in progress, if it is not done.
    pub(super) fn add(&mut self, since: Time, ms: f64, new: OthersPrefill) {
        let duration = Duration::from_nanos((ms * 1e6) as u64);
        let before = self.prefill.filter(|it| it.done_at > since);
        self.prefill = Some(match before {
            None => OthersPrefill { done_at: since + duration, ..new },
            Some(it) => OthersPrefill {
                since: it.since,
                done_at: it.done_at + duration,
                uncached_tokens: it.uncached_tokens + new.uncached_tokens,
                pairs: it.pairs + new.pairs,
                prompt_tokens: it.prompt_tokens + new.prompt_tokens,
            },
        });
    }

    /// The requests of others on a page.
    pub(super) fn count(&mut self, sample: &MetricsSample, own: &Own) {
        let (Some(running), Some(waiting)) = (sample.running_requests, sample.waiting_requests)
        else {
            return self.forget();
        };
        let Own { load: own, kv_capacity_tokens } = own;
        let own_pending = f64::from(own.inflight_requests - own.decoding_requests);
        self.requests = (running + waiting - f64::from(own.inflight_requests)).max(0.0).floor();
        self.waiting = (waiting - own_pending).clamp(0.0, self.requests).floor();
        let context = sample.kv_usage.unwrap_or(0.0) * kv_capacity_tokens
            - own.inflight_context_tokens as f64;
        self.context_tokens = if self.requests > 0.0 && context > 0.0 { context } else { 0.0 };
    }
}
