//! A router over HTTP, to look at: `GET /endpoints`, `/stats`, `/config`, `POST /explain`.
//!
//! Nothing can be changed through it. Bodies are limited; a request that cannot be is answered
//! with 400 and the reason.

use super::LiveRouter;
use super::RouterConfig;
use super::document::{EndpointDocument, ExplainRequest, ExplanationDocument};
use super::error::RouterError;
use super::stats::RouterStats;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

/// A prompt of a million tokens as JSON.
const MAX_BODY_BYTES: usize = 16 << 20;

/// The fleet.
#[derive(Serialize)]
struct Endpoints {
    endpoints: Vec<EndpointDocument>,
}

enum Refusal {
    Gone,
    TooLarge,
    Bad(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Gone => (StatusCode::GONE, "the router is closed").into_response(),
            Self::TooLarge => {
                let why = format!("the body has more than {MAX_BODY_BYTES} bytes");
                (StatusCode::PAYLOAD_TOO_LARGE, why).into_response()
            }
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why).into_response(),
        }
    }
}

type Shared = State<Weak<LiveRouter>>;

fn live(router: &Weak<LiveRouter>) -> Result<Arc<LiveRouter>, Refusal> {
    router.upgrade().ok_or(Refusal::Gone)
}

async fn endpoints(State(router): Shared) -> Result<Json<Endpoints>, Refusal> {
    Ok(Json(Endpoints { endpoints: live(&router)?.documents() }))
}

async fn stats(State(router): Shared) -> Result<Json<RouterStats>, Refusal> {
    Ok(Json(live(&router)?.stats()))
}

async fn config(State(router): Shared) -> Result<Json<RouterConfig>, Refusal> {
    Ok(Json(live(&router)?.config_in_force()))
}

async fn explain(
    State(router): Shared,
    asked: Result<Json<ExplainRequest>, JsonRejection>,
) -> Result<Json<ExplanationDocument>, Refusal> {
    let Json(asked) = asked.map_err(|why| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        _ => Refusal::Bad(why.body_text()),
    })?;
    let router = live(&router)?;
    router.explain_remote(asked).map(Json).map_err(|why| Refusal::Bad(why.to_string()))
}

impl LiveRouter {
    /// The pages, for whoever serves them.
    pub fn pages(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/endpoints", get(endpoints))
            .route("/stats", get(stats))
            .route("/config", get(config))
            .route("/explain", post(explain))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Arc::downgrade(self))
    }

    /// Serves the admin pages and returns where.
    ///
    /// # Errors
    /// [`RouterError::Listen`], [`RouterError::Runtime`], [`RouterError::Closed`].
    pub fn serve_admin(self: &Arc<Self>, host: &str, port: u16) -> Result<SocketAddr, RouterError> {
        self.check_open()?;
        let refused = |source| RouterError::Listen { address: format!("{host}:{port}"), source };
        let runtime = self.runtime()?;
        // A blocking bind, so that it works on any thread, inside a runtime or not.
        let listener = std::net::TcpListener::bind((host, port)).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let pages = self.pages();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(refused)?
        };
        runtime.spawn(async move {
            if let Err(error) = axum::serve(listener, pages).await {
                tracing::error!(%error, "the admin server ended");
            }
        });
        Ok(address)
    }
}
