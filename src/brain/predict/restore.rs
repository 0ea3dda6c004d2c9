//! Saving what a predictor has learned, and taking it up again.

use super::models::Part;
use super::predictor::Predictor;
use super::saved::{SavedEndpoint, SavedModels, SavedPool};
use crate::EndpointId;
use crate::fleet::Fleet;

impl Predictor {
    /// Everything that has been learned of the endpoints of `fleet`, and what was
    /// [restored](Self::restore) of those that are not in it.
    #[must_use]
    pub fn save(&self, fleet: &Fleet) -> SavedModels {
        let mut endpoints: Vec<SavedEndpoint> = Vec::new();
        let mut pools: Vec<SavedPool> = Vec::new();
        for id in fleet.ids() {
            let (Some(spec), Some(tenant)) = (fleet.spec(id), self.tenant(id.slot)) else {
                continue;
            };
            let pool = &self.pools[tenant.pool as usize];
            if !pools.iter().any(|it| it.model == spec.model) {
                let model = spec.model.clone();
                let (fits, interference) = (pool.models.fits, pool.interference);
                pools.push(SavedPool { model, fits, interference });
            }
            endpoints.push(SavedEndpoint {
                address: spec.address.clone(),
                dp_rank: spec.dp_rank,
                model: spec.model.clone(),
                fits: tenant.models.fits,
                ttft_margin: tenant.ttft_margin,
                tpot_margin: tenant.tpot_margin,
                drift: tenant.drift,
            });
        }
        if let Some(absent) = &self.absent {
            endpoints.extend(absent.endpoints.iter().cloned());
            let known: Vec<String> = pools.iter().map(|it| it.model.clone()).collect();
            pools.extend(absent.pools.iter().filter(|it| !known.contains(&it.model)).cloned());
        }
        SavedModels::new(self.mean_output_tokens, pools, endpoints)
    }

    /// Takes up what another predictor had learned: at once for endpoints of `fleet`, and for the
    /// others when they are [admitted](Self::recall). What this one knew of those is forgotten.
    pub fn restore(&mut self, saved: SavedModels, fleet: &Fleet) {
        self.mean_output_tokens = saved.mean_output_tokens;
        self.absent = Some(saved);
        for id in fleet.ids() {
            self.recall(id, fleet);
        }
    }

    /// Takes up what was saved of an endpoint that has just been admitted.
    pub fn recall(&mut self, id: EndpointId, fleet: &Fleet) {
        let row = id.slot.index();
        if !self.occupied.get(row).copied().unwrap_or_default() {
            return;
        }
        let (Some(spec), Some(absent)) = (fleet.spec(id), &mut self.absent) else { return };
        if let Some(at) = absent.pools.iter().position(|it| it.model == spec.model) {
            let saved = absent.pools.swap_remove(at);
            let pool = &mut self.pools[self.tenants[row].pool as usize];
            pool.models.fits = saved.fits;
            pool.interference = saved.interference;
        }
        let is_it = |it: &SavedEndpoint| {
            it.address == spec.address && it.dp_rank == spec.dp_rank && it.model == spec.model
        };
        if let Some(at) = absent.endpoints.iter().position(is_it) {
            let saved = absent.endpoints.swap_remove(at);
            let tenant = &mut self.tenants[row];
            tenant.models.fits = saved.fits;
            tenant.ttft_margin = saved.ttft_margin;
            tenant.tpot_margin = saved.tpot_margin;
            tenant.drift = saved.drift;
        }
        for part in Part::ALL {
            self.settle(id.slot, part);
            self.lend(row, part);
        }
    }
}
