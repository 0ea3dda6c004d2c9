//! Deaths beside the tier of shared memory.

use super::{BLOCK, Place, Rng, bytes_of, deaths, keys, spawn, stepping};
use llmd_data::kv::BlockKey;
use llmd_data::kv::books::Chain;
use llmd_data::kv::eviction::Algorithm;
use llmd_data::kv::host::HostTier;
use std::io::{Read, Write};
use std::path::Path;

const SLOTS: u64 = 24;
const BLOCKS: u32 = 60;

fn open(place: &Path) -> HostTier {
    HostTier::open(place, SLOTS, BLOCK as u64, Algorithm::Density).unwrap()
}

fn put(tier: &HostTier, keys: &[BlockKey]) -> usize {
    let blocks: Vec<_> = keys.iter().map(|&key| bytes_of(key)).collect();
    let pieces: Vec<&[u8]> = blocks.iter().map(|it| &it[..]).collect();
    tier.put(Chain { keys, parent: None, position: 0 }, &pieces, |_| ()).unwrap()
}

/// Asks for blocks, and looks at each byte of those that are there.
fn get(tier: &HostTier, keys: &[BlockKey]) -> usize {
    let mut blocks = vec![vec![0; BLOCK]; keys.len()];
    let mut pieces: Vec<&mut [u8]> = blocks.iter_mut().map(|it| &mut it[..]).collect();
    let there = tier.get(keys, &mut pieces);
    for (at, &key) in keys.iter().enumerate() {
        assert!(!there[at] || blocks[at] == bytes_of(key), "wrong bytes");
    }
    there.into_iter().filter(|&it| it).count()
}

/// After a death: books in order, right bytes, and room for all who live.
fn inspect(tier: &HostTier) {
    get(tier, &keys(0..BLOCKS));
    {
        let mut guard = tier.books().enter().expect("nobody keeps the mutex");
        guard.catalogue().reap(|owner| tier.books().alive(owner));
        assert_eq!(guard.catalogue().audit(), Vec::<String>::new());
        assert_eq!(guard.catalogue().head.writing_slots, 0, "a dead writer's slots came back");
    }
    let fresh = keys(1000..1000 + SLOTS as u32);
    put(tier, &fresh);
    assert!(tier.books().matched(&fresh) > 0);
    assert_eq!(tier.books().counters().read().corrupt, 0);
}

/// A role: puts and gets until it is killed.
pub fn work(place: &Path) {
    let tier = open(place);
    let mut rng = Rng(u64::from(std::process::id()));
    let mut out = std::io::stdout();
    loop {
        let first = rng.below(u64::from(BLOCKS) - 6) as u32;
        let chain = keys(first..first + 6);
        get(&tier, &chain);
        put(&tier, &chain);
        if out.write_all(b".").is_err() {
            return;
        }
        let _ = out.flush();
    }
}

/// A role: one put that evicts, stepped through.
pub fn be_stepped(place: &Path) {
    let tier = open(place);
    // A chain that was never there.
    let first = 2000 + std::process::id() % 100_000 * 4;
    let chain = keys(first..first + 4);
    let blocks: Vec<_> = chain.iter().map(|&key| bytes_of(key)).collect();
    let pieces: Vec<&[u8]> = blocks.iter().map(|it| &it[..]).collect();
    let chain = Chain { keys: &chain, parent: None, position: 0 };
    stepping::be_traced();
    let _ = tier.put(chain, &pieces, |_| ());
    std::process::exit(0);
}

/// A role: holds the mutex until it is killed.
pub fn hold_the_mutex(place: &Path) {
    let tier = open(place);
    let _guard = tier.books().enter().unwrap();
    std::io::stdout().write_all(b".").unwrap();
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

#[expect(clippy::zombie_processes, reason = "who steps a process is told of its end, once")]
pub fn killed_at_any_instruction_of_a_put() {
    let place = Place::new("/dev/shm", "stepped");
    let tier = open(&place.0);
    put(&tier, &keys(0..SLOTS as u32));
    // How long a whole put takes, from one that is let through.
    let whole = spawn("stepped", &place.0);
    let instructions = stepping::step(&whole, u64::MAX);
    drop(whole);

    let mut rng = Rng(3);
    let mut rebuilt = 0;
    for _ in 0..deaths(24) {
        put(&tier, &keys(0..SLOTS as u32));
        let mut victim = spawn("stepped", &place.0);
        let wanted = rng.below(instructions);
        if stepping::step(&victim, wanted) == wanted {
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        inspect(&tier);
        rebuilt = tier.books().enter().unwrap().catalogue().head.rebuilds;
    }
    println!("  a put is {instructions} instructions; books were built anew {rebuilt} times");
    assert!(rebuilt > 1, "some died holding the mutex");
}

pub fn killed_at_work() {
    let place = Place::new("/dev/shm", "worked");
    let tier = open(&place.0);
    let mut rng = Rng(5);
    let mut workers: Vec<_> = (0..3).map(|_| spawn("worker", &place.0)).collect();
    for death in 0..deaths(24) as usize {
        let at = death % workers.len();
        // So many operations later, at whatever it does then.
        let mut done = vec![0; 1 + rng.below(40) as usize];
        workers[at].stdout.as_mut().unwrap().read_exact(&mut done).unwrap();
        for _ in 0..rng.below(20_000) {
            std::hint::spin_loop();
        }
        let mut killed = std::mem::replace(&mut workers[at], spawn("worker", &place.0));
        killed.kill().unwrap();
        killed.wait().unwrap();
        get(&tier, &keys(0..BLOCKS));
    }
    for mut worker in workers {
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
    inspect(&tier);
    let counts = tier.books().counters().read();
    println!("  {counts:?}");
    assert!(counts.hits > 0 && counts.stored > 0);
}

pub fn killed_while_holding_the_mutex() {
    let place = Place::new("/dev/shm", "held");
    let tier = open(&place.0);
    put(&tier, &keys(0..10));
    for death in 0..3 {
        let before = tier.books().enter().unwrap().catalogue().head.rebuilds;
        let mut holder = spawn("holder", &place.0);
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(get(&tier, &keys(0..10)), 10, "nothing is lost by death {death}");
        assert_eq!(tier.books().enter().unwrap().catalogue().head.rebuilds, before + 1);
    }
}

pub fn a_stopped_holder_costs_misses() {
    let place = Place::new("/dev/shm", "stopped");
    let tier = open(&place.0);
    put(&tier, &keys(0..10));
    let mut holder = spawn("holder", &place.0);
    holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    stepping::signal(&holder, libc::SIGSTOP);

    assert_eq!(get(&tier, &keys(0..10)), 0);
    assert_eq!(put(&tier, &keys(0..10)), 0);
    assert!(tier.books().counters().read().busy >= 2);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(get(&tier, &keys(0..10)), 10);
}
