//! What a live engine says of itself: the models that it serves, and where it publishes KV events.
//!
//! `GET /v1/models` must answer. `GET /kv_event_sources` (vLLM) and `GET /metrics` may be missing:
//! then its residency is estimated, and its capacity learned later or never.

use super::metrics::{SeriesFilter, parse};
use crate::http::{HttpClient, HttpError};
use llmd_brain::fleet::MetricsSample;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

const PAGE_LIMIT_BYTES: usize = 8 << 20;
/// More ranks than any deployment has: guards against a page that is not what it seems.
const MAX_RANKS: u32 = 4_096;

/// Why an engine could not be described.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// A page could not be read.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A page is there but says something else than expected.
    #[error("{url} is not what an OpenAI-compatible engine answers: {reason}")]
    Page {
        /// Which page.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// An engine behind one address.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineDescription {
    /// Its base URL, without a slash at the end.
    pub url: String,
    /// Its model; empty where it lists none.
    pub model: String,
    /// LoRA adapters: models whose parent it lists.
    pub loras: Vec<String>,
    /// Longest prompt plus output, tokens; 0 where it does not say.
    pub max_model_len: u32,
    /// Its data-parallel ranks, in order; at least one.
    pub ranks: Vec<RankDescription>,
}

/// One data-parallel rank of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct RankDescription {
    /// Number of the rank.
    pub dp_rank: u32,
    /// Where it publishes KV events; `None` where it does not.
    pub kv_events: Option<KvEventSource>,
    /// Its metrics now; empty where it has no page.
    pub metrics: MetricsSample,
}

/// Where a rank publishes KV events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEventSource {
    /// ZeroMQ address of its PUB socket.
    pub endpoint: String,
    /// ZeroMQ address of its replay socket.
    pub replay_endpoint: Option<String>,
    /// Topic of its messages.
    pub topic: String,
}

#[derive(Deserialize)]
struct ModelList {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    parent: Option<String>,
    #[serde(default)]
    max_model_len: Option<u32>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    enable_kv_cache_events: bool,
    #[serde(default)]
    publisher: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    replay_endpoint: Option<String>,
    #[serde(default)]
    topic: String,
}

/// Asks the engine at `url`, each page within `timeout`.
///
/// # Errors
/// [`DiscoveryError`] where `/v1/models` cannot be read, or a page that is there makes no sense.
pub async fn describe(
    client: &HttpClient,
    url: &str,
    timeout: Duration,
) -> Result<EngineDescription, DiscoveryError> {
    let base = url.trim_end_matches('/');
    let get = |path: &str| {
        let page = format!("{base}{path}");
        async move { client.get(&page, PAGE_LIMIT_BYTES, timeout).await }
    };
    let models: ModelList = json(&format!("{base}/v1/models"), &get("/v1/models").await?)?;
    let sources: BTreeMap<String, Source> = match get("/kv_event_sources").await {
        Ok(page) => json(&format!("{base}/kv_event_sources"), &page)?,
        // Engines without KV events answer in many ways, but they answer.
        Err(HttpError::Status { .. }) => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let metrics = match get("/metrics").await {
        Ok(page) => String::from_utf8_lossy(&page).into_owned(),
        Err(HttpError::Status { .. }) => String::new(),
        Err(error) => return Err(error.into()),
    };
    let host = host_of(base);
    let mut by_rank = BTreeMap::new();
    for (rank, source) in sources {
        let dp_rank = rank.parse().ok().filter(|rank| *rank < MAX_RANKS);
        let dp_rank = dp_rank.ok_or_else(|| DiscoveryError::Page {
            url: format!("{base}/kv_event_sources"),
            reason: format!("{rank:?} is not a data-parallel rank"),
        })?;
        by_rank.insert(dp_rank, kv_event_source(source, &host));
    }
    if by_rank.is_empty() {
        by_rank.insert(0, None);
    }
    let alone = by_rank.len() == 1;
    let ranks = by_rank
        .into_iter()
        .map(|(dp_rank, kv_events)| {
            let filter =
                SeriesFilter { dp_rank: (!alone).then_some(dp_rank), ..SeriesFilter::default() };
            let metrics = parse(&metrics, &filter, &mut 0);
            RankDescription { dp_rank, kv_events, metrics }
        })
        .collect();
    let own = models.data.iter().find(|model| model.parent.is_none());
    Ok(EngineDescription {
        url: base.to_owned(),
        model: own.map(|model| model.id.clone()).unwrap_or_default(),
        max_model_len: own.and_then(|model| model.max_model_len).unwrap_or_default(),
        loras: models
            .data
            .iter()
            .filter(|model| model.parent.is_some())
            .map(|model| model.id.clone())
            .collect(),
        ranks,
    })
}

fn json<T: serde::de::DeserializeOwned>(url: &str, page: &[u8]) -> Result<T, DiscoveryError> {
    serde_json::from_slice(page)
        .map_err(|e| DiscoveryError::Page { url: url.to_owned(), reason: e.to_string() })
}

fn kv_event_source(source: Source, host: &str) -> Option<KvEventSource> {
    let published = source.enable_kv_cache_events && source.publisher == "zmq";
    let replay = source.replay_endpoint.filter(|endpoint| !endpoint.is_empty());
    (published && !source.endpoint.is_empty()).then(|| KvEventSource {
        endpoint: reachable(&source.endpoint, host),
        replay_endpoint: replay.map(|endpoint| reachable(&endpoint, host)),
        topic: source.topic,
    })
}

/// An engine binds to a wildcard; clients reach it at the host that its HTTP address names.
fn reachable(endpoint: &str, host: &str) -> String {
    for wildcard in ["tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:"] {
        if let Some(port) = endpoint.strip_prefix(wildcard) {
            return format!("tcp://{host}:{port}");
        }
    }
    endpoint.to_owned()
}

/// Host of a base URL, with the brackets of an IPv6 address.
fn host_of(url: &str) -> String {
    let uri = url.parse::<hyper::Uri>();
    uri.ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;

    const METRICS_DP2: &str =
        include_str!("../../../tests/goldens/vllm/llama_xxhash_cbor_seed0_bytes.metrics.txt");
    const MODELS: &str = r#"{"object":"list","data":[
        {"id":"tiny-llama","object":"model","root":"tiny-llama","parent":null,"max_model_len":1024},
        {"id":"tiny-lora","object":"model","parent":"tiny-llama","max_model_len":null}]}"#;

    async fn serve(app: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    async fn ask(app: Router) -> Result<EngineDescription, DiscoveryError> {
        let url = serve(app).await;
        describe(&HttpClient::default(), &format!("{url}/"), Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn a_vllm_with_two_ranks_is_described() {
        let sources = r#"{"0":{"enable_kv_cache_events":true,"publisher":"zmq",
            "endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5657","topic":"kv@a"},
            "1":{"enable_kv_cache_events":true,"publisher":"zmq",
            "endpoint":"tcp://10.1.2.3:5558","replay_endpoint":null,"topic":"kv@a"}}"#;
        let app = Router::new()
            .route("/v1/models", get(|| async { MODELS }))
            .route("/kv_event_sources", get(move || async move { sources }))
            .route("/metrics", get(|| async { METRICS_DP2 }));
        let engine = ask(app).await.unwrap();
        assert_eq!(engine.model, "tiny-llama");
        assert_eq!(engine.loras, ["tiny-lora"]);
        assert_eq!(engine.max_model_len, 1024);
        assert!(!engine.url.ends_with('/'));
        let [first, second] = &engine.ranks[..] else { panic!("two ranks, not {engine:?}") };
        assert_eq!(
            first.kv_events,
            Some(KvEventSource {
                endpoint: "tcp://127.0.0.1:5557".into(),
                replay_endpoint: Some("tcp://127.0.0.1:5657".into()),
                topic: "kv@a".into(),
            })
        );
        let events = second.kv_events.as_ref().unwrap();
        assert_eq!(
            (events.endpoint.as_str(), &events.replay_endpoint),
            ("tcp://10.1.2.3:5558", &None)
        );
        assert_ne!(
            first.metrics.prefix_cache_queries_tokens,
            second.metrics.prefix_cache_queries_tokens
        );
        assert_eq!(second.metrics.block_size, Some(32));
    }

    #[tokio::test]
    async fn an_engine_without_events_or_metrics_has_one_rank() {
        let engine =
            ask(Router::new().route("/v1/models", get(|| async { MODELS }))).await.unwrap();
        let [only] = &engine.ranks[..] else { panic!("one rank, not {engine:?}") };
        assert_eq!((only.dp_rank, &only.kv_events), (0, &None));
        assert_eq!(only.metrics, MetricsSample::default());
    }

    #[tokio::test]
    async fn events_that_are_off_are_no_source() {
        let app = Router::new()
            .route("/v1/models", get(|| async { MODELS }))
            .route("/kv_event_sources", get(|| async { "{}" }));
        assert_eq!(ask(app).await.unwrap().ranks[0].kv_events, None);
    }

    #[tokio::test]
    async fn pages_that_make_no_sense_are_named() {
        let app = Router::new().route("/v1/models", get(|| async { "<html>" }));
        let error = ask(app).await.unwrap_err().to_string();
        assert!(error.contains("/v1/models is not what"), "{error}");
        let app = Router::new()
            .route("/v1/models", get(|| async { MODELS }))
            .route("/kv_event_sources", get(|| async { r#"{"first":{}}"# }));
        let error = ask(app).await.unwrap_err().to_string();
        assert!(error.contains("\"first\" is not a data-parallel rank"), "{error}");
    }

    #[test]
    fn wildcards_become_the_engine_s_host() {
        assert_eq!(reachable("tcp://*:1", &host_of("http://h:80/x")), "tcp://h:1");
        assert_eq!(reachable("tcp://0.0.0.0:1", &host_of("http://[::1]:80")), "tcp://[::1]:1");
        assert_eq!(reachable("tcp://a:1", "h"), "tcp://a:1");
    }
}
