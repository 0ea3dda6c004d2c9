//! How well block keys mix: no collisions where a weak hash would have them, every input bit
//! reaches every output bit, and keys fill hash tables evenly.
//!
//! All draws are seeded, so that each figure is the same in every run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it calls as well")]

use llmd_brain::BlockKey;
use llmd_brain::prompt::{BlockExtra, Chain, Extras};
use llmd_brain::rng::Rng;

const BLOCK: usize = 16;

fn chain() -> Chain {
    Chain::new("model", None, BLOCK as u32).unwrap()
}

fn random_block(rng: &mut Rng) -> [u32; BLOCK] {
    std::array::from_fn(|_| rng.below(150_000) as u32)
}

/// How many of `hashes` are equal to one before them.
fn collisions(mut hashes: Vec<u64>) -> usize {
    let made = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    made - hashes.len()
}

fn assert_distinct(keys: &[BlockKey]) {
    let (made, collided) = (keys.len(), collisions(keys.iter().map(|key| key.0).collect()));
    assert_eq!(collided, 0, "of {made} keys, {collided} collided");
}

/// Asserts that either half of the keys, alone, collides as often as chance has it: what collides
/// more often is not 64 bits strong, though it may take 10^9 keys until the whole shows it.
fn assert_halves_are_strong(keys: &[BlockKey]) {
    let pairs = keys.len() as f64 * (keys.len() - 1) as f64 / 2.0;
    let expected = pairs / (1u64 << 32) as f64;
    for (shift, which) in [(0, "low"), (32, "high")] {
        let halves = keys.iter().map(|key| key.0 >> shift & 0xffff_ffff).collect();
        let collided = collisions(halves) as f64;
        // A Poisson count: six standard deviations. Thrice a value is two collisions and not three.
        let tolerance = 6.0 * expected.sqrt() + pairs * keys.len() as f64 / (1u128 << 65) as f64;
        let why = format!("{which} halves: {collided} collisions, {expected} expected");
        assert!((collided - expected).abs() < tolerance, "{why}");
    }
}

/// Keys of first blocks of one token that counts up, in each of `places`, all others being 0.
fn counters(places: impl Iterator<Item = usize>, counts: u32, keys: &mut Vec<BlockKey>) {
    let chain = chain();
    for place in places {
        keys.extend((1..counts).map(|count| {
            let mut block = [0; BLOCK];
            block[place] = count;
            chain.next(chain.root(), &block, None)
        }));
    }
}

/// Keys of first blocks that hold the same ids, 1 to `moving` in each order and then the same ones.
fn permutations(moving: usize, keys: &mut Vec<BlockKey>) {
    let chain = chain();
    let mut block: [u32; BLOCK] = std::array::from_fn(|i| i as u32 + 1);
    let mut rounds = vec![0; moving];
    keys.push(chain.next(chain.root(), &block, None));
    // Heap's algorithm.
    let mut i = 1;
    while i < moving {
        if rounds[i] < i {
            block.swap(if i % 2 == 0 { 0 } else { rounds[i] }, i);
            keys.push(chain.next(chain.root(), &block, None));
            rounds[i] += 1;
            i = 1;
        } else {
            rounds[i] = 0;
            i += 1;
        }
    }
}

/// Keys of all prompts of 1 to `depth` blocks, each full of one of the `ids`: equal blocks at
/// different positions, and the same blocks in each order.
fn prompts_of(ids: std::ops::Range<u32>, depth: usize, keys: &mut Vec<BlockKey>) {
    let chain = chain();
    let mut parents = vec![chain.root()];
    for _ in 0..depth {
        let children =
            parents.iter().flat_map(|&parent| ids.clone().map(move |id| (parent, [id; BLOCK])));
        parents = children.map(|(parent, block)| chain.next(parent, &block, None)).collect();
        keys.extend_from_slice(&parents);
    }
}

#[test]
fn ten_million_structured_keys_do_not_collide() {
    let mut keys = Vec::new();
    counters([0, 7, BLOCK - 1].into_iter(), 1 << 20, &mut keys);
    permutations(10, &mut keys);
    prompts_of(100..108, 7, &mut keys);
    prompts_of(200..201, 1_000_000, &mut keys);
    keys.truncate(10_100_000);
    assert!(keys.len() > 10_000_000, "{}", keys.len());
    assert_distinct(&keys);
}

#[test]
fn half_a_key_collides_no_more_often_than_chance_has_it() {
    const KEYS: usize = 1 << 19;
    let mut counted = Vec::new();
    counters([0, BLOCK - 1].into_iter(), (KEYS / 2) as u32, &mut counted);
    assert_halves_are_strong(&counted);
    let mut permuted = Vec::new();
    permutations(9, &mut permuted);
    assert_halves_are_strong(&permuted);
    let mut chained = Vec::new();
    prompts_of(100..108, 6, &mut chained);
    assert_halves_are_strong(&chained);
}

#[test]
#[ignore = "minutes, and 2 GB: make soak"]
fn a_hundred_million_structured_keys_do_not_collide() {
    let mut keys = Vec::new();
    counters(0..BLOCK, 1 << 22, &mut keys);
    permutations(11, &mut keys);
    assert!(keys.len() > 100_000_000, "{}", keys.len());
    assert_distinct(&keys);
    assert_halves_are_strong(&keys[..1 << 24]);
    assert_halves_are_strong(&keys[keys.len() - (1 << 24)..]);
    keys.clear();
    prompts_of(100..112, 7, &mut keys);
    assert_distinct(&keys);
    assert_halves_are_strong(&keys[keys.len() - (1 << 24)..]);
}

#[test]
fn prompts_of_the_same_blocks_in_another_order_share_no_key_from_there_on() {
    let chain = chain();
    let mut rng = Rng::new(4);
    let keys = |tokens: &[u32]| {
        let mut keys = Vec::new();
        chain.block_keys(tokens, Extras::default(), &mut keys);
        keys
    };
    for _ in 0..1_000 {
        let blocks: Vec<_> = (0..8).map(|_| random_block(&mut rng)).collect();
        let (first, second) = (rng.below(8) as usize, rng.below(8) as usize);
        if first == second {
            continue;
        }
        let mut swapped = blocks.clone();
        swapped.swap(first, second);
        let (before, after) = (keys(blocks.as_flattened()), keys(swapped.as_flattened()));
        let from = first.min(second);
        assert_eq!(before[..from], after[..from]);
        // Nor at another position.
        assert!(after[from..].iter().all(|key| !before.contains(key)), "{first} and {second}");
    }
}

#[test]
fn two_million_near_identical_blocks_do_not_collide() {
    let chain = chain();
    let key = |tokens: &[u32; BLOCK]| chain.next(chain.root(), tokens, None);
    let mut keys = Vec::with_capacity(2_100_000);
    let zeros = [0; BLOCK];
    keys.push(key(&zeros));
    // One token that differs, over a whole vocabulary, in each place.
    for place in 0..BLOCK {
        for token in 1..65_536 {
            let mut block = zeros;
            block[place] = token;
            keys.push(key(&block));
        }
    }
    // Two tokens that differ, in each pair of places: sums, swaps and products that are equal.
    for (first, second) in
        (0..BLOCK).flat_map(|first| (0..first).map(move |second| (first, second)))
    {
        for (a, b) in (1..90).flat_map(|a| (1..90).map(move |b| (a, b))) {
            let mut block = zeros;
            (block[first], block[second]) = (a, b);
            keys.push(key(&block));
        }
    }
    assert!(keys.len() > 1_990_000);
    assert_distinct(&keys);
}

#[test]
fn a_block_repeated_a_million_times_never_comes_back_to_a_key() {
    let chain = chain();
    let mut parent = chain.root();
    let repeat = |_| {
        parent = chain.next(parent, &[0; BLOCK], None);
        parent
    };
    assert_distinct(&(0..1_000_000).map(repeat).collect::<Vec<_>>());
}

#[test]
fn one_block_after_many_parents_and_with_many_extras_does_not_collide() {
    let chain = chain();
    let tokens = [1; BLOCK];
    let after_parent = (0..200_000u64).map(|parent| chain.next(BlockKey(parent), &tokens, None));
    let with_item = (-100_000..100_000).map(|offset| {
        let extra = BlockExtra::new(std::iter::empty(), [("image", offset)].into_iter());
        chain.next(chain.root(), &tokens, extra)
    });
    assert_distinct(&after_parent.chain(with_item).collect::<Vec<_>>());
}

/// So many that 5% are six standard deviations of a fair coin's mean: over the 33,000 pairs of bits
/// that a test looks at, a perfect hash leaves them with a chance of 10^-4.
const TRIALS: u32 = 3_600;

/// For each output bit, how often it flips when `input_bit` does, over `trials` random inputs.
fn flip_counts(trials: u32, mut flipped: impl FnMut() -> u64) -> [u32; 64] {
    let mut counts = [0; 64];
    for _ in 0..trials {
        let difference = flipped();
        for (bit, count) in counts.iter_mut().enumerate() {
            *count += (difference >> bit) as u32 & 1;
        }
    }
    counts
}

/// Asserts that each output bit flips in half of the trials, give or take `tolerance`.
fn assert_fair(counts: &[u32; 64], trials: u32, tolerance: f64, input: &str) {
    for (bit, &count) in counts.iter().enumerate() {
        let share = f64::from(count) / f64::from(trials);
        assert!((share - 0.5).abs() < tolerance, "{input} flips bit {bit} in {share} of trials");
    }
}

#[test]
fn each_bit_of_a_token_flips_each_bit_of_the_key_half_of_the_time() {
    let chain = chain();
    let mut rng = Rng::new(1);
    for input in 0..BLOCK * 32 {
        let counts = flip_counts(TRIALS, || {
            let mut block = random_block(&mut rng);
            let before = chain.next(chain.root(), &block, None);
            block[input / 32] ^= 1 << (input % 32);
            before.0 ^ chain.next(chain.root(), &block, None).0
        });
        let input = format!("bit {} of token {}", input % 32, input / 32);
        assert_fair(&counts, TRIALS, 0.05, &input);
    }
}

#[test]
fn each_bit_of_the_parent_flips_nearly_each_bit_of_the_key_half_of_the_time() {
    // One folded multiply favours its first and last bits a little: of 4,096 pairs of bits four are
    // off by more than 5%, at worst 42%. A parent is a key and thus mixed already, so that two
    // parents never differ in one bit only: what a token does through it is the next test.
    let chain = chain();
    let mut rng = Rng::new(2);
    let mut off = 0;
    for input in 0..64 {
        let counts = flip_counts(TRIALS, || {
            let block = random_block(&mut rng);
            let parent = rng.next_u64();
            let before = chain.next(BlockKey(parent), &block, None);
            before.0 ^ chain.next(BlockKey(parent ^ (1 << input)), &block, None).0
        });
        assert_fair(&counts, TRIALS, 0.1, &format!("bit {input} of the parent"));
        let share = |&count: &u32| f64::from(count) / f64::from(TRIALS);
        off += counts.iter().map(share).filter(|share| (share - 0.5).abs() >= 0.05).count();
    }
    assert!(off <= 6, "{off} pairs of bits are off by more than 5%");
}

#[test]
fn each_bit_of_a_token_flips_each_bit_of_the_next_block_s_key_half_of_the_time() {
    let chain = chain();
    let mut rng = Rng::new(3);
    for input in 0..BLOCK * 32 {
        let counts = flip_counts(TRIALS, || {
            let (mut first, second) = (random_block(&mut rng), random_block(&mut rng));
            let key_of_second =
                |first: &[u32]| chain.next(chain.next(chain.root(), first, None), &second, None);
            let before = key_of_second(&first);
            first[input / 32] ^= 1 << (input % 32);
            before.0 ^ key_of_second(&first).0
        });
        let input = format!("bit {} of token {} of the block before", input % 32, input / 32);
        assert_fair(&counts, TRIALS, 0.05, &input);
    }
}

fn square(x: f64) -> f64 {
    x * x
}

#[test]
fn keys_fill_a_table_evenly_by_their_low_and_by_their_high_bits() {
    const KEYS: usize = 1 << 17;
    const BUCKETS: usize = 1 << 10;
    let chain = chain();
    let keys = (0..KEYS as u32).map(|first| {
        let block: [u32; BLOCK] = std::array::from_fn(|i| first + i as u32);
        chain.next(chain.root(), &block, None).0 as usize
    });
    let (mut low, mut high) = (vec![0u32; BUCKETS], vec![0u32; BUCKETS]);
    for key in keys {
        low[key % BUCKETS] += 1;
        high[key >> 54] += 1;
    }
    // Chi-squared with 1,023 degrees of freedom: mean 1,023, standard deviation 45.
    let expected = (KEYS / BUCKETS) as f64;
    for (counts, which) in [(low, "low"), (high, "high")] {
        let chi_squared: f64 =
            counts.iter().map(|&count| square(f64::from(count) - expected) / expected).sum();
        assert!((chi_squared - 1_023.0).abs() < 5.0 * 45.0, "{which} bits: {chi_squared}");
    }
}
