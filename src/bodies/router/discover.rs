//! An engine by what it says of itself: added here, or described for a router elsewhere.

use super::LiveRouter;
use super::error::RouterError;
use super::members::MemberRef;
use super::observers::{KvEvents, Observed, Page};
use crate::http::HttpClient;
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

/// An endpoint that somebody may add, and how it is to be followed.
#[derive(Debug, Clone)]
pub struct DescribedEndpoint {
    /// What it is, with the capacity that its metrics tell.
    pub spec: EndpointSpec,
    /// Where its own news is to be had.
    pub observed: Observed,
}

/// Asks the engine at `url` what it is, waiting on this thread: an endpoint for each of its ranks.
///
/// # Errors
/// [`RouterError::Discovery`] where it cannot be asked, [`RouterError::Runtime`].
pub fn describe_engine(
    url: &str,
    timeout: Duration,
) -> Result<Vec<DescribedEndpoint>, RouterError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RouterError::Runtime)?;
    let engine = runtime.block_on(describe(&HttpClient::default(), url, timeout))?;
    let given = EndpointSpec::new(url, "");
    let rank = |rank: &RankDescription| {
        let (mut spec, observed) = endpoint_of(&engine, rank, &given);
        let told = &rank.metrics;
        spec.capacity.kv_blocks = told.kv_blocks.unwrap_or_default();
        spec.capacity.block_size = told.block_size.unwrap_or_default();
        spec.capacity.max_loras = told.max_loras.unwrap_or_default();
        DescribedEndpoint { spec, observed }
    };
    Ok(engine.ranks.iter().map(rank).collect())
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
