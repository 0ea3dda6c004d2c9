//! The parts of the bench. Each builds what it needs, checks every answer, and reports its keys.

mod evictions;
mod growth;
mod hashing;
mod lineup;
mod lookups;
mod memory;
mod selecting;
mod snapshots;
mod tokens;
mod trace;
mod under_writes;
mod writes;

use crate::report::Report;
use crate::settings::Settings;
use crate::tree3::Shape;

pub struct Part {
    /// What `--only` names; the keys that it reports begin with one of these.
    pub names: &'static [&'static str],
    pub run: fn(&Settings, &mut Report),
    /// Whether it runs without being named.
    pub by_default: bool,
}

pub const PARTS: &[Part] = &[
    part(&["lookup_64w_d128"], |settings, report| {
        lookups::stored_whole(settings, report, "lookup_64w_d128", SMALL);
    }),
    part(&["lookup_1024w_d256"], |settings, report| {
        lookups::stored_whole(settings, report, "lookup_1024w_d256", WIDE);
    }),
    part(&["lookup_64w_d2048"], |settings, report| {
        lookups::stored_whole(settings, report, "lookup_64w_d2048", DEEP);
    }),
    part(&["lookup_after_decode_1024w"], |settings, report| {
        lookups::after_decode(settings, report, "lookup_after_decode_1024w", WIDE);
    }),
    part(&["tokens_to_match_64w_d128"], tokens::to_match),
    part(&["lookup_p99_under_writes"], under_writes::latency),
    part(&["store_seq", "remove_tail"], writes::whole_sequences),
    part(&["store_decode"], writes::decode),
    part(&["evictions"], evictions::answers),
    part(&["bytes", "memory_bytes_error"], memory::live_bytes),
    part(&["snapshot"], snapshots::out_and_back),
    part(&["hash"], hashing::tokens),
    part(&["select_1024w"], selecting::one_of_1024),
    part(&["trace"], trace::replay),
    Part { names: &["growth"], run: growth::sweep, by_default: false },
];

const SMALL: Shape = Shape { endpoints: 64, sequences: 10_000, depth: 128 };
const WIDE: Shape = Shape { endpoints: 1024, sequences: 20_000, depth: 256 };
const DEEP: Shape = Shape { endpoints: 64, sequences: 4_000, depth: 2048 };

const fn part(names: &'static [&'static str], run: fn(&Settings, &mut Report)) -> Part {
    Part { names, run, by_default: true }
}
