//! A second engine for a stream whose first is slow to begin: whoever sends a byte first answers, and
//! the other is cancelled (Dean, Barroso: "The Tail at Scale", CACM 2013).
//!
//! Both are places that the brain gave, so both are load where others are placed. The second is never
//! the first again, is not waited for where nobody has room, and is bounded over time by a share of
//! the requests: a fleet that is slow because it is full is not given twice the load.
//!
//! Only streams: of another answer the first byte is its last, and says nothing of a slow engine.

use super::asked::Asked;
use super::attempt::{Tried, Turn};
use super::booking::Booking;
use super::config::ms;
use super::pool::Unanswered;
use super::recent::Fate;
use super::settings::Settings;
use super::spans::Trace;
use super::worker::Worker;
use bytes::Bytes;
use hyper::http::request::Parts;
use llmd_brain::EndpointId;
use serde::{Deserialize, Serialize};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// When a second engine is asked. Off unless one of the two is given; with both, the later counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeConfig {
    /// When the first has sent nothing for so long, in milliseconds.
    pub after_ms: Option<u64>,
    /// When it has sent nothing for so many hundredths of the time to first token that nine of ten such
    /// requests were expected not to pass.
    pub after_predicted_percent: Option<u32>,
    /// Second engines for each hundred streams, over time.
    pub budget_percent: u32,
    /// Second engines that may be asked at once however few streams there were.
    pub budget_burst: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self { after_ms: None, after_predicted_percent: None, budget_percent: 5, budget_burst: 10 }
    }
}

impl HedgeConfig {
    /// Whether it is on.
    pub(super) fn is_on(&self) -> bool {
        self.after_ms.is_some() || self.after_predicted_percent.is_some()
    }

    /// After how long a second is asked where nine of ten were expected to begin within `ttft_ms`.
    fn after(&self, ttft_ms: Option<f64>) -> Option<Duration> {
        let given = self.after_ms.map(ms);
        let Some(percent) = self.after_predicted_percent else { return given };
        let expected_ms = ttft_ms? * f64::from(percent) / 100.0;
        let expected = Duration::try_from_secs_f64(expected_ms / 1e3).ok()?;
        Some(given.map_or(expected, |given| given.max(expected)))
    }
}

/// What a request is, to whoever makes a place for it again.
pub(super) struct Hedged<'a> {
    pub(super) settings: &'a Settings,
    pub(super) head: &'a Parts,
    pub(super) body: &'a Bytes,
    pub(super) asked: &'a mut Asked,
    /// Who was asked.
    pub(super) tried: &'a mut Vec<EndpointId>,
    pub(super) trace: &'a mut Option<Box<Trace>>,
}

impl Worker {
    /// A turn at a stream until its first byte, with a second engine where that takes too long.
    pub(super) async fn hedged(&self, first: Turn, request: Hedged<'_>) -> (Turn, Tried) {
        let (settings, head) = (request.settings, request.head);
        settings.hedges.earn();
        let after = settings.config.hedge.after(first.booking.decision().predicted.ttft_p90_ms);
        let (first_leg, first_kept) = (first.leg_id(), first.booking.kept());
        let mut leading = pin!(self.to_first_byte(settings, first, head));
        let Some(after) = after else { return leading.await };
        if let Ok(ended) = tokio::time::timeout(after, leading.as_mut()).await {
            return ended;
        }
        let Hedged { asked, tried, trace, .. } = request;
        let Some(second) = self.second(settings, request.body, asked, tried, trace).await else {
            return leading.await;
        };
        self.gateway.counts.hedges.fetch_add(1, Relaxed);
        let (second_leg, second_kept) = (second.leg_id(), second.booking.kept());
        let mut following = pin!(self.to_first_byte(settings, second, head));
        let (ended, is_second, other, other_leg, other_kept) = tokio::select! {
            ended = leading.as_mut() => (ended, false, following, second_leg, second_kept),
            ended = following.as_mut() => (ended, true, leading, first_leg, first_kept),
        };
        let (turn, tried) = ended;
        if !tried.is_worth_winning() {
            // It is out of the race, and what the other comes to counts.
            self.failed(&turn, &tried, trace);
            drop(turn);
            return other.await;
        }
        if let Some(kept) = other_kept {
            kept.ended(Fate::Outrun, None);
        }
        if is_second {
            self.gateway.counts.hedges_won.fetch_add(1, Relaxed);
        }
        if let (Some(trace), Some(leg)) = (trace, other_leg) {
            trace.leg_lost(leg);
        }
        (turn, tried)
    }

    /// A place for a request that has one, elsewhere and at once; `None` where there is none.
    async fn second(
        &self,
        settings: &Settings,
        body: &Bytes,
        asked: &mut Asked,
        tried: &mut Vec<EndpointId>,
        trace: &mut Option<Box<Trace>>,
    ) -> Option<Turn> {
        if !self.exclude(asked, tried) || !settings.hedges.spend() {
            return None;
        }
        if let Some(trace) = trace {
            trace.choosing();
        }
        // It is served already: there is nothing to wait for.
        let hold_ms = std::mem::take(&mut asked.request.hold_ms);
        let booking = Booking::make(&self.gateway.live, self.recent.as_ref(), asked).await;
        asked.request.hold_ms = hold_ms;
        let booking = booking.ok()?;
        let upstream = self.gateway.fleet.upstream(booking.spec())?;
        tried.push(booking.decision().endpoint);
        let body = asked.body_for_engine(body);
        Some(Turn::new(booking, upstream, body, tried.len(), settings, trace))
    }

    /// A try, and the first byte of its answer.
    async fn to_first_byte(
        &self,
        settings: &Settings,
        mut turn: Turn,
        head: &Parts,
    ) -> (Turn, Tried) {
        let first_byte_ms = settings.config.timeouts.first_byte_ms;
        let tried = match self.attempt(settings, &turn, head).await {
            Tried::Answered(answer, mut lease) if !lease.is_over() => {
                let first = poll_fn(|context| lease.poll_piece(context));
                match tokio::time::timeout(ms(first_byte_ms), first).await {
                    Ok(Some(Ok(piece))) => {
                        turn.first = Some(piece);
                        Tried::Answered(answer, lease)
                    }
                    Ok(None) => Tried::Answered(answer, lease),
                    Ok(Some(Err(error))) => Tried::Failed(Unanswered::Broken(error.to_string())),
                    Err(_) => Tried::Failed(Unanswered::Silent(first_byte_ms)),
                }
            }
            other => other,
        };
        (turn, tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_what_is_given_counts_and_nothing_without_a_prediction() {
        let hedge = |after_ms, after_predicted_percent| HedgeConfig {
            after_ms,
            after_predicted_percent,
            ..HedgeConfig::default()
        };
        assert_eq!(hedge(None, None).after(Some(100.0)), None);
        assert_eq!(hedge(Some(50), None).after(None), Some(ms(50)));
        assert_eq!(hedge(None, Some(300)).after(Some(100.0)), Some(ms(300)));
        assert_eq!(hedge(Some(500), Some(300)).after(Some(100.0)), Some(ms(500)));
        assert_eq!(hedge(Some(50), Some(300)).after(None), None);
        assert_eq!(hedge(None, Some(300)).after(Some(f64::INFINITY)), None);
    }
}
