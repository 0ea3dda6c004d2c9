//! What engines report: validated value by value, each with its own age.

use super::{Capacity, Columns, Fleet, FleetError, MetricsSample, Signal, SignalColumn};
use crate::{EndpointId, Slot, Time};
use std::time::Duration;

/// Two start times of one process may differ by this much: exporters that count from the uptime
/// round. No engine restarts faster.
const START_TIME_TOLERANCE_S: f64 = 1.0;

/// Bounds on what is kept of a page.
const MAX_LORA_NAMES: usize = 4_096;
const MAX_LORA_NAME_BYTES: usize = 512;
const MAX_OTHER_VALUES: usize = 256;

/// What a metrics page told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// The engine's process is another one than before: what it held is gone.
    pub restarted: bool,
    /// The endpoint's capacity, where the page changed what is known of it.
    pub capacity_learned: Option<Capacity>,
    /// Where the page contradicts the endpoint's owner, whose figure stands.
    pub capacity_conflict: Option<CapacityConflict>,
    /// Values that were not numbers or out of their range: ignored, as if the page were silent.
    pub ignored_values: u32,
}

/// The page and the owner disagree on an endpoint's capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapacityConflict {
    /// Which figure.
    pub field: &'static str,
    /// What the owner said.
    pub declared: u64,
    /// What the page says.
    pub reported: u64,
}

impl Fleet {
    /// Takes in a reading of an endpoint's metrics page. What the page leaves out keeps its last
    /// value and ages; what makes no sense is ignored and counted.
    ///
    /// # Errors
    /// [`FleetError::Unknown`].
    pub fn observe(
        &mut self,
        now: Time,
        id: EndpointId,
        sample: &MetricsSample,
    ) -> Result<Observed, FleetError> {
        let now = self.clamp(now);
        let slot = self.slot_of(id)?;
        let row = slot.index();
        let Some(Some(tenant)) = self.tenants.get_mut(row) else {
            return Err(FleetError::Unknown(id));
        };
        let mut observed = Observed::default();
        let sample = sensible(sample, &mut observed.ignored_values);
        tenant.ignored_values += u64::from(observed.ignored_values);

        if let Some(start) = sample.process_start_time_s {
            let before = tenant.process_start_time_s.replace(start);
            observed.restarted =
                before.is_some_and(|before| (start - before).abs() > START_TIME_TOLERANCE_S);
        }
        if observed.restarted {
            self.columns.clear_signals(slot);
        }

        let before = tenant.capacity.clone();
        if observed.restarted {
            tenant.capacity = tenant.spec.capacity.clone();
        }
        observed.capacity_conflict = learn(&mut tenant.capacity, &tenant.spec.capacity, &sample);
        if tenant.capacity != before {
            observed.capacity_learned = Some(tenant.capacity.clone());
        }

        store(&mut self.columns, slot, now, &sample);
        tenant.sample = sample;
        tenant.sampled_at = Some(now);
        self.set_capacity_columns(slot);
        Ok(observed)
    }

    /// The last page of an endpoint, without the values that were ignored, and when it was read.
    #[must_use]
    pub fn last_sample(&self, id: EndpointId) -> Option<(Time, &MetricsSample)> {
        let tenant = self.tenant(id.slot).filter(|_| self.contains(id))?;
        Some((tenant.sampled_at?, &tenant.sample))
    }

    /// Requests that an endpoint has, running and waiting, by its last page; `None` where that does not say.
    #[must_use]
    pub fn requests_on_page(&self, id: EndpointId) -> Option<usize> {
        let (_, page) = self.last_sample(id)?;
        Some((page.running_requests? + page.waiting_requests?) as usize)
    }

    /// When to look again at what pages say of our requests on a slot: `None` where the last one that
    /// counts them is too old, or they may be somebody else's.
    pub(crate) fn next_page(&self, now: Time, slot: Slot) -> Option<Time> {
        let max_age = Duration::from_millis(self.config.metrics_max_age_ms);
        let (running, waiting) = (&self.columns.running_requests, &self.columns.waiting_requests);
        let at = running.get(slot).at()?.min(waiting.get(slot).at()?);
        (at + max_age > now && !self.is_shared(now)).then(|| at + max_age)
    }

    /// Values of an endpoint's pages that were ignored since it joined.
    #[must_use]
    pub fn ignored_values(&self, id: EndpointId) -> Option<u64> {
        Some(self.tenant(id.slot).filter(|_| self.contains(id))?.ignored_values)
    }
}

fn store(columns: &mut Columns, slot: Slot, now: Time, sample: &MetricsSample) {
    let put = |column: &mut SignalColumn, value: Option<f64>| {
        if let Some(value) = value {
            column.set(slot, Signal::new(value, now));
        }
    };
    put(&mut columns.waiting_requests, sample.waiting_requests);
    put(&mut columns.running_requests, sample.running_requests);
    put(&mut columns.kv_usage, sample.kv_usage);
    put(&mut columns.gpu_utilization, sample.gpu_utilization);
    put(&mut columns.gpu_memory_used_bytes, sample.gpu_memory_used_bytes);
}

/// Completes what the owner left open, and says where page and owner disagree.
fn learn(
    capacity: &mut Capacity,
    declared: &Capacity,
    sample: &MetricsSample,
) -> Option<CapacityConflict> {
    let mut conflict = None;
    let mut take = |field, declared: u64, reported: Option<u64>| {
        let reported = reported?;
        if declared != 0 && declared != reported {
            conflict.get_or_insert(CapacityConflict { field, declared, reported });
        }
        (declared == 0).then_some(reported)
    };
    let block_size =
        take("block_size", declared.block_size.into(), sample.block_size.map(u64::from));
    let kv_blocks = take("kv_blocks", declared.kv_blocks, sample.kv_blocks);
    let max_loras = take("max_loras", declared.max_loras.into(), sample.max_loras.map(u64::from));
    if let Some(tokens) = block_size {
        capacity.block_size = tokens as u32;
    }
    if let Some(blocks) = kv_blocks {
        capacity.kv_blocks = blocks;
    }
    if let Some(adapters) = max_loras {
        capacity.max_loras = adapters as u32;
    }
    conflict
}

/// The sample without what cannot be.
fn sensible(sample: &MetricsSample, ignored: &mut u32) -> MetricsSample {
    let mut number = |value: Option<f64>, most: f64| {
        let value = value?;
        let good = value.is_finite() && (0.0..=most).contains(&value);
        *ignored += u32::from(!good);
        good.then_some(value)
    };
    // A share may be a rounding error above one; 87 is a percentage and no share.
    let share = |value: Option<f64>| value.map(|share| share.min(1.0));
    const MAX_SHARE: f64 = 1.01;
    const MAX_COUNT: f64 = 1e18;
    let mut kept = MetricsSample {
        waiting_requests: number(sample.waiting_requests, MAX_COUNT),
        running_requests: number(sample.running_requests, MAX_COUNT),
        kv_usage: share(number(sample.kv_usage, MAX_SHARE)),
        gpu_utilization: share(number(sample.gpu_utilization, MAX_SHARE)),
        gpu_memory_used_bytes: number(sample.gpu_memory_used_bytes, MAX_COUNT),
        prefix_cache_queries_tokens: number(sample.prefix_cache_queries_tokens, MAX_COUNT),
        prefix_cache_hits_tokens: number(sample.prefix_cache_hits_tokens, MAX_COUNT),
        preemptions: number(sample.preemptions, MAX_COUNT),
        process_start_time_s: number(sample.process_start_time_s, MAX_COUNT),
        ..MetricsSample::default()
    };
    let mut count = |value: Option<u64>, most: u64| {
        let value = value?;
        let good = (1..=most).contains(&value);
        *ignored += u32::from(!good);
        good.then_some(value)
    };
    kept.kv_blocks = count(sample.kv_blocks, super::spec::MAX_KV_BLOCKS);
    kept.block_size = count(sample.block_size.map(u64::from), super::spec::MAX_BLOCK_TOKENS.into())
        .map(|tokens| tokens as u32);
    kept.max_loras = sample.max_loras;
    let mut names = |names: &Option<Vec<String>>| {
        let names = names.as_ref()?;
        let good = |name: &&String| !name.is_empty() && name.len() <= MAX_LORA_NAME_BYTES;
        let kept: Vec<String> = names.iter().filter(good).take(MAX_LORA_NAMES).cloned().collect();
        *ignored += (names.len() - kept.len()) as u32;
        Some(kept)
    };
    kept.running_loras = names(&sample.running_loras);
    kept.waiting_loras = names(&sample.waiting_loras);
    for (name, &value) in &sample.other {
        if value.is_finite() && kept.other.len() < MAX_OTHER_VALUES {
            kept.other.insert(name.clone(), value);
        } else {
            *ignored += 1;
        }
    }
    kept
}
