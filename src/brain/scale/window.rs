//! Readings of several routers, and what they come to over a stretch of time.

use super::Demand;
use crate::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Most routers that are kept apart; of more, those last heard of earliest are forgotten.
const MOST_SOURCES: usize = 4_096;

/// What came between two looks.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    began: Time,
    ended: Time,
    came: Demand,
}

/// The latest readings, and what came over the last while.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    sources: BTreeMap<String, (Time, Demand)>,
    /// What came since the last look.
    came: Demand,
    /// When anybody told anything last, and whether that was since the last look.
    heard: Option<Time>,
    is_news: bool,
    looked: Option<Time>,
    stretches: VecDeque<Stretch>,
}

impl Window {
    /// A router's reading. The first of a router says what is so now, and nothing of what came.
    pub(super) fn read(&mut self, now: Time, source: &str, reading: &Demand) {
        (self.heard, self.is_news) = (Some(now), true);
        match self.sources.get_mut(source) {
            Some((at, last)) => {
                self.came.add(&Demand {
                    backlog_ms: 0.0,
                    waiting_requests: 0.0,
                    resident_tokens: 0.0,
                    ..reading.since(last)
                });
                (*at, *last) = (now, *reading);
            }
            None => {
                if self.sources.len() >= MOST_SOURCES {
                    let oldest = self.sources.iter().min_by_key(|(_, (at, _))| *at);
                    if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                        self.sources.remove(&name);
                    }
                }
                self.sources.insert(source.to_owned(), (now, *reading));
            }
        }
    }

    /// Ends the stretch since the last look and gives all that came over the last `span`, with the mean
    /// of the loads, and the seconds that it took; `None` where nobody has told anything since: the
    /// stretch goes on, unless the silence has lasted for the whole span.
    pub(super) fn look(&mut self, now: Time, span: Duration) -> Option<(Demand, f64)> {
        let silent_since = now.before(span);
        self.sources.retain(|_, (at, _)| *at >= silent_since);
        if !std::mem::take(&mut self.is_news) {
            if self.is_silent(now, span) {
                *self = Self::default();
            }
            return None;
        }
        let began = self.looked.replace(now);
        let mut came = std::mem::take(&mut self.came);
        let began = began.filter(|began| *began < now)?;
        for (_, last) in self.sources.values() {
            came.backlog_ms += last.backlog_ms;
            came.waiting_requests += last.waiting_requests;
            came.resident_tokens += last.resident_tokens;
            came.kv_tokens_per_replica = came.kv_tokens_per_replica.max(last.kv_tokens_per_replica);
        }
        self.stretches.push_back(Stretch { began, ended: now, came });
        while self.stretches.len() > 1
            && self.stretches.front().is_some_and(|first| first.ended <= now.before(span))
        {
            self.stretches.pop_front();
        }
        let (mut all, mut seconds) = (Demand::default(), 0.0);
        for it in &self.stretches {
            all.add(&it.came);
            seconds += it.ended.millis_since(it.began) / 1e3;
        }
        // Loads are means; what waits is what waits now.
        all.resident_tokens /= self.stretches.len() as f64;
        all.backlog_ms = came.backlog_ms;
        all.waiting_requests = came.waiting_requests;
        Some((all, seconds))
    }

    /// Whether nobody has told anything for so long.
    pub(super) fn is_silent(&self, now: Time, span: Duration) -> bool {
        self.heard.is_none_or(|heard| now.since(heard) > span)
    }
}
