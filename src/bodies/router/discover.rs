//! Adds an engine by what it says of itself.

use super::LiveRouter;
use super::error::RouterError;
use super::members::MemberRef;
use super::observers::{KvEvents, Observed, Page};
use crate::observe::EventFormat;
use crate::observe::discovery::{EngineDescription, RankDescription, describe};
use llmd_brain::EndpointId;
use llmd_brain::brain::Input;
use llmd_brain::fleet::{Capacity, EndpointSpec, KvSource};
use std::sync::Arc;
use std::time::Duration;

impl LiveRouter {
    /// Asks the engine at `url` what it is, waiting on this thread, and adds an endpoint for each
    /// of its ranks. What `given` says beyond its address wins over what the engine says.
    ///
    /// # Errors
    /// [`RouterError::Discovery`] where it cannot be asked; as
    /// [`add_endpoint`](LiveRouter::add_endpoint). None of its ranks is added then.
    pub fn discover(
        self: &Arc<Self>,
        url: &str,
        given: &EndpointSpec,
        timeout: Duration,
    ) -> Result<Vec<EndpointId>, RouterError> {
        self.check_open()?;
        let (client, base) = (self.http_client(), url.to_owned());
        let engine = self.wait_on(async move { describe(&client, &base, timeout).await })??;
        let mut added: Vec<EndpointId> = Vec::new();
        for rank in &engine.ranks {
            let (spec, observed) = endpoint_of(&engine, rank, given);
            match self.add_endpoint(spec, observed) {
                Ok(id) => added.push(id),
                Err(error) => {
                    for id in added {
                        self.remove_endpoint(&MemberRef::Id(id))?;
                    }
                    return Err(error);
                }
            }
        }
        for (id, rank) in added.iter().zip(engine.ranks) {
            self.step(Input::Metrics(*id, rank.metrics))?;
        }
        Ok(added)
    }
}

/// The endpoint that a rank of an engine is, and how it is followed.
fn endpoint_of(
    engine: &EngineDescription,
    rank: &RankDescription,
    given: &EndpointSpec,
) -> (EndpointSpec, Observed) {
    let is_alone = engine.ranks.len() == 1;
    let spec = EndpointSpec {
        address: engine.url.clone(),
        dp_rank: rank.dp_rank,
        model: engine.model.clone(),
        loras: engine.loras.clone(),
        capacity: Capacity {
            max_model_len: match given.capacity.max_model_len {
                0 => engine.max_model_len,
                given => given,
            },
            ..given.capacity.clone()
        },
        kv_source: match rank.kv_events {
            Some(_) => KvSource::Events,
            None => KvSource::Approximate,
        },
        ..given.clone()
    };
    let observed = Observed {
        kv_events: rank
            .kv_events
            .clone()
            .map(|source| KvEvents { source, format: EventFormat::Vllm }),
        metrics: Some(Page::of_engine(
            format!("{}/metrics", engine.url),
            (!is_alone).then_some(rank.dp_rank),
        )),
        gpu_metrics: None,
    };
    (spec, observed)
}
