//! Two processes, one of which is killed.

use crate::pair::{Side, config, end, paths, until};
use llmd_data::transfer::{Descriptor, Layout, Op, PathKind, RemoteRegion, TransferError};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

const LAYOUT: Layout = Layout { block_bytes: 16_384, blocks: 64 };
const LAYERS: u64 = 4;
const SALT: u8 = 0x33;

/// What the other process runs; nothing unless it is asked to.
#[test]
fn owner_process() {
    let Ok(path) = std::env::var("LLMD_TRANSFER_OWNER") else { return };
    let path = match path.as_str() {
        "shm" => PathKind::Shm,
        "rdma" => PathKind::Rdma,
        "cuda_ipc" => PathKind::CudaIpc,
        _ => PathKind::Tcp,
    };
    let side = Side::new(config(path), LAYOUT, LAYERS, SALT);
    let hex: String =
        side.region.remote().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("\nOWNER {} {hex}", side.address());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

struct Owner {
    process: Child,
    address: SocketAddr,
    remote: RemoteRegion,
}

impl Owner {
    fn start(path: PathKind) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::owner_process", "--nocapture"])
            .env("LLMD_TRANSFER_OWNER", path.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find(|line| line.starts_with("OWNER ")).unwrap();
        let mut words = line.split_whitespace().skip(1);
        let address = words.next().unwrap().parse().unwrap();
        let hex = words.next().unwrap().as_bytes();
        let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = hex.chunks(2).map(byte).collect();
        Self { process, address, remote: RemoteRegion::decode(&bytes).unwrap() }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_killed_peer_fails_transfers_and_a_new_one_serves_them() {
    for path in paths() {
        let near = Side::new(config(path), LAYOUT, LAYERS, 0x55);
        for op in [Op::Read, Op::Write] {
            let mut owner = Owner::start(path);
            let peer = near.agent.connect(owner.address).unwrap();
            let descriptors: Vec<_> = (0..LAYERS)
                .flat_map(|layer| (0..64).map(move |block| (layer, block)))
                .map(|(layer, block)| Descriptor {
                    local_offset: near.offset(layer, block),
                    remote_offset: near.offset(layer, block * 37 % 64),
                    bytes: LAYOUT.block_bytes,
                    local_epoch: 1,
                    remote_epoch: 1,
                })
                .collect();
            let prepared =
                peer.prepare(op, &near.region, &owner.remote, &[&descriptors], None).unwrap();
            assert_eq!(end(&prepared.post().unwrap()).unwrap().path, path);
            let arrived = || {
                // What the other process filled, by its own salt.
                let filled = Side::pattern_of(SALT, LAYOUT, 2, 5 * 37 % 64, 1);
                op == Op::Write || near.get(near.offset(2, 5), 16_384) == filled
            };
            assert!(arrived());
            owner.process.kill().unwrap();
            owner.process.wait().unwrap();
            // Shared memory outlives its owner: until the end of the connection is heard of, what is
            // read from it is still right.
            let lost = loop {
                (0..64).for_each(|block| near.fill(block));
                match prepared.post().and_then(|transfer| end(&transfer)) {
                    Ok(_) => assert!(arrived()),
                    Err(lost) => break lost,
                }
            };
            assert!(
                matches!(
                    lost,
                    TransferError::PeerGone { .. }
                        | TransferError::Stalled { .. }
                        | TransferError::Device { .. }
                ),
                "{path}: {lost}"
            );
            assert_eq!(near.region.held_blocks(), 0);
            until("its memory is unmapped", || peer.attached_bytes() == 0);
        }
    }
}
