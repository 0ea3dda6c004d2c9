//! Events as Dynamo's indexes take them.

use crate::ops::Op;
use dynamo_kv_router::protocols::{
    ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData, KvCacheStoreData,
    KvCacheStoredBlockData, LocalBlockHash, RouterEvent,
};

pub fn router_event(op: &Op<'_>) -> RouterEvent {
    let (endpoint, data) = match op {
        Op::Store { endpoint, parent, locals, names, .. } => {
            let block = |(&local, name): (&u64, &llmd_brain::EngineHash)| KvCacheStoredBlockData {
                tokens_hash: LocalBlockHash(local),
                block_hash: ExternalSequenceBlockHash(name.0),
                mm_extra_info: None,
            };
            let stored = KvCacheStoreData {
                parent_hash: parent.map(|name| ExternalSequenceBlockHash(name.0)),
                start_position: None,
                blocks: locals.iter().zip(*names).map(block).collect(),
            };
            (*endpoint, KvCacheEventData::Stored(stored))
        }
        Op::Remove { endpoint, names } => {
            let block_hashes = names.iter().map(|name| ExternalSequenceBlockHash(name.0)).collect();
            (*endpoint, KvCacheEventData::Removed(KvCacheRemoveData { block_hashes }))
        }
    };
    let event = KvCacheEvent { event_id: 0, dp_rank: 0, data };
    RouterEvent::new(u64::from(endpoint), event)
}

pub fn local_hashes(query: &[u64]) -> Vec<LocalBlockHash> {
    query.iter().copied().map(LocalBlockHash).collect()
}
