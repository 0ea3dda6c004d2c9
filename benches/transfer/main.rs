//! Reads of another process's blocks, permuted, beside what the machine does without us: a memcpy
//! between two mappings, and a raw loop of sendmsg and recvmsg. `benches/transfer.py` drives it.
//!
//! `transfer LAYERS BLOCKS BLOCK_BYTES ROUNDS` starts a second process and prints a line of JSON a
//! round. Everything of a round moves the same bytes between the same places.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod raw;

use cpu_time::ThreadTime;
use llmd_data::transfer::{
    Agent, AgentConfig, Descriptor, Layout, Memory, Op, PathKind, Peer, Progress, Region,
    RemoteRegion, Segment,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// What is moved.
#[derive(Clone, Copy)]
pub struct Shape {
    layers: u64,
    blocks: u32,
    block_bytes: u64,
}

impl Shape {
    fn from_arguments(arguments: &[String]) -> Self {
        let number = |at: usize| arguments[at].parse::<u64>().unwrap();
        Self { layers: number(0), blocks: number(1) as u32, block_bytes: number(2) }
    }

    fn layout(self) -> Layout {
        Layout { block_bytes: self.block_bytes, blocks: self.blocks }
    }

    fn bytes(self) -> u64 {
        self.layers * u64::from(self.blocks) * self.block_bytes
    }

    /// Offsets here and there, layer by layer; the far ones are permuted within their layer.
    pub fn pairs(self) -> Vec<(usize, usize)> {
        let blocks = u64::from(self.blocks);
        let layer = |layer| (0..blocks).map(move |block| (layer, block));
        (0..self.layers)
            .flat_map(layer)
            .map(|(layer, block)| {
                let at = |block| ((layer * blocks + block) * self.block_bytes) as usize;
                (at(block), at((block * 37 + layer) % blocks))
            })
            .collect()
    }
}

fn segment(shape: Shape, seed: u8) -> Arc<Segment> {
    let segment = Segment::new(shape.bytes() as usize).unwrap();
    // SAFETY: the segment's own bytes; nobody else has it yet.
    unsafe {
        for block in 0..shape.bytes() / 64 {
            let at = segment.start().as_ptr().add(block as usize * 64);
            std::ptr::write_bytes(at, seed.wrapping_add((block % 251) as u8), 64);
        }
    }
    Arc::new(segment)
}

fn agent(paths: Vec<PathKind>, copy_threads: usize, tcp_streams: usize) -> Agent {
    let config = AgentConfig { paths, copy_threads, tcp_streams, ..AgentConfig::default() };
    Agent::new(config).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The second process: owns the far blocks until its standard input ends.
fn own(shape: Shape) {
    let memory = segment(shape, 1);
    let agent = agent(vec![PathKind::Shm, PathKind::Tcp], 0, 1);
    let region = agent.register(memory.clone(), shape.layout()).unwrap();
    let raw_port = raw::serve(memory, shape);
    println!("{} {raw_port} {}", agent.address(), hex(&region.remote().encode()));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// One of ours, set up in one way.
struct Ours {
    name: &'static str,
    prepared: llmd_data::transfer::Prepared,
    _peer: Peer,
    _region: Region,
    _agent: Agent,
}

impl Ours {
    #[allow(clippy::too_many_arguments)]
    fn new(
        name: &'static str,
        op: Op,
        path: PathKind,
        copy_threads: usize,
        tcp_streams: usize,
        address: std::net::SocketAddr,
        remote: &RemoteRegion,
        shape: Shape,
        near: &Arc<Segment>,
    ) -> Self {
        let agent = agent(vec![path], copy_threads, tcp_streams);
        let region = agent.register(near.clone(), shape.layout()).unwrap();
        let peer = agent.connect(address).unwrap();
        let bytes = shape.block_bytes;
        let descriptors: Vec<_> = shape
            .pairs()
            .into_iter()
            .map(|(near, far)| Descriptor {
                local_offset: near as u64,
                remote_offset: far as u64,
                bytes,
                local_epoch: 1,
                remote_epoch: 1,
            })
            .collect();
        let start = Instant::now();
        let prepared = peer.prepare(op, &region, remote, &[&descriptors], Some(path)).unwrap();
        let planning = start.elapsed().as_secs_f64() * 1e9 / descriptors.len() as f64;
        eprintln!("{name}: planned at {planning:.0} ns a descriptor");
        Self { name, prepared, _peer: peer, _region: region, _agent: agent }
    }

    fn run(&self) {
        let transfer = self.prepared.post().unwrap();
        assert!(matches!(transfer.wait(None).unwrap(), Progress::Done(_)));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.first().is_some_and(|first| first == "own") {
        return own(Shape::from_arguments(&arguments[1..]));
    }
    let shape = Shape::from_arguments(&arguments);
    let rounds: usize = arguments[3].parse().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("own")
        .args(&arguments[..3])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut words = line.split_whitespace();
    let address = words.next().unwrap().parse().unwrap();
    let raw_port: u16 = words.next().unwrap().parse().unwrap();
    let remote = RemoteRegion::decode(&unhex(words.next().unwrap())).unwrap();

    let (near, far) = (segment(shape, 9), segment(shape, 1));
    let ours = |name, op, path, copy_threads, streams| {
        Ours::new(name, op, path, copy_threads, streams, address, &remote, shape, &near)
    };
    let all = [
        ours("shm_read", Op::Read, PathKind::Shm, 0, 1),
        ours("shm_write", Op::Write, PathKind::Shm, 0, 1),
        ours("shm_read_threads", Op::Read, PathKind::Shm, 1, 1),
        ours("tcp_read_1", Op::Read, PathKind::Tcp, 0, 1),
        ours("tcp_read_2", Op::Read, PathKind::Tcp, 0, 2),
        ours("tcp_write_2", Op::Write, PathKind::Tcp, 0, 2),
    ];
    let mut raw = raw::connect(raw_port);
    let pairs = shape.pairs();
    let block = shape.block_bytes as usize;
    for round in 0..=rounds {
        let mut row = Vec::new();
        let mut time = |name: &str, work: &mut dyn FnMut()| {
            let (start, cpu) = (Instant::now(), ThreadTime::now());
            work();
            row.push(format!("\"{name}\": {:.9}", start.elapsed().as_secs_f64()));
            row.push(format!("\"{name}_cpu\": {:.9}", cpu.elapsed().as_secs_f64()));
        };
        time("memcpy", &mut || {
            for &(to, from) in &pairs {
                // SAFETY: blocks of two segments of this shape.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        far.start().as_ptr().add(from),
                        near.start().as_ptr().add(to),
                        block,
                    );
                }
            }
        });
        for one in &all {
            time(one.name, &mut || one.run());
        }
        time("raw_tcp", &mut || raw::read(&mut raw, &near, &pairs, block));
        // The first round touches every page.
        if round > 0 {
            println!("{{{}}}", row.join(", "));
            std::io::stdout().flush().unwrap();
        }
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}
