//! What a transfer does when nothing goes wrong, and what it refuses.

use crate::backing::PATHS;
use crate::pair::{Pair, end, until};
use llmd_data::transfer::{Layout, Op, TransferError};

const LAYOUT: Layout = Layout { block_bytes: 4096, blocks: 64 };

fn permuted(blocks: u32) -> Vec<(u32, u32)> {
    (0..blocks).map(|i| (i, i * 37 % blocks)).collect()
}

#[test]
fn reads_and_writes_bring_the_bytes_that_they_name() {
    for &path in PATHS {
        for layers in [1, 3] {
            let pair = Pair::new(path, LAYOUT, layers);
            let blocks = permuted(64);
            let read = pair
                .peer
                .prepare(
                    Op::Read,
                    &pair.near.region,
                    &pair.far.region.remote(),
                    &[&pair.descriptors(&blocks)],
                    None,
                )
                .unwrap();
            let done = end(&read.post().unwrap()).unwrap();
            assert_eq!((done.bytes, done.path), (layers * 64 * 4096, path));
            for &(near, far) in &blocks {
                for layer in 0..layers {
                    let bytes = pair.near.get(pair.near.offset(layer, near), 4096);
                    assert_eq!(bytes, pair.far.pattern(layer, far, 1), "{path} block {near}");
                }
            }
            (0..64).for_each(|block| pair.near.fill(block));
            let write = pair
                .peer
                .prepare(
                    Op::Write,
                    &pair.near.region,
                    &pair.far.region.remote(),
                    &[&pair.descriptors(&blocks)],
                    Some(path),
                )
                .unwrap();
            assert_eq!(end(&write.post().unwrap()).unwrap().bytes, layers * 64 * 4096);
            for &(near, far) in &blocks {
                for layer in 0..layers {
                    let bytes = pair.far.get(pair.far.offset(layer, far), 4096);
                    assert_eq!(bytes, pair.near.pattern(layer, near, 1), "{path} block {near}");
                }
            }
            until("the blocks are let go", || pair.far.region.held_blocks() == 0);
            assert_eq!(pair.near.region.held_blocks(), 0);
        }
    }
}

#[test]
fn a_stale_epoch_fails_at_either_end() {
    for &path in PATHS {
        for op in [Op::Read, Op::Write] {
            let pair = Pair::new(path, LAYOUT, 1);
            let remote = pair.far.region.remote();
            let descriptors = pair.descriptors(&[(0, 5), (1, 6)]);
            pair.far.advance(6).unwrap();
            let prepare = || {
                pair.peer.prepare(op, &pair.near.region, &remote, &[&descriptors], None).unwrap()
            };
            let failed = prepare().post().and_then(|transfer| end(&transfer)).unwrap_err();
            assert!(
                matches!(failed, TransferError::Stale { slot: 6, expected: 1, .. }),
                "{path} {op}: {failed}"
            );
            assert_eq!(pair.far.get(pair.far.offset(0, 6), 4096), pair.far.pattern(0, 6, 2));
            pair.near.advance(1).unwrap();
            let failed = prepare().post().err().unwrap();
            assert!(
                matches!(failed, TransferError::Stale { slot: 1, expected: 1, .. }),
                "{failed}"
            );
            assert_eq!(pair.near.region.held_blocks(), 0);
        }
    }
}
