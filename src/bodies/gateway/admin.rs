//! The admin API: what the router's pages show, and what an operator may change.
//!
//! | | |
//! |---|---|
//! | `GET /endpoints`, `/stats`, `/config`, `POST /explain` | the router's own pages |
//! | `POST /endpoints` `{"url": ...}` | an engine more |
//! | `DELETE /endpoints` `{"url": ...}` | one less, once it is idle |
//! | `POST /cordon`, `/uncordon`, `/drain` `{"url": ...}` | whether one gets requests |
//! | `POST /reload` | the configuration file again |
//! | `GET /live` | what the page shows |
//! | `GET /ui` | the page |
//! | `GET /openapi.json` | this, for programs |
//!
//! With a token every request needs it, but for the page itself, which says nothing of anything; without
//! one only a loopback address is listened on, and pages from elsewhere are refused (`guard`).

use super::config::{EndpointConfig, ms};
use super::connection::{builder, shaken};
use super::live::LiveDocument;
use super::reload::ReloadError;
use super::{Gateway, GatewayError, guard, history, ui};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use llmd_brain::brain::EndpointChange;
use serde::Deserialize;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;

/// What is served here, in OpenAPI's terms.
const DESCRIPTION: &str = include_str!("admin_openapi.json");

type Shared = State<Weak<Gateway>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    url: String,
}

/// What an operator is told.
enum Told {
    Done,
    Gone,
    Bad(String),
    TooLarge(String),
    Unknown(String),
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        match self {
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            Self::Gone => (StatusCode::GONE, "the gateway has stopped").into_response(),
            Self::Bad(why) => (StatusCode::BAD_REQUEST, why).into_response(),
            Self::TooLarge(why) => (StatusCode::PAYLOAD_TOO_LARGE, why).into_response(),
            Self::Unknown(url) => {
                let why = format!("no endpoint {url:?}: GET /endpoints lists them");
                (StatusCode::NOT_FOUND, why).into_response()
            }
        }
    }
}

impl From<JsonRejection> for Told {
    fn from(error: JsonRejection) -> Self {
        match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge(error.body_text()),
            _ => Self::Bad(error.body_text()),
        }
    }
}

impl From<Result<(), ReloadError>> for Told {
    fn from(outcome: Result<(), ReloadError>) -> Self {
        match outcome {
            Ok(()) => Self::Done,
            Err(error) => Self::Bad(error.to_string()),
        }
    }
}

async fn add(State(gateway): Shared, given: Result<Json<EndpointConfig>, JsonRejection>) -> Told {
    let Some(gateway) = gateway.upgrade() else { return Told::Gone };
    let endpoint = match given {
        Ok(Json(endpoint)) => endpoint,
        Err(error) => return error.into(),
    };
    let mut config = gateway.settings().config.clone();
    let address = endpoint.given().address;
    config.endpoints.retain(|it| it.given().address != address);
    config.endpoints.push(endpoint);
    gateway.apply(config).into()
}

async fn remove(State(gateway): Shared, named: Result<Json<Named>, JsonRejection>) -> Told {
    let Some(gateway) = gateway.upgrade() else { return Told::Gone };
    let url = match named {
        Ok(Json(named)) => named.url,
        Err(error) => return error.into(),
    };
    let mut config = gateway.settings().config.clone();
    let before = config.endpoints.len();
    let address = url.trim_end_matches('/');
    config.endpoints.retain(|it| it.given().address != address);
    if config.endpoints.len() == before {
        return Told::Unknown(url);
    }
    gateway.apply(config).into()
}

fn change(
    gateway: &Weak<Gateway>,
    named: Result<Json<Named>, JsonRejection>,
    change: EndpointChange,
) -> Told {
    let Some(gateway) = gateway.upgrade() else { return Told::Gone };
    match named {
        Ok(Json(named)) => match gateway.fleet.order(named.url.trim_end_matches('/'), change) {
            true => Told::Done,
            false => Told::Unknown(named.url),
        },
        Err(error) => error.into(),
    }
}

async fn reload(State(gateway): Shared) -> Told {
    match gateway.upgrade() {
        Some(gateway) => gateway.reload().into(),
        None => Told::Gone,
    }
}

async fn live(State(gateway): Shared) -> Result<Json<LiveDocument>, Told> {
    gateway.upgrade().map(|gateway| Json(gateway.document())).ok_or(Told::Gone)
}

/// Serves it where the settings say so; returns where that is.
pub(super) fn serve(gateway: &Arc<Gateway>) -> Result<Option<SocketAddr>, GatewayError> {
    let settings = gateway.settings();
    let admin = &settings.config.admin;
    let Some(listen) = &admin.listen else { return Ok(None) };
    let failed = |source| GatewayError::Listen { address: listen.clone(), source };
    let listener = std::net::TcpListener::bind(listen.as_str()).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if admin.token_sha256.is_none() && !address.ip().is_loopback() {
        return Err(GatewayError::Admin(format!(
            "admin.listen: {listen} is open to others and there is no admin.token_sha256: give one, or listen on 127.0.0.1"
        )));
    }
    listener.set_nonblocking(true).map_err(failed)?;
    let state = Arc::downgrade(gateway);
    let pages = Router::new()
        .route("/endpoints", post(add).delete(remove))
        .route(
            "/cordon",
            post(async |gateway: Shared, named: Result<Json<Named>, JsonRejection>| {
                change(&gateway, named, EndpointChange::Cordon)
            }),
        )
        .route(
            "/uncordon",
            post(async |gateway: Shared, named: Result<Json<Named>, JsonRejection>| {
                change(&gateway, named, EndpointChange::Uncordon)
            }),
        )
        .route(
            "/drain",
            post(async |gateway: Shared, named: Result<Json<Named>, JsonRejection>| {
                change(&gateway, named, EndpointChange::Drain)
            }),
        )
        .route("/reload", post(reload))
        .route("/live", get(live))
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], DESCRIPTION)))
        .with_state(state.clone())
        .merge(gateway.live.pages())
        .layer(from_fn_with_state(state.clone(), guard::check))
        .merge(ui::pages());
    let runtime = gateway.live.runtime()?;
    let listener = {
        let _inside = runtime.enter();
        TcpListener::from_std(listener).map_err(failed)?
    };
    runtime.spawn(history::keep(state));
    runtime.spawn(accept(listener, pages, Arc::downgrade(gateway)));
    Ok(Some(address))
}

/// Takes connections until the gateway is gone.
async fn accept(listener: TcpListener, pages: Router, gateway: Weak<Gateway>) {
    loop {
        let accepted = listener.accept().await;
        let Some(gateway) = gateway.upgrade() else { return };
        let settings = gateway.settings();
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin API cannot be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(pages.clone());
        tokio::spawn(async move {
            let patience = ms(settings.config.timeouts.client_head_ms);
            let Some(stream) = shaken(stream, settings.admin_tls.as_ref(), patience).await else {
                gateway.counts.failed_handshakes.fetch_add(1, Relaxed);
                return;
            };
            let connection = builder(&settings.config);
            drop((settings, gateway));
            let served = connection.serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the admin API ended badly");
            }
        });
    }
}
