//! The fleet as scoring reads it.

use super::{Ahead, Health, Load, PrefillHead, Role, Signal};
use crate::{EndpointId, Slot};

/// Everything that scoring reads, one row a [`Slot`]. Rows of empty slots have `occupied == false`
/// and otherwise unspecified values.
///
/// Load columns are sums over this router's ledger and its peers' totals: a scorer reads one
/// number and cannot forget the peers. [`Fleet::own_load`](super::Fleet::own_load) and
/// [`Fleet::peer_load`](super::Fleet::peer_load) tell them apart.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Whether the slot has a tenant.
    pub occupied: Vec<bool>,
    /// Tenant number.
    pub generation: Vec<u32>,
    /// What it can serve.
    pub role: Vec<Role>,
    /// Whether it may be given new requests.
    pub health: Vec<Health>,
    /// Index of its model's name, see [`Fleet::model_index`](super::Fleet::model_index).
    pub model: Vec<u32>,

    /// Requests waiting in the engine's queue, as it reported.
    pub waiting_requests: Vec<Signal>,
    /// Requests running, as it reported.
    pub running_requests: Vec<Signal>,
    /// Share of its KV cache in use, 0 to 1, as it reported.
    pub kv_usage: Vec<Signal>,
    /// Share of time its GPU was busy, 0 to 1, by whatever process, as an exporter reported.
    pub gpu_utilization: Vec<Signal>,
    /// GPU memory in use, bytes, as an exporter reported.
    pub gpu_memory_used_bytes: Vec<Signal>,

    /// Requests sent and not finished.
    pub inflight_requests: Vec<u32>,
    /// Those of them whose first token has come.
    pub decoding_requests: Vec<u32>,
    /// Prompt tokens sent that were not cached and whose request has had no token yet.
    pub pending_prefill_tokens: Vec<u64>,
    /// Token pairs of the same requests, see [`prefill_pairs`](super::prefill_pairs).
    pub pending_prefill_pairs: Vec<u64>,
    /// Context tokens (prompt and output so far) of the requests that are being decoded.
    pub active_decode_tokens: Vec<u64>,
    /// Context tokens of everything in flight, cached or not: KV that it holds or will hold.
    pub inflight_context_tokens: Vec<u64>,
    /// The prefill in progress; of this router's requests only, peers do not tell theirs.
    pub prefill_head: Vec<Option<PrefillHead>>,

    /// KV cache capacity in tokens; 0 where unknown.
    pub kv_capacity_tokens: Vec<u64>,
    /// Most requests the engine runs at once; 0 where unknown.
    pub max_running_requests: Vec<u32>,
    /// Most tokens in one engine step; 0 where unknown.
    pub max_batch_tokens: Vec<u32>,
    /// Most LoRA adapters that fit at once; 0 where unknown.
    pub max_loras: Vec<u32>,
}

impl Columns {
    /// Number of slots, occupied or not.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.occupied.len()
    }

    /// The current tenant of a slot.
    #[must_use]
    pub fn id(&self, slot: Slot) -> Option<EndpointId> {
        let occupied = *self.occupied.get(slot.index())?;
        occupied.then(|| EndpointId { slot, generation: self.generation[slot.index()] })
    }

    /// The load of a slot, ours and the peers'; idle for a slot that there is not.
    #[must_use]
    pub fn load(&self, slot: Slot) -> Load {
        let row = slot.index();
        if row >= self.slots() {
            return Load::default();
        }
        Load {
            inflight_requests: self.inflight_requests[row],
            decoding_requests: self.decoding_requests[row],
            pending_prefill_tokens: self.pending_prefill_tokens[row],
            pending_prefill_pairs: self.pending_prefill_pairs[row],
            active_decode_tokens: self.active_decode_tokens[row],
            inflight_context_tokens: self.inflight_context_tokens[row],
        }
    }

    /// What a request that is sent to the slot now finds before itself.
    #[must_use]
    pub fn ahead(&self, slot: Slot) -> Ahead {
        let head = self.prefill_head.get(slot.index()).copied().flatten();
        Ahead { load: self.load(slot), head }
    }

    /// One more slot, empty.
    pub(super) fn push_empty(&mut self) {
        self.occupied.push(false);
        self.generation.push(0);
        self.role.push(Role::default());
        self.health.push(Health::default());
        self.model.push(0);
        self.waiting_requests.push(Signal::default());
        self.running_requests.push(Signal::default());
        self.kv_usage.push(Signal::default());
        self.gpu_utilization.push(Signal::default());
        self.gpu_memory_used_bytes.push(Signal::default());
        self.inflight_requests.push(0);
        self.decoding_requests.push(0);
        self.pending_prefill_tokens.push(0);
        self.pending_prefill_pairs.push(0);
        self.active_decode_tokens.push(0);
        self.inflight_context_tokens.push(0);
        self.prefill_head.push(None);
        self.kv_capacity_tokens.push(0);
        self.max_running_requests.push(0);
        self.max_batch_tokens.push(0);
        self.max_loras.push(0);
    }

    /// Forgets what the engine reported.
    pub(super) fn clear_signals(&mut self, slot: Slot) {
        let row = slot.index();
        self.waiting_requests[row] = Signal::default();
        self.running_requests[row] = Signal::default();
        self.kv_usage[row] = Signal::default();
        self.gpu_utilization[row] = Signal::default();
        self.gpu_memory_used_bytes[row] = Signal::default();
    }

    pub(super) fn set_load(&mut self, slot: Slot, load: Load, head: Option<PrefillHead>) {
        let row = slot.index();
        self.inflight_requests[row] = load.inflight_requests;
        self.decoding_requests[row] = load.decoding_requests;
        self.pending_prefill_tokens[row] = load.pending_prefill_tokens;
        self.pending_prefill_pairs[row] = load.pending_prefill_pairs;
        self.active_decode_tokens[row] = load.active_decode_tokens;
        self.inflight_context_tokens[row] = load.inflight_context_tokens;
        self.prefill_head[row] = head;
    }
}
