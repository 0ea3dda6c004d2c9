//! What only a queue pair can do wrong. Without a device there is nothing to see here.

use crate::pair::{Pair, Side, config, end, paths, until};
use llmd_data::transfer::{Layout, Op, PathKind, TransferError};

const LAYOUT: Layout = Layout { block_bytes: 4096, blocks: 64 };

fn whole(pair: &Pair) -> Vec<llmd_data::transfer::Descriptor> {
    pair.descriptors(&(0..64).map(|block| (block, block * 37 % 64)).collect::<Vec<_>>())
}

/// The owner's memory is deregistered, so its card refuses the key; that ends the queue pair, every
/// later transfer on it says so, and a new connection works.
#[test]
fn a_refused_key_ends_the_queue_pair_and_a_new_one_works() {
    if !paths().contains(&PathKind::Rdma) {
        return;
    }
    for op in [Op::Read, Op::Write] {
        let pair = Pair::new(PathKind::Rdma, LAYOUT, 4);
        let remote = pair.far.region.remote();
        let descriptors = whole(&pair);
        let prepare = |peer: &llmd_data::transfer::Peer, remote: &_| {
            peer.prepare(op, &pair.near.region, remote, &[&descriptors], Some(PathKind::Rdma))
        };
        let prepared = prepare(&pair.peer, &remote).unwrap();
        assert_eq!(end(&prepared.post().unwrap()).unwrap().path, PathKind::Rdma);

        let Side { agent: owner, region, layout, .. } = pair.far;
        drop(region);
        // Whoever served the write may just be done with it.
        until("the owner's bytes are released", || owner.registered_bytes() == 0);
        let refused = prepared.post().and_then(|transfer| end(&transfer)).unwrap_err();
        match (op, &refused) {
            // The card itself refuses.
            (Op::Read, TransferError::Device { what, .. }) => {
                assert!(what.contains("status 10"), "{what}");
            }
            // The owner is asked first.
            (Op::Write, TransferError::UnknownRegion { .. }) => {}
            _ => panic!("{op}: {refused}"),
        }
        assert_eq!(pair.near.region.held_blocks(), 0);
        let bytes = 4 * 64 * layout.block_bytes as usize;
        let memory = llmd_data::transfer::Segment::new(bytes).unwrap();
        let region = owner.register(memory, layout).unwrap();
        if op == Op::Read {
            let later = prepare(&pair.peer, &region.remote());
            assert!(matches!(later, Err(TransferError::Required { .. })));
        }
        let peer = pair.near.agent.connect(owner.address()).unwrap();
        let again = prepare(&peer, &region.remote()).unwrap();
        assert_eq!(end(&again.post().unwrap()).unwrap().bytes, bytes as u64);
    }
}

/// A registration is made once a region and card, whatever is posted.
#[test]
fn memory_is_registered_once() {
    if !paths().contains(&PathKind::Rdma) {
        return;
    }
    let near = Side::new(config(PathKind::Rdma), LAYOUT, 1, 1);
    let far = Side::new(config(PathKind::Rdma), LAYOUT, 1, 2);
    let pair = Pair { peer: near.agent.connect(far.address()).unwrap(), near, far };
    let (descriptors, remote) = (whole(&pair), pair.far.region.remote());
    for op in [Op::Read, Op::Write, Op::Read] {
        let prepared =
            pair.peer.prepare(op, &pair.near.region, &remote, &[&descriptors], None).unwrap();
        for _ in 0..3 {
            end(&prepared.post().unwrap()).unwrap();
        }
    }
    assert_eq!(pair.near.region.registrations(), 1);
    assert_eq!(pair.far.region.registrations(), 1);
}
