//! Spans of requests, as a collector gets them.

use crate::gateway::{Front, engine};
use crate::hostile::{Conduct, Hostile};
use crate::witness::Witness;
use http_body_util::BodyExt;
use llmd_bodies::gateway::GatewayConfig;
use llmd_bodies::router::MemberRef;
use llmd_brain::brain::EndpointChange;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A collector of OTLP over HTTP.
struct Collector {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Value>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&got);
        let take = move |document: axum::Json<Value>| {
            kept.lock().unwrap().push(document.0);
            std::future::ready(axum::Json(json!({})))
        };
        let app = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, got, serving }
    }

    fn trace_to_it(&self) -> impl FnOnce(&mut GatewayConfig) + use<> {
        let url = format!("http://{}/v1/traces", self.address);
        move |config| config.tracing.otlp_endpoint = Some(url)
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let mut spans = Vec::new();
        for resource in got.iter().flat_map(|it| it["resourceSpans"].as_array().unwrap()) {
            let resource_attributes = attributes(&resource["resource"]["attributes"]);
            assert_eq!(resource_attributes["service.name"], "llmd-sched");
            let scopes = resource["scopeSpans"].as_array().unwrap();
            spans
                .extend(scopes.iter().flat_map(|it| it["spans"].as_array().unwrap()).map(Span::of));
        }
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug, Clone)]
struct Span {
    trace_id: String,
    span_id: String,
    parent: String,
    name: String,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    first_byte_ns: Option<u64>,
    state: String,
    attributes: BTreeMap<String, String>,
    is_error: bool,
}

/// Attributes as text, whatever their type.
fn attributes(of: &Value) -> BTreeMap<String, String> {
    let one = |it: &Value| {
        let value = it["value"].as_object().unwrap();
        let (kind, value) = value.iter().next().unwrap();
        assert!(["stringValue", "intValue", "doubleValue"].contains(&kind.as_str()), "{kind}");
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (it["key"].as_str().unwrap().to_owned(), text)
    };
    of.as_array().unwrap().iter().map(one).collect()
}

impl Span {
    fn of(span: &Value) -> Self {
        let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
        let ns = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
        let events = span["events"].as_array().unwrap();
        Self {
            trace_id: text("traceId"),
            span_id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            kind: span["kind"].as_u64().unwrap(),
            start_ns: ns(&span["startTimeUnixNano"]),
            end_ns: ns(&span["endTimeUnixNano"]),
            first_byte_ns: events.first().map(|event| ns(&event["timeUnixNano"])),
            state: text("traceState"),
            attributes: attributes(&span["attributes"]),
            is_error: span["status"]["code"] == 2,
        }
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

async fn drain(front: Front) {
    tokio::task::spawn_blocking(move || front.server.drain()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_traced_from_its_client_to_its_engine() {
    let (collector, witness) = (Collector::start().await, Witness::start().await);
    let front = Front::of(&[witness.url()], collector.trace_to_it()).await;
    let body = json!({"model": "tiny", "prompt": "a secret", "max_tokens": 9});
    let headers =
        [("traceparent", CLIENT), ("tracestate", "a=1,b=2"), ("authorization", "Bearer hidden")];
    assert_eq!(front.caller.post("/v1/completions", &body, &headers).await.status, 200);
    // What waits is sent when it stops.
    drain(front).await;
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["route", "decode leg", "POST /v1/completions"]);
    let [route, leg, root] = &spans[..] else { panic!() };
    assert!(spans.iter().all(|it| it.trace_id == TRACE && it.state == "a=1,b=2" && !it.is_error));
    assert_eq!((root.parent.as_str(), root.kind), ("b7ad6b7169203331", 2));
    assert_eq!((&route.parent, route.kind), (&root.span_id, 1));
    assert_eq!((&leg.parent, leg.kind), (&root.span_id, 3));
    let head = &witness.take()[0].head;
    let told = format!("traceparent: 00-{TRACE}-{}-01", leg.span_id);
    assert!(head.contains(&told) && head.contains("tracestate: a=1,b=2"), "{head}");
    let order = [
        root.start_ns,
        route.start_ns,
        route.end_ns,
        leg.start_ns,
        leg.first_byte_ns.unwrap(),
        leg.end_ns,
        root.end_ns,
    ];
    assert!(order.is_sorted(), "{order:?}");
    let port = witness.address.port().to_string();
    for (span, key, value) in [
        (root, "http.request.method", "POST"),
        (root, "http.route", "/v1/completions"),
        (root, "http.response.status_code", "200"),
        (root, "gen_ai.operation.name", "text_completion"),
        (root, "gen_ai.request.model", "tiny"),
        (root, "gen_ai.request.max_tokens", "9"),
        (root, "gen_ai.usage.input_tokens", "3"),
        (root, "gen_ai.usage.output_tokens", "1"),
        (route, "llmd.endpoint", &witness.url()),
        (route, "llmd.policy", "default"),
        (route, "llmd.matched_tokens", "0"),
        (leg, "server.address", "127.0.0.1"),
        (leg, "server.port", &port),
        (leg, "http.response.status_code", "200"),
        (leg, "gen_ai.usage.output_tokens", "1"),
    ] {
        assert_eq!(span.attributes.get(key).map(String::as_str), Some(value), "{key}: {span:?}");
    }
    assert!(route.attributes.contains_key("llmd.match_source"));
    let sent = format!("{:?}", collector.got.lock().unwrap());
    assert!(!sent.contains("secret") && !sent.contains("hidden"), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_try_and_the_time_in_the_queue_have_spans_of_their_own() {
    let collector = Collector::start().await;
    let (bad, good) = (Hostile::start(Conduct::Unavailable).await, engine(|_| {}).await);
    let front = Front::of(&[bad.url(), good.url()], collector.trace_to_it()).await;
    let body = json!({"prompt": "a", "max_tokens": 1});
    while bad.requests() == 0 {
        assert_eq!(front.caller.complete(&body).await.status, 200);
    }
    // Nobody takes anything until the good one may.
    let router = Arc::clone(front.server.gateway().router());
    let members = [MemberRef::Name(bad.url()), MemberRef::Name(good.url())];
    for member in &members {
        router.change_endpoint(member, EndpointChange::Cordon).unwrap();
    }
    let caller = front.caller.clone();
    let held = tokio::spawn(async move { caller.complete(&json!({"prompt": "held"})).await });
    front.until(|_| router.stats().requests.holding_now == 1).await;
    router.change_endpoint(&members[1], EndpointChange::Uncordon).unwrap();
    assert_eq!(held.await.unwrap().status, 200);
    drain(front).await;
    let spans = collector.spans();
    let legs = named(&spans, "decode leg");
    let failed = legs.iter().find(|leg| leg.is_error).unwrap();
    assert_eq!(failed.attributes["http.response.status_code"], "503");
    let again: Vec<_> = legs.iter().filter(|leg| leg.parent == failed.parent).collect();
    assert_eq!(again.len(), 2);
    assert!(!again[1].is_error && again[1].attributes["http.request.resend_count"] == "1");
    assert!(failed.end_ns <= again[1].start_ns);
    let queue = named(&spans, "queue")[0];
    let route = named(&spans, "route").into_iter().find(|it| it.parent == queue.parent).unwrap();
    assert!(queue.start_ns < queue.end_ns && queue.end_ns <= route.start_ns);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tries_that_race_the_one_that_lost_is_told_from_a_failure() {
    let (collector, quick) = (Collector::start().await, engine(|_| {}).await);
    let slow = Hostile::start(Conduct::Hang).await;
    let trace = collector.trace_to_it();
    let front = Front::of(&[slow.url(), quick.url()], |config| {
        trace(config);
        config.hedge.after_ms = Some(20);
    })
    .await;
    while front.counter("gateway_hedges_won_total").await == 0.0 {
        let answer = front.caller.complete(&json!({"prompt": "a", "stream": true})).await;
        assert_eq!(answer.status, 200);
    }
    drain(front).await;
    let spans = collector.spans();
    let legs = named(&spans, "decode leg");
    let lost = legs.iter().find(|leg| leg.attributes.contains_key("llmd.cancelled")).unwrap();
    let won = legs.iter().find(|leg| leg.parent == lost.parent && leg.first_byte_ns.is_some());
    assert!(lost.start_ns < won.unwrap().start_ns && lost.first_byte_ns.is_none());
    assert!(spans.iter().all(|span| !span.is_error));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_traced_is_up_to_the_client_and_then_to_chance() {
    let (collector, witness) = (Collector::start().await, Witness::start().await);
    let trace = collector.trace_to_it();
    let front = Front::of(&[witness.url()], |config| {
        trace(config);
        config.tracing.sample_percent = 0.0;
    })
    .await;
    let body = json!({"prompt": "a"});
    let told = || witness.take()[0].head.clone();
    front.caller.complete(&body).await;
    let head = told();
    let line = head.lines().find(|line| line.starts_with("traceparent: 00-")).unwrap();
    assert!(line.ends_with("-00"), "{line}");
    let unsampled = CLIENT.replace("-01", "-00");
    front.caller.post("/v1/completions", &body, &[("traceparent", &unsampled)]).await;
    assert!(told().contains(&format!("traceparent: {unsampled}")));
    // A state without a parent says nothing.
    front.caller.post("/v1/completions", &body, &[("tracestate", "a=1")]).await;
    assert!(!told().contains("tracestate"));
    front.caller.post("/v1/completions", &body, &[("traceparent", CLIENT)]).await;
    let refused = json!({"model": "nobody", "prompt": "a"});
    front.caller.post("/v1/completions", &refused, &[("traceparent", CLIENT)]).await;
    drain(front).await;
    let spans = collector.spans();
    let roots = named(&spans, "POST /v1/completions");
    assert!(roots.iter().all(|root| root.trace_id == TRACE) && roots.len() == 2, "{roots:?}");
    let of_refused = roots.iter().find(|it| it.attributes.contains_key("error.type")).unwrap();
    assert_eq!(of_refused.attributes["error.type"], "model_not_found");
    assert_eq!(of_refused.attributes["http.response.status_code"], "404");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_ends_its_spans() {
    let (collector, engine) = (Collector::start().await, engine(|it| it.speed = 1.0).await);
    let front = Front::of(&[engine.url()], collector.trace_to_it()).await;
    let body = json!({"prompt": [7, 8], "max_tokens": 5_000, "stream": true}).to_string();
    let mut response = front.caller.open("POST", "/v1/completions", body, &[]).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    front.until(|front| front.booked() == 0).await;
    drain(front).await;
    let spans = collector.spans();
    let errors: Vec<_> = spans.iter().filter(|it| it.is_error).map(|it| &it.name).collect();
    assert_eq!(errors, ["decode leg", "POST /v1/completions"]);
    assert!(named(&spans, "decode leg")[0].first_byte_ns.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_dead_costs_spans_and_no_request() {
    let witness = Witness::start().await;
    // One that takes connections and never answers, and one that is not there.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), gone] {
        let url = format!("http://{address}/v1/traces");
        let front =
            Front::of(&[witness.url()], |config| config.tracing.otlp_endpoint = Some(url)).await;
        for number in 0..50 {
            let answer = front.caller.complete(&json!({"prompt": [number]})).await;
            assert_eq!(answer.status, 200);
        }
        let dropped = async {
            while front.counter("gateway_spans_dropped_total").await < 150.0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::gateway::HUNG, dropped).await.expect("they are kept");
        assert_eq!(front.counter("gateway_completed_total").await, 50.0);
        assert_eq!(front.counter("gateway_spans_exported_total").await, 0.0);
    }
}
