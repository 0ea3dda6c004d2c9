//! Identities that cross room boundaries, as types instead of bare integers.

use serde::{Deserialize, Serialize};

/// Dense position of an endpoint in every per-endpoint array. Reused after an endpoint leaves:
/// only an [`EndpointId`] tells two tenants of one slot apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot as an array index.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// An endpoint: one (worker, data-parallel rank) pair that can be given a request.
///
/// `generation` counts the tenants of the slot, so that a removed id is never confused with its
/// successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId {
    /// Dense position.
    pub slot: Slot,
    /// Tenant number of the slot, from 1.
    pub generation: u32,
}

impl std::fmt::Display for EndpointId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot.0, self.generation)
    }
}

/// The router's own name of one KV block: a chained, position-dependent hash of everything before
/// and in it (tokens or text, model, LoRA, multimodal items, cache salt). See [`crate::prompt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct BlockKey(pub u64);

/// An engine's name of one of its KV blocks, as its events carry it (for vLLM the last 8 bytes,
/// big-endian, of the full hash). Opaque: equal names mean equal blocks on one endpoint only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct EngineHash(pub u64);

/// A request on its way through the brain, unique for the life of one brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// Load booked on an endpoint for a routed request; see [`crate::fleet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(pub u64);

/// Where a KV block lies, from the fastest to the slowest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Accelerator memory (engines on a CPU also call their first tier so).
    #[default]
    Gpu,
    /// Host memory.
    Cpu,
    /// Disk.
    Storage,
    /// Another server's memory or a shared store.
    Remote,
}

impl Tier {
    /// All tiers, fastest first.
    pub const ALL: [Self; 4] = [Self::Gpu, Self::Cpu, Self::Storage, Self::Remote];
    /// Number of tiers.
    pub const COUNT: usize = Self::ALL.len();

    /// The tier as an array index, fastest first.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
