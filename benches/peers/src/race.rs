//! Contenders that take turns in one process, so that whatever slows the machine down slows all.

/// Measures once: the costs of each phase.
pub type Runner<'a> = Box<dyn FnMut() -> Vec<f64> + 'a>;

/// What each contender's phases cost, run by run.
pub struct Race {
    names: Vec<&'static str>,
    /// By contender, run and phase.
    costs: Vec<Vec<Vec<f64>>>,
}

impl Race {
    /// After one run of each that is not counted. The contender that goes first changes from run
    /// to run: what one leaves behind (caches, the allocator's free lists) must not always meet
    /// the same next one.
    pub fn run(runs: usize, mut contenders: Vec<(&'static str, Runner<'_>)>) -> Self {
        let names: Vec<_> = contenders.iter().map(|(name, _)| *name).collect();
        let mut costs = vec![Vec::new(); names.len()];
        for run in 0..=runs {
            for turn in 0..names.len() {
                let whose = (run + turn) % names.len();
                let cost = (contenders[whose].1)();
                if run > 0 {
                    costs[whose].push(cost);
                }
            }
        }
        Self { names, costs }
    }

    /// The median cost of a phase.
    pub fn cost(&self, who: &str, phase: usize) -> f64 {
        median(self.of(who).iter().map(|run| run[phase]).collect())
    }

    /// The best rival's cost over ours: the median of the runs' own ratios.
    pub fn ratio(&self, phase: usize, ours: &str, rivals: &[&str]) -> f64 {
        let ratio = |(run, cost): (usize, &Vec<f64>)| {
            let best = rivals.iter().map(|rival| self.of(rival)[run][phase]);
            best.fold(f64::INFINITY, f64::min) / cost[phase]
        };
        median(self.of(ours).iter().enumerate().map(ratio).collect())
    }

    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    fn of(&self, who: &str) -> &[Vec<f64>] {
        let whose = self.names.iter().position(|name| *name == who).unwrap();
        &self.costs[whose]
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values[values.len() / 2];
    if values.len() % 2 == 1 { upper } else { (upper + values[values.len() / 2 - 1]) / 2.0 }
}

/// The value that this share of `values` does not exceed.
pub fn percentile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    values[((values.len() - 1) as f64 * share) as usize] as f64
}
