//! How many KV blocks an endpoint holds, by where they lie.

use llmd_brain::Tier;
use llmd_brain::index::BlockCounts;
use serde::{Deserialize, Serialize};

/// Distinct KV blocks of one endpoint, by the fastest tier on which its events say each lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierBlocks {
    /// In the accelerator's memory.
    pub gpu: u64,
    /// In the host's.
    pub cpu: u64,
    /// On disk.
    pub storage: u64,
    /// In a shared store.
    pub remote: u64,
    /// Where only what was placed there says that they are held.
    pub believed: u64,
}

impl From<BlockCounts> for TierBlocks {
    fn from(counts: BlockCounts) -> Self {
        let [gpu, cpu, storage, remote] = Tier::ALL.map(|tier| counts.exact[tier.index()]);
        Self { gpu, cpu, storage, remote, believed: counts.believed }
    }
}
