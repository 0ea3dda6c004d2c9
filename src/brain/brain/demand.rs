//! What the fleet is asked for, for whoever sizes it ([`crate::scale`]).

use super::Brain;
use super::state::State;
use crate::scale::{Demand, Placement};
use crate::schedule::{Choice, Request};

impl Brain {
    /// What this router has placed since it was made, and what is in flight and waits now; of its own
    /// requests alone, so that readings of several routers add up.
    #[must_use]
    pub fn demand(&self) -> Demand {
        self.state.lock().demand_now()
    }
}

impl State {
    /// Counts a request that is placed by this choice.
    pub(super) fn count_demand(&mut self, request: &Request, choice: &Choice) {
        let rates = self.predictor.rates(choice.endpoint.slot);
        let expected = request.expected_output_tokens.map(f64::from);
        self.demand.placed(&Placement {
            rates: rates.map(|it| (it.prefill, it.decode)),
            prompt_tokens: request.prompt_tokens,
            cached_tokens: choice.matched_tokens,
            output_tokens: expected.unwrap_or(self.predictor.mean_output_tokens()),
            predicted: choice.predicted,
            ttft_ms: request.slo.ttft_ms,
            tpot_ms: request.slo.tpot_ms,
        });
    }

    fn demand_now(&self) -> Demand {
        let mut demand = self.demand;
        demand.rejected_requests = self.stats.rejected as f64;
        demand.waiting_requests = self.holding_now() as f64;
        let columns = self.fleet.columns();
        let (mut kv_tokens, mut kv_known) = (0.0, 0.0);
        for id in self.fleet.ids() {
            let load = self.fleet.own_load(id.slot);
            demand.resident_tokens += load.inflight_context_tokens as f64;
            if let Some(rates) = self.predictor.rates(id.slot) {
                let [_, per_token, per_pair] = rates.prefill;
                demand.backlog_ms += per_token * load.pending_prefill_tokens as f64
                    + per_pair * load.pending_prefill_pairs as f64;
            }
            let capacity = columns.kv_capacity_tokens[id.slot.index()];
            if capacity.is_finite() {
                kv_tokens += capacity;
                kv_known += 1.0;
            }
        }
        demand.kv_tokens_per_replica = if kv_known > 0.0 { kv_tokens / kv_known } else { 0.0 };
        demand
    }
}
