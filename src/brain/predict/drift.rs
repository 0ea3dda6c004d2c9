//! The alarm when an endpoint's latency departs for good: a throttled GPU, a noisy neighbour, another
//! build of the engine.
//!
//! The models follow whatever an endpoint does, so they cannot tell. A [`Drift`] holds a *reference*:
//! the coefficients as they were while all was well. On the logarithm of measured over referred, in
//! means of four because answers that end together err together, it runs Page's cumulative sums
//! (CUSUM, Biometrika 1954), one a direction:
//!
//! ```text
//! up   = max(0, up   + z - slack)        z     = log(measured / referred) - its usual mean
//! down = max(0, down - z - slack)        slack = max(sigma/2, log 1.15)
//! alarm when either passes 25 * max(sigma, 0.04), and the recent mean of z passes log 1.2
//! ```
//!
//! so that departures of less than 15 % raise none, nor did stationary noise in 100,000 observations.
//! Where an endpoint is so full that the model itself errs for long, it may (docs/predict.md). A single
//! observation is cut at 8 sigma: no outlier counts for much. While the alarm lasts the reference stays, and the test is turned round: the sum grows by how
//! much nearer `z` is to nothing than to the departure, and the alarm ends where that passes the same
//! bound. In calm the reference is renewed every 256 observations, because traffic changes, and a
//! model that was fitted to other prompts errs on these; what departs slower than 15 % in that
//! time is followed silently.

use serde::{Deserialize, Serialize};

/// Observations of a mean.
const BATCH: u32 = 4;
/// Means by which usual mean and spread are first known.
const CALIBRATION: u32 = 32;
/// Means after which a calm reference is renewed.
const RENEWAL: u32 = 64;
/// Departures that are nobody's business, as a logarithm.
const LEAST_SLACK: f64 = 0.139_761_942_375_158_7;
/// Least recent departure that an alarm tells, as a logarithm.
const LEAST_LEVEL: f64 = 0.182_321_556_793_954_62;
/// Alarm, in units of sigma.
const BOUND: f64 = 25.0;
/// Least sigma.
const LEAST_SIGMA: f64 = 0.04;
/// Most that an observation counts, in sigmas.
const MOST_SIGMAS: f64 = 8.0;
/// Means over which the size of a departure is taken.
const LEVEL_MEMORY: f64 = 4.0;
/// Largest departure that is told, as a logarithm.
const MOST_LEVEL: f64 = 3.0;
/// Means over which `z` is averaged for the usual mean under the next reference.
const USUAL_MEMORY: f64 = 16.0;
/// Of a normal distribution, the standard deviation over the mean absolute one.
const SIGMA_OVER_MEAN: f64 = 1.253_314_137_315_5;

/// Watches one model of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drift {
    reference: Option<[f64; 3]>,
    /// Observations of the mean that is being taken, their sum, and the sum without cuts.
    taken: u32,
    sum: f64,
    uncut: f64,
    /// Means since the reference was taken.
    means: u32,
    mean: f64,
    /// Mean absolute departure from the mean.
    spread: f64,
    up: f64,
    down: f64,
    /// Recent mean of `z`, uncut.
    level: f64,
    /// Mean of `z` over a longer time.
    usual: f64,
    alarm: bool,
    /// While the alarm lasts, how much speaks for its end.
    back: f64,
}

impl Drift {
    /// The coefficients that measurements are held against; `None` before [`Self::refer_to`].
    pub(super) fn reference(&self) -> Option<&[f64; 3]> {
        self.reference.as_ref()
    }

    /// Takes a reference for the first time.
    pub(super) fn refer_to(&mut self, coefficients: [f64; 3]) {
        *self = Self { reference: Some(coefficients), ..Self::default() };
    }

    /// Learns of a measurement, as the logarithms of it over what the reference and over what
    /// `current` coefficients say; whether an alarm begins.
    pub(super) fn observe(&mut self, log: f64, log_current: f64, current: [f64; 3]) -> bool {
        if !log.is_finite() || !log_current.is_finite() {
            return false;
        }
        let uncut = (log - self.mean).clamp(-MOST_LEVEL, MOST_LEVEL);
        let most = if self.means < CALIBRATION { MOST_LEVEL } else { MOST_SIGMAS * self.sigma() };
        self.taken += 1;
        self.sum += uncut.clamp(-most, most);
        self.uncut += uncut;
        if self.taken < BATCH {
            return false;
        }
        let [z, uncut] = [self.sum, self.uncut].map(|sum| sum / f64::from(BATCH));
        (self.taken, self.sum, self.uncut) = (0, 0.0, 0.0);
        self.means = self.means.saturating_add(1);
        if self.means <= CALIBRATION {
            let pace = 1.0 / f64::from(self.means);
            self.mean += pace * z;
            self.spread += pace * (z.abs() - self.spread);
            return false;
        }
        self.level += (uncut - self.level) / LEVEL_MEMORY;
        self.usual += (z - self.usual) / USUAL_MEMORY;
        let slack = LEAST_SLACK.max(self.sigma() / 2.0);
        let bound = BOUND * self.sigma();
        if self.alarm {
            self.look_back(z, slack, bound);
            return false;
        }
        self.up = (self.up + z - slack).clamp(0.0, 1.2 * bound);
        self.down = (self.down - z - slack).clamp(0.0, 1.2 * bound);
        let most = self.up.max(self.down);
        self.alarm = most > bound && self.level.abs() > LEAST_LEVEL;
        if most < bound / 4.0 {
            self.spread += (z.abs() - self.spread) / f64::from(RENEWAL);
            if self.means >= CALIBRATION + RENEWAL {
                self.mean += self.usual - (log - log_current);
                self.usual = 0.0;
                self.reference = Some(current);
                self.means = CALIBRATION;
            }
        }
        self.alarm
    }

    /// Ends an alarm once enough speaks for it.
    fn look_back(&mut self, z: f64, slack: f64, bound: f64) {
        let towards = if self.up > self.down { z } else { -z };
        self.back = (self.back + slack - towards).max(0.0);
        if self.back > bound {
            let Self { mean, spread, reference, .. } = *self;
            *self = Self { reference, means: CALIBRATION, mean, spread, ..Self::default() };
        }
    }

    /// Standard deviation of a mean.
    fn sigma(&self) -> f64 {
        (SIGMA_OVER_MEAN * self.spread).max(LEAST_SIGMA)
    }

    /// Latency over what it was, while the alarm lasts.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.alarm.then(|| libm::exp(self.level))
    }

    /// Whether it is one that observations can come to.
    pub(super) fn is_sound(&self) -> bool {
        let sound = |value: &f64| value.is_finite() && value.abs() < 1e6;
        let means = [self.mean, self.spread, self.level, self.usual];
        let sums = [self.sum, self.uncut, self.up, self.down, self.back];
        means.iter().chain(&sums).all(sound)
            && self.spread >= 0.0
            && self.taken < BATCH
            && self.reference.is_none_or(|it| it.iter().all(|it| it.is_finite() && *it >= 0.0))
    }
}
