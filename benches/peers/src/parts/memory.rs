//! Live bytes, everything counted: also what finds a block when its engine removes it.

use crate::allocator::live_bytes_of;
use crate::contenders::{Crtc, DynamoRadixTree, Index, KvIndex, OurTree};
use crate::ops::Op;
use crate::oracle::{Answer, Oracle};
use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::Tree3;

pub fn live_bytes(settings: &Settings, report: &mut Report) {
    let shape = settings.sized(super::SMALL);
    measure(report, &Tree3::new(shape), "");
    measure(report, &Tree3::new(shape).with_private_names(), "_private");
}

fn measure(report: &mut Report, workload: &Tree3, suffix: &str) {
    let events = [workload.whole()];
    let oracle = Oracle::after(workload.shape.endpoints, &events);
    let entries = oracle.entries() as f64;
    let blocks = oracle.distinct_blocks() as f64;
    let queries = workload.queries(2_000);
    let expected = oracle.answers(&queries);

    let case = Case { workload, events: &events[0], queries: &queries, expected: &expected };
    let (ours, bytes) = case.grown::<OurTree>(report);
    Report::note(&format!(
        "{entries} entries (of a block and an endpoint), {blocks} distinct blocks"
    ));
    report.figure(&format!("bytes_per_entry{suffix}"), bytes as f64 / entries, "bytes");
    report.figure(&format!("bytes_per_distinct_block{suffix}"), bytes as f64 / blocks, "bytes");
    let error = (ours.index().memory_bytes() as f64 - bytes as f64).abs() / bytes as f64;
    report.figure(&format!("memory_bytes_error{suffix}"), error, "of the allocator's count");
    drop(ours);
    // With private names CRTC's figure is too good: it refuses stores by an endpoint that names
    // blocks otherwise than the one whose node they meet, as its wrong answers show.
    case.rival::<Crtc>(report, entries, suffix);
    case.rival::<DynamoRadixTree>(report, entries, suffix);
    case.rival::<KvIndex>(report, entries, suffix);
}

struct Case<'a> {
    workload: &'a Tree3,
    events: &'a [Op<'a>],
    queries: &'a [Vec<u64>],
    expected: &'a [Answer],
}

impl Case<'_> {
    fn rival<I: Index>(&self, report: &mut Report, entries: f64, suffix: &str) {
        let (_, bytes) = self.grown::<I>(report);
        let key = format!("{}_bytes_per_entry{suffix}", I::NAME);
        report.figure(&key, bytes as f64 / entries, "bytes");
    }

    /// Event by event, so that the translated events in flight, which are counted too while they
    /// live, stay few.
    fn grown<I: Index>(&self, report: &mut Report) -> (I, u64) {
        let endpoints = self.workload.shape.endpoints;
        let (index, bytes) = live_bytes_of(|| {
            let mut index = I::new(endpoints);
            self.events.iter().for_each(|event| index.feed(event));
            index
        });
        report.judge(I::NAME, endpoints, self.expected, &mut *index.prepare(self.queries));
        (index, bytes)
    }
}
