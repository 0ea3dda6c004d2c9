//! A cache behind several engines: whatever one of them computed, all find, and nothing is evicted.
//!
//! No machine has it. It is the bound of what routing by prefixes can bring: a fleet behind it misses
//! only what nobody has computed yet. What is found here counts as found on the host tier and costs
//! what that costs; the blocks take room in the KV cache as any others.

use super::BlockIdentity;
use super::kv_cache::KeyHasher;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

/// A handle on it: clones are the same cache. Give one to each
/// [`EngineModel::sharing`](super::EngineModel::sharing).
#[derive(Debug, Clone)]
pub struct SharedCache<K = crate::BlockKey> {
    /// Never iterated.
    computed: Arc<Mutex<HashSet<K, BuildHasherDefault<KeyHasher>>>>,
}

impl<K> Default for SharedCache<K> {
    fn default() -> Self {
        Self { computed: Arc::default() }
    }
}

impl<K: BlockIdentity> SharedCache<K> {
    pub(super) fn contains(&self, key: &K) -> bool {
        self.computed.lock().contains(key)
    }

    pub(super) fn extend(&self, keys: &[K]) {
        self.computed.lock().extend(keys);
    }
}
