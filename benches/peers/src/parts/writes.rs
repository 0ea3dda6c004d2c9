//! Blocks stored and removed per CPU-second.

use crate::contenders::{Crtc, DynamoRadixTree, Index, KvIndex, OurQueue, OurTree, built};
use crate::ops::{Op, blocks_of};
use crate::oracle::Oracle;
use crate::race::{Race, Runner};
use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::{Shape, Tree3};

const CHECKED_QUERIES: usize = 2_000;
/// Dynamo's two, of which the better one counts.
const DYNAMO: &[&str] = &[Crtc::NAME, DynamoRadixTree::NAME];

/// Whole sequences come, and the tails of some go.
pub fn whole_sequences(settings: &Settings, report: &mut Report) {
    let workload = Tree3::new(settings.sized(super::SMALL));
    let phases = [workload.whole(), workload.tails_removed()];
    let race = race(settings, report, &workload, &phases);
    let blocks = [blocks_of(&phases[0]), blocks_of(&phases[1])];
    figures(report, &race, "store_seq", 0, blocks[0]);
    queue_figure(report, &race, "store_seq_queue", 0);
    figures(report, &race, "remove_tail", 1, blocks[1]);
    queue_figure(report, &race, "remove_tail_queue", 1);
}

/// Prefills come whole; then all sequences grow side by side, a block at a time.
pub fn decode(settings: &Settings, report: &mut Report) {
    let at = |report: &mut Report, shape: Shape, suffix: &str| {
        let workload = Tree3::new(settings.sized(shape));
        let phases = [workload.prefilled(), workload.decoded()];
        let race = race(settings, report, &workload, &phases);
        figures(report, &race, &format!("store_decode{suffix}"), 1, blocks_of(&phases[1]));
        queue_figure(report, &race, &format!("store_decode_queue{suffix}"), 1);
    };
    at(report, super::SMALL, "");
    at(report, super::WIDE, "_1024w");
}

fn figures(report: &mut Report, race: &Race, key: &str, phase: usize, blocks: usize) {
    for &name in race.names() {
        let rate = blocks as f64 / race.cost(name, phase) / 1e6;
        Report::note(&format!("{name:12} {rate:7.2} M blocks per CPU-s"));
    }
    report.figure(key, race.ratio(phase, OurTree::NAME, DYNAMO), "x best of CRTC and RadixTree");
    let kv_index = race.ratio(phase, OurTree::NAME, &[KvIndex::NAME]);
    report.figure(&format!("{key}_vs_kv_index"), kv_index, "x kv-index");
}

/// Of Dynamo's only CRTC has a queue in front.
fn queue_figure(report: &mut Report, race: &Race, key: &str, phase: usize) {
    report.figure(key, race.ratio(phase, OurQueue::NAME, &[Crtc::NAME]), "x CRTC");
}

fn race(
    settings: &Settings,
    report: &mut Report,
    workload: &Tree3,
    phases: &[Vec<Op<'_>>],
) -> Race {
    check::<OurTree>(settings, report, workload, phases);
    check::<OurQueue>(settings, report, workload, phases);
    check::<Crtc>(settings, report, workload, phases);
    check::<DynamoRadixTree>(settings, report, workload, phases);
    check::<KvIndex>(settings, report, workload, phases);
    let endpoints = workload.shape.endpoints;
    let turns = vec![
        turn::<OurTree>(endpoints, phases),
        turn::<OurQueue>(endpoints, phases),
        turn::<Crtc>(endpoints, phases),
        turn::<DynamoRadixTree>(endpoints, phases),
        turn::<KvIndex>(endpoints, phases),
    ];
    Race::run(settings.runs, turns)
}

fn turn<'a, I: Index>(endpoints: u32, phases: &'a [Vec<Op<'_>>]) -> (&'static str, Runner<'a>) {
    (I::NAME, Box::new(move || built::<I>(endpoints, phases).1))
}

/// Answers after each phase.
fn check<I: Index>(
    settings: &Settings,
    report: &mut Report,
    workload: &Tree3,
    phases: &[Vec<Op<'_>>],
) {
    let endpoints = workload.shape.endpoints;
    let queries = workload.queries(settings.count(CHECKED_QUERIES));
    for until in 1..=phases.len() {
        let expected = Oracle::after(endpoints, &phases[..until]).answers(&queries);
        let (index, _) = built::<I>(endpoints, &phases[..until]);
        report.judge(I::NAME, endpoints, &expected, &mut *index.prepare(&queries));
    }
}
