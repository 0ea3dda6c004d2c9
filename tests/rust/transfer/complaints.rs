//! What users of other transfer engines complain about, one test each, on every path.

use crate::pair::{PATIENCE, Pair, Side, config, end, paths, until};
use llmd_data::transfer::wire::auth::{self, Introduction};
use llmd_data::transfer::wire::socket::{FrameReader, FrameWriter, Socket};
use llmd_data::transfer::{
    Agent, AgentConfig, Descriptor, Layout, Memory, Op, PathKind, Place, Progress, TransferError,
};
use std::net::TcpListener;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Memory of this process alone.
struct Private(Box<[u64]>);

#[allow(unsafe_code)]
// SAFETY: the box stays where it is, and nobody makes references to its words after this.
unsafe impl Memory for Private {
    fn start(&self) -> NonNull<u8> {
        NonNull::from(&*self.0).cast()
    }

    fn length_bytes(&self) -> usize {
        self.0.len() * 8
    }

    fn place(&self) -> Place<'_> {
        Place::Private
    }
}

/// 40,064 descriptors for 313 MB, and most of the time spent posting them (vLLM #34054).
#[test]
fn descriptors_do_not_explode() {
    const LAYOUT: Layout = Layout { block_bytes: 512, blocks: 626 };
    const LAYERS: u64 = 64;
    for path in paths() {
        let pair = Pair::new(path, LAYOUT, LAYERS);
        let blocks: Vec<(u32, u32)> = (0..626).map(|block| (block, block)).collect();
        let descriptors = pair.descriptors(&blocks);
        assert_eq!(descriptors.len(), 40_064);
        let (local, remote) = (&pair.near.region, pair.far.region.remote());
        let read = pair.peer.prepare(Op::Read, local, &remote, &[&descriptors], None).unwrap();
        // All are adjacent: one run a megabyte.
        assert_eq!(read.runs(), 40_064 * 512usize / (1 << 20) + 1);
        assert_eq!(end(&read.post().unwrap()).unwrap().bytes, 40_064 * 512);
        let last = pair.near.get(pair.near.offset(63, 625), 512);
        assert_eq!(last, pair.far.pattern(63, 625, 1));
    }
}

/// A fast path that is not there, and nobody is told (vLLM #55906, NIXL #1754).
#[test]
fn no_path_is_taken_in_silence() {
    if paths() == [PathKind::CudaIpc] {
        // What it asks of paths is asked for memory of the host.
        return;
    }
    const LAYOUT: Layout = Layout { block_bytes: 4096, blocks: 4 };
    let both =
        || AgentConfig { paths: vec![PathKind::Shm, PathKind::Tcp], ..config(PathKind::Tcp) };
    let near = Side::new(both(), LAYOUT, 1, 1);
    let owner = Agent::new(both()).unwrap();
    let private = owner.register(Private(vec![7; 2048].into()), LAYOUT).unwrap();
    let peer = near.agent.connect(owner.address()).unwrap();
    assert_eq!(peer.paths(), [PathKind::Shm, PathKind::Tcp]);
    assert!(peer.absent().iter().any(|(path, _)| *path == PathKind::Rdma));
    let block = Descriptor {
        local_offset: 0,
        remote_offset: 4096,
        bytes: 4096,
        local_epoch: 1,
        remote_epoch: 1,
    };
    let prepare =
        |require| peer.prepare(Op::Read, &near.region, &private.remote(), &[&[block]], require);
    let refused = prepare(Some(PathKind::Shm)).err().unwrap();
    let TransferError::Required { required: PathKind::Shm, why, .. } = &refused else {
        panic!("{refused}");
    };
    assert!(why.contains("not in a segment"), "{why}");
    assert!(matches!(
        prepare(Some(PathKind::CudaIpc)).err().unwrap(),
        TransferError::Required { required: PathKind::CudaIpc, .. }
    ));
    // Without the requirement it goes another way, and says which.
    let read = prepare(None).unwrap();
    assert_eq!(read.path(), PathKind::Tcp);
    assert_eq!(end(&read.post().unwrap()).unwrap().path, PathKind::Tcp);
    assert_eq!(near.get(0, 8), 7u64.to_le_bytes());
}

/// Tells another thread to end.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Wrong data with success, from block references that were reused (vLLM #52234).
#[test]
fn reused_blocks_never_pass_for_what_they_were() {
    const LAYOUT: Layout = Layout { block_bytes: 8192, blocks: 4 };
    const ENOUGH: usize = usize::MAX / 2;
    for path in paths() {
        let pair = Pair::new(path, LAYOUT, 2);
        let (local, remote) = (&pair.near.region, pair.far.region.remote());
        let over = AtomicBool::new(false);
        // Reads that ended; as many as there can be once enough went through.
        let ended = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (far, over, ended) = (&pair.far, &over, &ended);
            scope.spawn(move || {
                let mut block = 0;
                while !over.load(Ordering::Acquire) {
                    far.advance(block % 4).unwrap();
                    block += 1;
                    // A path that takes longer than the owner would never get a block through.
                    let quiet_until = ended.load(Ordering::Acquire).saturating_add(3);
                    while block % 4 == 0
                        && ended.load(Ordering::Acquire) < quiet_until.min(ENOUGH)
                        && !over.load(Ordering::Acquire)
                    {
                        std::thread::yield_now();
                    }
                    std::thread::yield_now();
                }
            });
            // Also where an assertion fails, or the owner would never end.
            let _ends = Ends(over);
            // A block's layers at the epoch that one look at it found.
            let look = |near, far| {
                let epoch = pair.far.epoch(far);
                let mut descriptors = pair.descriptors(&[(near, far)]);
                descriptors.iter_mut().for_each(|layer| layer.remote_epoch = epoch);
                (descriptors, epoch)
            };
            let (mut done, mut stale) = (0, 0);
            // As many as it takes to have seen both.
            while done < 20 || stale < 20 {
                let far = (done + stale) % 4;
                let (descriptors, epoch) = look(0, far);
                let read = pair.peer.prepare(Op::Read, local, &remote, &[&descriptors], None);
                match read.unwrap().post().and_then(|transfer| end(&transfer)) {
                    Ok(_) => {
                        // The owner may not have filled it when its epoch was asked for: a mixture
                        // of this epoch and the one before, which is the asker's fault. Here it is
                        // told by the first word; what may not be is the *next* epoch's content.
                        for layer in 0..2 {
                            let bytes = pair.near.get(pair.near.offset(layer, 0), 8192);
                            let next = pair.far.pattern(layer, far, epoch + 1);
                            assert!(
                                !bytes.chunks(8).any(|word| word == &next[..8]),
                                "{path}: bytes of epoch {} as {epoch}",
                                epoch + 1
                            );
                        }
                        done += 1;
                    }
                    Err(TransferError::Stale { .. }) => stale += 1,
                    Err(other) => panic!("{other}"),
                }
                ended.fetch_add(1, Ordering::AcqRel);
                // At low load the owner would leave this test no stale block.
                if done >= 20 {
                    ended.store(ENOUGH, Ordering::Release);
                    let (descriptors, told) = look(1, far);
                    until("the owner reuses the block", || pair.far.epoch(far) > told);
                    let late = pair.peer.prepare(Op::Read, local, &remote, &[&descriptors], None);
                    let late = late.unwrap().post().and_then(|transfer| end(&transfer));
                    assert!(matches!(late, Err(TransferError::Stale { .. })), "{path}: {late:?}");
                    stale += 1;
                }
            }
        });
    }
}

/// An abort that never gives its blocks back, a failure that nobody hears of (vLLM #46283, #50754).
#[test]
fn aborts_reclaim_and_failures_are_told() {
    const LAYOUT: Layout = Layout { block_bytes: 65_536, blocks: 32 };
    for path in paths() {
        let pair = Pair::new(path, LAYOUT, 4);
        let blocks: Vec<(u32, u32)> = (0..32).map(|block| (block, 31 - block)).collect();
        let remote = pair.far.region.remote();
        for op in [Op::Read, Op::Write] {
            let descriptors = pair.descriptors(&blocks);
            let prepared =
                pair.peer.prepare(op, &pair.near.region, &remote, &[&descriptors], None).unwrap();
            // Dropped under way, never posted, posted in part, cancelled.
            drop(prepared.post().unwrap());
            drop(prepared.start(None).unwrap());
            let cancelled = prepared.post().unwrap();
            cancelled.cancel();
            match cancelled.wait(Some(PATIENCE)) {
                Err(TransferError::Cancelled) | Ok(Progress::Done(_)) => {}
                other => panic!("{other:?}"),
            }
            until("near blocks are let go", || pair.near.region.held_blocks() == 0);
            until("far blocks are let go", || pair.far.region.held_blocks() == 0);
        }
        // A region that goes while it is read: the failure is told, and the memory is released.
        let descriptors = pair.descriptors(&blocks);
        let prepared =
            pair.peer.prepare(Op::Read, &pair.near.region, &remote, &[&descriptors], None).unwrap();
        let Pair { near, far, peer } = pair;
        let Side { agent: owner, region, .. } = far;
        drop(region);
        let gone = prepared.post().and_then(|transfer| end(&transfer)).unwrap_err();
        assert!(
            matches!(
                gone,
                TransferError::UnknownRegion { .. }
                    | TransferError::Stale { .. }
                    | TransferError::Device { .. }
            ),
            "{path}: {gone}"
        );
        until("the owner's bytes are released", || owner.registered_bytes() == 0);
        until("its segment is unmapped", || peer.attached_bytes() == 0);
        drop((prepared, peer));
        let Side { agent, region, .. } = near;
        drop(region);
        until("our bytes are released", || agent.registered_bytes() == 0);
    }
}

/// A peer that shakes hands and then says nothing.
#[test]
fn a_silent_peer_is_given_up() {
    if paths() == [PathKind::CudaIpc] {
        // A device's memory goes by no socket; its own silence has tests of its own.
        return;
    }
    const LAYOUT: Layout = Layout { block_bytes: 4096, blocks: 4 };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = std::thread::spawn(move || {
        let mut kept = Vec::new();
        // As many connections as the path opens.
        for _ in 0..2 {
            let socket = Socket::Tcp(listener.accept().unwrap().0);
            let (mut reader, mut writer) = (FrameReader::default(), FrameWriter::default());
            let said = Introduction { incarnation: 77, ..Introduction::default() };
            auth::accept(&socket, &mut reader, &mut writer, b"a key", &said).unwrap();
            kept.push(socket);
        }
        kept
    });
    let quick = AgentConfig { stall_timeout: Duration::from_millis(50), ..config(PathKind::Tcp) };
    let near = Side::new(quick, LAYOUT, 1, 1);
    let peer = near.agent.connect(address).unwrap();
    let mut bytes = near.region.remote().encode();
    bytes[..8].copy_from_slice(&77u64.to_le_bytes());
    let remote = llmd_data::transfer::RemoteRegion::decode(&bytes).unwrap();
    let block = Descriptor {
        local_offset: 0,
        remote_offset: 0,
        bytes: 4096,
        local_epoch: 1,
        remote_epoch: 1,
    };
    let read = peer.prepare(Op::Read, &near.region, &remote, &[&[block]], None).unwrap();
    let given_up = end(&read.post().unwrap()).unwrap_err();
    assert!(matches!(given_up, TransferError::Stalled { waited_ms: 50, .. }), "{given_up}");
    assert_eq!(near.region.held_blocks(), 0);
    drop(silent.join().unwrap());
}

/// A crash after the prefill side restarted (vLLM #49238), and sides of unlike tensor parallelism
/// (#50765, #43523).
#[test]
fn restarts_and_unlike_layouts_are_no_surprise() {
    const WHOLE: Layout = Layout { block_bytes: 8192, blocks: 8 };
    const HALF: Layout = Layout { block_bytes: 4096, blocks: 8 };
    for path in paths() {
        // One decode rank reads each block's halves from two prefill ranks.
        let near = Side::new(config(path), WHOLE, 2, 0x55);
        let ranks = [1, 2].map(|salt| Side::new(config(path), HALF, 2, salt));
        for (rank, far) in ranks.iter().enumerate() {
            let peer = near.agent.connect(far.address()).unwrap();
            let descriptors: Vec<_> = (0..2)
                .flat_map(|layer| (0..8).map(move |block| (layer, block)))
                .map(|(layer, block)| Descriptor {
                    local_offset: near.offset(layer, block) + rank as u64 * 4096,
                    remote_offset: far.offset(layer, 7 - block),
                    bytes: 4096,
                    local_epoch: 1,
                    remote_epoch: 1,
                })
                .collect();
            let remote = far.region.remote();
            let read =
                peer.prepare(Op::Read, &near.region, &remote, &[&descriptors], None).unwrap();
            end(&read.post().unwrap()).unwrap();
        }
        for (rank, far) in ranks.iter().enumerate() {
            let half = near.get(near.offset(1, 3) + rank as u64 * 4096, 4096);
            assert_eq!(half, far.pattern(1, 4, 1), "{path}");
        }

        // The owner restarts where it was.
        let mut far = Side::new(config(path), HALF, 1, 3);
        let address = far.address();
        let peer = near.agent.connect(address).unwrap();
        let old = far.region.remote();
        let block = Descriptor {
            local_offset: 0,
            remote_offset: 0,
            bytes: 4096,
            local_epoch: 1,
            remote_epoch: 1,
        };
        let prepared = peer.prepare(Op::Read, &near.region, &old, &[&[block]], None).unwrap();
        end(&prepared.post().unwrap()).unwrap();
        drop(far);
        far = Side::new(AgentConfig { listen: address, ..config(path) }, HALF, 1, 4);
        let lost = prepared.post().and_then(|transfer| end(&transfer)).unwrap_err();
        assert!(
            matches!(
                lost,
                TransferError::PeerGone { .. }
                    | TransferError::UnknownRegion { .. }
                    | TransferError::Stale { .. }
                    | TransferError::Device { .. }
            ),
            "{path}: {lost}"
        );
        let again = near.agent.connect(address).unwrap();
        let stale = again.prepare(Op::Read, &near.region, &old, &[&[block]], None).err().unwrap();
        assert!(matches!(stale, TransferError::Restarted { .. }), "{path}: {stale}");
        let new = far.region.remote();
        let read = again.prepare(Op::Read, &near.region, &new, &[&[block]], None).unwrap();
        end(&read.post().unwrap()).unwrap();
        assert_eq!(near.get(0, 4096), far.pattern(0, 0, 1));
    }
}
