//! How costs grow with the number of endpoints, the depth of the prompts and the blocks stored.

use crate::allocator::live_bytes_of;
use crate::contenders::{Crtc, Index, KvIndex, OurTree, built};
use crate::ops::{Op, blocks_of};
use crate::oracle::{Answer, Oracle};
use crate::race::median;
use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::{Shape, Tree3};
use std::fmt::Write as _;
use std::path::Path;

const QUERIES: usize = 4_000;
const RUNS: usize = 7;
const HEADER: &str = "sweep,x,contender,lookup_ns,store_ns_per_block,bytes_per_entry\n";

pub fn sweep(settings: &Settings, report: &mut Report) {
    let mut rows = String::from(HEADER);
    for (sweep, x, shape) in shapes(settings) {
        println!("  {sweep} = {x}");
        at(report, &mut rows, sweep, x, shape);
    }
    let path = settings.growth.as_deref().unwrap_or(Path::new("growth.csv"));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(path, rows).unwrap();
    Report::note(&format!("written to {}", path.display()));
}

fn shapes(settings: &Settings) -> Vec<(&'static str, usize, Shape)> {
    let endpoints = [1, 4, 16, 64, 256, 1024, 4096].map(|endpoints| {
        ("endpoints", endpoints, Shape { endpoints: endpoints as u32, ..super::SMALL })
    });
    let depth = [16, 64, 256, 1024, 4096].map(|depth| {
        ("depth", depth, Shape { endpoints: 64, sequences: 1_280_000 / depth, depth })
    });
    let blocks = [10_000, 100_000, 1_000_000, 10_000_000]
        .map(|blocks| ("blocks", blocks, Shape { sequences: blocks / 128, ..super::SMALL }));
    let kept = |all: &[(&'static str, usize, Shape)]| {
        all[..if settings.quick { 2 } else { all.len() }].to_vec()
    };
    [kept(&endpoints), kept(&depth), kept(&blocks)].concat()
}

fn at(report: &mut Report, rows: &mut String, sweep: &str, x: usize, shape: Shape) {
    let workload = Tree3::new(shape);
    let events = [workload.whole()];
    let queries = workload.queries(QUERIES);
    let oracle = Oracle::after(shape.endpoints, &events);
    let (expected, entries) = (oracle.answers(&queries), oracle.entries());
    drop(oracle);
    let case = Case { shape, events: &events, queries: &queries, expected: &expected, entries };
    let mut row = |name, [lookup_ns, store_ns, bytes]: [f64; 3]| {
        writeln!(rows, "{sweep},{x},{name},{lookup_ns:.1},{store_ns:.2},{bytes:.2}").unwrap();
    };
    row(OurTree::NAME, case.cost::<OurTree>(report));
    row(Crtc::NAME, case.cost::<Crtc>(report));
    if shape.endpoints <= KvIndex::MAX_ENDPOINTS {
        row(KvIndex::NAME, case.cost::<KvIndex>(report));
    }
}

struct Case<'a> {
    shape: Shape,
    events: &'a [Vec<Op<'a>>],
    queries: &'a [Vec<u64>],
    expected: &'a [Answer],
    entries: u64,
}

impl Case<'_> {
    /// Nanoseconds of a lookup and of a stored block, and live bytes an entry.
    fn cost<I: Index>(&self, report: &mut Report) -> [f64; 3] {
        let Self { shape, events, queries, expected, entries } = self;
        let (index, bytes) = live_bytes_of(|| {
            let mut index = I::new(shape.endpoints);
            events[0].iter().for_each(|event| index.feed(event));
            index
        });
        let mut lookups = index.prepare(queries);
        report.judge(I::NAME, shape.endpoints, expected, &mut *lookups);
        let passes = (0..RUNS).map(|_| lookups.pass(queries.len(), 1)).collect();
        let lookup_s = median(passes) / queries.len() as f64;
        drop(lookups);
        drop(index);
        let stores = (0..3).map(|_| built::<I>(shape.endpoints, events).1[0]).collect();
        let store_s = median(stores) / blocks_of(&events[0]) as f64;
        [lookup_s * 1e9, store_s * 1e9, bytes as f64 / *entries as f64]
    }
}
