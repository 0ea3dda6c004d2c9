//! LoRA adapters of an endpoint: those that its owner declares and those that it reports.

use super::{Fleet, Signal};
use crate::{Slot, Time};

/// Where an adapter stands on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoraState {
    /// Running now.
    Running,
    /// It has requests in the engine's queue.
    Waiting,
    /// Neither, but there is room for one more among those that run.
    Room,
    /// Neither, and every place is taken by another adapter.
    Full,
    /// The endpoint does not say which adapters run, or said so too long ago.
    Unknown,
}

impl Fleet {
    /// Whether an endpoint's owner declares the adapter, or its engine reports it.
    #[must_use]
    pub fn serves_lora(&self, slot: Slot, adapter: &str) -> bool {
        self.loras(slot).any(|name| name == adapter)
    }

    /// The adapters of an endpoint: declared, then running, then waiting; some more than once.
    pub fn loras(&self, slot: Slot) -> impl Iterator<Item = &str> {
        let tenant = self.tenant(slot);
        let declared = tenant.map(|tenant| tenant.spec.loras.as_slice());
        let running = tenant.and_then(|tenant| tenant.sample.running_loras.as_deref());
        let waiting = tenant.and_then(|tenant| tenant.sample.waiting_loras.as_deref());
        [declared, running, waiting].into_iter().flatten().flatten().map(String::as_str)
    }

    /// Where an adapter stands on an endpoint by its last metrics page.
    #[must_use]
    pub fn lora_state(&self, now: Time, slot: Slot, adapter: &str) -> LoraState {
        let Some(tenant) = self.tenant(slot) else { return LoraState::Unknown };
        let Some(running) = &tenant.sample.running_loras else { return LoraState::Unknown };
        let age = tenant.sampled_at.map(|at| Signal::new(0.0, at));
        if age.and_then(|age| age.fresh(now, self.metrics_max_age())).is_none() {
            return LoraState::Unknown;
        }
        let waiting = tenant.sample.waiting_loras.as_deref().unwrap_or_default();
        if running.iter().any(|name| name == adapter) {
            LoraState::Running
        } else if waiting.iter().any(|name| name == adapter) {
            LoraState::Waiting
        } else if tenant.capacity.max_loras == 0 {
            LoraState::Unknown
        } else if running.len() < tenant.capacity.max_loras as usize {
            LoraState::Room
        } else {
            LoraState::Full
        }
    }
}
