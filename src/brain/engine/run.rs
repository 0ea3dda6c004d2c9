//! When steps end.
//!
//! The clock of an engine counts fractions of a nanosecond in whole numbers, so that sums are exact in
//! whatever order they are made: a run of steps ends when its steps would, one by one, and the end of
//! any of them takes no loop over those before it.

use super::EngineConfig;
use super::work::Work;
use crate::Time;
use std::time::Duration;

/// A step that has begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// When it began.
    pub started: Time,
    /// When it will end.
    pub ends: Time,
    /// How long it takes, milliseconds.
    pub duration_ms: f64,
}

/// A nanosecond, on the clock of an engine.
const NANOSECOND: u64 = 1 << 20;
const FRACTIONS_PER_MS: f64 = 1e6 * NANOSECOND as f64;

/// An instant on the clock of an engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Instant {
    pub(super) time: Time,
    /// What has passed of the next nanosecond.
    fraction: u64,
}

impl Instant {
    /// The same, or `now` where that is later: an engine that was idle begins on a whole nanosecond.
    pub(super) fn or_later(self, now: Time) -> Self {
        if now > self.time { Self { time: now, fraction: 0 } } else { self }
    }

    fn after(self, fractions: u64) -> Self {
        let fractions = self.fraction.saturating_add(fractions);
        let time = self.time + Duration::from_nanos(fractions / NANOSECOND);
        Self { time, fraction: fractions % NANOSECOND }
    }
}

/// Steps of the same work, but for the tokens that each has decoded for the next.
#[derive(Debug, Clone)]
pub(super) struct Run {
    started: Instant,
    steps: u32,
    /// How long its first step takes, and how much longer each one takes than the one before.
    first: u64,
    growth: u64,
    /// When its steps end, since it began, where each has a jitter of its own.
    jittered: Vec<u64>,
}

impl Run {
    /// The steps are numbered from `number` on. `jittered` is memory.
    pub(super) fn new(
        work: &Work,
        config: &EngineConfig,
        started: Instant,
        number: u64,
        steps: u32,
        mut jittered: Vec<u64>,
    ) -> Self {
        let fractions = |ms: f64| (ms * FRACTIONS_PER_MS) as u64;
        let a_token = fractions(config.profile.decode_ms_per_context_token);
        let first = fractions(work.without_context_ms(config))
            .saturating_add(a_token.saturating_mul(work.context_tokens));
        let growth = a_token.saturating_mul(work.decode_requests.into());
        jittered.clear();
        if config.step_jitter > 0.0 {
            let (mut end, mut step) = (0_u64, first);
            jittered.extend((number..number + u64::from(steps)).map(|number| {
                end = end.saturating_add((config.jitter(number) * step as f64) as u64);
                step = step.saturating_add(growth);
                end
            }));
        }
        Self { started, steps, first, growth, jittered }
    }

    /// Fractions of a nanosecond from its beginning to the end of its step `number`, from 1 on.
    fn until(&self, number: u32) -> u64 {
        match self.jittered.get(number as usize - 1) {
            Some(end) => *end,
            None => {
                let number = u64::from(number);
                let grown = self.growth.saturating_mul(number * (number - 1) / 2);
                self.first.saturating_mul(number).saturating_add(grown)
            }
        }
    }

    fn end_of(&self, number: u32) -> Instant {
        self.started.after(self.until(number))
    }

    pub(super) fn steps(&self) -> u32 {
        self.steps
    }

    pub(super) fn end(&self) -> Instant {
        self.end_of(self.steps)
    }

    pub(super) fn planned(&self) -> Planned {
        Planned {
            started: self.started.time,
            ends: self.end().time,
            duration_ms: self.until(self.steps) as f64 / FRACTIONS_PER_MS,
        }
    }

    /// It ends with the step that runs at `now`.
    pub(super) fn cut(&mut self, now: Time) {
        let (mut least, mut most) = (1, self.steps);
        while least < most {
            let middle = least + (most - least) / 2;
            if self.end_of(middle).time < now {
                least = middle + 1;
            } else {
                most = middle;
            }
        }
        self.steps = least;
    }

    /// Its memory, for another.
    pub(super) fn into_memory(self) -> Vec<u64> {
        self.jittered
    }
}
