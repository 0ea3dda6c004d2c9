//! A recorded day: lookups and events as they come, in chunks, each contender in turn.

use crate::contenders::{Crtc, Index, KvIndex, OurTree};
use crate::fleet_trace::{ENDPOINTS, Served, ServingFleet, prompts};
use crate::ops::{Op, blocks_of};
use crate::oracle::Answer;
use crate::race::{Race, Runner};
use crate::report::Report;
use crate::settings::Settings;

const REQUESTS: usize = 6_000;
/// Requests whose prompts are looked up before what they change is applied.
const CHUNK: usize = 50;

pub fn replay(settings: &Settings, report: &mut Report) {
    let Some(path) = settings.trace.as_deref().filter(|path| path.exists()) else {
        Report::note("skipped: no --trace, or no such file");
        return;
    };
    let prompts = prompts(path, settings.count(REQUESTS));
    let mut fleet = ServingFleet::new();
    let chunk = |prompts: &[Vec<u64>]| Chunk {
        expected: prompts.iter().map(|prompt| fleet.answer(prompt)).collect(),
        prompts: prompts.to_vec(),
        served: prompts.iter().map(|prompt| fleet.serve(prompt)).collect(),
    };
    let chunks: Vec<_> = prompts.chunks(CHUNK).map(chunk).collect();

    day::<OurTree>(&chunks, Some(report));
    day::<Crtc>(&chunks, Some(report));
    day::<KvIndex>(&chunks, Some(report));
    let turns: Vec<(&'static str, Runner<'_>)> = vec![
        (OurTree::NAME, Box::new(|| day::<OurTree>(&chunks, None))),
        (Crtc::NAME, Box::new(|| day::<Crtc>(&chunks, None))),
        (KvIndex::NAME, Box::new(|| day::<KvIndex>(&chunks, None))),
    ];
    let race = Race::run(settings.runs, turns);

    let query_blocks: usize = prompts.iter().map(Vec::len).sum();
    let written: usize = chunks.iter().map(|chunk| blocks_of(&chunk.ops())).sum();
    Report::note(&format!("{} prompts of {query_blocks} blocks, {written} written", prompts.len()));
    for &name in race.names() {
        let (lookups_s, writes_s) = (race.cost(name, 0), race.cost(name, 1));
        Report::note(&format!(
            "{name:12} {:6.0} k lookups, {:6.0} M query blocks, {:5.2} M written blocks per CPU-s",
            prompts.len() as f64 / lookups_s / 1e3,
            query_blocks as f64 / lookups_s / 1e6,
            written as f64 / writes_s / 1e6
        ));
    }
    for (phase, key) in [(0, "trace_lookup"), (1, "trace_write")] {
        report.figure(key, race.ratio(phase, OurTree::NAME, &[Crtc::NAME]), "x CRTC");
        let kv_index = race.ratio(phase, OurTree::NAME, &[KvIndex::NAME]);
        report.figure(&format!("{key}_vs_kv_index"), kv_index, "x kv-index");
    }
}

struct Chunk {
    prompts: Vec<Vec<u64>>,
    expected: Vec<Answer>,
    served: Vec<Served>,
}

impl Chunk {
    fn ops(&self) -> Vec<Op<'_>> {
        self.served.iter().flat_map(Served::ops).collect()
    }
}

/// CPU seconds of all lookups and of all writes; with a report, checks the answers instead.
fn day<I: Index>(chunks: &[Chunk], mut report: Option<&mut Report>) -> Vec<f64> {
    let mut index = I::new(ENDPOINTS);
    let (mut lookups_s, mut writes_s) = (0.0, 0.0);
    for chunk in chunks {
        let mut lookups = index.prepare(&chunk.prompts);
        match &mut report {
            Some(report) => report.judge(I::NAME, ENDPOINTS, &chunk.expected, &mut *lookups),
            None => lookups_s += lookups.pass(chunk.prompts.len(), 1),
        }
        drop(lookups);
        writes_s += index.drive(&[chunk.ops()])[0];
    }
    vec![lookups_s, writes_s]
}
