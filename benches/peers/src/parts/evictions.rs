//! Answers where endpoints lose the beginning of what they hold, or its middle. Nothing is timed:
//! the rivals are known to credit blocks behind such a hole, and this counts how often.

use crate::contenders::{Crtc, DynamoRadixTree, Index, KvIndex, OurTree, built};
use crate::ops::Op;
use crate::oracle::{Answer, Oracle};
use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::Tree3;

const QUERIES: usize = 20_000;

pub fn answers(settings: &Settings, report: &mut Report) {
    let workload = Tree3::new(settings.sized(super::SMALL));
    let phases = [workload.stored_once(), workload.heads_removed()];
    let queries = workload.queries(settings.count(QUERIES));
    let expected = Oracle::after(workload.shape.endpoints, &phases).answers(&queries);
    judge::<OurTree>(report, &workload, &phases, &queries, &expected);
    judge::<Crtc>(report, &workload, &phases, &queries, &expected);
    judge::<DynamoRadixTree>(report, &workload, &phases, &queries, &expected);
    judge::<KvIndex>(report, &workload, &phases, &queries, &expected);
}

fn judge<I: Index>(
    report: &mut Report,
    workload: &Tree3,
    phases: &[Vec<Op<'_>>],
    queries: &[Vec<u64>],
    expected: &[Answer],
) {
    let endpoints = workload.shape.endpoints;
    let (index, _) = built::<I>(endpoints, phases);
    report.judge(I::NAME, endpoints, expected, &mut *index.prepare(queries));
}
