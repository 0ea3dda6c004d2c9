//! One of the algorithms, chosen when a tier is made.

use super::{Density, Eviction, Gdsf, Lru, Node, S3Fifo};
use bytemuck::{Pod, Zeroable};

/// Names of the algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// [`Lru`].
    Lru,
    /// [`S3Fifo`].
    S3Fifo,
    /// [`Gdsf`].
    Gdsf,
    /// [`Density`].
    #[default]
    Density,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lru, Self::S3Fifo, Self::Gdsf, Self::Density];

    /// What it is called in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::S3Fifo => "s3fifo",
            Self::Gdsf => "gdsf",
            Self::Density => "density",
        }
    }

    /// The one called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// The state of whichever algorithm a tier has; of the others, zeros that nothing reads.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Policy {
    algorithm: u64,
    lru: Lru,
    s3fifo: S3Fifo,
    gdsf: Gdsf,
    density: Density,
}

impl Policy {
    /// `algorithm` with nothing in its hands.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let mut policy = Self::zeroed();
        policy.start(algorithm);
        policy
    }

    /// Forgets everything and becomes `algorithm`. In place: it is larger than a stack likes.
    pub fn start(&mut self, algorithm: Algorithm) {
        bytemuck::bytes_of_mut(self).fill(0);
        self.algorithm = algorithm as u64;
    }

    /// Which one it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        let at = self.algorithm as usize;
        Algorithm::ALL.get(at).copied().unwrap_or_default()
    }

    fn chosen(&mut self) -> &mut dyn Eviction {
        match self.algorithm() {
            Algorithm::Lru => &mut self.lru,
            Algorithm::S3Fifo => &mut self.s3fifo,
            Algorithm::Gdsf => &mut self.gdsf,
            Algorithm::Density => &mut self.density,
        }
    }
}

impl Eviction for Policy {
    fn admit(&mut self, nodes: &mut [Node], slot: u32) {
        self.chosen().admit(nodes, slot);
    }

    fn expose(&mut self, nodes: &mut [Node], slot: u32) {
        self.chosen().expose(nodes, slot);
    }

    fn touch(&mut self, nodes: &mut [Node], slot: u32, idle: u32) {
        self.chosen().touch(nodes, slot, idle);
    }

    fn remove(&mut self, nodes: &mut [Node], slot: u32) {
        self.chosen().remove(nodes, slot);
    }

    fn victim(&mut self, nodes: &mut [Node], now: u32) -> Option<u32> {
        self.chosen().victim(nodes, now)
    }
}
