//! Gathering and scattering KV blocks.

use crate::guarded::Guarded;
use crate::host::{Argument, launch};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_are_gathered_and_scattered_where_they_belong(
        regions in 1..4_usize,
        ids in proptest::sample::subsequence((0..9_i32).collect::<Vec<_>>(), 0..=9).prop_shuffle(),
        block_bytes in prop_oneof![1..40_usize, Just(64), Just(512)],
        gap in prop_oneof![Just(0_usize), Just(16), 1..20_usize],
        shift in prop_oneof![Just(0_usize), 1..16_usize],
        threads in prop_oneof![Just(1_u32), Just(32), Just(96)],
        seed: u64,
    ) {
        let stride = block_bytes + gap;
        let content = |region: usize, at: usize| (region * 131 + at * 7) as u8;
        let mut pools: Vec<Guarded<u8>> = (0..regions)
            .map(|region| {
                let bytes: Vec<u8> = (0..9 * stride).map(|at| content(region, at)).collect();
                Guarded::new(&bytes, shift)
            })
            .collect();
        let bases: Vec<u64> = pools.iter_mut().map(Guarded::address).collect();
        let mut bases = Guarded::new(&bases, 0);
        let mut block_ids = Guarded::new(&ids, 0);
        let mut staging = Guarded::<u8>::unset(ids.len() * regions * block_bytes, shift);
        let grid = (regions as u32, ids.len() as u32);
        let mut run = |name: &str| {
            let arguments = [
                bases.argument(),
                block_ids.argument(),
                staging.argument(),
                Argument::Long(block_bytes as i64),
                Argument::Long(stride as i64),
            ];
            // SAFETY: the regions have nine blocks of this stride, and staging all that are named.
            unsafe { launch(name, seed, grid, threads, &arguments) };
        };
        run("llmd_block_gather");
        // The blocks' places are forgotten, so that scattering has to write them.
        let mut expected = Vec::new();
        for &id in &ids {
            for region in 0..regions {
                let start = id as usize * stride;
                expected.extend((start..start + block_bytes).map(|at| content(region, at)));
            }
        }
        for pool in &mut pools {
            let cleared = vec![0_u8; 9 * stride];
            // SAFETY: nothing runs now, and the pool is as long.
            unsafe {
                std::ptr::copy_nonoverlapping(cleared.as_ptr(), pool.address() as *mut u8, cleared.len());
            }
        }
        run("llmd_block_scatter");
        prop_assert_eq!(staging.elements(), &expected);
        for (region, pool) in pools.iter().enumerate() {
            for (at, &byte) in pool.elements().iter().enumerate() {
                let is_moved = ids.contains(&((at / stride) as i32)) && at % stride < block_bytes;
                prop_assert_eq!(byte, if is_moved { content(region, at) } else { 0 });
            }
        }
    }
}
