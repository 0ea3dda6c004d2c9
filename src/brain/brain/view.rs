//! What a brain shows of itself: for people, metrics pages and tests, never for decisions.

use super::Brain;
use super::state::State;
use crate::fleet::{EndpointSpec, Health};
use crate::flow::HeldBands;
use crate::index::BlockCounts;
use crate::predict::Timing;
use crate::{EndpointId, ReservationId, Time};
use serde::{Deserialize, Serialize};

/// Counters since the brain was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrainStats {
    /// Requests placed.
    pub decisions: u64,
    /// Requests that finished.
    pub finished: u64,
    /// Requests that their client gave up, held or routed.
    pub cancelled: u64,
    /// Requests that were held at first.
    pub held: u64,
    /// Requests that were turned away.
    pub rejected: u64,
    /// Those of them that made room in the queue for more important ones.
    #[serde(default)]
    pub shed: u64,
    /// Requests that wait for a place now.
    pub holding_now: u64,
    /// Of those, how many are of which importance.
    #[serde(default)]
    pub held_by_band: HeldBands,
    /// Decisions that could not follow the profile in full.
    pub fallbacks: u64,
    /// Requests in flight whose endpoint left.
    pub lost_with_endpoint: u64,
    /// Reservations that ended without news.
    pub expired_leases: u64,
    /// Untold requests that were likely to be over, or that their engine's page showed to be.
    #[serde(default)]
    pub guessed_ends: u64,
    /// Engine restarts that their metrics showed.
    pub restarts: u64,
    /// News of requests that had ended already.
    pub late_news: u64,
    /// Turns whose time was more than a second earlier than one before.
    pub clock_went_back: u64,
    /// Times that an endpoint's latency departed for good from what it was.
    pub drift_alarms: u64,
    /// Prompt tokens of all placed requests.
    pub prompt_tokens: u64,
    /// How many of them were believed to be cached where they went.
    pub matched_tokens: u64,
}

/// An endpoint as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Its id.
    pub id: EndpointId,
    /// What it is; capacity as learned.
    pub spec: EndpointSpec,
    /// Whether it gets requests.
    pub health: Health,
    /// Requests in flight there, this router's and its peers'; so are the two loads below.
    pub inflight_requests: u32,
    /// Uncached prompt tokens whose first token has not come.
    pub pending_prefill_tokens: u64,
    /// Context tokens being decoded.
    pub active_decode_tokens: u64,
    /// Requests in its queue, as last reported.
    pub waiting_requests: Option<f64>,
    /// Requests running, as last reported.
    pub running_requests: Option<f64>,
    /// Share of its KV cache in use, as last reported.
    pub kv_usage: Option<f64>,
    /// Share of time its GPU was busy, as last reported.
    pub gpu_utilization: Option<f64>,
    /// What is known of its timing.
    pub latency: Option<Timing>,
    /// Age of its last report, milliseconds.
    pub reported_ms_ago: Option<f64>,
    /// Blocks that it is known or believed to hold, by tier.
    pub blocks: BlockCounts,
}

impl Brain {
    /// Everybody in the fleet, in slot order.
    #[must_use]
    pub fn endpoints(&self, now: Time) -> Vec<EndpointView> {
        let state = self.state.lock();
        state.fleet.ids().filter_map(|id| self.view(now, id, &state)).collect()
    }

    /// One endpoint; `None` where it is not (or no longer) in the fleet.
    #[must_use]
    pub fn endpoint(&self, now: Time, id: EndpointId) -> Option<EndpointView> {
        let state = self.state.lock();
        self.view(now, id, &state)
    }

    /// Output tokens that a routed request has had by its time, at least 1: for bodies that are not
    /// told how long an answer was.
    #[must_use]
    pub fn generated_by(&self, now: crate::Time, id: ReservationId) -> u32 {
        self.state.lock().generated_by(now, id)
    }

    /// What this router has in flight, for its peers ([`Input::PeerTotals`](super::Input::PeerTotals)).
    #[must_use]
    pub fn own_totals(&self, now: Time) -> Vec<super::PeerLoad> {
        self.state.lock().fleet.own_totals(now)
    }

    /// Whether the load of a routed request is still booked.
    #[must_use]
    pub fn is_reserved(&self, id: ReservationId) -> bool {
        self.state.lock().fleet.reservation(id).is_some()
    }

    /// What the latency models have learned, for
    /// [`Input::LearnedModels`](super::Input::LearnedModels).
    #[must_use]
    pub fn learned_models(&self) -> crate::predict::SavedModels {
        let state = self.state.lock();
        state.predictor.save(&state.fleet)
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> BrainStats {
        let state = self.state.lock();
        BrainStats {
            holding_now: state.holding_now(),
            held_by_band: state.held_by_band(),
            drift_alarms: state.predictor.drift_alarms(),
            ..state.stats.clone()
        }
    }

    fn view(&self, now: Time, id: EndpointId, state: &State) -> Option<EndpointView> {
        let fleet = &state.fleet;
        let (spec, columns) = (fleet.spec(id)?, fleet.columns());
        let load = columns.load(id.slot);
        let reported = [&columns.kv_usage, &columns.waiting_requests, &columns.running_requests]
            .into_iter()
            .filter_map(|column| column.get(id.slot).at())
            .max();
        Some(EndpointView {
            id,
            spec: EndpointSpec { capacity: fleet.capacity(id)?.clone(), ..spec.clone() },
            health: *columns.health.get(id.slot.index())?,
            inflight_requests: load.inflight_requests,
            pending_prefill_tokens: load.pending_prefill_tokens,
            active_decode_tokens: load.active_decode_tokens,
            waiting_requests: columns.waiting_requests.get(id.slot).last(),
            running_requests: columns.running_requests.get(id.slot).last(),
            kv_usage: columns.kv_usage.get(id.slot).last(),
            gpu_utilization: columns.gpu_utilization.get(id.slot).last(),
            latency: state.predictor.timing(id.slot),
            reported_ms_ago: reported.map(|at| now.millis_since(at)),
            blocks: self.residency().blocks(id).unwrap_or_default(),
        })
    }
}
