//! What a transfer does when nothing goes wrong, and what it refuses.

use crate::pair::{PATIENCE, Pair, Side, config, end, paths, until};
use llmd_data::transfer::{Agent, AgentConfig, Layout, Notification, Op, Progress, TransferError};

const LAYOUT: Layout = Layout { block_bytes: 4096, blocks: 64 };

fn permuted(blocks: u32) -> Vec<(u32, u32)> {
    (0..blocks).map(|i| (i, i * 37 % blocks)).collect()
}

#[test]
fn reads_and_writes_bring_the_bytes_that_they_name() {
    for path in paths() {
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
    for path in paths() {
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

#[test]
fn layers_go_as_they_are_ready_and_each_is_told() {
    for path in paths() {
        for op in [Op::Read, Op::Write] {
            let pair = Pair::new(path, LAYOUT, 4);
            let descriptors = pair.descriptors(&permuted(64));
            let layers: Vec<_> = descriptors.chunks(64).collect();
            let remote = pair.far.region.remote();
            let prepared =
                pair.peer.prepare(op, &pair.near.region, &remote, &layers, None).unwrap();
            let transfer = prepared.start(Some(0xfeed)).unwrap();
            for layer in 0..4 {
                assert_eq!(transfer.poll(), Ok(Progress::Pending { parts_done: layer }));
                transfer.post_part(layer).unwrap();
                transfer.wait_parts(layer, Some(PATIENCE)).unwrap();
                let told = pair.far.agent.wait_notification(PATIENCE).unwrap();
                let (peer, part) = (pair.near.agent.incarnation(), layer as u32);
                assert_eq!(told, Notification { peer, op, tag: 0xfeed, part, bytes: 64 * 4096 });
                // Where the other side is told of a write, it holds.
                if op == Op::Write {
                    let bytes = pair.far.get(pair.far.offset(layer as u64, 37), 4096);
                    assert_eq!(bytes, pair.near.pattern(layer as u64, 1, 1), "{path}");
                }
            }
            assert_eq!(end(&transfer).unwrap().bytes, 4 * 64 * 4096);
            let twice = transfer.post_part(2).unwrap_err();
            assert_eq!(twice, TransferError::NoSuchPart { part: 2, parts: 4 });
        }
    }
}

#[test]
fn who_does_not_know_the_key_gets_nothing() {
    for path in paths() {
        let far = Side::new(config(path), LAYOUT, 1, 1);
        for key in [None, Some(b"another key".to_vec())] {
            let near = Agent::new(AgentConfig { key, ..config(path) }).unwrap();
            let refused = near.connect(far.address()).err().unwrap();
            assert!(matches!(refused, TransferError::Unauthenticated { .. }), "{refused}");
        }
    }
    let open = AgentConfig { listen: "0.0.0.0:0".parse().unwrap(), ..AgentConfig::default() };
    assert!(matches!(Agent::new(open), Err(TransferError::KeyRequired { .. })));
}

/// More writes at once than a socket holds answers for.
#[test]
fn many_small_writes_at_once_do_not_wait_for_each_other() {
    const BLOCKS: Layout = Layout { block_bytes: 64, blocks: 2000 };
    for path in paths() {
        let pair = Pair::new(path, BLOCKS, 1);
        let descriptors =
            pair.descriptors(&(0..2000).map(|block| (block, block)).collect::<Vec<_>>());
        let parts: Vec<_> = descriptors.chunks(1).collect();
        let remote = pair.far.region.remote();
        let prepared =
            pair.peer.prepare(Op::Write, &pair.near.region, &remote, &parts, None).unwrap();
        let transfer = prepared.start(Some(1)).unwrap();
        (0..2000).for_each(|part| transfer.post_part(part).unwrap());
        assert_eq!(end(&transfer).unwrap().bytes, 2000 * 64);
        let told = || pair.far.agent.wait_notification(PATIENCE).unwrap().part;
        assert_eq!((0..2000).map(|_| u64::from(told())).sum::<u64>(), 1999 * 1000);
        until("the blocks are let go", || pair.far.region.held_blocks() == 0);
    }
}
