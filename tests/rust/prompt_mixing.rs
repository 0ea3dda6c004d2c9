//! How well block keys mix: no collisions where a weak hash would have them, every input bit
//! reaches every output bit, and keys fill hash tables evenly.
//!
//! All draws are seeded, so that each figure is the same in every run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it calls as well")]

use llmd_brain::BlockKey;
use llmd_brain::prompt::{BlockExtra, Chain};
use llmd_brain::rng::Rng;

const BLOCK: usize = 16;

fn chain() -> Chain {
    Chain::new("model", None, BLOCK as u32).unwrap()
}

fn random_block(rng: &mut Rng) -> [u32; BLOCK] {
    std::array::from_fn(|_| rng.below(150_000) as u32)
}

fn assert_distinct(mut keys: Vec<BlockKey>) {
    let made = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), made, "of {made} keys, {} collided", made - keys.len());
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
    assert_distinct(keys);
}

#[test]
fn a_block_repeated_a_million_times_never_comes_back_to_a_key() {
    let chain = chain();
    let mut parent = chain.root();
    let repeat = |_| {
        parent = chain.next(parent, &[0; BLOCK], None);
        parent
    };
    assert_distinct((0..1_000_000).map(repeat).collect());
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
    assert_distinct(after_parent.chain(with_item).collect());
}

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
    const TRIALS: u32 = 1_000;
    // Six standard deviations of a fair coin's mean: over the 33,000 pairs of bits that are looked
    // at, a perfect hash leaves them with a chance of 10^-4.
    let tolerance = 6.0 * 0.5 / f64::from(TRIALS).sqrt();
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
        assert_fair(&counts, TRIALS, tolerance, &input);
    }
}

#[test]
fn each_bit_of_the_parent_flips_each_bit_of_the_key() {
    const TRIALS: u32 = 4_000;
    // One folded multiply favours neighbouring bits a little (at worst, 43% instead of 50%). A
    // parent is a key and thus mixed already: two parents never differ in one bit only.
    const TOLERANCE: f64 = 0.1;
    let chain = chain();
    let mut rng = Rng::new(2);
    for input in 0..64 {
        let counts = flip_counts(TRIALS, || {
            let block = random_block(&mut rng);
            let parent = rng.next_u64();
            let before = chain.next(BlockKey(parent), &block, None);
            before.0 ^ chain.next(BlockKey(parent ^ (1 << input)), &block, None).0
        });
        assert_fair(&counts, TRIALS, TOLERANCE, &format!("bit {input} of the parent"));
    }
}

#[test]
fn each_bit_of_a_token_flips_each_bit_of_the_next_block_s_key_half_of_the_time() {
    const TRIALS: u32 = 1_000;
    let tolerance = 6.0 * 0.5 / f64::from(TRIALS).sqrt();
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
        assert_fair(&counts, TRIALS, tolerance, &input);
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
