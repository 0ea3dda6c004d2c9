//! The engines of a world, each with the news that routers have yet to get.

use crate::Time;
use crate::engine::KvChange;
use crate::engine::{EngineConfig, EngineConfigError, EngineModel, Load, SharedCache, Step};
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
}

impl Engine {
    pub(super) fn new(
        config: EngineConfig,
        routers: usize,
        samples: Samples,
        shared: Option<SharedCache>,
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
        })
    }

    /// Ends the step in flight and keeps its news.
    pub(super) fn finish_step(&mut self, now: Time, step: &mut Step) {
        self.samples.until(now, self.model.load());
        self.model.finish_step(step);
        if !step.changes.is_empty() {
            let changes: Rc<[KvChange]> = step.changes.drain(..).collect();
            for unread in &mut self.unread {
                unread.push_back(News { at: now, changes: Rc::clone(&changes) });
            }
        }
    }

    /// Before the model changes at `now`.
    pub(super) fn before_change(&mut self, now: Time) {
        self.samples.until(now, self.model.load());
    }

    /// It begins anew, and its events say so.
    pub(super) fn is_empty_now(&mut self, now: Time) {
        let changes: Rc<[KvChange]> = Rc::new([KvChange::Cleared]);
        for unread in &mut self.unread {
            unread.push_back(News { at: now, changes: Rc::clone(&changes) });
        }
    }

    /// The newest sample that a reader has at `now`, where there is one.
    pub(super) fn sample(&mut self, now: Time) -> Option<(Time, Load)> {
        if !self.is_up {
            return None;
        }
        self.samples.until(now, self.model.load());
        self.samples.newest(now)
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
    kept: VecDeque<(Time, Load)>,
}

impl Samples {
    /// `interval_nanos` 0 takes none.
    pub(super) fn new(interval_nanos: u64, lag_nanos: u64) -> Self {
        Self { interval_nanos, lag_nanos, taken: 0, kept: VecDeque::new() }
    }

    /// The load has been `load` since the last call.
    fn until(&mut self, now: Time, load: Load) {
        let Some(multiple) = now.as_nanos().checked_div(self.interval_nanos) else { return };
        // A sample at the very instant of a change sees what was before it.
        if multiple <= self.taken {
            return;
        }
        self.taken = multiple;
        let at = Time::from_nanos(multiple * self.interval_nanos);
        // Samples between the last change and this one said the same.
        self.kept.push_back((at, load));
        while self
            .kept
            .get(1)
            .is_some_and(|(next, _)| next.as_nanos() + self.lag_nanos <= now.as_nanos())
        {
            self.kept.pop_front();
        }
    }

    fn newest(&self, now: Time) -> Option<(Time, Load)> {
        let known = |(at, _): &&(Time, Load)| at.as_nanos() + self.lag_nanos <= now.as_nanos();
        self.kept.iter().rev().find(known).copied()
    }
}
