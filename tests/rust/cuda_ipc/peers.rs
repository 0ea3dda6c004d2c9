//! Two processes: handles that travel, events that are waited for, peers that die.

use crate::child::{Process, heard, say};
use crate::fake::device;
use crate::pair::{PATIENCE, until};
use llmd_data::transfer::cuda_ipc::{DeviceMemory, Stream};
use llmd_data::transfer::{
    Agent, AgentConfig, Completion, Descriptor, Layout, Memory, Op, PathKind, Peer, Progress,
    Region, RemoteRegion, Segment, Transfer, TransferError,
};
use std::sync::Arc;
use std::time::Duration;

const LAYOUT: Layout = Layout { block_bytes: 512, blocks: 40 };
const BYTES: usize = 512 * 40;

/// Byte `at` of what `salt` fills a region with.
fn content(salt: u8) -> Vec<u8> {
    (0..BYTES).map(|at| (at / 512 * 3 + at % 251) as u8 ^ salt).collect()
}

/// All blocks of the local region, each the remote block that a permutation makes of it.
fn permuted() -> Vec<Descriptor> {
    let block = |block: u64| Descriptor {
        local_offset: block * 512,
        remote_offset: block * 13 % 40 * 512,
        bytes: 512,
        local_epoch: 1,
        remote_epoch: 1,
    };
    (0..40).map(block).collect()
}

/// What a local region holds where `permuted` was read from one filled by `salt`.
fn permuted_content(salt: u8) -> Vec<u8> {
    let all = content(salt);
    (0..40).flat_map(|block| all[block * 13 % 40 * 512..][..512].to_vec()).collect()
}

fn config() -> AgentConfig {
    AgentConfig { key: Some(b"a key".to_vec()), ..AgentConfig::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..][..2], 16).unwrap()).collect()
}

fn say_region(agent: &Agent, region: &Region) {
    say(&format!("{} {}", agent.address(), hex(&region.remote().encode())));
}

fn hear_region(said: &str) -> (std::net::SocketAddr, RemoteRegion) {
    let (address, region) = said.split_once(' ').unwrap();
    (address.parse().unwrap(), RemoteRegion::decode(&unhex(region)).unwrap())
}

/// Owns a region of device 0 that a stream writes to, and does what it is told.
pub fn owner() {
    let memory = Arc::new(DeviceMemory::allocate(&device(0), BYTES).unwrap());
    let agent = Agent::new(config()).unwrap();
    let mut region = Some(agent.register(memory.clone(), LAYOUT).unwrap());
    let stream = Stream::new(memory.device()).unwrap();
    let bytes = content(5);
    say_region(&agent, region.as_ref().unwrap());
    for asked in heard() {
        match asked.as_str() {
            // Asked of the device; done when somebody waits for it.
            "write" => {
                // SAFETY: the bytes live to the end of the role.
                unsafe { memory.write_on(&stream, 0, &bytes).unwrap() };
                say("asked");
            }
            "synchronize" => {
                stream.synchronize().unwrap();
                say("written");
            }
            "drop" => {
                drop(region.take());
                say("dropped");
            }
            "registered" => say(&agent.registered_bytes().to_string()),
            "content" => {
                let mut found = vec![0; BYTES];
                memory.read(0, &mut found).unwrap();
                say(&hex(&found));
            }
            other => panic!("{other}"),
        }
    }
}

/// An owner in another process, and a peer that is connected to it.
struct Owned {
    process: Process,
    agent: Agent,
    peer: Peer,
    remote: RemoteRegion,
}

impl Owned {
    fn new(agent: AgentConfig) -> Self {
        crate::fake::load();
        let mut process = Process::start("owner", &[]);
        let (address, remote) = hear_region(&process.hear());
        let agent = Agent::new(agent).unwrap();
        let peer = agent.connect(address).unwrap();
        Self { process, agent, peer, remote }
    }

    fn start(&self, op: Op, local: &Region) -> Transfer {
        let require = Some(PathKind::CudaIpc);
        let prepared = self.peer.prepare(op, local, &self.remote, &[&permuted()], require).unwrap();
        prepared.post().unwrap()
    }
}

fn end(transfer: &Transfer) -> Result<Completion, TransferError> {
    match transfer.wait(Some(PATIENCE))? {
        Progress::Done(done) => Ok(done),
        Progress::Pending { .. } => panic!("hangs"),
    }
}

fn device_region(agent: &Agent, ordinal: u32) -> (Arc<DeviceMemory>, Region) {
    let memory = Arc::new(DeviceMemory::allocate(&device(ordinal), BYTES).unwrap());
    let region = agent.register(memory.clone(), LAYOUT).unwrap();
    (memory, region)
}

#[test]
fn a_read_waits_for_the_event_of_the_process_that_writes() {
    let mut owned = Owned::new(config());
    let (memory, region) = device_region(&owned.agent, 1);
    assert_eq!(owned.process.ask("write"), "asked");
    let transfer = owned.start(Op::Read, &region);
    // Nobody has waited for the owner's stream: it has not written, and the read cannot be over.
    let standing = transfer.wait(Some(Duration::from_millis(20))).unwrap();
    assert_eq!(standing, Progress::Pending { parts_done: 0 });
    assert_eq!(owned.process.ask("synchronize"), "written");
    let done = end(&transfer).unwrap();
    assert_eq!(done, Completion { bytes: BYTES as u64, path: PathKind::CudaIpc });
    let mut found = vec![0; BYTES];
    memory.read(0, &mut found).unwrap();
    assert_eq!(found, permuted_content(5));
}

#[test]
fn a_write_is_there_when_it_is_done() {
    let mut owned = Owned::new(config());
    let (memory, region) = device_region(&owned.agent, 1);
    let stream = Stream::new(memory.device()).unwrap();
    let bytes = content(9);
    // Not waited for: the path does.
    // SAFETY: the bytes live to the end of the test.
    unsafe { memory.write_on(&stream, 0, &bytes).unwrap() };
    end(&owned.start(Op::Write, &region)).unwrap();
    let found = unhex(&owned.process.ask("content"));
    for block in 0..40 {
        assert_eq!(found[block * 13 % 40 * 512..][..512], bytes[block * 512..][..512]);
    }
}

#[test]
fn host_memory_stages_blocks_of_a_device() {
    let mut owned = Owned::new(config());
    owned.process.ask("write");
    owned.process.ask("synchronize");
    let segment = Arc::new(Segment::new(BYTES).unwrap());
    let region = owned.agent.register(segment.clone(), LAYOUT).unwrap();
    assert_eq!(end(&owned.start(Op::Read, &region)).unwrap().path, PathKind::CudaIpc);
    let mut found = vec![0; BYTES];
    crate::fake::load();
    // SAFETY: the segment lives, and nothing writes to it now.
    unsafe { std::ptr::copy_nonoverlapping(segment.start().as_ptr(), found.as_mut_ptr(), BYTES) };
    assert_eq!(found, permuted_content(5));
}

#[test]
fn an_owner_that_dies_while_it_is_waited_for_fails_the_read() {
    let mut owned = Owned::new(config());
    let (_, region) = device_region(&owned.agent, 0);
    owned.process.ask("write");
    let transfer = owned.start(Op::Read, &region);
    owned.process.kill();
    let failed = end(&transfer).unwrap_err();
    assert!(matches!(failed, TransferError::PeerGone { .. }), "{failed}");
    assert_eq!(region.held_blocks(), 0);
    until("the dead owner's memory is let go", || owned.peer.attached_bytes() == 0);
}

#[test]
fn an_owner_whose_device_never_writes_is_given_up() {
    let stall_timeout = Duration::from_millis(50);
    let mut owned = Owned::new(AgentConfig { stall_timeout, ..config() });
    let (_, region) = device_region(&owned.agent, 0);
    owned.process.ask("write");
    let failed = end(&owned.start(Op::Read, &region)).unwrap_err();
    assert!(matches!(failed, TransferError::Stalled { .. }), "{failed}");
    assert_eq!(region.held_blocks(), 0);
}

#[test]
fn a_dropped_region_is_given_back_by_both_ends() {
    let mut owned = Owned::new(config());
    let (_, region) = device_region(&owned.agent, 0);
    end(&owned.start(Op::Read, &region)).unwrap();
    assert_eq!(owned.process.ask("drop"), "dropped");
    // The read's grant keeps it until its end was heard of.
    until("registered bytes go to zero", || owned.process.ask("registered") == "0");
    until("the owner's memory is let go", || owned.peer.attached_bytes() == 0);
    let failed =
        owned.peer.prepare(Op::Read, &region, &owned.remote, &[&permuted()], None).err().unwrap();
    assert!(matches!(failed, TransferError::NoPath { .. }), "{failed}");
}

/// Reads from the region that it is told of into device 1.
pub fn reader() {
    let agent = Agent::new(config()).unwrap();
    let (memory, region) = device_region(&agent, 1);
    for asked in heard() {
        let (address, remote) = hear_region(&asked);
        let peer = agent.connect(address).unwrap();
        let prepared =
            peer.prepare(Op::Read, &region, &remote, &[&permuted()], Some(PathKind::CudaIpc));
        let done = prepared.and_then(|prepared| end(&prepared.post()?));
        let mut found = vec![0; BYTES];
        memory.read(0, &mut found).unwrap();
        say(&match done {
            Ok(_) if found == permuted_content(5) => "right".to_owned(),
            Ok(_) => "wrong bytes".to_owned(),
            Err(error) => error.to_string(),
        });
    }
}

fn read_by_another(environment: &[(&str, &str)]) -> String {
    let agent = Agent::new(config()).unwrap();
    let (memory, region) = device_region(&agent, 0);
    memory.write(0, &content(5)).unwrap();
    let remote = hex(&region.remote().encode());
    Process::start("reader", environment).ask(&format!("{} {remote}", agent.address()))
}

#[test]
fn drivers_without_batches_copy_one_by_one() {
    assert_eq!(read_by_another(&[("FAKE_CUDA_VERSION", "12040")]), "right");
    assert_eq!(read_by_another(&[]), "right");
}

#[test]
fn devices_that_cannot_reach_each_other_are_refused_with_the_reason() {
    let refused = read_by_another(&[("FAKE_CUDA_NO_PEERS", "1")]);
    assert!(refused.contains("cuda_ipc is required"), "{refused}");
    assert!(refused.contains("CUDA_ERROR_PEER_ACCESS_UNSUPPORTED"), "{refused}");
}

#[test]
fn a_handle_that_a_peer_made_up_is_refused() {
    let owned = Owned::new(config());
    let (_, region) = device_region(&owned.agent, 0);
    let mut bytes = owned.remote.encode();
    // The driver's handle of the memory lies before its handle of the event and an offset.
    let memory = bytes.len() - 8 - 64 - 64;
    bytes[memory..memory + 64].fill(0xee);
    let forged = RemoteRegion::decode(&bytes).unwrap();
    let failed = owned.peer.prepare(Op::Read, &region, &forged, &[&permuted()], None);
    assert!(matches!(failed.err(), Some(TransferError::NoPath { .. })));
}
