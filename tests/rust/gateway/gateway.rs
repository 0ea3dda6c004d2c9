//! A gateway in this process, its engines, and a client.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use llmd_bodies::engine_server::{EngineServer, EngineServerConfig};
use llmd_bodies::gateway::{EndpointConfig, GatewayConfig, GatewayServer};
use llmd_brain::fleet::Health;
use llmd_brain::predict::EngineProfile;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// After so long a test hangs.
pub const HUNG: Duration = Duration::from_secs(60);

pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The code of an error in OpenAI's shape.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().expect(&self.text).to_owned()
    }
}

/// A client of whatever serves OpenAI's API.
#[derive(Clone)]
pub struct Caller {
    client: Client<HttpConnector, Full<Bytes>>,
    pub address: SocketAddr,
}

impl Caller {
    pub fn new(address: SocketAddr) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    /// One that keeps no connection: where idle ones are soon closed, that may meet a request.
    pub fn unpooled(address: SocketAddr) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        Self { client: builder.pool_max_idle_per_host(0).build_http(), address }
    }

    pub async fn open(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.request(request.body(Full::new(body.into())).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let called = async {
            whole(self.open("POST", path, body.to_string(), headers).await.unwrap()).await
        };
        tokio::time::timeout(HUNG, called).await.expect("it was never answered")
    }

    pub async fn get(&self, path: &str) -> Answer {
        whole(self.open("GET", path, Bytes::new(), &[]).await.unwrap()).await
    }

    pub async fn complete(&self, body: &Value) -> Answer {
        self.post("/v1/completions", body, &[]).await
    }
}

pub async fn whole(response: Response<Incoming>) -> Answer {
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// An engine whose steps take no time to speak of.
pub async fn engine(change: impl FnOnce(&mut EngineServerConfig)) -> EngineServer {
    let profile = *EngineProfile::named("llama-3.1-8b_h100_tp1").unwrap();
    let mut config = EngineServerConfig::new("tiny", profile);
    config.speed = 1e6;
    change(&mut config);
    EngineServer::start(config).await.unwrap()
}

pub struct Front {
    pub server: GatewayServer,
    pub caller: Caller,
}

impl Front {
    /// A gateway in front of engines, with all of them in its fleet.
    pub async fn of(urls: &[String], change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config =
            GatewayConfig { listen: "127.0.0.1:0".into(), threads: 1, ..Default::default() };
        config.endpoints = urls.iter().map(EndpointConfig::new).collect();
        // Probes only where a test is about them.
        config.health.interval_ms = 0;
        config.health.ejection_ms = 50;
        change(&mut config);
        let server =
            tokio::task::spawn_blocking(|| GatewayServer::start(config).unwrap()).await.unwrap();
        let caller = Caller::new(server.local_addr());
        let front = Self { server, caller };
        let all = urls.len();
        front.until(|front| front.ready() >= all).await;
        front
    }

    /// Engines that get requests.
    pub fn ready(&self) -> usize {
        let endpoints = self.server.gateway().router().endpoints();
        endpoints.iter().filter(|view| view.health == Health::Ready).count()
    }

    /// Requests booked anywhere.
    pub fn booked(&self) -> u32 {
        let endpoints = self.server.gateway().router().endpoints();
        endpoints.iter().map(|view| view.inflight_requests).sum()
    }

    /// Waits, by looking, until something holds.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let holding = async {
            while !holds(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HUNG, holding).await.expect("it never came about");
    }

    /// A counter of the gateway's own page.
    pub async fn counter(&self, series: &str) -> f64 {
        let page = self.caller.get("/metrics").await.text;
        let line = page.lines().find(|line| line.starts_with(&format!("llmd_{series} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {series} in\n{page}"))
    }
}
