//! What every algorithm keeps to, and what some do.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SLOTS: u32 = 40;

fn nodes() -> Vec<Node> {
    (0..SLOTS).map(|slot| Node { fingerprint: slot * 7919, ..Node::default() }).collect()
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    Admit(u32),
    Expose(u32),
    Touch(u32),
    Remove(u32),
    Victim,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let slot = 0..SLOTS;
    let turn = prop_oneof![
        4 => slot.clone().prop_map(Turn::Admit),
        1 => slot.clone().prop_map(Turn::Expose),
        3 => slot.clone().prop_map(Turn::Touch),
        1 => slot.prop_map(Turn::Remove),
        2 => Just(Turn::Victim),
    ];
    prop::collection::vec(turn, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A policy gives up what is in its hands, each once, and nothing else, and never holds on.
    #[test]
    fn victims_are_the_leaves_in_its_hands(
        turns in turns(),
        algorithm in prop::sample::select(Algorithm::ALL.to_vec()),
    ) {
        let (mut policy, mut nodes) = (Policy::new(algorithm), nodes());
        let mut held = BTreeSet::new();
        for (now, turn) in turns.into_iter().enumerate() {
            let now = now as u32 + 1;
            match turn {
                Turn::Admit(slot) | Turn::Expose(slot) if held.contains(&slot) => {}
                Turn::Admit(slot) => {
                    nodes[slot as usize] = Node { used_at: now, ..nodes[slot as usize] };
                    policy.admit(&mut nodes, slot);
                    held.insert(slot);
                }
                Turn::Expose(slot) => {
                    policy.expose(&mut nodes, slot);
                    held.insert(slot);
                }
                Turn::Touch(slot) => {
                    let node = &mut nodes[slot as usize];
                    let idle = now - node.used_at;
                    (node.used_at, node.gap, node.hits) = (now, idle, node.hits + 1);
                    policy.touch(&mut nodes, slot, idle);
                }
                Turn::Remove(slot) => {
                    policy.remove(&mut nodes, slot);
                    held.remove(&slot);
                }
                Turn::Victim => {
                    let victim = policy.victim(&mut nodes, now);
                    prop_assert_eq!(victim.is_some(), !held.is_empty());
                    if let Some(slot) = victim {
                        prop_assert!(held.remove(&slot), "{} was not in its hands", slot);
                    }
                }
            }
            for slot in 0..SLOTS {
                prop_assert_eq!(nodes[slot as usize].list != 0, held.contains(&slot));
            }
        }
        while let Some(slot) = policy.victim(&mut nodes, 1000) {
            prop_assert!(held.remove(&slot));
        }
        prop_assert!(held.is_empty());
    }

    /// LRU is what a sorted list of uses says.
    #[test]
    fn lru_goes_by_the_last_use(uses in prop::collection::vec(0..SLOTS, 1..200)) {
        let (mut policy, mut nodes) = (Policy::new(Algorithm::Lru), nodes());
        let mut last = std::collections::BTreeMap::new();
        for (now, &slot) in uses.iter().enumerate() {
            nodes[slot as usize].used_at = now as u32;
            if last.insert(slot, now).is_some() {
                policy.touch(&mut nodes, slot, 1);
            } else {
                policy.admit(&mut nodes, slot);
            }
        }
        let mut expected: Vec<_> = last.into_iter().map(|(slot, at)| (at, slot)).collect();
        expected.sort_unstable();
        let victims: Vec<_> = std::iter::from_fn(|| policy.victim(&mut nodes, 0)).collect();
        prop_assert_eq!(victims, expected.into_iter().map(|(_, slot)| slot).collect::<Vec<_>>());
    }
}

/// Plays prompts of one block each (its number, and when), and says which are left in `slots`.
fn left_of(algorithm: Algorithm, slots: usize, uses: &[(u32, u32)]) -> BTreeSet<u32> {
    let mut nodes = vec![Node::default(); slots];
    let mut policy = Policy::new(algorithm);
    let mut holds: Vec<Option<u32>> = vec![None; slots];
    for &(block, now) in uses {
        if let Some(slot) = holds.iter().position(|&it| it == Some(block)) {
            let node = &mut nodes[slot];
            let idle = now - node.used_at;
            (node.used_at, node.gap, node.hits) = (now, idle, node.hits + 1);
            policy.touch(&mut nodes, slot as u32, idle);
            continue;
        }
        let free = holds.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| policy.victim(&mut nodes, now).unwrap() as usize);
        holds[slot] = Some(block);
        let ghost = nodes[slot].ghost;
        nodes[slot] = Node { used_at: now, fingerprint: block, ghost, ..Node::default() };
        policy.admit(&mut nodes, slot as u32);
    }
    holds.into_iter().flatten().collect()
}

#[test]
fn blocks_that_are_used_again_outlast_a_scan() {
    let popular = (0..400).map(|it| (it % 4, it));
    let scan = (0..40).map(|it| (1000 + it, 400 + it));
    let uses: Vec<_> = popular.chain(scan).collect();

    for algorithm in [Algorithm::S3Fifo, Algorithm::Gdsf] {
        let left = left_of(algorithm, 20, &uses);
        assert!((0..4).all(|block| left.contains(&block)), "{algorithm:?} kept {left:?}");
    }
    assert!((0..4).all(|block| !left_of(Algorithm::Lru, 20, &uses).contains(&block)));
}

#[test]
fn a_ghost_that_comes_back_skips_its_probation() {
    let mut uses: Vec<_> = (0..30).map(|it| (it, it)).collect();
    // 29 others pushed the first out; it comes back, and a scan follows.
    uses.push((0, 30));
    uses.extend((0..12).map(|it| (100 + it, 31 + it)));

    assert!(left_of(Algorithm::S3Fifo, 20, &uses).contains(&0));
}

#[test]
fn of_blocks_used_alike_the_one_that_costs_less_to_compute_goes() {
    let (mut policy, mut nodes) = (Policy::new(Algorithm::Gdsf), nodes());
    for (slot, position) in [(0, 4000), (1, 0), (2, 2000)] {
        nodes[slot].position = position;
        policy.admit(&mut nodes, slot as u32);
    }

    let victims: Vec<_> = std::iter::from_fn(|| policy.victim(&mut nodes, 0)).collect();
    assert_eq!(victims, [1, 2, 0]);
}

#[test]
fn density_learns_which_conversations_come_back() {
    let mut nodes = vec![Node::default(); 2];
    let mut policy = Policy::new(Algorithm::Density);
    let mut now = 1;
    for _ in 0..2_000 {
        // One that has had turns comes back after 100 ticks; one that has had none never does.
        for (slot, turn) in [(0, 3), (1, 0)] {
            nodes[slot] = Node { used_at: now, turn, ..Node::default() };
            policy.admit(&mut nodes, slot as u32);
        }
        now += 100;
        (nodes[0].used_at, nodes[0].gap, nodes[0].hits) = (now, 100, 1);
        policy.touch(&mut nodes, 0, 100);
        policy.remove(&mut nodes, 0);
        now += 900;
        assert_eq!(policy.victim(&mut nodes, now), Some(1));
    }
    for (slot, turn, used_at) in [(0, 3, now - 50), (1, 0, now - 1)] {
        nodes[slot] = Node { used_at, turn, ..Node::default() };
        policy.admit(&mut nodes, slot as u32);
    }

    assert_eq!(policy.victim(&mut nodes, now), Some(1), "the younger, which will not be asked for");
}
