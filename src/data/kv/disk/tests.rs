//! The disk tier alone and under a host tier; deaths are in `tests/rust/kv_faults`.

use super::*;
use crate::kv::catalogue::Generation;
use crate::kv::{Chain, KeySpace, Store, StoreConfig};
use crate::memory::Segment;
use proptest::prelude::*;
use std::path::PathBuf;

const SLOT: usize = 8192;

struct Place {
    books: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("llmd-disk-{name}-{}", std::process::id());
        let books = PathBuf::from("/dev/shm").join(&name);
        // Not the folder for temporary files, which may be in memory.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(&name);
        let place = Self { books, folder };
        place.remove();
        place
    }

    fn remove(&self) {
        let _ = Store::unlink(&self.books);
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn open(&self, slots: u64) -> DiskTier {
        DiskTier::open(&self.books, &self.folder, slots, SLOT as u64, Algorithm::Lru).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

fn keys(range: std::ops::Range<u32>) -> Vec<BlockKey> {
    let space = KeySpace::new(b"model", b"");
    range.map(|it| space.key(&it.to_le_bytes())).collect()
}

fn bytes_of(key: BlockKey) -> Vec<u8> {
    key.to_bytes().into_iter().cycle().take(SLOT - 100).collect()
}

fn put(tier: &DiskTier, keys: &[BlockKey]) -> usize {
    let block = |&key| Block {
        key,
        parent: BlockKey::NONE,
        checksum: checksum_of(&bytes_of(key)),
        length_bytes: (SLOT - 100) as u32,
        position: 0,
    };
    let blocks: Vec<_> = keys.iter().map(block).collect();
    tier.put(&blocks, |at, out| {
        out.copy_from_slice(&bytes_of(keys[at]));
        true
    })
}

fn get(tier: &DiskTier, keys: &[BlockKey]) -> usize {
    let mut hits = 0;
    tier.get(keys, |at, _, bytes| {
        assert_eq!(bytes, bytes_of(keys[at]));
        hits += 1;
    });
    hits
}

#[test]
fn blocks_come_back_and_survive_a_restart() {
    let place = Place::new("restart");
    let tier = place.open(100);
    assert_eq!(put(&tier, &keys(0..90)), 90);
    assert_eq!(put(&tier, &keys(80..90)), 0, "there already");
    assert_eq!(get(&tier, &keys(0..95)), 90);

    drop(tier);
    assert_eq!(get(&place.open(100), &keys(0..90)), 90, "its books were still there");
    Segment::unlink(&place.books).unwrap();
    let tier = place.open(100);
    assert_eq!(get(&tier, &keys(0..90)), 90, "its books had gone");
    assert_eq!(tier.books().enter().unwrap().catalogue().audit(), Vec::<String>::new());
    assert_eq!(put(&tier, &keys(100..150)), 50, "evicting");
    assert_eq!(get(&tier, &keys(100..150)), 50);
}

#[test]
fn files_of_other_settings_are_refused_by_name() {
    let place = Place::new("settings");
    drop(place.open(100));
    Segment::unlink(&place.books).unwrap();

    let other = DiskTier::open(&place.books, &place.folder, 50, SLOT as u64, Algorithm::Lru);
    let said = other.err().unwrap().to_string();
    assert!(said.contains("slots 100, not 50"), "{said}");
}

fn config(place: &Place, host_blocks: u64, disk_blocks: u64) -> StoreConfig {
    StoreConfig {
        block_bytes: SLOT as u64,
        host_bytes: host_blocks * SLOT as u64,
        disk_bytes: disk_blocks * SLOT as u64,
        disk_folder: Some(place.folder.clone()),
        eviction: Algorithm::Lru,
    }
}

fn store_get(store: &Store, keys: &[BlockKey]) -> Vec<bool> {
    let mut blocks = vec![vec![0; SLOT - 100]; keys.len()];
    let mut pieces: Vec<&mut [u8]> =
        blocks.iter_mut().flat_map(|it| it.split_at_mut(1000).into_array()).collect();
    let there = store.get(Chain { keys, parent: None, position: 0 }, &mut pieces);
    for (at, &key) in keys.iter().enumerate() {
        assert!(!there[at] || blocks[at] == bytes_of(key), "block {at}");
    }
    there
}

trait IntoArray<T> {
    fn into_array(self) -> [T; 2];
}

impl<T> IntoArray<T> for (T, T) {
    fn into_array(self) -> [T; 2] {
        [self.0, self.1]
    }
}

fn store_put(store: &Store, keys: &[BlockKey]) -> usize {
    let blocks: Vec<_> = keys.iter().map(|&key| bytes_of(key)).collect();
    let pieces: Vec<&[u8]> = blocks.iter().map(|it| &it[..]).collect();
    store.put(Chain { keys, parent: None, position: 0 }, &pieces).unwrap()
}

#[test]
fn what_leaves_memory_goes_to_the_disk_and_comes_back_when_asked_for() {
    let place = Place::new("tiers");
    let store = Store::open(&place.books, &config(&place, 16, 200)).unwrap();
    for first in (0..80).step_by(8) {
        assert_eq!(store_put(&store, &keys(first..first + 8)), 8);
    }
    assert_eq!(store.matched(&keys(0..8)), 8, "on the disk");
    assert_eq!(store.counts().disk.unwrap().stored, 64);

    assert_eq!(store_get(&store, &keys(0..8)), vec![true; 8]);
    assert_eq!(store.host().books().matched(&keys(0..8)), 8, "in memory again");
    let before = store.counts();
    assert_eq!(store_get(&store, &keys(0..8)), vec![true; 8]);
    assert_eq!(store.counts().disk, before.disk, "the disk was not asked");
    assert_eq!(store_get(&store, &keys(200..201)), [false]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two tiers hold what one map holds, except for what fell out of the lower one.
    #[test]
    fn a_store_agrees_with_a_map(turns in prop::collection::vec((0u32..40, 1u32..9, any::<bool>()), 1..40)) {
        let place = Place::new("oracle");
        let store = Store::open(&place.books, &config(&place, 8, 64)).unwrap();
        let mut stored = std::collections::HashSet::<BlockKey>::new();
        for (first, length, storing) in turns {
            let chain = keys(first..first + length);
            if storing {
                store_put(&store, &chain);
                // Eight fit the memory, which may refuse the end of a chain; nothing falls from a
                // disk of 64 among 48 blocks.
                stored.extend(chain.iter().filter(|&&key| store.matched(&[key]) == 1));
            }
            let there = store_get(&store, &chain);
            for (at, key) in chain.iter().enumerate() {
                prop_assert_eq!(there[at], stored.contains(key), "block {}", first as usize + at);
            }
        }
    }

    /// A record is believed exactly as it was written, for its own slot and epoch.
    #[test]
    fn records_are_believed_or_not_as_a_whole(
        slot in 0u32..1000, epoch in 1u64..u64::MAX, bit in 0usize..88 * 8, length in 1u32..5000
    ) {
        let key = keys(slot..slot + 1)[0];
        let block = Block { key, parent: key, checksum: 5, length_bytes: length, position: 2 };
        let bytes = record::encode(epoch, slot, Generation(9), &block);

        let read = record::decode(&bytes, epoch, slot, 4096);
        prop_assert_eq!(read, (length <= 4096).then_some(block));
        prop_assert_eq!(record::decode(&bytes, epoch - 1, slot, 4096), None);
        prop_assert_eq!(record::decode(&bytes, epoch, slot + 1, 4096), None);
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(record::decode(&damaged, epoch, slot, 8192), None);
        prop_assert_eq!(record::decode(&bytes[..80], epoch, slot, 8192), None);
    }
}
