//! Lookups of several contenders in turns.

use crate::contenders::Lookups;
use crate::oracle::Answer;
use crate::race::{Race, Runner, percentile};
use crate::report::Report;
use std::cell::RefCell;
use std::hint::black_box;

/// More than the last-level cache.
const CACHE_BYTES: usize = 96 << 20;

/// Contenders that were prepared for the same queries.
pub struct Lineup<'a> {
    endpoints: u32,
    expected: &'a [Answer],
    contenders: Vec<(&'static str, RefCell<Box<dyn Lookups + 'a>>)>,
}

impl<'a> Lineup<'a> {
    pub fn new(endpoints: u32, expected: &'a [Answer]) -> Self {
        Self { endpoints, expected, contenders: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, contender: Box<dyn Lookups + 'a>) -> Self {
        self.contenders.push((name, RefCell::new(contender)));
        self
    }

    /// Phase 0 of the race is the CPU seconds of a lookup; 1 and 2 are the wall p50 and p99 in
    /// nanoseconds. Where `is_cold`, no pass finds anything of the index in the caches.
    pub fn race(&self, report: &mut Report, runs: usize, rounds: usize, is_cold: bool) -> Race {
        let queries = self.expected.len();
        let evicted = vec![1u64; if is_cold { CACHE_BYTES / 8 } else { 0 }];
        let evict = || black_box(evicted.iter().step_by(8).sum::<u64>());
        let pass = |contender: &RefCell<Box<dyn Lookups + '_>>| {
            let mut contender = contender.borrow_mut();
            evict();
            let pass_s = contender.pass(queries, rounds);
            evict();
            let mut latencies = contender.latencies_ns(queries);
            vec![
                pass_s / (queries * rounds) as f64,
                percentile(&mut latencies, 0.5),
                percentile(&mut latencies, 0.99),
            ]
        };
        let pass = &pass;
        self.judge(report);
        let turns = self.contenders.iter().map(|(name, contender)| {
            let run: Runner<'_> = Box::new(move || pass(contender));
            (*name, run)
        });
        let race = Race::run(runs, turns.collect());
        // Lookups must have left everything as it was.
        self.judge(report);
        self.describe(&race);
        race
    }

    fn judge(&self, report: &mut Report) {
        for (name, contender) in &self.contenders {
            report.judge(name, self.endpoints, self.expected, &mut **contender.borrow_mut());
        }
    }

    fn describe(&self, race: &Race) {
        let holders: usize = self.expected.iter().map(Vec::len).sum();
        Report::note(&format!(
            "{} queries, of each {:.1} endpoints hold something",
            self.expected.len(),
            holders as f64 / self.expected.len() as f64
        ));
        for &name in race.names() {
            Report::note(&format!(
                "{name:12} {:9.1} ns CPU a lookup   wall p50 {:6.0} ns, p99 {:7.0} ns",
                race.cost(name, 0) * 1e9,
                race.cost(name, 1),
                race.cost(name, 2),
            ));
        }
    }
}
