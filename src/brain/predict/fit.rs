//! Three non-negative coefficients, learned online from noisy sums.

use serde::{Deserialize, Serialize};

/// How much the last coefficients weigh, relative to the data on each.
const PROXIMAL: f64 = 0.01;
/// How much they weigh where there are no data at all: enough to keep the equations regular.
const LEAST_PROXIMAL: f64 = 1e-9;
/// Residuals beyond this many times their usual size are outliers.
const OUTLIER: f64 = 3.0;
/// An observation this many times its prediction has its residual taken relative to itself, so
/// that neither an outlier nor a prior that is far too low gets an unbounded weight.
const SURPRISE: f64 = 4.0;
/// Least usual size of a residual: a run of perfect predictions makes no outlier of rounding.
const LEAST_SPREAD: f64 = 0.01;
/// Nothing in a model comes near.
const MOST: f64 = 1e30;
/// Least magnitude of an observation, so that relative residuals are defined.
const LEAST_MS: f64 = 1e-3;

/// Coefficients of `y = k0*x0 + k1*x1 + k2*x2`, all milliseconds.
///
/// Exponentially weighted least squares on relative residuals. With forgetting, what recent data
/// do not excite (every prompt of one length, say) would drift or blow up; so each solution is
/// pulled towards the one before, not towards the prior: where the data are silent, coefficients
/// stay (a proximal point iteration, Rockafellar 1976, with Marquardt's scaling, 1963; its fixed
/// point is the least-squares solution). Outliers have Huber's weight (Huber 1964) by the running mean of absolute residuals.
/// Negative coefficients make no sense, so the most negative is set to zero and the rest solved
/// again.
///
/// NOTE: a pull of a fixed weight in units of the prior kept a coefficient whose prior was a
/// thousand times too low from ever growing: its data weigh a millionth in those units.
///
/// Everything is in units of the prior: feature `i` is the milliseconds that the prior gives it,
/// and a coefficient is the factor by which the prior errs. That conditions the equations: raw,
/// tokens and token pairs are eight orders of magnitude apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fit {
    prior: [f64; 3],
    factor: [f64; 3],
    gram: [[f64; 3]; 3],
    moment: [f64; 3],
    spread: f64,
    observations: u32,
}

impl Fit {
    /// Starts from a prior whose coefficients are all positive.
    pub(super) fn from_prior(prior: [f64; 3]) -> Self {
        Self {
            prior,
            factor: [1.0; 3],
            gram: [[0.0; 3]; 3],
            moment: [0.0; 3],
            spread: 1.0,
            observations: 0,
        }
    }

    /// Starts from what another has learned, with no observations of its own.
    pub(super) fn fresh_copy(&self) -> Self {
        let coefficients = self.coefficients();
        let mut fit = Self::from_prior(self.prior);
        fit.factor = std::array::from_fn(|i| coefficients[i] / self.prior[i]);
        fit.spread = self.spread;
        fit
    }

    /// Whether it is one that learning can come to.
    pub(super) fn is_sound(&self) -> bool {
        let within = |value: &f64| (0.0..=MOST).contains(value);
        self.prior.iter().all(|it| *it > 0.0 && within(it))
            && self.factor.iter().all(within)
            && self.coefficients().iter().all(within)
            && self.gram.as_flattened().iter().chain(&self.moment).all(within)
            && within(&self.spread)
    }

    pub(super) fn coefficients(&self) -> [f64; 3] {
        std::array::from_fn(|i| self.prior[i] * self.factor[i])
    }

    pub(super) fn observations(&self) -> u32 {
        self.observations
    }

    /// Running mean of the absolute relative residual.
    pub(super) fn spread(&self) -> f64 {
        self.spread
    }

    /// Learns that `features` took `measured_ms`. `memory` is the number of observations after
    /// which one has lost a factor of e, about. What is not finite or negative is ignored.
    pub(super) fn observe(&mut self, features: [f64; 3], measured_ms: f64, memory: f64) {
        let good = |value: &f64| value.is_finite() && *value >= 0.0;
        if !good(&measured_ms) || !features.iter().all(good) {
            return;
        }
        let x: [f64; 3] = std::array::from_fn(|i| features[i] * self.prior[i]);
        let expected = dot(&x, &self.factor);
        let scale = expected.max(measured_ms / SURPRISE).max(LEAST_MS);
        let residual = ((measured_ms - expected) / scale).abs();
        let limit = OUTLIER * self.spread.max(LEAST_SPREAD);
        let huber = if residual > limit { limit / residual } else { 1.0 };
        let weight = huber / (scale * scale);

        let keep = 1.0 - 1.0 / memory;
        for i in 0..3 {
            for j in 0..3 {
                self.gram[i][j] = keep * self.gram[i][j] + weight * x[i] * x[j];
            }
            self.moment[i] = keep * self.moment[i] + weight * x[i] * measured_ms;
        }
        // A young mean moves fast: it starts from a guess.
        let pace = (1.0 / (f64::from(self.observations) + 4.0)).max(1.0 / memory);
        self.spread += pace * (residual - self.spread);
        self.observations = self.observations.saturating_add(1);
        if let Some(factor) = self.solve() {
            self.factor = factor;
        }
    }

    /// Minimises the weighted squares plus the pull towards the last factors, over factors that
    /// are not negative.
    fn solve(&self) -> Option<[f64; 3]> {
        let mut matrix = self.gram;
        let mut right = self.moment;
        for (i, row) in matrix.iter_mut().enumerate() {
            let pull = PROXIMAL * row[i] + LEAST_PROXIMAL;
            row[i] += pull;
            right[i] += pull * self.factor[i];
        }
        loop {
            let factor = eliminate(matrix, right)?;
            // Nearly always.
            if factor.iter().all(|it| *it >= 0.0) {
                return Some(factor);
            }
            let lowest = (0..3).min_by(|&i, &j| factor[i].total_cmp(&factor[j]))?;
            matrix[lowest] = [0.0; 3];
            matrix.iter_mut().for_each(|row| row[lowest] = 0.0);
            matrix[lowest][lowest] = 1.0;
            right[lowest] = 0.0;
        }
    }
}

pub(super) fn dot(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Gaussian elimination; a positive definite matrix needs no pivoting. `None` where rounding has
/// made it something else.
#[expect(clippy::needless_range_loop, reason = "rows and columns of one matrix at a time")]
fn eliminate(mut matrix: [[f64; 3]; 3], mut right: [f64; 3]) -> Option<[f64; 3]> {
    for pivot in 0..3 {
        if !(matrix[pivot][pivot].is_finite() && matrix[pivot][pivot] > 0.0) {
            return None;
        }
        for row in pivot + 1..3 {
            let ratio = matrix[row][pivot] / matrix[pivot][pivot];
            for column in pivot..3 {
                matrix[row][column] -= ratio * matrix[pivot][column];
            }
            right[row] -= ratio * right[pivot];
        }
    }
    let mut solution = [0.0; 3];
    for row in (0..3).rev() {
        let mut sum = right[row];
        for column in row + 1..3 {
            sum -= matrix[row][column] * solution[column];
        }
        solution[row] = sum / matrix[row][row];
    }
    solution.iter().all(|value: &f64| value.is_finite()).then_some(solution)
}
