//! Arrivals that follow a day.

use super::Workload;

/// The rate over a day as a share of its peak: a sinusoid that begins and ends in the night, and a burst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Day {
    /// Rate in the night over the rate at noon, 0 to 1.
    pub trough: f64,
    /// By how much the burst multiplies the rate; 1 for none.
    pub burst: f64,
    /// When it begins, as a share of the day.
    pub burst_at: f64,
    /// How long it lasts, as a share of the day.
    pub burst_for: f64,
}

/// Pieces of a day in which the rate counts as constant.
const PIECES: usize = 4_096;

impl Day {
    /// The rate at a share of the day; without a burst it is 1 at noon.
    #[must_use]
    pub fn rate(&self, share: f64) -> f64 {
        let sun = (1.0 - libm::cos(std::f64::consts::TAU * share)) / 2.0;
        let bursts = (self.burst_at..self.burst_at + self.burst_for).contains(&share);
        (self.trough + (1.0 - self.trough) * sun) * if bursts { self.burst } else { 1.0 }
    }

    /// Moves arrivals in time, in their order and over the same span, so that a stream that was steady
    /// comes at this rate: where the rate is twice the mean, time goes by half as fast.
    pub fn shape(&self, workload: &mut Workload) {
        let times = || workload.prompts().iter().map(|it| it.at_ms);
        let (first, last) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
        let span = last - first;
        if span.is_nan() || span <= 0.0 {
            return;
        }
        let mut came = Vec::with_capacity(PIECES + 1);
        came.push(0.0);
        for piece in 0..PIECES {
            let rate = self.rate((piece as f64 + 0.5) / PIECES as f64).max(1e-6);
            came.push(came[piece] + rate);
        }
        let all = came[PIECES];
        workload.retime(|at_ms| {
            let wanted = (at_ms - first) / span * all;
            let piece = came.partition_point(|it| *it <= wanted).clamp(1, PIECES) - 1;
            let within = (wanted - came[piece]) / (came[piece + 1] - came[piece]);
            first + span * ((piece as f64 + within.clamp(0.0, 1.0)) / PIECES as f64)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_comes_at_the_rate_of_the_day() {
        let mut workload = Workload::new(16);
        for at in 0..10_000 {
            workload.push(f64::from(at), 10, 1, []);
        }
        let day = Day { trough: 0.2, burst: 2.0, burst_at: 0.7, burst_for: 0.05 };
        day.shape(&mut workload);
        let times: Vec<f64> = workload.prompts().iter().map(|it| it.at_ms).collect();
        assert!(times.is_sorted());
        assert_eq!((times[0], times[9_999]), (0.0, 9_999.0));
        let between = |from: f64, to: f64| {
            times.iter().filter(|it| (from * 9_999.0..to * 9_999.0).contains(it)).count() as f64
        };
        let noon = between(0.475, 0.525);
        assert!((between(0.0, 0.025) / noon * 2.0 - 0.2).abs() < 0.02);
        assert!((between(0.7, 0.75) / noon - day.rate(0.725)).abs() < 0.05);
    }
}
