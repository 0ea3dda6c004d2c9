//! Lookups per CPU-second: warm (a few queries over and over) and large (many distinct ones).

use super::lineup::Lineup;
use crate::contenders::{Crtc, Index, KvIndex, OurTree, built};
use crate::ops::Op;
use crate::oracle::Oracle;
use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::{Shape, Tree3};

const WARM_QUERIES: usize = 500;
const WARM_ROUNDS: usize = 20;
const LARGE_QUERIES: usize = 20_000;

/// Every sequence stored at once.
pub fn stored_whole(settings: &Settings, report: &mut Report, key: &str, shape: Shape) {
    let workload = Tree3::new(settings.sized(shape));
    let field = Field::after(&workload, &[workload.whole()]);
    let warm = workload.queries(WARM_QUERIES);
    field.race(settings, report, key, &warm, WARM_ROUNDS, false);
    let large = workload.queries(settings.count(LARGE_QUERIES));
    field.race(settings, report, &format!("{key}_large"), &large, 1, false);
}

/// A quarter of every sequence appended block by block, and then caches that hold nothing of it.
pub fn after_decode(settings: &Settings, report: &mut Report, key: &str, shape: Shape) {
    let workload = Tree3::new(settings.sized(shape));
    let field = Field::after(&workload, &[workload.prefilled(), workload.decoded()]);
    let queries = workload.queries(settings.count(LARGE_QUERIES));
    field.race(settings, report, key, &queries, 1, true);
}

/// The contenders, all with the same contents.
struct Field {
    endpoints: u32,
    oracle: Oracle,
    ours: OurTree,
    crtc: Crtc,
    kv_index: KvIndex,
}

impl Field {
    fn after(workload: &Tree3, phases: &[Vec<Op<'_>>]) -> Self {
        let endpoints = workload.shape.endpoints;
        Self {
            endpoints,
            oracle: Oracle::after(endpoints, phases),
            ours: built(endpoints, phases).0,
            crtc: built(endpoints, phases).0,
            kv_index: built(endpoints, phases).0,
        }
    }

    fn race(
        &self,
        settings: &Settings,
        report: &mut Report,
        key: &str,
        queries: &[Vec<u64>],
        rounds: usize,
        is_cold: bool,
    ) {
        let expected = self.oracle.answers(queries);
        let lineup = Lineup::new(self.endpoints, &expected)
            .with(OurTree::NAME, self.ours.prepare(queries))
            .with("ours_chained", self.ours.prepare_chained(queries))
            .with(Crtc::NAME, self.crtc.prepare(queries))
            .with(KvIndex::NAME, self.kv_index.prepare(queries));
        let race = lineup.race(report, settings.runs, rounds, is_cold);
        report.figure(key, race.ratio(0, OurTree::NAME, &[Crtc::NAME]), "x CRTC");
        let chained = race.ratio(0, "ours_chained", &[Crtc::NAME]);
        report.figure(&format!("{key}_chained"), chained, "x CRTC");
        let kv_index = race.ratio(0, OurTree::NAME, &[KvIndex::NAME]);
        report.figure(&format!("{key}_vs_kv_index"), kv_index, "x kv-index");
    }
}
