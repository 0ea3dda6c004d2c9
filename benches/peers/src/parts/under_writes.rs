//! The latency of lookups while events pour in: a writer on one core, the reader on another.

use crate::clock::{cores, pin};
use crate::contenders::{Crtc, Index, Lookups, OurTree, built};
use crate::ops::Op;
use crate::oracle::{Answer, Oracle};
use crate::race::{Race, Runner, percentile};
use crate::report::{Report, dense};
use crate::settings::Settings;
use crate::tree3::Tree3;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const BLOCKS_PER_S: f64 = 1e6;
const QUERIES: usize = 10_000;
/// Lookups go on for so long in each run, once the writer is at its pace.
const MEASURED: Duration = Duration::from_millis(200);
/// Tails that are missing at any time.
const MISSING: usize = 64;

pub fn latency(settings: &Settings, report: &mut Report) {
    let all = cores();
    let [reader_core, writer_core, ..] = all[..] else {
        Report::note("skipped: the reader and the writer want a core each");
        return;
    };
    let workload = Tree3::new(settings.sized(super::SMALL));
    let phases = [workload.whole()];
    let endpoints = workload.shape.endpoints;
    let queries = workload.queries(settings.count(QUERIES));
    let stream = Stream::new(&workload);

    let (ours, _) = built::<OurTree>(endpoints, &phases);
    pin(&[writer_core]); // Threads that the rival starts stay where they were started.
    let (crtc, _) = built::<Crtc>(endpoints, &phases);
    pin(&[reader_core]);
    let our_lookups = RefCell::new(ours.prepare(&queries));
    let crtc_lookups = RefCell::new(crtc.prepare(&queries));

    let bounds = Bounds::new(&workload, &queries);
    let (checked, wrong) = (Cell::new(0), Cell::new(0));
    let write_ours = |op: &Op<'_>| ours.apply(op);
    let write_crtc = |op: &Op<'_>| crtc.send(op);
    let under = |lookups: &RefCell<Box<dyn Lookups + '_>>, write: &(dyn Fn(&Op<'_>) + Sync)| {
        let mut lookups = lookups.borrow_mut();
        stream.pour(writer_core, write, || {
            let start = Instant::now();
            let mut latencies = Vec::new();
            while start.elapsed() < MEASURED {
                latencies.extend(lookups.latencies_ns(queries.len()));
            }
            (percentile(&mut latencies, 0.5), percentile(&mut latencies, 0.99))
        })
    };
    let costs = |((p50, p99), rate): ((f64, f64), f64)| vec![p50, p99, rate];
    let turns: Vec<(&'static str, Runner<'_>)> = vec![
        (OurTree::NAME, Box::new(|| costs(under(&our_lookups, &write_ours)))),
        (
            Crtc::NAME,
            Box::new(|| {
                let cost = costs(under(&crtc_lookups, &write_crtc));
                crtc.flush();
                cost
            }),
        ),
    ];
    let race = Race::run(settings.runs, turns);

    // Answers under writes lie between what holds without the tails and what holds with them.
    stream.pour(writer_core, &write_ours, || {
        let mut lookups = our_lookups.borrow_mut();
        wrong.set(bounds.violations(&mut **lookups));
        checked.set(queries.len() as u64);
    });
    report.count(OurTree::NAME, checked.get(), wrong.get());
    let (ours, crtc) = (our_lookups.into_inner(), crtc_lookups.into_inner());
    for (name, mut lookups) in [(OurTree::NAME, ours), (Crtc::NAME, crtc)] {
        report.judge(name, endpoints, &bounds.upper, &mut *lookups);
        Report::note(&format!(
            "{name:12} wall p50 {:6.0} ns, p99 {:7.0} ns under {:.2} M blocks/s",
            race.cost(name, 0),
            race.cost(name, 1),
            race.cost(name, 2) / 1e6
        ));
    }
    pin(&all);
    let ratio = 1.0 / race.ratio(1, OurTree::NAME, &[Crtc::NAME]);
    report.figure("lookup_p99_under_writes", ratio, "of CRTC's p99 (lower is better)");
}

/// The tails of all sequences go and come back in turn: what is held stays the same but for a few,
/// and in the end is what it was.
struct Stream<'a> {
    removals: Vec<Op<'a>>,
    stores: Vec<Op<'a>>,
}

impl<'a> Stream<'a> {
    fn new(workload: &'a Tree3) -> Self {
        let tail = workload.tail();
        let sequences = workload.sequences.iter();
        Self {
            removals: sequences.clone().map(|sequence| sequence.remove(tail.clone())).collect(),
            stores: sequences.map(|sequence| sequence.store(tail.clone())).collect(),
        }
    }

    /// Writes from a thread on `core`, at the pace, while `work` runs here; its result, and the
    /// blocks a second that were written.
    fn pour<T>(
        &self,
        core: usize,
        write: &(dyn Fn(&Op<'_>) + Sync),
        work: impl FnOnce() -> T,
    ) -> (T, f64) {
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                pin(&[core]);
                let start = Instant::now();
                let (mut blocks, mut turns) = (0, 0);
                while !is_done.load(Relaxed) {
                    blocks += self.turn(turns, write);
                    turns += 1;
                    let due = Duration::from_secs_f64(blocks as f64 / BLOCKS_PER_S);
                    // Yields, since the rival's worker shares this core.
                    while start.elapsed() < due {
                        thread::yield_now();
                    }
                }
                let rate = blocks as f64 / start.elapsed().as_secs_f64();
                self.complete(turns, write);
                rate
            });
            let result = work();
            is_done.store(true, Relaxed);
            (result, writer.join().unwrap())
        })
    }

    /// A tail goes, and of those that are missing the oldest comes back; the blocks written.
    fn turn(&self, turn: usize, write: &(dyn Fn(&Op<'_>) + Sync)) -> usize {
        let gone = &self.removals[turn % self.removals.len()];
        write(gone);
        let back = turn.checked_sub(MISSING).map(|turn| &self.stores[turn % self.stores.len()]);
        back.into_iter().for_each(write);
        gone.blocks() + back.map_or(0, Op::blocks)
    }

    /// The tails that are still missing after so many turns come back.
    fn complete(&self, turns: usize, write: &(dyn Fn(&Op<'_>) + Sync)) {
        for turn in turns.saturating_sub(MISSING)..turns {
            write(&self.stores[turn % self.stores.len()]);
        }
    }
}

/// What answers may be while tails come and go.
struct Bounds {
    lower: Vec<Answer>,
    upper: Vec<Answer>,
    endpoints: u32,
}

impl Bounds {
    fn new(workload: &Tree3, queries: &[Vec<u64>]) -> Self {
        let endpoints = workload.shape.endpoints;
        let after = |ops| Oracle::after(endpoints, &[ops]).answers(queries);
        Self { lower: after(workload.prefilled()), upper: after(workload.whole()), endpoints }
    }

    fn violations(&self, lookups: &mut dyn Lookups) -> u64 {
        let is_within = |query: usize, lookups: &mut dyn Lookups| {
            let mut depths = vec![0; self.endpoints as usize];
            lookups.answer(query, &mut depths);
            let lower = dense(&self.lower[query], self.endpoints);
            let upper = dense(&self.upper[query], self.endpoints);
            depths.iter().zip(lower).all(|(depth, lower)| *depth >= lower)
                && depths.iter().zip(upper).all(|(depth, upper)| *depth <= upper)
        };
        (0..self.lower.len()).map(|query| u64::from(!is_within(query, lookups))).sum()
    }
}
