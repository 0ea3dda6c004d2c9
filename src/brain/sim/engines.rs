//! The engines of a world, each with the news that routers have yet to get.

use crate::Time;
use crate::engine::KvChange;
use crate::engine::{EngineConfig, EngineConfigError, EngineModel, Load, SharedCache, Step};
use crate::fleet::MetricsSample;
use std::collections::VecDeque;
use std::rc::Rc;

/// What a step did to the KV cache, and when that was true.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) at: Time,
    pub(super) changes: Rc<[KvChange]>,
}

/// One engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) model: EngineModel,
    /// When its step ends, as the events say; `None` while it is idle.
    pub(super) announced: Option<Time>,
    /// Whether it is alive.
    pub(super) is_up: bool,
    /// For each router, what it does not know yet, oldest first.
    pub(super) unread: Vec<VecDeque<News>>,
    samples: Samples,
    /// Prompt tokens that its page says were looked up in its prefix cache, and were found there, as of
    /// the last step that ended; `None` where pages tell of the step under way.
    shown: Option<[u64; 2]>,
}

impl Engine {
    pub(super) fn new(
        config: EngineConfig,
        routers: usize,
        samples: Samples,
        shared: Option<SharedCache>,
        pages_at_step_end: bool,
    ) -> Result<Self, EngineConfigError> {
        let model = EngineModel::new(config)?;
        Ok(Self {
            model: match shared {
                Some(shared) => model.sharing(shared),
                None => model,
            },
            announced: None,
            is_up: true,
            unread: vec![VecDeque::new(); routers],
            samples,
            shown: pages_at_step_end.then_some([0; 2]),
        })
    }

    /// Ends the step in flight and keeps its news.
    pub(super) fn finish_step(&mut self, now: Time, step: &mut Step) {
        if self.samples.is_due(now) {
            self.samples.until(now, self.page());
        }
        self.model.finish_step(step);
        let counted = self.counted();
        self.shown = self.shown.map(|_| counted);
        if !step.changes.is_empty() {
            let changes: Rc<[KvChange]> = step.changes.drain(..).collect();
            for unread in &mut self.unread {
                unread.push_back(News { at: now, changes: Rc::clone(&changes) });
            }
        }
    }

    /// Before the model changes at `now`.
    pub(super) fn before_change(&mut self, now: Time) {
        if self.samples.is_due(now) {
            self.samples.until(now, self.page());
        }
    }

    /// It begins anew, and its events say so.
    pub(super) fn is_empty_now(&mut self, now: Time) {
        let changes: Rc<[KvChange]> = Rc::new([KvChange::Cleared]);
        for unread in &mut self.unread {
            unread.push_back(News { at: now, changes: Rc::clone(&changes) });
        }
    }

    /// The next sample that a router has by `now` and has not been told, and when it got it.
    pub(super) fn sample(&mut self, now: Time, router: usize) -> Option<(Time, Page)> {
        if !self.is_up {
            return None;
        }
        if self.samples.is_due(now) {
            self.samples.until(now, self.page());
        }
        self.samples.next(now, router)
    }

    fn counted(&self) -> [u64; 2] {
        let counters = self.model.counters();
        [counters.prefix_queries_tokens, counters.prefix_hits_tokens]
    }

    fn page(&self) -> Page {
        let [prefix_queries_tokens, prefix_hits_tokens] =
            self.shown.unwrap_or_else(|| self.counted());
        Page { load: self.model.load(), prefix_queries_tokens, prefix_hits_tokens }
    }
}

/// What an engine's metrics page says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Page {
    load: Load,
    prefix_queries_tokens: u64,
    prefix_hits_tokens: u64,
}

impl Page {
    pub(super) fn read(&self) -> MetricsSample {
        MetricsSample {
            waiting_requests: Some(self.load.waiting_requests.into()),
            running_requests: Some(self.load.running_requests.into()),
            kv_usage: Some(self.load.kv_usage()),
            prefix_cache_queries_tokens: Some(self.prefix_queries_tokens as f64),
            prefix_cache_hits_tokens: Some(self.prefix_hits_tokens as f64),
            ..MetricsSample::default()
        }
    }
}

/// What an engine's metrics page said whenever it was read: at multiples of an interval, and known
/// to the readers a while later.
#[derive(Debug, Clone)]
pub(super) struct Samples {
    interval_nanos: u64,
    lag_nanos: u64,
    /// The last multiple that has been taken.
    taken: u64,
    /// Those that a reader may still want: of what said the same, the first and the last.
    kept: VecDeque<(Time, Page)>,
    /// How many are no longer kept.
    dropped: usize,
    /// How many each reader has read or passed over.
    read: Vec<usize>,
}

impl Samples {
    /// `interval_nanos` 0 takes none.
    pub(super) fn new(interval_nanos: u64, lag_nanos: u64, readers: usize) -> Self {
        let (kept, read) = (VecDeque::new(), vec![0; readers]);
        Self { interval_nanos, lag_nanos, taken: 0, kept, dropped: 0, read }
    }

    /// Whether one is to be taken: what the page says is asked for that alone.
    fn is_due(&self, now: Time) -> bool {
        now.as_nanos().checked_div(self.interval_nanos).is_some_and(|it| it > self.taken)
    }

    /// The page has said `page` since the last call.
    fn until(&mut self, now: Time, page: Page) {
        let Some(multiple) = now.as_nanos().checked_div(self.interval_nanos) else { return };
        // A sample at the very instant of a change sees what was before it.
        if multiple <= self.taken {
            return;
        }
        let first = self.taken + 1;
        self.taken = multiple;
        let mut keep = |multiple: u64| {
            self.kept.push_back((Time::from_nanos(multiple * self.interval_nanos), page));
        };
        if first < multiple {
            keep(first);
        }
        keep(multiple);
    }

    /// The oldest that a reader has by `now` and has not read, and when it got it; of a lone reader the
    /// newest, since nothing that it has not done itself happens in between.
    fn next(&mut self, now: Time, reader: usize) -> Option<(Time, Page)> {
        let known = |at: Time| {
            let told = Time::from_nanos(at.as_nanos() + self.lag_nanos);
            (told <= now).then_some(told)
        };
        let at = |number: usize| self.kept.get(number - self.dropped);
        let mut number = self.read[reader];
        let (mut told, mut page) = at(number).and_then(|(at, page)| Some((known(*at)?, *page)))?;
        number += 1;
        while self.read.len() == 1
            && let Some((later, newer)) =
                at(number).and_then(|(at, page)| Some((known(*at)?, *page)))
        {
            (told, page) = (later, newer);
            number += 1;
        }
        self.read[reader] = number;
        let all = self.read.iter().copied().min().unwrap_or_default();
        self.kept.drain(..all - self.dropped);
        self.dropped = all;
        Some((told, page))
    }
}
