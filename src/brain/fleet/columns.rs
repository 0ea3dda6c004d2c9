//! The fleet as scoring reads it.

use super::{Ahead, Health, Load, PrefillHead, Role, Signal, SignalColumn};
use crate::{EndpointId, Slot};

/// Tokens of one engine step where the endpoint's are unknown (vLLM's default on large GPUs).
pub const DEFAULT_BATCH_TOKENS: u32 = 8_192;

/// Everything that scoring reads, one row a [`Slot`]. Rows of empty slots have `occupied == false`
/// and otherwise unspecified values.
///
/// Load columns are sums over this router's ledger and its peers' totals: a scorer reads one
/// number and cannot forget the peers. [`Fleet::own_load`](super::Fleet::own_load) and
/// [`Fleet::peer_load`](super::Fleet::peer_load) tell them apart. They are floating-point numbers,
/// the form in which scoring reads them; [`Columns::load`] has the same as exact counts.
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
    pub waiting_requests: SignalColumn,
    /// Requests running, as it reported.
    pub running_requests: SignalColumn,
    /// Share of its KV cache in use, 0 to 1, as it reported.
    pub kv_usage: SignalColumn,
    /// Share of time its GPU was busy, 0 to 1, by whatever process, as an exporter reported.
    pub gpu_utilization: SignalColumn,
    /// GPU memory in use, bytes, as an exporter reported.
    pub gpu_memory_used_bytes: SignalColumn,

    /// Requests sent and not finished.
    pub inflight_requests: Vec<f64>,
    /// Those of them whose first token has come.
    pub decoding_requests: Vec<f64>,
    /// Prompt tokens sent that were not cached and whose request has had no token yet.
    pub pending_prefill_tokens: Vec<f64>,
    /// Token pairs of the same requests, see [`prefill_pairs`](super::prefill_pairs).
    pub pending_prefill_pairs: Vec<f64>,
    /// Context tokens (prompt and output so far) of the requests that are being decoded.
    pub active_decode_tokens: Vec<f64>,
    /// Context tokens of everything in flight, cached or not: KV that it holds or will hold.
    pub inflight_context_tokens: Vec<f64>,
    /// The prefill in progress, whichever router's.
    pub prefill_head: Vec<Option<PrefillHead>>,
    /// When it began, milliseconds since the origin; infinity where there is none.
    pub head_since_ms: Vec<f64>,
    /// Its uncached tokens.
    pub head_tokens: Vec<f64>,
    /// Its token pairs.
    pub head_pairs: Vec<f64>,
    /// When a token of it was last reported, milliseconds since the origin: one of its steps ended
    /// then. Minus infinity before the first.
    pub step_ended_ms: Vec<f64>,
    /// The load columns, exact.
    loads: Vec<Load>,

    /// KV cache capacity in tokens; NaN where unknown.
    pub kv_capacity_tokens: Vec<f64>,
    /// Most requests the engine runs at once; 0 where unknown.
    pub max_running_requests: Vec<u32>,
    /// Most tokens in one engine step; 0 where unknown.
    pub max_batch_tokens: Vec<u32>,
    /// Engine steps that a token of prefill takes: the inverse of the same, or of
    /// [`DEFAULT_BATCH_TOKENS`].
    pub steps_per_token: Vec<f64>,
    /// Share of the pending prefill that fits into one step, 1 where all does.
    pub step_share: Vec<f64>,
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
        self.loads.get(slot.index()).copied().unwrap_or_default()
    }

    /// What a request that is sent to the slot now finds before itself.
    #[must_use]
    pub fn ahead(&self, slot: Slot) -> Ahead {
        let head = self.prefill_head.get(slot.index()).copied().flatten();
        let step_ended_ms = self.step_ended_ms.get(slot.index()).copied();
        let step_ended_ms = step_ended_ms.filter(|ms| ms.is_finite());
        Ahead { load: self.load(slot), head, step_ended_ms }
    }

    /// One more slot, empty.
    pub(super) fn push_empty(&mut self) {
        self.occupied.push(false);
        self.generation.push(0);
        self.role.push(Role::default());
        self.health.push(Health::default());
        self.model.push(0);
        self.waiting_requests.push_empty();
        self.running_requests.push_empty();
        self.kv_usage.push_empty();
        self.gpu_utilization.push_empty();
        self.gpu_memory_used_bytes.push_empty();
        self.inflight_requests.push(0.0);
        self.decoding_requests.push(0.0);
        self.pending_prefill_tokens.push(0.0);
        self.pending_prefill_pairs.push(0.0);
        self.active_decode_tokens.push(0.0);
        self.inflight_context_tokens.push(0.0);
        self.prefill_head.push(None);
        self.head_since_ms.push(f64::INFINITY);
        self.head_tokens.push(0.0);
        self.head_pairs.push(0.0);
        self.step_ended_ms.push(f64::NEG_INFINITY);
        self.loads.push(Load::default());
        self.kv_capacity_tokens.push(f64::NAN);
        self.max_running_requests.push(0);
        self.max_batch_tokens.push(0);
        self.steps_per_token.push(1.0 / f64::from(DEFAULT_BATCH_TOKENS));
        self.step_share.push(1.0);
        self.max_loras.push(0);
    }

    /// Forgets what the engine reported.
    pub(super) fn clear_signals(&mut self, slot: Slot) {
        self.waiting_requests.set(slot, Signal::default());
        self.running_requests.set(slot, Signal::default());
        self.kv_usage.set(slot, Signal::default());
        self.gpu_utilization.set(slot, Signal::default());
        self.gpu_memory_used_bytes.set(slot, Signal::default());
        self.step_ended_ms[slot.index()] = f64::NEG_INFINITY;
    }

    pub(super) fn set_load(&mut self, slot: Slot, load: Load, head: Option<PrefillHead>) {
        let row = slot.index();
        self.inflight_requests[row] = load.inflight_requests.into();
        self.decoding_requests[row] = load.decoding_requests.into();
        self.pending_prefill_tokens[row] = load.pending_prefill_tokens as f64;
        self.pending_prefill_pairs[row] = load.pending_prefill_pairs as f64;
        self.active_decode_tokens[row] = load.active_decode_tokens as f64;
        self.inflight_context_tokens[row] = load.inflight_context_tokens as f64;
        self.loads[row] = load;
        self.set_step_share(row);
        self.prefill_head[row] = head;
        self.head_since_ms[row] = head.map_or(f64::INFINITY, |head| head.since.as_millis_f64());
        self.head_tokens[row] = head.map_or(0.0, |head| head.uncached_tokens.into());
        self.head_pairs[row] = head.map_or(0.0, |head| head.pairs as f64);
    }

    pub(super) fn set_max_batch_tokens(&mut self, slot: Slot, tokens: u32) {
        let row = slot.index();
        self.max_batch_tokens[row] = tokens;
        let assumed = if tokens == 0 { DEFAULT_BATCH_TOKENS } else { tokens };
        self.steps_per_token[row] = 1.0 / f64::from(assumed);
        self.set_step_share(row);
    }

    fn set_step_share(&mut self, row: usize) {
        let steps = self.steps_per_token[row] * self.pending_prefill_tokens[row];
        self.step_share[row] = if steps > 1.0 { 1.0 / steps } else { 1.0 };
    }
}
