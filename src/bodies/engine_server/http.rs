//! The endpoints.

use super::generation;
use super::job::{Job, Plan};
use super::metrics_page::{self, Process};
use super::openai::{
    self, ApiError, ChoiceResult, ChunkWriter, DONE, Delta, DetokenizeRequest, Envelope,
    GenerationRequest, Kind, StreamOptions, TokenizeRequest, Tokens,
};
use super::rank::{Flight, RankHandle, RankStopped};
use super::server::KvEventSource;
use super::{EngineServerConfig, chat, tokenizer};
use crate::zmtp::PublisherConfig;
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt, unfold};
use llmd_brain::engine::RequestId;
use llmd_brain::prompt::vllm::{BlockHasher, FullHash, none_hash};
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest body: a prompt of millions of token ids.
const MAX_BODY_BYTES: usize = 64 << 20;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DP_RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");

/// What every endpoint knows.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) config: EngineServerConfig,
    pub(super) ranks: Vec<RankHandle>,
    pub(super) kv_event_sources: Vec<KvEventSource>,
    pub(super) started: SystemTime,
    root: FullHash,
    requests: AtomicU64,
    rejected: AtomicU64,
}

impl Service {
    pub(super) fn new(
        config: EngineServerConfig,
        ranks: Vec<RankHandle>,
        kv_event_sources: Vec<KvEventSource>,
    ) -> Self {
        Self {
            root: none_hash(config.hash_algorithm, &config.hash_seed),
            config,
            ranks,
            kv_event_sources,
            started: SystemTime::now(),
            requests: AtomicU64::new(1),
            rejected: AtomicU64::new(0),
        }
    }
}

type Shared = State<Arc<Service>>;
type BodyBytes = Result<Bytes, BytesRejection>;

pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/models", get(models))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/health", get(async || StatusCode::OK))
        .route("/ping", get(async || StatusCode::OK).post(async || StatusCode::OK))
        .route("/version", get(async || Json(json!({ "version": env!("CARGO_PKG_VERSION") }))))
        .route("/metrics", get(metrics))
        .route("/kv_event_sources", get(kv_event_sources))
        .route("/reset_prefix_cache", post(reset_prefix_cache))
        .fallback(async || not_here(StatusCode::NOT_FOUND, "Not Found"))
        .method_not_allowed_fallback(async || {
            not_here(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(service)
}

fn not_here(status: StatusCode, detail: &str) -> Response {
    (status, Json(json!({ "detail": detail }))).into_response()
}

async fn completions(State(service): Shared, headers: HeaderMap, body: BodyBytes) -> Response {
    generate(Kind::Completion, &service, &headers, body).await
}

async fn chat_completions(State(service): Shared, headers: HeaderMap, body: BodyBytes) -> Response {
    generate(Kind::Chat, &service, &headers, body).await
}

/// Answers with the request id that came, whatever becomes of the request.
async fn generate(kind: Kind, service: &Service, headers: &HeaderMap, body: BodyBytes) -> Response {
    let mut response = match generated(kind, service, headers, body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    if let Some(id) = headers.get(REQUEST_ID) {
        response.headers_mut().insert(REQUEST_ID, id.clone());
    }
    response
}

async fn generated(
    kind: Kind,
    service: &Service,
    headers: &HeaderMap,
    body: BodyBytes,
) -> Result<Response, ApiError> {
    let request: GenerationRequest = openai::parse(&read(body)?)?;
    request.check()?;
    let plans = generation::plans(kind, &request, &service.config)?;
    let rank = service.choose_rank(headers, plans.len())?;
    let envelope = service.envelope(kind, headers, request.model.as_deref());
    let return_token_ids = request.return_token_ids == Some(true);
    let choices = service.submit(rank, plans)?;
    if request.stream == Some(true) {
        let writer = ChunkWriter { kind, envelope, return_token_ids };
        let events = events(writer, choices, request.stream_options.unwrap_or_default());
        let content_type = (header::CONTENT_TYPE, "text/event-stream; charset=utf-8");
        return Ok(([content_type], Body::from_stream(events)).into_response());
    }
    let mut finished = Vec::with_capacity(choices.len());
    for mut choice in choices {
        let cached_tokens = choice.finish().await.map_err(|RankStopped| stopped())?;
        finished.push((choice.plan, cached_tokens));
    }
    let results: Vec<ChoiceResult<'_>> = finished
        .iter()
        .map(|(plan, cached_tokens)| ChoiceResult { plan, cached_tokens: *cached_tokens })
        .collect();
    let tokens = results.iter().enumerate().fold(Tokens::default(), |tokens, (index, result)| {
        tokens.and(index, result.plan, result.plan.output().len(), result.cached_tokens)
    });
    let body = openai::full_answer(kind, &envelope, &results, tokens, return_token_ids)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

impl Tokens {
    /// With another choice of the request. A prompt counts once, however many choices it has.
    fn and(mut self, index: usize, plan: &Plan, generated: usize, cached_tokens: u32) -> Self {
        if index.is_multiple_of(plan.choices as usize) {
            self.prompt += plan.prompt_tokens;
            self.cached += cached_tokens;
        }
        self.completion += generated;
        self
    }
}

fn read(body: BodyBytes) -> Result<Bytes, ApiError> {
    body.map_err(|rejection| ApiError {
        status: rejection.status(),
        ..ApiError::bad_request(rejection.body_text())
    })
}

fn stopped() -> ApiError {
    ApiError::unavailable("the engine is shutting down: send the request elsewhere")
}

/// One sequence of a request.
#[derive(Debug)]
struct Choice {
    index: usize,
    plan: Plan,
    flight: Flight,
    /// Tokens and bytes that the client has got.
    sent_tokens: usize,
    sent_bytes: usize,
    cached_tokens: u32,
}

impl Choice {
    /// Waits for the last token; gives the cached tokens.
    async fn finish(&mut self) -> Result<u32, RankStopped> {
        loop {
            let progress = self.flight.progress().await?;
            if progress.generated == self.plan.output().len() {
                return Ok(progress.cached_tokens);
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.sent_tokens == self.plan.output().len()
    }

    /// Waits for a token; gives what is new.
    async fn advance(mut self) -> (Self, Result<Fresh, RankStopped>) {
        let progress = match self.flight.progress().await {
            Ok(progress) => progress,
            Err(stopped) => return (self, Err(stopped)),
        };
        let tokens = self.sent_tokens..progress.generated;
        let mut text = tokenizer::decode_lossy(&self.plan.output()[tokens.clone()]);
        // What belongs to a stop string is generated and not shown. Outputs are ASCII.
        text.truncate(self.plan.text_bytes - self.sent_bytes);
        self.sent_tokens = progress.generated;
        self.sent_bytes += text.len();
        self.cached_tokens = progress.cached_tokens;
        (self, Ok(Fresh { tokens, text }))
    }
}

/// What a choice has gained since its last chunk.
struct Fresh {
    /// Of its output.
    tokens: Range<usize>,
    text: String,
}

/// The chunks of all choices as they come, then usage where it is wanted, then the end marker. A
/// rank that stops breaks the stream off: no client takes that for an end.
fn events(
    writer: ChunkWriter,
    choices: Vec<Choice>,
    options: StreamOptions,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    let include_usage = options.include_usage == Some(true);
    let continuous_usage = include_usage && options.continuous_usage_stats == Some(true);
    let tokens = Tokens::default();
    let stream = ChunkStream { writer, tokens, include_usage, continuous_usage, ended: false };
    let pending: FuturesUnordered<_> = choices.into_iter().map(Choice::advance).collect();
    unfold((pending, stream), |(mut pending, mut stream)| async move {
        let chunk = match pending.next().await {
            Some((choice, Ok(fresh))) => {
                let chunk = stream.delta(&choice, &fresh);
                if !choice.is_finished() {
                    pending.push(choice.advance());
                }
                Ok(chunk)
            }
            Some((_, Err(RankStopped))) => {
                pending.clear();
                stream.ended = true;
                Err(std::io::Error::other("the engine is shutting down"))
            }
            None => Ok(stream.end()?),
        };
        Some((chunk, (pending, stream)))
    })
}

struct ChunkStream {
    writer: ChunkWriter,
    /// Of the choices that are finished.
    tokens: Tokens,
    include_usage: bool,
    continuous_usage: bool,
    ended: bool,
}

impl ChunkStream {
    fn delta(&mut self, choice: &Choice, fresh: &Fresh) -> Bytes {
        let plan = &choice.plan;
        let generated = choice.sent_tokens;
        let usage = self
            .continuous_usage
            .then(|| Tokens::default().and(0, plan, generated, choice.cached_tokens));
        if choice.is_finished() {
            self.tokens = self.tokens.and(choice.index, plan, generated, choice.cached_tokens);
        }
        self.writer.delta(&Delta {
            index: choice.index,
            text: &fresh.text,
            token_ids: &plan.output()[fresh.tokens.clone()],
            begins_after: (fresh.tokens.start == 0).then(|| plan.prompt()),
            ends: choice.is_finished().then_some(&plan.finish),
            usage,
        })
    }

    /// What follows the last choice, once.
    fn end(&mut self) -> Option<Bytes> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        if !self.include_usage {
            return Some(DONE);
        }
        Some([self.writer.usage(self.tokens), DONE].concat().into())
    }
}

impl Service {
    /// The rank that was asked for, or the one with the fewest sequences in flight.
    fn choose_rank(&self, headers: &HeaderMap, sequences: usize) -> Result<&RankHandle, ApiError> {
        let ranks = self.ranks.len();
        let rank = match headers.get(DP_RANK) {
            None => self.ranks.iter().min_by_key(|rank| rank.in_flight()),
            Some(asked) => {
                let asked = asked.to_str().unwrap_or_default().trim();
                let rank = asked.parse::<usize>().ok().and_then(|rank| self.ranks.get(rank));
                Some(rank.ok_or_else(|| {
                    let message =
                        format!("data_parallel_rank {asked} is out of range [0, {ranks}).");
                    ApiError::bad_request(message)
                })?)
            }
        };
        let rank = rank.ok_or_else(stopped)?;
        let limit = self.config.max_queued_requests;
        if rank.in_flight() as usize + sequences > limit as usize {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            let message =
                format!("{limit} requests are queued already: send the request elsewhere");
            return Err(ApiError::unavailable(message));
        }
        Ok(rank)
    }

    fn submit(&self, rank: &RankHandle, plans: Vec<Plan>) -> Result<Vec<Choice>, ApiError> {
        let block_size = self.config.engine.block_size;
        let mut hasher = BlockHasher::new(self.config.hash_algorithm);
        let mut choices = Vec::with_capacity(plans.len());
        for (index, plan) in plans.into_iter().enumerate() {
            let id = RequestId(self.requests.fetch_add(1, Ordering::Relaxed));
            let keys = plan.origin.block_hashes(&mut hasher, &self.root, &plan.tokens, block_size);
            let (job, progress) = Job::new(plan.clone());
            let flight = rank.submit(id, job, keys, progress).map_err(|RankStopped| stopped())?;
            let (sent_tokens, sent_bytes, cached_tokens) = (0, 0, 0);
            choices.push(Choice { index, plan, flight, sent_tokens, sent_bytes, cached_tokens });
        }
        Ok(choices)
    }

    fn envelope(&self, kind: Kind, headers: &HeaderMap, model: Option<&str>) -> Envelope {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let id = given.map_or_else(|| self.invented_id(), str::to_owned);
        Envelope {
            id: format!("{}{id}", kind.id_prefix()),
            created: seconds(SystemTime::now()) as u64,
            model: model.unwrap_or(&self.config.model).to_owned(),
        }
    }

    /// 16 hex digits that this server does not repeat.
    fn invented_id(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let start = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        format!("{:016x}", (start ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

async fn models(State(service): Shared) -> Json<Value> {
    let config = &service.config;
    let created = seconds(service.started) as u64;
    let card = |name: &str, parent: Option<&str>| {
        let max_model_len = parent.is_none().then_some(config.max_model_len);
        json!({
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "llmd-sched",
            "root": name,
            "parent": parent,
            "max_model_len": max_model_len,
            "permission": [{
                "id": format!("modelperm-{name}"),
                "object": "model_permission",
                "created": created,
                "allow_create_engine": false,
                "allow_sampling": true,
                "allow_logprobs": false,
                "allow_search_indices": false,
                "allow_view": true,
                "allow_fine_tuning": false,
                "organization": "*",
                "group": null,
                "is_blocking": false,
            }],
        })
    };
    let adapters = config.loras.iter().map(|name| card(name, Some(&config.model)));
    let cards: Vec<Value> = std::iter::once(card(&config.model, None)).chain(adapters).collect();
    Json(json!({ "object": "list", "data": cards }))
}

async fn tokenize(State(service): Shared, body: BodyBytes) -> Result<Json<Value>, ApiError> {
    let request: TokenizeRequest = openai::parse(&read(body)?)?;
    generation::model_number(request.model.as_deref(), &service.config)?;
    let mut tokens = Vec::new();
    match (request.messages()?, &request.prompt) {
        (Some(messages), _) => {
            chat::render(&messages, request.add_generation_prompt(), &mut tokens);
        }
        (None, Some(text)) => tokenizer::encode(text, &mut tokens),
        (None, None) => return Err(ApiError::invalid("body.prompt".into(), "Field required")),
    }
    let spelled = |token: &u32| tokenizer::decode_lossy(std::slice::from_ref(token));
    let token_strs = (request.return_token_strs == Some(true))
        .then(|| tokens.iter().map(spelled).collect::<Vec<String>>());
    Ok(Json(json!({
        "count": tokens.len(),
        "max_model_len": service.config.max_model_len,
        "tokens": tokens,
        "token_strs": token_strs,
    })))
}

async fn detokenize(State(service): Shared, body: BodyBytes) -> Result<Json<Value>, ApiError> {
    let request: DetokenizeRequest = openai::parse(&read(body)?)?;
    generation::model_number(request.model.as_deref(), &service.config)?;
    let tokens = request.tokens.in_vocabulary(tokenizer::VOCABULARY)?;
    Ok(Json(json!({ "prompt": tokenizer::decode_lossy(&tokens) })))
}

async fn metrics(State(service): Shared) -> impl IntoResponse {
    let ranks: Vec<_> = service.ranks.iter().map(RankHandle::metrics).collect();
    let process = Process {
        start_time_s: seconds(service.started),
        time_s: seconds(SystemTime::now()),
        rejected_requests: service.rejected.load(Ordering::Relaxed),
    };
    let page = metrics_page::render(&service.config, process, &ranks);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
}

async fn kv_event_sources(State(service): Shared) -> Json<Value> {
    let high_water = PublisherConfig::default().high_water_messages;
    let sources = service.kv_event_sources.iter().map(|source| {
        let value = json!({
            "enable_kv_cache_events": true,
            "publisher": "zmq",
            "endpoint": source.endpoint.to_string(),
            "replay_endpoint": source.replay_endpoint.as_ref().map(ToString::to_string),
            "buffer_steps": source.buffer_steps,
            "hwm": high_water,
            "max_queue_size": high_water,
            "topic": source.topic,
        });
        (source.dp_rank.to_string(), value)
    });
    Json(Value::Object(sources.collect()))
}

async fn reset_prefix_cache(State(service): Shared) -> Result<Json<Value>, ApiError> {
    let mut success = true;
    for rank in &service.ranks {
        success &= rank.reset().await.map_err(|RankStopped| stopped())?;
    }
    Ok(Json(json!({ "success": success })))
}
