//! What another router tells, to everybody whom it concerns.

use super::BrainError;
use super::state::State;
use crate::Time;
use crate::fleet::PeerTotals;

impl State {
    /// A peer's loads go to the fleet, and what it placed since to the plugins that remember placements.
    pub(super) fn peer_totals(&mut self, now: Time, totals: &PeerTotals) -> Result<(), BrainError> {
        self.fleet.apply_peer(now, totals)?;
        for (slot, risen) in self.fleet.placed_by_peers() {
            let tokens = risen.booked_tokens as f64;
            let prefill_ms = self.predictor.rates(*slot).map_or(0.0, |rates| {
                rates.prefills_ms(risen.booked_requests as f64, tokens, risen.booked_pairs as f64)
            });
            self.scheduler.placed_by_peers(now, *slot, tokens, prefill_ms);
        }
        Ok(())
    }
}
