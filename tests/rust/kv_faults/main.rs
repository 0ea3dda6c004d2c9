//! Real processes that share a store and are killed: at any instruction of a put, in the middle of
//! their work, while they hold the mutex. What they leave serves no wrong byte and stops nobody.
//!
//! No test harness: the program is its own victim (`LLMD_KV_ROLE`), and one that is stepped through
//! must have one thread. `LLMD_HISTORIES` is how many deaths of each kind; an argument picks tests
//! by a part of their names.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod disk;
mod host;
mod stepping;

use llmd_data::kv::{BlockKey, KeySpace};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Bytes of a block in these tests.
pub const BLOCK: usize = 4096;

/// Calls a test by its name.
type Test = (&'static str, fn());

fn main() {
    if let Ok(role) = std::env::var("LLMD_KV_ROLE") {
        let place = PathBuf::from(std::env::var("LLMD_KV_PLACE").unwrap());
        match role.as_str() {
            "worker" => host::work(&place),
            "stepped" => host::be_stepped(&place),
            "holder" => host::hold_the_mutex(&place),
            "disk_worker" => disk::work(&place),
            "disk_limited" => disk::work_under_a_file_size_limit(&place),
            role => panic!("no role {role}"),
        }
        return;
    }
    let wanted = std::env::args().skip(1).find(|it| !it.starts_with('-')).unwrap_or_default();
    let tests: &[Test] = &[
        ("killed_at_any_instruction_of_a_put", host::killed_at_any_instruction_of_a_put),
        ("killed_at_work", host::killed_at_work),
        ("killed_while_holding_the_mutex", host::killed_while_holding_the_mutex),
        ("a_stopped_holder_costs_misses", host::a_stopped_holder_costs_misses),
        ("disk_killed_at_work", disk::killed_at_work),
        ("disk_full", disk::full),
        ("disk_corrupted", disk::corrupted),
        ("disk_stale_epoch", disk::stale_epoch),
    ];
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(&wanted)) {
        test();
        println!("test {name} ... ok");
    }
}

/// How many deaths of a kind.
pub fn deaths(default: u64) -> u64 {
    std::env::var("LLMD_HISTORIES")
        .ok()
        .and_then(|it| it.parse::<u64>().ok())
        .map_or(default, |it| (it / 1000).max(default))
}

/// This program in another role, told to work at `place`.
pub fn spawn(role: &str, place: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env("LLMD_KV_ROLE", role)
        .env("LLMD_KV_PLACE", place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The names of blocks by number.
pub fn keys(range: std::ops::Range<u32>) -> Vec<BlockKey> {
    let space = KeySpace::new(b"model", b"");
    range.map(|it| space.key(&it.to_le_bytes())).collect()
}

/// Bytes that only `key` has, so that a foreign or torn block shows.
pub fn bytes_of(key: BlockKey) -> Vec<u8> {
    let seed = u128::from_le_bytes(key.to_bytes()) as u64;
    let words = (0..BLOCK as u64 / 8).map(|at| (seed ^ at).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(u64::to_le_bytes).collect()
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// A place in shared memory or on a disk that goes with the test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(folder: &str, name: &str) -> Self {
        let place = PathBuf::from(folder).join(format!("llmd-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&place);
        let _ = std::fs::remove_dir_all(&place);
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
