//! One thread of the gateway: its connections to clients and to engines.

use super::Gateway;
use super::body::AnswerBody;
use super::client_body::ClientBody;
use super::pool::Pool;
use super::recent::Ring;
use super::refusal::{Refusal, json, typed};
use super::{metrics_page, models};
use hyper::header::{ALLOW, CONNECTION, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a thread serves with.
pub(super) struct Worker {
    pub(super) gateway: Arc<Gateway>,
    pub(super) pool: Arc<Pool>,
    /// Its last decisions, where there is an admin API that shows them.
    pub(super) recent: Option<Arc<Ring>>,
}

/// What an engine answers.
const OF_ENGINES: [&str; 11] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/score",
    "/v1/rerank",
    "/score",
    "/rerank",
    "/pooling",
    "/tokenize",
    "/detokenize",
];
/// What the gateway answers itself.
const OURS: [&str; 5] = ["/v1/models", "/health", "/ready", "/metrics", "/openapi.json"];
/// What is served here, in OpenAPI's terms.
const DESCRIPTION: &str = include_str!("openapi.json");

impl Worker {
    pub(super) fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        let is_shown = gateway.settings().config.admin.listen.is_some();
        let recent = is_shown.then(|| gateway.recent.ring());
        Arc::new(Self { gateway, pool: Arc::default(), recent })
    }

    /// Answers a request, whatever becomes of it.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<impl ClientBody>,
    ) -> Response<AnswerBody> {
        let mut response = match self.answer(request).await {
            Ok(response) => response,
            Err(refusal) => {
                self.gateway.counts.refused(refusal.status);
                refusal.into_response()
            }
        };
        if self.gateway.is_draining() && response.version() <= hyper::Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<impl ClientBody>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let path = request.uri().path();
        let is_of_engines = OF_ENGINES.contains(&path);
        // What a GET would be answered, of which hyper sends the head.
        let method = match request.method() {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        match (method, path) {
            (&Method::POST, _) if is_of_engines => {
                self.gateway.counts.requests.fetch_add(1, Relaxed);
                self.generate(request).await
            }
            (&Method::GET, "/v1/models") => Ok(models::list(&self.gateway)),
            (&Method::GET, "/health") => Ok(text(StatusCode::OK, "ok\n")),
            (&Method::GET, "/ready") => Ok(self.gateway.readiness()),
            (&Method::GET, "/metrics") => Ok(metrics_page::page(&self.gateway)),
            (&Method::GET, "/openapi.json") => Ok(json(StatusCode::OK, DESCRIPTION)),
            (_, path) if is_of_engines || OURS.contains(&path) => {
                let allowed = if is_of_engines { "POST" } else { "GET, HEAD" };
                let message = format!("{path} takes {allowed}, not {}", request.method());
                let kind = "invalid_request_error";
                let status = StatusCode::METHOD_NOT_ALLOWED;
                self.gateway.counts.refused(status);
                let refusal = Refusal::new(status, kind, "method_not_allowed", message);
                let mut response = refusal.into_response();
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                Ok(response)
            }
            (_, path) => {
                let shown: String = path.chars().take(120).collect();
                let message = format!("nothing is served at {shown}");
                let kind = "invalid_request_error";
                Err(Refusal::new(StatusCode::NOT_FOUND, kind, "not_found", message))
            }
        }
    }
}

/// An answer of plain text.
pub(super) fn text(status: StatusCode, body: &'static str) -> Response<AnswerBody> {
    typed(status, HeaderValue::from_static("text/plain; charset=utf-8"), body)
}
