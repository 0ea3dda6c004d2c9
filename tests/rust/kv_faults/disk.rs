//! Deaths beside the tier on a disk, a disk that is full, and one that lies.

use super::{BLOCK, Place, Rng, bytes_of, deaths, keys, spawn};
use llmd_data::kv::eviction::Algorithm;
use llmd_data::kv::{BlockKey, Chain, Store, StoreConfig};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const HOST_BLOCKS: u64 = 8;
const DISK_BLOCKS: u64 = 40;
const BLOCKS: u32 = 70;

/// The files of a store called `place`, on the disk that the build is on.
fn folder(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name)
}

fn open(place: &Path) -> Store {
    let config = StoreConfig {
        block_bytes: BLOCK as u64,
        host_bytes: HOST_BLOCKS * BLOCK as u64,
        disk_bytes: DISK_BLOCKS * BLOCK as u64,
        disk_folder: Some(folder(place)),
        eviction: Algorithm::Lru,
    };
    Store::open(place, &config).unwrap()
}

/// A store that goes with the test, with its files.
struct Stored {
    place: Place,
    _folder: Place,
}

fn stored(name: &str) -> Stored {
    let place = Place::new("/dev/shm", name);
    let folder = Place(folder(&place.0));
    let _ = std::fs::remove_dir_all(&folder.0);
    Store::unlink(&place.0).unwrap();
    Stored { place, _folder: folder }
}

impl Drop for Stored {
    fn drop(&mut self) {
        let _ = Store::unlink(&self.place.0);
    }
}

fn put(store: &Store, keys: &[BlockKey]) -> usize {
    let blocks: Vec<_> = keys.iter().map(|&key| bytes_of(key)).collect();
    let pieces: Vec<&[u8]> = blocks.iter().map(|it| &it[..]).collect();
    store.put(Chain { keys, parent: None, position: 0 }, &pieces).unwrap()
}

fn get(store: &Store, keys: &[BlockKey]) -> usize {
    let mut blocks = vec![vec![0; BLOCK]; keys.len()];
    let mut pieces: Vec<&mut [u8]> = blocks.iter_mut().map(|it| &mut it[..]).collect();
    let there = store.get(Chain { keys, parent: None, position: 0 }, &mut pieces);
    for (at, &key) in keys.iter().enumerate() {
        assert!(!there[at] || blocks[at] == bytes_of(key), "wrong bytes");
    }
    there.into_iter().filter(|&it| it).count()
}

/// A role: puts and gets, most of them through the disk, until it is killed.
pub fn work(place: &Path) {
    let store = open(place);
    let mut rng = Rng(u64::from(std::process::id()));
    let mut out = std::io::stdout();
    loop {
        let first = rng.below(u64::from(BLOCKS) - 6) as u32;
        get(&store, &keys(first..first + 6));
        put(&store, &keys(first..first + 6));
        if out.write_all(b".").is_err() {
            return;
        }
        let _ = out.flush();
    }
}

pub fn killed_at_work() {
    let stored = stored("disk-worked");
    let place = &stored.place.0;
    let store = open(place);
    let mut rng = Rng(5);
    let mut workers: Vec<_> = (0..2).map(|_| spawn("disk_worker", place)).collect();
    for death in 0..deaths(24) as usize {
        let at = death % workers.len();
        let mut done = vec![0; 1 + rng.below(10) as usize];
        workers[at].stdout.as_mut().unwrap().read_exact(&mut done).unwrap();
        let mut killed = std::mem::replace(&mut workers[at], spawn("disk_worker", place));
        killed.kill().unwrap();
        killed.wait().unwrap();
        get(&store, &keys(0..BLOCKS));
    }
    for mut worker in workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    get(&store, &keys(0..BLOCKS));
    let counts = store.counts();
    println!("  {:?}", counts.disk.unwrap());
    assert!(counts.disk.unwrap().hits > 0);

    // The machine's memory goes, the files stay.
    drop(store);
    Store::unlink(place).unwrap();
    let store = open(place);
    assert!(get(&store, &keys(0..BLOCKS)) > 0, "blocks survived");
    let mut guard = store.disk().unwrap().books().enter().unwrap();
    assert_eq!(guard.catalogue().audit(), Vec::<String>::new());
}

/// A role: works with files that may not grow past a limit, as on a full disk, and says what it
/// counted.
pub fn work_under_a_file_size_limit(place: &Path) {
    let limit = libc::rlimit { rlim_cur: 12 * BLOCK as u64, rlim_max: 12 * BLOCK as u64 };
    let store = open(place);
    // SAFETY: neither call touches memory but `limit`, which is a valid place.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    for first in 0..30 {
        put(&store, &keys(first * 4..first * 4 + 4));
        assert_eq!(get(&store, &keys(first * 4..first * 4 + 4)), 4, "memory serves");
    }
    let found = get(&store, &keys(0..120));
    let counts = store.counts().disk.unwrap();
    assert!(counts.failed_io > 0 && counts.stored > 0, "{counts:?}");
    assert_eq!(counts.corrupt, 0);
    println!("{found}");
}

pub fn full() {
    let stored = stored("disk-full");
    let worker = spawn("disk_limited", &stored.place.0);
    let output = worker.wait_with_output().unwrap();
    assert!(output.status.success());
    let found: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(found > HOST_BLOCKS as usize, "{found}: what fitted the disk is there");
    let store = open(&stored.place.0);
    let mut guard = store.disk().unwrap().books().enter().unwrap();
    assert_eq!(guard.catalogue().head.writing_slots, 0);
    assert_eq!(guard.catalogue().audit(), Vec::<String>::new());
}

pub fn corrupted() {
    let stored = stored("disk-corrupted");
    let place = &stored.place.0;
    let store = open(place);
    put(&store, &keys(0..8));
    put(&store, &keys(100..108));
    let file = folder(place);
    let blocks = std::fs::File::options().write(true).open(file.join("blocks")).unwrap();
    for slot in 0..4u64 {
        blocks.write_all_at(b"!", slot * BLOCK as u64 + 99).unwrap();
    }
    assert_eq!(get(&store, &keys(0..8)), 4);
    assert_eq!(store.counts().disk.unwrap().corrupt, 4);
    drop(store);

    // Records, with the machine's memory gone.
    Store::unlink(place).unwrap();
    let mut records = std::fs::read(file.join("records")).unwrap();
    let mut rng = Rng(8);
    for _ in 0..20 {
        let at = 4096 + rng.below(records.len() as u64 - 4096) as usize;
        records[at] ^= 1 << rng.below(8);
    }
    std::fs::write(file.join("records"), &records).unwrap();
    get(&open(place), &keys(0..8));
    // And their header: nothing is found, and the disk is of use again.
    Store::unlink(place).unwrap();
    records[9] ^= 1;
    std::fs::write(file.join("records"), &records).unwrap();
    let store = open(place);
    assert_eq!(get(&store, &keys(0..8)), 0);
    put(&store, &keys(0..8));
    put(&store, &keys(100..108));
    assert_eq!(get(&store, &keys(0..8)), 8);
}

pub fn stale_epoch() {
    let stored = stored("disk-stale");
    let place = &stored.place.0;
    let store = open(place);
    put(&store, &keys(0..8));
    put(&store, &keys(100..108));
    drop(store);
    let records = folder(place).join("records");
    let old = std::fs::read(&records).unwrap();

    // Another life of the same files, whose records are then those of the first.
    Store::unlink(place).unwrap();
    std::fs::remove_file(&records).unwrap();
    drop(open(place));
    let new = std::fs::read(&records).unwrap();
    std::fs::write(&records, [&new[..4096.min(new.len())], &old[new.len().min(4096)..]].concat())
        .unwrap();
    Store::unlink(place).unwrap();
    let store = open(place);
    assert_eq!(store.matched(&keys(0..8)), 0);
    assert_eq!(get(&store, &keys(0..8)), 0);
}
