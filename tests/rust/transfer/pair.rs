//! Two agents, a region each, and what their blocks should hold.

pub use crate::backing::paths;
use crate::backing::{self, Backing, backing};
use llmd_data::transfer::{
    Agent, AgentConfig, Completion, Descriptor, Layout, PathKind, Peer, Progress, Region, Transfer,
    TransferError,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Long enough for a loaded machine; nothing waits for it unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn config(path: PathKind) -> AgentConfig {
    AgentConfig {
        key: Some(b"a key".to_vec()),
        paths: vec![path],
        copy_threads: 2,
        ..AgentConfig::default()
    }
}

/// An agent with one region, whose blocks hold a pattern of their number and epoch.
pub struct Side {
    pub agent: Agent,
    pub region: Region,
    pub layout: Layout,
    memory: Arc<Backing>,
    salt: u8,
}

impl Side {
    pub fn new(config: AgentConfig, layout: Layout, layers: u64, salt: u8) -> Self {
        let agent = Agent::new(config).unwrap();
        let bytes = layers * layout.block_bytes * u64::from(layout.blocks);
        let memory = Arc::new(backing(bytes as usize));
        let region = agent.register(memory.clone(), layout).unwrap();
        let side = Self { agent, region, layout, memory, salt };
        (0..layout.blocks).for_each(|block| side.fill(block));
        side
    }

    pub fn address(&self) -> SocketAddr {
        self.agent.address()
    }

    pub fn layers(&self) -> u64 {
        self.region.memory().length_bytes() as u64
            / (self.layout.block_bytes * u64::from(self.layout.blocks))
    }

    pub fn epoch(&self, block: u32) -> u64 {
        self.region.epoch(block).unwrap()
    }

    pub fn offset(&self, layer: u64, block: u32) -> u64 {
        (layer * u64::from(self.layout.blocks) + u64::from(block)) * self.layout.block_bytes
    }

    /// Gives a block other content.
    pub fn advance(&self, block: u32) -> Result<u64, TransferError> {
        let epoch = self.region.advance(block)?;
        self.fill(block);
        Ok(epoch)
    }

    /// What belongs into a block, layer by layer.
    pub fn pattern(&self, layer: u64, block: u32, epoch: u64) -> Vec<u8> {
        Self::pattern_of(self.salt, self.layout, layer, block, epoch)
    }

    pub fn pattern_of(salt: u8, layout: Layout, layer: u64, block: u32, epoch: u64) -> Vec<u8> {
        let place = u64::from(block) << 40 | layer << 32 | epoch;
        let mut bytes = place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        bytes[0] = salt;
        bytes.repeat(layout.block_bytes as usize / 8)
    }

    pub fn fill(&self, block: u32) {
        for layer in 0..self.layers() {
            let bytes = self.pattern(layer, block, self.epoch(block));
            self.put(self.offset(layer, block), &bytes);
        }
    }

    /// Whether a block holds what belongs to its epoch.
    pub fn holds_its_own(&self, block: u32) -> bool {
        (0..self.layers()).all(|layer| {
            self.get(self.offset(layer, block), self.layout.block_bytes)
                == self.pattern(layer, block, self.epoch(block))
        })
    }

    pub fn put(&self, offset: u64, bytes: &[u8]) {
        backing::put(&self.memory, offset as usize, bytes);
    }

    pub fn get(&self, offset: u64, bytes: u64) -> Vec<u8> {
        let mut out = vec![0; bytes as usize];
        backing::get(&self.memory, offset as usize, &mut out);
        out
    }
}

/// A reader or writer, and who owns what it reaches for.
pub struct Pair {
    pub near: Side,
    pub far: Side,
    pub peer: Peer,
}

impl Pair {
    pub fn new(path: PathKind, layout: Layout, layers: u64) -> Self {
        let near = Side::new(config(path), layout, layers, 0x55);
        let far = Side::new(config(path), layout, layers, 0xaa);
        let peer = near.agent.connect(far.address()).unwrap();
        Self { near, far, peer }
    }

    /// All layers of a far block and of a near one, at their present epochs.
    pub fn descriptors(&self, blocks: &[(u32, u32)]) -> Vec<Descriptor> {
        let layers = 0..self.near.layers();
        let layer = |layer| {
            blocks.iter().map(move |&(near, far)| Descriptor {
                local_offset: self.near.offset(layer, near),
                remote_offset: self.far.offset(layer, far),
                bytes: self.near.layout.block_bytes,
                local_epoch: self.near.epoch(near),
                remote_epoch: self.far.epoch(far),
            })
        };
        layers.flat_map(layer).collect()
    }
}

pub fn end(transfer: &Transfer) -> Result<Completion, TransferError> {
    match transfer.wait(Some(PATIENCE))? {
        Progress::Done(completion) => Ok(completion),
        Progress::Pending { parts_done } => panic!("hangs after {parts_done} parts"),
    }
}

/// Waits for something that another thread brings about.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}
