//! What a block costs in a store: the processor's time for its books, and the disk beside fio.
//!
//! `cargo bench -p llmd-data --bench kv_store -- [FOLDER ON A DISK]`; the last line is
//! `BENCH {json}`. Without fio installed, or without a folder, its figure is left out.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cpu_time::ThreadTime;
use llmd_data::kv::catalogue::Block;
use llmd_data::kv::disk::DiskTier;
use llmd_data::kv::eviction::Algorithm;
use llmd_data::kv::host::{HostTier, checksum_of};
use llmd_data::kv::{BlockKey, Chain, KeySpace};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Slots of the tier whose books are measured: 100,000 blocks of 16 tokens are 1.6 million.
const SLOTS: u64 = 100_000;
const CHAIN: usize = 256;
const ROUNDS: usize = 5;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Microseconds of this thread's processor a block, for puts that evict and for gets that hit:
/// with the folding of names and the calls' allocations, and blocks of 64 bytes, whose copy and
/// checksum cost next to nothing.
fn books() -> (f64, f64) {
    let path = format!("/dev/shm/llmd-bench-{}", std::process::id());
    let path = Path::new(&path);
    // Slots are a page at least, so this maps 400 MB; only the first bytes of each are used.
    let tier = HostTier::open(path, SLOTS, 4096, Algorithm::default()).unwrap();
    let space = KeySpace::new(b"bench", b"");
    let block = [7u8; 64];
    let mut out = vec![[0u8; 64]; CHAIN];
    let hash = |chain: u64, at: usize| {
        let mut hash = [0u8; 32];
        hash[..8].copy_from_slice(&chain.to_le_bytes());
        hash[8..16].copy_from_slice(&(at as u64).to_le_bytes());
        hash
    };
    let keys = |chain: u64| -> Vec<BlockKey> {
        (0..CHAIN).map(|at| space.key(&hash(chain, at))).collect()
    };
    let put = |chain: u64| {
        let keys = keys(chain);
        let pieces = vec![&block[..]; CHAIN];
        tier.put(Chain { keys: &keys, parent: None, position: 0 }, &pieces, |_| ()).unwrap()
    };
    let chains = SLOTS / CHAIN as u64;
    for chain in 0..chains {
        put(chain);
    }
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u64 {
        let start = ThreadTime::now();
        let stored: usize = (0..chains).map(|it| put((round + 1) * chains + it)).sum();
        puts.push(start.elapsed().as_secs_f64() * 1e6 / stored as f64);
        assert!(stored as u64 > SLOTS / 2, "{stored} stored");

        let start = ThreadTime::now();
        let mut hits = 0;
        for chain in 0..chains {
            let keys = keys((round + 1) * chains + chain);
            let mut pieces: Vec<&mut [u8]> = out.iter_mut().map(|it| &mut it[..]).collect();
            hits += tier.get(&keys, &mut pieces).into_iter().filter(|&it| it).count();
        }
        gets.push(start.elapsed().as_secs_f64() * 1e6 / hits as f64);
        assert!(hits as u64 > SLOTS / 2, "{hits} hits");
    }
    std::fs::remove_file(path).unwrap();
    (median(gets), median(puts))
}

const DISK_BLOCK: usize = 256 << 10;
const DISK_BLOCKS: u64 = 2048;

/// Gigabytes a second of random reads through the tier and of fio's, taken in turns.
fn disk(folder: &Path) -> Option<(f64, f64)> {
    let folder = folder.join(format!("llmd-bench-{}", std::process::id()));
    let books = format!("/dev/shm/llmd-bench-disk-{}", std::process::id());
    let books = Path::new(&books);
    let tier =
        DiskTier::open(books, &folder, DISK_BLOCKS, DISK_BLOCK as u64, Algorithm::Lru).unwrap();
    let space = KeySpace::new(b"bench", b"");
    let content: Vec<u8> =
        (0..DISK_BLOCK as u64 / 8).flat_map(|it| (it * it).to_le_bytes()).collect();
    let keys: Vec<BlockKey> = (0..DISK_BLOCKS).map(|it| space.key(&it.to_le_bytes())).collect();
    let block = |&key: &BlockKey| Block {
        key,
        parent: key,
        checksum: checksum_of(&content),
        length_bytes: DISK_BLOCK as u32,
        position: 0,
    };
    for keys in keys.chunks(64) {
        let blocks: Vec<Block> = keys.iter().map(block).collect();
        let stored = tier.put(&blocks, |_, out| {
            out.copy_from_slice(&content);
            true
        });
        assert_eq!(stored, keys.len());
    }
    let order: Vec<BlockKey> =
        (0..DISK_BLOCKS).map(|it| keys[(it * 1229 % DISK_BLOCKS) as usize]).collect();
    let (mut ours, mut fios) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let Some(fio) = fio(&folder.join("blocks")) else { break };
        fios.push(fio);
        let start = Instant::now();
        let mut bytes = 0;
        for keys in order.chunks(4 * CHAIN) {
            tier.get(keys, |_, _, block| bytes += block.len());
        }
        ours.push(bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
        assert_eq!(bytes, DISK_BLOCKS as usize * DISK_BLOCK);
    }
    println!(
        "disk: direct {}, io_uring {}, ours {ours:.2?}, fio {fios:.2?} GB/s",
        tier.direct(),
        DiskTier::uring()
    );
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::remove_file(books).unwrap();
    (!fios.is_empty()).then(|| (median(ours), median(fios)))
}

/// The same pattern by fio: random reads of whole blocks, each once, as many at a time.
fn fio(file: &Path) -> Option<f64> {
    let engine = if DiskTier::uring() { "io_uring" } else { "psync" };
    let output = Command::new("fio")
        .args([
            "--name=read",
            "--rw=randread",
            "--direct=1",
            "--iodepth=64",
            "--output-format=json",
        ])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--bs={DISK_BLOCK}"))
        .arg(format!("--size={}", DISK_BLOCKS * DISK_BLOCK as u64))
        .output()
        .ok()?;
    let report: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(report["jobs"][0]["read"]["bw_bytes"].as_f64()? / 1e9)
}

fn main() {
    let (get_us, put_us) = books();
    println!("a block's books: get {get_us:.2} us, put {put_us:.2} us of processor");
    let mut bench = json!({ "store_get_us": get_us, "store_put_us": put_us });
    let folder = std::env::args().skip(1).find(|it| !it.starts_with('-'));
    if let Some((ours, fio)) = folder.and_then(|folder| disk(Path::new(&folder))) {
        bench["disk_gb_s"] = json!(ours);
        bench["disk_vs_fio"] = json!(ours / fio);
    }
    println!("BENCH {bench}");
}
