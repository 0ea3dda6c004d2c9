//! What one process and several attachments see; deaths are in `tests/rust/kv_faults`.

use super::*;
use crate::kv::KeySpace;
use crate::memory::Segment;
use std::path::PathBuf;

const SLOT: usize = 4096;

/// A place in `/dev/shm` that goes with the test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let place = PathBuf::from(format!("/dev/shm/llmd-test-{name}-{}", std::process::id()));
        Segment::unlink(&place).unwrap();
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub fn keys(range: std::ops::Range<u32>) -> Vec<BlockKey> {
    let space = KeySpace::new(b"model", b"");
    range.map(|it| space.key(&it.to_le_bytes())).collect()
}

/// Bytes that only `key` has.
fn bytes_of(key: BlockKey, length: usize) -> Vec<u8> {
    key.to_bytes().into_iter().cycle().take(length).collect()
}

fn put(tier: &HostTier, keys: &[BlockKey], length: usize) -> usize {
    let blocks: Vec<_> = keys.iter().map(|&key| bytes_of(key, length)).collect();
    let pieces: Vec<&[u8]> = blocks.iter().flat_map(|it| [&it[..8], &it[8..]]).collect();
    tier.put(Chain { keys, parent: None, position: 0 }, &pieces, |_| ()).unwrap()
}

fn get(tier: &HostTier, keys: &[BlockKey], length: usize) -> Vec<bool> {
    let mut blocks = vec![vec![0; length]; keys.len()];
    let there = {
        let mut pieces: Vec<&mut [u8]> = blocks.iter_mut().map(|it| &mut it[..]).collect();
        tier.get(keys, &mut pieces)
    };
    for (at, &key) in keys.iter().enumerate() {
        assert!(!there[at] || blocks[at] == bytes_of(key, length), "block {at}");
    }
    there
}

fn counts(tier: &HostTier) -> crate::kv::books::Counts {
    tier.books().counters().read()
}

#[test]
fn every_attachment_sees_what_one_has_stored() {
    let place = Place::new("attachments");
    let one = HostTier::open(&place.0, 64, SLOT as u64, Algorithm::Lru).unwrap();
    let other = HostTier::open(&place.0, 64, SLOT as u64, Algorithm::Lru).unwrap();
    let chain = keys(0..40);

    assert_eq!(put(&one, &chain, SLOT), 40);
    assert_eq!(put(&other, &chain, SLOT), 0, "there already");
    assert_eq!(other.books().matched(&keys(0..60)), 40);
    assert_eq!(get(&other, &chain, SLOT), vec![true; 40]);
    assert_eq!(get(&other, &keys(40..42), SLOT), vec![false; 2]);
    drop((one, other));
    let later = HostTier::open(&place.0, 64, SLOT as u64, Algorithm::Lru).unwrap();
    assert_eq!(get(&later, &chain, SLOT), vec![true; 40]);
    let counts = counts(&later);
    assert_eq!((counts.hits, counts.misses, counts.stored, counts.present), (80, 2, 40, 40));
}

#[test]
fn other_settings_are_refused_by_name() {
    let place = Place::new("settings");
    let _one = HostTier::open(&place.0, 64, SLOT as u64, Algorithm::Lru).unwrap();

    let other = HostTier::open(&place.0, 32, SLOT as u64, Algorithm::Lru);
    let said = other.err().unwrap().to_string();
    assert!(said.contains("slots 64, not 32"), "{said}");
    let odd = HostTier::open(&place.0, 64, 1000, Algorithm::Lru).err().unwrap().to_string();
    assert!(odd.contains("1000"), "{odd}");
}

#[test]
fn books_whose_maker_died_are_made_again() {
    let place = Place::new("half-made");
    drop(HostTier::open(&place.0, 64, SLOT as u64, Algorithm::Lru).unwrap());
    let length = std::fs::metadata(&place.0).unwrap().len();
    std::fs::write(&place.0, vec![0; 100]).unwrap();

    let tier = HostTier::open(&place.0, 64, SLOT as u64, Algorithm::Lru).unwrap();

    assert_eq!(std::fs::metadata(&place.0).unwrap().len(), length);
    assert_eq!(put(&tier, &keys(0..3), SLOT), 3);
}

#[test]
fn what_leaves_can_still_be_copied() {
    let place = Place::new("leaving");
    let tier = HostTier::open(&place.0, 8, SLOT as u64, Algorithm::Lru).unwrap();
    put(&tier, &keys(0..8), SLOT);
    let (chain, mut left) = (keys(100..103), Vec::new());
    let blocks: Vec<_> = chain.iter().map(|&key| bytes_of(key, SLOT)).collect();
    let pieces: Vec<&[u8]> = blocks.iter().map(|it| &it[..]).collect();

    let chain = Chain { keys: &chain, parent: None, position: 0 };
    let stored = tier.put(chain, &pieces, |leaving| {
        for it in leaving {
            let mut bytes = vec![0; it.block.length_bytes as usize];
            assert!(it.copy(&mut bytes));
            assert_eq!(bytes, bytes_of(it.block.key, SLOT));
            left.push(it.block.key);
        }
    });

    assert_eq!(stored.unwrap(), 3);
    // The ends of the chain go first.
    let mut expected = keys(5..8);
    expected.reverse();
    assert_eq!(left, expected);
    assert_eq!(tier.books().matched(&keys(0..8)), 5);
}

#[test]
fn damaged_bytes_are_a_miss_and_then_gone() {
    let place = Place::new("damaged");
    let tier = HostTier::open(&place.0, 8, SLOT as u64, Algorithm::Lru).unwrap();
    put(&tier, &keys(0..2), SLOT);
    let mut file = std::fs::read(&place.0).unwrap();
    let bytes = bytes_of(keys(1..2)[0], SLOT);
    let at = file.windows(SLOT).position(|it| it == bytes).unwrap();
    file[at + 77] ^= 4;
    use std::os::unix::fs::FileExt;
    let handle = std::fs::File::options().write(true).open(&place.0).unwrap();
    handle.write_at(&file[at + 77..at + 78], at as u64 + 77).unwrap();

    assert_eq!(get(&tier, &keys(0..2), SLOT), [true, false]);
    assert_eq!(counts(&tier).corrupt, 1);
    assert_eq!(tier.books().matched(&keys(0..2)), 1, "forgotten");
    assert_eq!(put(&tier, &keys(0..2), SLOT), 1);
    assert_eq!(get(&tier, &keys(0..2), SLOT), [true, true]);
}

#[test]
fn a_block_of_another_length_is_a_miss_and_a_longer_one_an_error() {
    let place = Place::new("lengths");
    let tier = HostTier::open(&place.0, 8, SLOT as u64, Algorithm::Lru).unwrap();
    put(&tier, &keys(0..1), 100);

    assert_eq!(get(&tier, &keys(0..1), 99), [false]);
    assert_eq!(get(&tier, &keys(0..1), 100), [true]);
    let long = vec![0; SLOT + 1];
    let chain = keys(1..2);
    let chain = Chain { keys: &chain, parent: None, position: 0 };
    assert!(matches!(tier.put(chain, &[&long], |_| ()), Err(StoreError::TooLong { .. })));
}

#[test]
fn threads_and_attachments_at_once_see_no_foreign_byte() {
    let place = Place::new("threads");
    let tiers: Vec<_> = (0..2)
        .map(|_| HostTier::open(&place.0, 16, SLOT as u64, Algorithm::Density).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let tier = &tiers[thread as usize % 2];
            scope.spawn(move || {
                for round in 0..300u32 {
                    let first = (round * 7 + thread * 13) % 40;
                    let chain = keys(first..first + 5);
                    get(tier, &chain, SLOT);
                    put(tier, &chain, SLOT);
                }
            });
        }
    });
    let mut guard = tiers[0].books().enter().unwrap();
    assert_eq!(guard.catalogue().audit(), Vec::<String>::new());
    assert_eq!(guard.catalogue().head.writing_slots, 0);
    drop(guard);
    assert!(counts(&tiers[0]).corrupt == 0 && counts(&tiers[0]).hits > 0);
}

#[test]
fn a_file_without_a_name_is_shared_by_its_descriptor() {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let file = rustix::fs::memfd_create("llmd-test", flags).unwrap();
    let path = Segment::path_of(&file);
    let one = HostTier::open(&path, 16, SLOT as u64, Algorithm::Lru).unwrap();
    let other = HostTier::open(&path, 16, SLOT as u64, Algorithm::Lru).unwrap();

    assert_eq!(put(&one, &keys(0..5), SLOT), 5);
    assert_eq!(get(&other, &keys(0..5), SLOT), [true; 5]);
    assert!(other.books().alive(one.books().owner()));
    let owner = one.books().owner();
    drop(one);
    assert!(!other.books().alive(owner));
}
