//! What an engine reports after a step.

use super::RequestId;
use crate::{BlockKey, Time};

/// One step, reported at its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<K = BlockKey> {
    /// When it began.
    pub started: Time,
    /// When it ended: everything below is true from here on.
    pub ended: Time,
    /// How long it took, milliseconds.
    pub duration_ms: f64,
    /// How many steps it was, of which all but the last only decoded: more than 1 for a run.
    pub steps: u32,
    /// Prompt tokens computed.
    pub prefill_tokens: u32,
    /// Requests that decoded.
    pub decode_requests: u32,
    /// Tokens loaded from the host tier.
    pub host_tokens: u32,
    /// Requests that left the queue at its beginning.
    pub admitted: Vec<Admission>,
    /// Requests that went back to the queue at its beginning.
    pub preempted: Vec<RequestId>,
    /// Requests that generated a token, in admission order.
    pub tokens: Vec<RequestId>,
    /// Those of `tokens` for which it was the first.
    pub first_tokens: Vec<RequestId>,
    /// Those of `tokens` for which it was the last.
    pub finished: Vec<RequestId>,
    /// Requests aborted during the step, which left at its end.
    pub aborted: Vec<RequestId>,
    /// How residency changed since the last report, in order.
    pub changes: Vec<KvChange<K>>,
}

impl<K> Default for Step<K> {
    fn default() -> Self {
        Self {
            started: Time::ZERO,
            ended: Time::ZERO,
            duration_ms: 0.0,
            steps: 1,
            prefill_tokens: 0,
            decode_requests: 0,
            host_tokens: 0,
            admitted: Vec::new(),
            preempted: Vec::new(),
            tokens: Vec::new(),
            first_tokens: Vec::new(),
            finished: Vec::new(),
            aborted: Vec::new(),
            changes: Vec::new(),
        }
    }
}

impl<K> Step<K> {
    /// Forgets what it holds and keeps its memory.
    pub(super) fn clear(&mut self) {
        self.admitted.clear();
        self.preempted.clear();
        self.tokens.clear();
        self.first_tokens.clear();
        self.finished.clear();
        self.aborted.clear();
        self.changes.clear();
    }
}

/// A request that left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Which.
    pub id: RequestId,
    /// Tokens found in the KV cache.
    pub hit_tokens: u32,
    /// Tokens found on the host tier, after or between those.
    pub host_hit_tokens: u32,
    /// Whether it was there before and had been preempted.
    pub resumed: bool,
}

/// A change of what the engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvChange<K = BlockKey> {
    /// A run of blocks of a request became hittable: one more copy of each.
    Stored {
        /// Whose blocks.
        request: RequestId,
        /// Where the run begins in the request, in blocks.
        first_block: u32,
        /// The block before it, if any.
        parent: Option<K>,
        /// The blocks.
        keys: Vec<K>,
    },
    /// One copy of each of these blocks left the KV cache, in this order.
    Removed(Vec<K>),
    /// A block came to the host tier.
    HostStored(K),
    /// A block left the host tier.
    HostRemoved(K),
    /// Everything was dropped from all tiers.
    Cleared,
}
