//! Records of a disk tier, mutated at random, through what reads them after a restart: the decoder
//! alone, and the store on files made of them. A second, or as long as `LLMD_FUZZ_SECONDS` says;
//! the same mutations for the same `LLMD_FUZZ_SEED`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use llmd_data::kv::catalogue::{Block, Generation};
use llmd_data::kv::disk::record::{self, Header, RECORD_BYTES, RECORDS_AT};
use llmd_data::kv::eviction::Algorithm;
use llmd_data::kv::{BlockKey, Chain, KeySpace, Store, StoreConfig};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SLOT: usize = 4096;
const SLOTS: u64 = 16;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(6) {
            let (at, other) = (self.below(bytes.len()), self.below(bytes.len()));
            let length = self.below(200).min(bytes.len() - at.max(other));
            match self.below(5) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                // A record in another's place, whole or not.
                2 => bytes.copy_within(other..other + length, at),
                3 => bytes[at..at + length].fill([0, 0xFF][self.below(2)]),
                _ => bytes.truncate(bytes.len() - self.below(300).min(bytes.len() - 1)),
            }
        }
    }
}

fn until(mut each: impl FnMut()) {
    let time = Duration::from_secs(variable("LLMD_FUZZ_SECONDS", 1));
    let start = Instant::now();
    while start.elapsed() < time {
        each();
    }
}

#[test]
fn the_decoder_believes_what_was_written_or_nothing() {
    let key = KeySpace::new(b"", b"").key(b"hash");
    let block = Block { key, parent: key, checksum: 1, length_bytes: 2, position: 3 };
    let (record, header) = (record::encode(9, 4, Generation(6), &block), Header::new(9, 16, 4096));
    let mut rng = Rng(variable("LLMD_FUZZ_SEED", 1));
    until(|| {
        let mut bytes = record.to_vec();
        rng.mutate(&mut bytes);
        assert!(record::decode(&bytes, 9, 4, 4096).is_none_or(|it| it == block));
        let mut bytes = header.encode().to_vec();
        rng.mutate(&mut bytes);
        assert!(Header::decode(&bytes).is_none_or(|it| it == header));
    });
}

/// Files and names that go with the test.
struct Place(PathBuf, PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Store::unlink(&self.0);
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

#[test]
fn a_store_on_mutated_files_serves_no_wrong_byte() {
    let name = format!("llmd-fuzz-{}", std::process::id());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(&name);
    let place = Place(Path::new("/dev/shm").join(&name), folder);
    let config = StoreConfig {
        block_bytes: SLOT as u64,
        host_bytes: 4 * SLOT as u64,
        disk_bytes: SLOTS * SLOT as u64,
        disk_folder: Some(place.1.clone()),
        eviction: Algorithm::Lru,
    };
    let space = KeySpace::new(b"", b"");
    let keys: Vec<BlockKey> = (0..20u8).map(|it| space.key(&[it])).collect();
    let content = |key: BlockKey| key.to_bytes().repeat(SLOT / 16);
    let store = Store::open(&place.0, &config).unwrap();
    for some in keys.chunks(4) {
        let blocks: Vec<_> = some.iter().map(|&key| content(key)).collect();
        let pieces: Vec<&[u8]> = blocks.iter().map(|it| &it[..]).collect();
        store.put(Chain { keys: some, parent: None, position: 0 }, &pieces).unwrap();
    }
    drop(store);
    let files = ["records", "blocks"].map(|name| place.1.join(name));
    let originals = files.each_ref().map(|file| std::fs::read(file).unwrap());
    assert!(originals[0].len() >= RECORDS_AT as usize + SLOTS as usize * RECORD_BYTES);
    let mut rng = Rng(variable("LLMD_FUZZ_SEED", 1));
    let (mut found, mut rounds) = (0, 0);
    until(|| {
        let which = rng.below(2);
        for (at, (file, original)) in files.iter().zip(&originals).enumerate() {
            let mut bytes = original.clone();
            if at == which {
                rng.mutate(&mut bytes);
            }
            std::fs::write(file, bytes).unwrap();
        }
        Store::unlink(&place.0).unwrap();
        rounds += 1;
        // Only its settings may be refused, and only where those are what the header says.
        let store = Store::open(&place.0, &config).unwrap();
        let mut blocks = vec![vec![0; SLOT]; keys.len()];
        let mut pieces: Vec<&mut [u8]> = blocks.iter_mut().map(|it| &mut it[..]).collect();
        let there = store.get(Chain { keys: &keys, parent: None, position: 0 }, &mut pieces);
        for ((there, block), &key) in there.into_iter().zip(&blocks).zip(&keys) {
            assert!(!there || *block == content(key), "wrong bytes in round {rounds}");
            found += usize::from(there);
        }
    });
    assert!(found > 0, "most of the files was whole");
}
