//! Token hit ratios of the eviction algorithms on traces of sessions, beside Belady's.
//!
//! `cargo bench -p llmd-data --bench eviction -- [FOLDER WITH TRACES] [--trace=NAME]
//! [--share=0.01]`; the last line is `BENCH {json}`. Each trace is played through the store's own catalogue at several sizes. The
//! ratio is of prompt tokens found to prompt tokens, of the longest prefix only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod belady;
mod traces;

use belady::{Belady, NEVER};
use llmd_data::kv::BlockKey;
use llmd_data::kv::catalogue::{Block, OwnedCatalogue, Place};
use llmd_data::kv::eviction::{Algorithm, Eviction, Policy};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use traces::Trace;

/// Parts of all blocks of a trace that a tier holds.
const SHARES: [f64; 6] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.4];
const SESSIONS: [&str; 2] = ["claudecode_sessions_dev", "lmcache_agent_sessions"];

fn key(block: u32) -> BlockKey {
    let spread = (u64::from(block) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(spread ^ spread >> 32).to_le_bytes());
    bytes[8..12].copy_from_slice(&block.to_le_bytes());
    BlockKey::from_bytes(bytes)
}

/// For each prompt's blocks, the next prompt that has them.
fn next_uses(trace: &Trace) -> Vec<Vec<u32>> {
    let mut next = vec![NEVER; trace.blocks];
    let mut uses: Vec<Vec<u32>> = Vec::with_capacity(trace.prompts.len());
    for (number, prompt) in trace.prompts.iter().enumerate().rev() {
        uses.push(prompt.blocks.iter().map(|&block| next[block as usize]).collect());
        for &block in &prompt.blocks {
            next[block as usize] = number as u32;
        }
    }
    uses.reverse();
    uses
}

/// The token hit ratio of `policy` in `slots` slots. `tell` hears which block (of which prompt,
/// in which place) comes next.
fn play<E: Eviction>(
    trace: &Trace,
    slots: usize,
    policy: E,
    tell: impl Fn(&mut E, usize, usize),
) -> f64 {
    let mut owned = OwnedCatalogue::new(slots, policy);
    let mut books = owned.view();
    let (mut found, mut asked) = (0u64, 0u64);
    for (number, prompt) in trace.prompts.iter().enumerate() {
        // Ticks of 10 ms. Not 0: that is where the catalogue's nodes begin.
        let now = (prompt.at_s * 100.0) as u32 + 1;
        let matched = prompt.blocks.iter().map_while(|&block| books.find(key(block)));
        let matched: Vec<u32> = matched.collect();
        for (place, &slot) in matched.iter().enumerate() {
            tell(books.policy, number, place);
            books.touch(slot, now);
        }
        found += (matched.len() as u64 * u64::from(trace.block_tokens)).min(prompt.tokens.into());
        asked += u64::from(prompt.tokens);
        let mut parent = match matched.len() {
            0 => BlockKey::from_bytes([0; 16]),
            length => key(prompt.blocks[length - 1]),
        };
        for (place, &block) in prompt.blocks.iter().enumerate().skip(matched.len()) {
            let own = key(block);
            match books.reserve(own, parent, 0, now, 0, |_| true) {
                Place::Reserved(ticket) => {
                    tell(books.policy, number, place);
                    let position = place as u32;
                    let block = Block { key: own, parent, checksum: 0, length_bytes: 0, position };
                    assert!(books.commit(&ticket, block, now));
                }
                Place::Present(_) => {}
                Place::Busy | Place::Full => break,
            }
            parent = own;
        }
    }
    found as f64 / asked as f64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.iter().find(|it| !it.starts_with("--")).map(PathBuf::from);
    let mut traces = vec![Trace::agents(1_000)];
    if let Some(folder) = folder {
        let names = SESSIONS.iter().chain(&["mooncake_conversation_dev"]);
        let files = names.map(|it| Path::new(&folder).join(format!("{it}.jsonl")));
        traces.extend(files.filter_map(|path| Trace::read(&path)));
    }
    let option = |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name));
    if let Some(name) = option("--trace=") {
        traces.retain(|trace| trace.name.contains(name));
    }
    let share = option("--share=").map(|share| share.parse().unwrap());
    let shares = share.map_or(SHARES.to_vec(), |share| vec![share]);
    let mut results = serde_json::Map::new();
    let mut most = (f64::MIN, String::new());
    for trace in &traces {
        let uses = next_uses(trace);
        println!(
            "{}: {} prompts, {} blocks of {} tokens",
            trace.name,
            trace.prompts.len(),
            trace.blocks,
            trace.block_tokens
        );
        for &share in &shares {
            let slots = ((trace.blocks as f64 * share) as usize).max(16);
            let mut row = BTreeMap::new();
            for algorithm in Algorithm::ALL {
                let policy = Policy::new(algorithm);
                row.insert(algorithm.name(), play(trace, slots, policy, |_, _, _| ()));
            }
            let belady = play(trace, slots, Belady::new(slots), |belady, number, place| {
                belady.upcoming = uses[number][place];
            });
            row.insert("belady", belady);
            print!("  {:>4.0}% of blocks ({slots:>7})", share * 100.0);
            for (name, ratio) in &row {
                print!("  {name} {:.2}", ratio * 100.0);
            }
            println!();
            let best =
                Algorithm::ALL.iter().map(|it| it.name()).max_by(|a, b| row[a].total_cmp(&row[b]));
            let best = best.unwrap();
            let points = (row[best] - row["lru"]) * 100.0;
            if SESSIONS.contains(&trace.name.as_str()) && points > most.0 {
                let belady = (row["belady"] - row["lru"]) * 100.0;
                let size = format!("{best} at {:.0}% of {}", share * 100.0, trace.name);
                most = (points, format!("{size}, Belady {belady:+.2}"));
            }
            results.insert(format!("{}_{share}", trace.name), serde_json::json!(row));
        }
    }
    if !most.1.is_empty() {
        results.insert("hit_vs_lru_points".into(), serde_json::json!(most.0));
        results.insert("hit_vs_lru_where".into(), serde_json::json!(most.1));
    }
    println!("BENCH {}", serde_json::Value::Object(results));
}
