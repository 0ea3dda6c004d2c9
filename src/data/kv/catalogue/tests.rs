//! Books against a naive model, and after deaths.

use super::*;
use crate::kv::KeySpace;
use crate::kv::eviction::{Algorithm, Policy};
use proptest::prelude::*;
use std::collections::HashMap;

fn key(number: u32) -> BlockKey {
    KeySpace::new(b"", b"").key(&number.to_le_bytes())
}

/// Prompts are paths of a small tree: block `n` follows block `(n - 1) / 2`.
fn path_to(number: u32) -> Vec<u32> {
    let mut path = vec![number];
    while let Some(&first) = path.first().filter(|&&first| first > 0) {
        path.insert(0, (first - 1) / 2);
    }
    path
}

fn block(path: &[u32], at: usize) -> Block {
    Block {
        key: key(path[at]),
        parent: if at == 0 { BlockKey::NONE } else { key(path[at - 1]) },
        checksum: u64::from(path[at]) * 3,
        length_bytes: 5,
        position: at as u32,
    }
}

/// Stores what is missing of a path; gives the blocks that went.
fn put(books: &mut Catalogue<'_, Policy>, path: &[u32], now: Ticks, pinned_at: u64) -> Vec<Block> {
    let mut gone = Vec::new();
    for at in 0..path.len() {
        let new = block(path, at);
        match books.reserve(new.key, new.parent, 1, now, pinned_at, |_| true) {
            Place::Reserved(ticket) => {
                gone.extend(ticket.evicted);
                // What went was ready at the generation before, and nothing followed it then.
                let was = Generation((ticket.generation.0 >> 2).wrapping_sub(1) << 2 | 2);
                for slot in 0..books.slots.len() as u32 {
                    let entry = &books.slots[slot as usize];
                    let followed = (entry.before, entry.before_generation)
                        == (ticket.slot + 1, was.0)
                        && books.generation(slot).state() == State::Ready;
                    assert!(!followed, "{slot} follows what went");
                }
                assert!(books.commit(&ticket, new, now));
            }
            Place::Present(_) => {}
            Place::Busy | Place::Full => break,
        }
    }
    gone
}

#[derive(Debug, Clone)]
enum Turn {
    Put(u32),
    Get(u32),
    Forget(u32),
    Pin(u32),
    Rebuild,
    /// A writer dies between reserving and committing.
    Death(u32),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let number = 0u32..200;
    let turn = prop_oneof![
        6 => number.clone().prop_map(Turn::Put),
        4 => number.clone().prop_map(Turn::Get),
        1 => number.clone().prop_map(Turn::Forget),
        1 => number.clone().prop_map(Turn::Pin),
        1 => Just(Turn::Rebuild),
        1 => number.prop_map(Turn::Death),
    ];
    prop::collection::vec(turn, 1..150)
}

/// How many histories are played; they are long, so a part of what others play.
fn histories() -> u32 {
    let wanted = std::env::var("LLMD_HISTORIES").ok().and_then(|it| it.parse::<u32>().ok());
    wanted.map_or(48, |wanted| (wanted / 100).max(48))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        histories()
    ))]

    /// Whatever happens, a key finds its own block or nothing; what is resident is what was stored
    /// and has not gone; parents stay as long as a child does; pins hold; the books agree.
    #[test]
    fn books_agree_with_a_naive_model(
        turns in turns(),
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
        slots in 8usize..40,
    ) {
        let mut owned = OwnedCatalogue::new(slots, Policy::new(algorithm));
        let mut books = owned.view();
        let mut resident: HashMap<u32, bool> = HashMap::new(); // block -> pinned
        for (now, turn) in turns.into_iter().enumerate() {
            let now = now as Ticks + 1;
            match turn {
                Turn::Put(number) => {
                    let path = path_to(number);
                    for gone in put(&mut books, &path, now, 1) {
                        let gone = (0..200).find(|&it| key(it) == gone.key).unwrap();
                        prop_assert_eq!(resident.remove(&gone), Some(false), "{} went", gone);
                    }
                    for it in path {
                        if books.find(key(it)).is_some() {
                            resident.entry(it).or_insert(false);
                        }
                    }
                }
                Turn::Get(number) => {
                    let found = books.find(key(number));
                    prop_assert_eq!(found.is_some(), resident.contains_key(&number));
                    if let Some(slot) = found {
                        prop_assert_eq!(books.slots[slot as usize].block.checksum, u64::from(number) * 3);
                        books.touch(slot, now);
                    }
                }
                Turn::Forget(number) => if let Some(slot) = books.find(key(number)) {
                    let generation = books.generation(slot);
                    prop_assert!(books.forget(slot, generation));
                    prop_assert!(!books.forget(slot, generation), "twice");
                    resident.remove(&number);
                },
                Turn::Pin(number) => if let Some(slot) = books.find(key(number))
                    && books.pin(slot, 2, 1)
                {
                    resident.insert(number, true);
                },
                Turn::Rebuild => {
                    let algorithm = books.policy.algorithm();
                    books.rebuild(|policy| policy.start(algorithm), |_| true);
                }
                Turn::Death(number) => {
                    let place = books.reserve(key(number), BlockKey::NONE, 7, now, 1, |_| true);
                    if let Place::Reserved(ticket) = place {
                        if let Some(gone) = ticket.evicted {
                            resident.retain(|&it, _| key(it) != gone.key);
                        }
                        prop_assert_eq!(books.find(key(number)), None, "half written");
                        books.reap(|owner| owner != 7);
                        prop_assert!(!books.commit(&ticket, block(&[number], 0), now), "reaped");
                    }
                }
            }
            prop_assert_eq!(books.audit(), Vec::<String>::new());
            let there = resident.keys().filter(|&&it| books.find(key(it)).is_some()).count();
            prop_assert_eq!(there, resident.len());
        }
    }
}

#[test]
fn an_entry_that_does_not_agree_with_itself_is_not_believed() {
    let mut owned = OwnedCatalogue::new(8, Policy::new(Algorithm::Lru));
    let mut books = owned.view();
    put(&mut books, &path_to(6), 1, 0);
    let slot = books.find(key(2)).unwrap();
    books.slots[slot as usize].block.checksum ^= 1;

    books.rebuild(|policy| policy.start(Algorithm::Lru), |_| true);

    assert_eq!(books.find(key(2)), None);
    assert!(books.find(key(0)).is_some() && books.find(key(6)).is_some());
    assert_eq!(books.audit(), Vec::<String>::new());
}

#[test]
fn what_is_pinned_stays_until_its_time() {
    let mut owned = OwnedCatalogue::new(4, Policy::new(Algorithm::Lru));
    let mut books = owned.view();
    put(&mut books, &[100], 1, 0);
    put(&mut books, &[101], 2, 0);
    for number in [100, 101] {
        let slot = books.find(key(number)).unwrap();
        assert!(books.pin(slot, 50, 10));
    }
    put(&mut books, &[102], 3, 10);
    put(&mut books, &[103], 4, 10);
    let slot = books.find(key(103)).unwrap();
    assert!(!books.pin(slot, 50, 10), "half of four");

    for number in 104..120 {
        put(&mut books, &[number], number, 49);
    }
    assert!(books.find(key(100)).is_some() && books.find(key(101)).is_some());
    for number in 120..124 {
        put(&mut books, &[number], number, 50);
    }
    assert!(books.find(key(100)).is_none() && books.find(key(101)).is_none());
}
