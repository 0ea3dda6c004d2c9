//! The rule: readings in, a number of replicas and its reason out.

use super::stabilise::Stabiliser;
use super::window::Window;
use super::{Bound, Demand, ScaleConfig, ScaleError, Strain};
use crate::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Fewest requests of a window that say how many are in time.
const LEAST_EVIDENCE: f64 = 30.0;
/// Deviations of a share that the evidence has to be away from the objective.
const SURE: f64 = 2.0;
/// What may be strained is learned, but never more than by the formulas: past a size prefixes no longer
/// fit the caches, and a fleet that was in time a moment ago falls behind for minutes. (Allowed 1.25, the
/// fleets of `docs/autoscaling.md` did so every time they shrank.)
const LEAST_ALLOWED: f64 = 0.5;
const MOST_ALLOWED: f64 = 1.0;
/// A strain at which too many missed is allowed no more, nor is what is so near below it.
const BACK_OFF: f64 = 0.97;
/// Nothing is learned from a look at which the strain is by so large a share another than before.
const STEADY: f64 = 0.25;
/// Most looks that growth is judged by.
const MOST_LOOKS: usize = 64;

/// The replicas that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// Those that serve.
    pub ready: u32,
    /// Those that are wanted so far, the ones that still start included.
    pub target: u32,
}

/// What is to be done, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Replicas that there should be.
    pub desired: u32,
    /// Replicas that this look alone would ask for.
    pub needed: u32,
    /// How strained those that serve are; objectives are just met at 1 by the formulas.
    pub strain: f64,
    /// What the fleet may be strained, as learned.
    pub allowed: f64,
    /// What strains it most.
    pub bound: Bound,
    /// Work that comes and waits, in replicas that do nothing else.
    pub work: f64,
    /// Whether anything is known: the number stays as it is where not.
    pub is_informed: bool,
}

/// Sizes a fleet by how near it is to missing its objectives.
///
/// ```
/// use llmd_brain::Time;
/// use llmd_brain::scale::{Demand, Replicas, ScaleConfig, Scaler};
///
/// let mut scaler = Scaler::new(ScaleConfig::default())?;
/// let (mut demand, mut target) = (Demand::default(), 1);
/// for second in (0..600).step_by(10) {
///     // Ten requests a second, each 200 ms of prefill and 100 ms of decode, which may wait 500 ms.
///     demand.requests += 100.0;
///     demand.prefill_ms += 100.0 * 200.0;
///     demand.prefill_ms_squared += 100.0 * 200.0 * 200.0;
///     demand.decode_ms += 100.0 * 100.0;
///     demand.ttft_bounded_requests += 100.0;
///     demand.wait_allowance_ms += 100.0 * 500.0;
///     let now = Time::from_millis_f64(f64::from(second) * 1e3);
///     scaler.read(now, "router-0", &demand)?;
///     target = scaler.look(now, Replicas { ready: target, target }).desired;
/// }
/// assert_eq!(target, 4, "three replicas' worth of work, and room to be in time");
/// # Ok::<(), llmd_brain::scale::ScaleError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Scaler {
    config: ScaleConfig,
    window: Window,
    stabiliser: Stabiliser,
    /// Work at each look of the last while.
    history: VecDeque<(Time, f64)>,
    allowed: f64,
    /// How strained the fleet was at the last look.
    strained: f64,
    /// How many served then, and since when.
    ready: Option<(u32, Time)>,
}

impl Scaler {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// [`ScaleError`] names the setting that cannot be.
    pub fn new(config: ScaleConfig) -> Result<Self, ScaleError> {
        config.validate()?;
        Ok(Self {
            config,
            window: Window::default(),
            stabiliser: Stabiliser::default(),
            history: VecDeque::new(),
            allowed: 1.0,
            strained: 0.0,
            ready: None,
        })
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &ScaleConfig {
        &self.config
    }

    /// Other bounds from now on; what was learned stays.
    ///
    /// # Errors
    /// [`ScaleError`]; nothing changes.
    pub fn set_bounds(&mut self, min_replicas: u32, max_replicas: u32) -> Result<(), ScaleError> {
        let config = ScaleConfig { min_replicas, max_replicas, ..self.config.clone() };
        config.validate()?;
        self.config = config;
        Ok(())
    }

    /// What a router has counted so far.
    ///
    /// # Errors
    /// [`ScaleError`] where a number of it is none or below 0; it is not taken.
    pub fn read(&mut self, now: Time, router: &str, reading: &Demand) -> Result<(), ScaleError> {
        if !reading.is_sound() {
            let (name, value) = ("demand", f64::NAN);
            return Err(ScaleError { name, value, range: "finite numbers, 0 or more" });
        }
        self.window.read(now, router, reading);
        Ok(())
    }

    /// How many replicas there should be, by what has been read since the last look.
    pub fn look(&mut self, now: Time, replicas: Replicas) -> Verdict {
        let config = self.config.clone();
        let target = replicas.target.clamp(config.min_replicas, config.max_replicas);
        let ready_since = self.ready_since(now, replicas.ready);
        let seconds = |it: f64| Duration::from_secs_f64(it);
        let Some((came, span_s)) = self.window.look(now, seconds(config.window_s)) else {
            if self.window.is_silent(now, seconds(config.window_s)) {
                self.stabiliser.forget();
                self.history.clear();
            }
            return self.uninformed(target);
        };
        if came.requests <= 0.0 && came.unmodelled_requests + came.rejected_requests > 0.0 {
            self.stabiliser.forget();
            return self.uninformed(target);
        }
        let strain = Strain::of(&config, &came, span_s);
        // What waits is to be gone by when a replica that is started now would serve.
        let mean_ms = (came.prefill_ms + came.decode_ms) / came.requests.max(1.0);
        let waits_ms = came.backlog_ms + came.waiting_requests * mean_ms;
        let waits = waits_ms / 1e3 / config.startup_s.max(config.window_s);
        let now_asked = strain.with_work(strain.work() + waits);
        let growth = self.growth_per_s(now, strain.work());
        let soon_asked = strain.with_work(now_asked.work() + growth * config.startup_s);
        let (strained, bound) = now_asked.at(replicas.ready);
        let before = std::mem::replace(&mut self.strained, strained);
        let is_steady = (strained - before).abs() <= STEADY * before;
        if is_steady && now.since(ready_since) >= seconds(config.window_s) {
            self.learn(&came, strained);
        }
        let needed = soon_asked.needed(&config, self.allowed);
        let keep = now_asked.needed(&config, self.allowed * (1.0 - config.slack)).max(needed);
        let delays = (seconds(config.up_after_s), seconds(config.down_after_s));
        let desired = self.stabiliser.order(now, (needed, keep), target, delays);
        Verdict {
            desired,
            needed,
            strain: strained,
            allowed: self.allowed,
            bound,
            work: now_asked.work(),
            is_informed: true,
        }
    }

    fn uninformed(&self, target: u32) -> Verdict {
        Verdict {
            desired: target,
            needed: target,
            strain: 0.0,
            allowed: self.allowed,
            bound: Bound::Idle,
            work: 0.0,
            is_informed: false,
        }
    }

    fn ready_since(&mut self, now: Time, ready: u32) -> Time {
        match self.ready {
            Some((before, since)) if before == ready => since,
            _ => {
                self.ready = Some((ready, now));
                now
            }
        }
    }

    /// By how much the work grows, replicas a second, judged by the looks of as long as a replica takes
    /// to start (and of a window at least); 0 where it falls. It is the median of the slopes between any
    /// two of them (Theil and Sen), which one odd look cannot move; a straight line of least squares
    /// doubled the fleet for it.
    fn growth_per_s(&mut self, now: Time, work: f64) -> f64 {
        let span = Duration::from_secs_f64(self.config.startup_s.max(self.config.window_s));
        self.history.push_back((now, work));
        while self.history.front().is_some_and(|(at, _)| *at < now.before(span))
            || self.history.len() > MOST_LOOKS
        {
            self.history.pop_front();
        }
        let looks = self.history.iter().enumerate();
        let mut slopes: Vec<f64> = looks
            .flat_map(|(number, (at, work))| {
                let later = self.history.iter().skip(number + 1);
                later.map(move |(then, more)| (more - work) / (then.millis_since(*at) / 1e3))
            })
            .filter(|slope| slope.is_finite())
            .collect();
        // Two looks are a line whatever they are.
        if slopes.len() < 3 {
            return 0.0;
        }
        slopes.sort_by(f64::total_cmp);
        slopes[slopes.len() / 2].max(0.0)
    }

    /// What the fleet may be strained, by how it fared: where surely too many missed their objectives,
    /// less than that; where surely few enough did at a strain beyond it, as much. At constant load the
    /// first moves it once and the second no more, so it does not swing. (A rate of misses that was fed
    /// back as a correction of the size did: one replica more met the objective by far, one less did
    /// not.)
    fn learn(&mut self, came: &Demand, strained: f64) {
        let requests = came.requests + came.rejected_requests;
        if requests < LEAST_EVIDENCE {
            return;
        }
        let share = (came.missed_requests + came.rejected_requests) / requests;
        let (low, high) = wilson(share, requests);
        let tolerated = 1.0 - self.config.attainment;
        if low > tolerated && strained <= self.allowed {
            self.allowed = (BACK_OFF * strained).max(LEAST_ALLOWED);
        } else if high < tolerated && strained > self.allowed {
            self.allowed = strained.min(MOST_ALLOWED);
        }
    }
}

/// Bounds of a share that was seen in so many (Wilson, J. Am. Stat. Assoc. 22, 1927).
fn wilson(share: f64, count: f64) -> (f64, f64) {
    let z2 = SURE * SURE / count;
    let middle = (share + z2 / 2.0) / (1.0 + z2);
    let half = SURE / (1.0 + z2) * libm::sqrt(share * (1.0 - share) / count + z2 / (4.0 * count));
    (middle - half, middle + half)
}
