//! The tree against a naive one: random changes, and what readers see meanwhile.

use super::*;
use crate::rng::Rng;
use std::collections::BTreeMap;

/// Prompts share beginnings: block `depth` of prompt `number` is that of all prompts with the same
/// leading digits.
fn keys(number: u32, depth: u32) -> Vec<BlockKey> {
    let mut key = 1 << 20;
    (0..depth)
        .map(|at| {
            // Parts at depths 3, 6 and 9, and blocks between them are alike.
            let digits = number / 10u32.pow(3 - (at / 3).min(3));
            key = mix(key ^ u64::from(digits + 1) << 32 ^ u64::from(at));
            BlockKey(key)
        })
        .collect()
}

fn mix(value: u64) -> u64 {
    let wide = u128::from(value ^ 0x2D35_8DCC_AA6C_78A5) * 0x8BB8_4B93_962E_ACC9;
    (wide as u64) ^ ((wide >> 64) as u64)
}

fn names(keys: &[BlockKey]) -> Vec<EngineHash> {
    keys.iter().map(|key| EngineHash(key.0.rotate_left(7))).collect()
}

fn store(tree: &Tree, who: u32, keys: &[BlockKey]) {
    let put = Put { hold: Hold::GPU, unless: Hold::EXACT, skip: 0, stamp: 0 };
    tree.put(who, At::Start, keys, &names(keys), put, |_| ());
}

fn remove(tree: &Tree, who: u32, keys: &[BlockKey]) -> u64 {
    tree.remove_named(who, &names(keys), Hold::GPU, |_, len| (len, false), |_| ())
}

fn depths(tree: &Tree, keys: &[BlockKey], slots: usize, walk: &mut Walk) -> Vec<u32> {
    tree.walk(keys, slots, walk);
    walk.depths.clone()
}

/// Who holds which key.
type Naive = BTreeMap<(u32, BlockKey), ()>;

fn naive_depths(naive: &Naive, keys: &[BlockKey], slots: u32) -> Vec<u32> {
    let held = |who: u32| keys.iter().take_while(|&&key| naive.contains_key(&(who, key))).count();
    (0..slots).map(|who| held(who) as u32).collect()
}

/// Runs so many changes by endpoints `whos` and compares now and then.
#[cfg(not(shuttle))]
fn churn(steps: u32, whos: &[u32], seed: u64) {
    let slots = whos.iter().max().map_or(0, |&who| who + 1);
    let (tree, mut naive, mut rng) = (Tree::new(), Naive::new(), Rng::new(seed));
    let empty = tree.memory_bytes();
    let mut walk = Walk::default();
    for step in 0..steps {
        let who = whos[rng.below(whos.len() as u64) as usize];
        let prompt = keys(rng.below(1_000) as u32, 1 + rng.below(14) as u32);
        let from = rng.below(prompt.len() as u64) as usize;
        match rng.below(8) {
            0..=3 => {
                store(&tree, who, &prompt);
                naive.extend(prompt.iter().map(|&key| ((who, key), ())));
            }
            4 => {
                // One block more, as decoding does, where the one before is held.
                let more = keys(prompt[0].0 as u32 % 1_000, 14);
                let held = more.iter().take_while(|&&key| naive.contains_key(&(who, key))).count();
                if held > 0
                    && held < more.len()
                    && let Some(block) = tree.find_name(names(&more[held - 1..held])[0])
                {
                    let put = Put { hold: Hold::GPU, unless: Hold::EXACT, skip: 0, stamp: 0 };
                    let next = &more[held..=held];
                    tree.put(who, At::After(block), next, &names(next), put, |_| ());
                    naive.insert((who, next[0]), ());
                }
            }
            5 | 6 => {
                // The end from the last on, or a piece of the middle.
                let mut gone = prompt[from..].to_vec();
                if rng.below(2) == 0 {
                    gone.reverse();
                } else {
                    gone.truncate(2);
                }
                let held = gone.iter().filter(|&&key| naive.remove(&(who, key)).is_some()).count();
                assert_eq!(remove(&tree, who, &gone), held as u64);
            }
            _ if step % 97 == 0 => {
                tree.clear(who, Hold::EXACT);
                naive.retain(|&(of, _), ()| of != who);
            }
            _ => {}
        }
        if step % 16 == 0 {
            let query = keys(rng.below(1_000) as u32, 14);
            assert_eq!(
                depths(&tree, &query, slots as usize, &mut walk),
                naive_depths(&naive, &query, slots)
            );
        }
    }
    let distinct: std::collections::BTreeSet<_> = naive.keys().map(|&(_, key)| key).collect();
    assert_eq!(tree.len(), distinct.len() as u64);
    for &who in whos {
        tree.clear(who, Hold::EXACT);
    }
    assert_eq!((tree.len(), tree.memory_bytes()), (0, empty), "nothing stays");
}

/// Random changes to run: `LLMD_OPERATIONS`, or as many as fit into a test run of seconds.
#[cfg(not(shuttle))]
fn operations() -> u32 {
    std::env::var("LLMD_OPERATIONS").map_or(60_000, |count| {
        count.parse().expect("LLMD_OPERATIONS is a number of random operations")
    })
}

#[cfg(not(shuttle))]
#[test]
fn a_small_fleet_is_as_a_naive_one() {
    churn(operations(), &[0, 1, 5, 63], 1);
}

#[cfg(not(shuttle))]
#[test]
fn a_wide_fleet_is_as_a_naive_one() {
    churn(operations(), &[0, 63, 64, 65, 66, 67, 68, 69, 300, 1_023, 1_100], 2);
}

/// What a reader may see of a prompt that writers change: every block that is held throughout, and
/// none that never was.
#[cfg(shuttle)]
mod model {
    use super::*;
    use shuttle::scheduler::RandomScheduler;
    use shuttle::{Config, Runner, thread};

    /// Tries random schedules: `LLMD_SCHEDULES`, or as many as fit into a test run of seconds.
    fn explore(body: impl Fn() + Send + Sync + 'static) {
        let schedules = std::env::var("LLMD_SCHEDULES").map_or(2_000, |count| {
            count.parse().expect("LLMD_SCHEDULES is a number of schedules to try")
        });
        let mut config = Config::new();
        config.stack_size = 1 << 20;
        Runner::new(RandomScheduler::new(schedules), config).run(body);
    }

    fn check(change: impl Fn(&Tree, u32) + Send + Sync + Clone + 'static, held: u32, most: u32) {
        explore(move || {
            let tree = shuttle::sync::Arc::new(Tree::new());
            let prompt = keys(123, 9);
            store(&tree, 0, &prompt[..held as usize]);
            store(&tree, 1, &prompt[..4]);
            let writers: Vec<_> = [2, 3]
                .into_iter()
                .map(|who| {
                    let (tree, change) = (shuttle::sync::Arc::clone(&tree), change.clone());
                    thread::spawn(move || change(&tree, who))
                })
                .collect();
            let reader = {
                let tree = shuttle::sync::Arc::clone(&tree);
                thread::spawn(move || {
                    let mut walk = Walk::default();
                    for slots in [4, 70] {
                        let seen = depths(&tree, &prompt, slots, &mut walk);
                        assert!(seen[0] >= held && seen[0] <= most, "{seen:?}");
                        assert_eq!(seen[1], 4, "{seen:?}");
                        assert!(seen[2] <= most && seen[3] <= most, "{seen:?}");
                    }
                })
            };
            for thread in writers {
                thread.join().unwrap();
            }
            reader.join().unwrap();
        });
    }

    #[test]
    fn readers_see_what_stays_while_runs_are_split_and_joined() {
        // Each writer joins a part of the run, which splits it, and leaves again, which joins it.
        let change = |tree: &Tree, who: u32| {
            let prompt = keys(123, 9);
            let part = &prompt[..who as usize + 1];
            store(tree, who, part);
            remove(tree, who, part);
        };
        check(change, 9, 9);
    }

    #[test]
    fn readers_see_what_stays_while_prompts_branch_grow_and_go() {
        let change = |tree: &Tree, who: u32| {
            let other = keys(who * 111, 9);
            store(tree, who, &other);
            let grown = keys(who * 111, 12);
            store(tree, who, &grown);
            tree.clear(who, Hold::EXACT);
        };
        check(change, 6, 9);
    }

    #[test]
    fn a_block_that_moves_between_tiers_is_held_at_every_moment() {
        explore(|| {
            let tree = shuttle::sync::Arc::new(Tree::new());
            let prompt = keys(5, 6);
            store(&tree, 0, &prompt);
            let first = tree.find_name(names(&prompt)[0]).unwrap();
            let writer = {
                let tree = shuttle::sync::Arc::clone(&tree);
                thread::spawn(move || {
                    for tier in [Tier::Cpu, Tier::Gpu, Tier::Storage] {
                        tree.alter(0, first.plus(1), 3, |_| Hold::on(tier), |_| ());
                    }
                })
            };
            let mut walk = Walk::default();
            for slots in [1, 70] {
                assert_eq!(depths(&tree, &prompt, slots, &mut walk)[0], 6);
            }
            writer.join().unwrap();
        });
    }
}
