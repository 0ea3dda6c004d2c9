//! An index out as bytes and back: CPU seconds for a million distinct blocks.

use crate::clock::cpu_s_of;
use crate::contenders::{Index, OurTree};
use crate::oracle::Oracle;
use crate::race::median;
use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::{Shape, Tree3};

/// About a million distinct blocks.
const SHAPE: Shape = Shape { endpoints: 64, sequences: 20_800, depth: 128 };

pub fn out_and_back(settings: &Settings, report: &mut Report) {
    let workload = Tree3::new(settings.sized(SHAPE));
    let events = [workload.whole()];
    let oracle = Oracle::after(SHAPE.endpoints, &events);
    let queries = workload.queries(2_000);
    let expected = oracle.answers(&queries);
    let mut here = OurTree::new(SHAPE.endpoints);
    here.drive(&events);

    let (mut save_s, mut load_s, mut bytes) = (vec![], vec![], 0);
    for _ in 0..settings.runs {
        let mut stream = vec![];
        save_s.push(cpu_s_of(|| stream = here.index().saved(SHAPE.endpoints)));
        bytes = stream.len();
        let there = OurTree::new(SHAPE.endpoints);
        load_s.push(cpu_s_of(|| {
            there.index().load(&stream);
        }));
        report.judge(OurTree::NAME, SHAPE.endpoints, &expected, &mut *there.prepare(&queries));
    }
    let millions = oracle.distinct_blocks() as f64 / 1e6;
    let entries = oracle.entries() as f64;
    Report::note(&format!("{millions:.2} M distinct blocks, {entries} entries"));
    report.figure("snapshot_save_1m_s", median(save_s) / millions, "CPU s for 1 M blocks");
    report.figure("snapshot_load_1m_s", median(load_s) / millions, "CPU s for 1 M blocks");
    report.figure("snapshot_bytes_per_entry", bytes as f64 / entries, "bytes");
}
