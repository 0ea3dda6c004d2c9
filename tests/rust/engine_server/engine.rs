//! A server in this process and its client.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use llmd_bodies::engine_server::{EngineServer, EngineServerConfig};
use llmd_bodies::zmtp::{Dealer, LinkConfig, Message, Subscription};
use llmd_brain::predict::EngineProfile;
use serde_json::Value;

pub struct Engine {
    pub server: EngineServer,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The JSON of a 200.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()
    }

    /// The chunks of a stream of server-sent events, which must end with `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events: Vec<&str> = self.text.split_terminator("\n\n").collect();
        assert_eq!(events.pop(), Some("data: [DONE]"));
        let data = events.iter().map(|event| event.strip_prefix("data: ").expect("data"));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Engine {
    /// An engine whose steps take no time to speak of.
    pub async fn start(change: impl FnOnce(&mut EngineServerConfig)) -> Self {
        let profile = *EngineProfile::named("llama-3.1-8b_h100_tp1").unwrap();
        let mut config = EngineServerConfig::new("tiny", profile);
        config.speed = 1e6;
        change(&mut config);
        let server = EngineServer::start(config).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { server, client }
    }

    pub async fn open(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.url()))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let response = self.open(method, path, body, headers).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, Bytes::new(), &[]).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[]).await
    }

    pub async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        self.request("POST", path, body.to_string(), headers).await
    }

    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, body.to_owned(), &[]).await
    }

    pub async fn complete(&self, body: &Value) -> Value {
        self.post("/v1/completions", body).await.ok()
    }

    pub async fn chat(&self, body: &Value) -> Value {
        self.post("/v1/chat/completions", body).await.ok()
    }

    /// The sample of `series`, a name with all its labels or with none.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.get("/metrics").await.text;
        let mut values = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            let bare = name.split('{').next()?;
            (name == series || bare == series).then(|| value.parse::<f64>().unwrap())
        });
        let value = values.next().unwrap_or_else(|| panic!("no {series} in\n{page}"));
        assert_eq!(values.next(), None, "{series} has more than one sample");
        value
    }

    /// Waits, by asking, until a sample has a value.
    pub async fn until_metric(&self, series: &str, is: impl Fn(f64) -> bool) {
        while !is(self.metric(series).await) {
            tokio::task::yield_now().await;
        }
    }

    /// Subscribed to everything that a rank says from now on.
    pub async fn subscribe(&self, rank: usize) -> Subscription {
        let source = &self.server.kv_event_sources()[rank];
        Subscription::connect(&source.endpoint, &[Bytes::new()], LinkConfig::default())
            .await
            .unwrap()
    }

    /// Everything that a rank has said from sequence `start` on, by its replay socket.
    pub async fn replay(&self, rank: usize, start: u64) -> Vec<Message> {
        let source = &self.server.kv_event_sources()[rank];
        let endpoint = source.replay_endpoint.as_ref().unwrap();
        let mut dealer = Dealer::connect(endpoint, LinkConfig::default()).await.unwrap();
        dealer.send(&[Bytes::new(), Bytes::copy_from_slice(&start.to_be_bytes())]);
        let mut batches = Vec::new();
        loop {
            let message = dealer.recv().await.unwrap();
            assert_eq!(message.len(), 4);
            assert_eq!(message[0].len(), 0);
            if message[2][..] == [0xFF; 8] {
                assert!(message[1].is_empty() && message[3].is_empty());
                return batches;
            }
            batches.push(message[1..].to_vec());
        }
    }
}
