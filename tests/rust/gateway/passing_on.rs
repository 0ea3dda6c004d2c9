//! What passes through, both ways.

use crate::gateway::{Front, engine};
use crate::hostile::{Conduct, Hostile, WELL};
use llmd_bodies::engine_server::EngineServer;
use serde_json::json;

/// Answers that differ in nothing but the second in which they were made.
fn without_time(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\"created\":") {
        let (before, after) = rest.split_at(at + "\"created\":".len());
        left.push_str(before);
        rest = after.trim_start_matches(|it: char| it.is_ascii_digit());
    }
    left + rest
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_the_engine_byte_for_byte() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let direct = crate::gateway::Caller::new(engine.local_addr());
    let id = [("x-request-id", "same")];
    for (path, body) in [
        ("/v1/completions", json!({"prompt": "Once upon", "max_tokens": 40})),
        ("/v1/completions", json!({"prompt": [1, 2, 3], "max_tokens": 40, "n": 2})),
        (
            "/v1/chat/completions",
            json!({"model": "tiny", "messages": [{"role": "user", "content": "h\u{e9}llo"}],
                   "max_tokens": 12}),
        ),
        ("/tokenize", json!({"prompt": "some text"})),
    ] {
        // What is in the cache is in the answer.
        direct.post(path, &body, &id).await;
        let (theirs, ours) =
            (direct.post(path, &body, &id).await, front.caller.post(path, &body, &id).await);
        assert_eq!(ours.status, theirs.status);
        assert_eq!(without_time(&ours.text), without_time(&theirs.text));
        for header in ["content-type", "content-length", "x-request-id"] {
            assert_eq!(ours.headers.get(header), theirs.headers.get(header), "{path} {header}");
        }
    }
    front.until(|front| front.booked() == 0).await;
    assert_eq!(front.counter("gateway_completed_total").await, 4.0);
    // 40, twice 40, 12; the last has no usage, and no event.
    assert_eq!(front.counter("gateway_output_tokens_total").await, 132.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_byte_for_byte_however_it_is_cut() {
    let engine = Hostile::start(Conduct::Well).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let answer = front.caller.complete(&json!({"prompt": "a", "stream": true})).await;
    assert_eq!(answer.text, WELL.concat());
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    front.until(|front| front.booked() == 0).await;
    // Its last event says how many there were.
    assert_eq!(front.counter("gateway_output_tokens_total").await, 7.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_one_beginning_go_where_it_is_held() {
    let engines = [engine(|_| {}).await, engine(|_| {}).await];
    let urls = engines.each_ref().map(EngineServer::url);
    let front = Front::of(&urls, |_| {}).await;
    let prompt = |who: u32| (0..640).map(|at| who * 1_000 + at).collect::<Vec<u32>>();
    let explain = [("x-llmd-explain", "1")];
    let mut homes = Vec::new();
    for who in 0..4 {
        let body = json!({"model": "tiny", "prompt": prompt(who), "max_tokens": 2});
        let first = front.caller.post("/v1/completions", &body, &explain).await;
        let home = first.headers["x-llmd-endpoint"].clone();
        // Until the engine's events have told of it.
        loop {
            let again = front.caller.post("/v1/completions", &body, &explain).await;
            assert_eq!(again.headers["x-llmd-endpoint"], home);
            let cached = again.json()["usage"]["prompt_tokens_details"]["cached_tokens"].clone();
            let matched: u64 =
                again.headers["x-llmd-matched-tokens"].to_str().unwrap().parse().unwrap();
            assert!(cached.as_u64().unwrap() >= matched.saturating_sub(16));
            if again.headers["x-llmd-match-source"] == "exact" {
                assert_eq!(matched, 640);
                assert!(again.headers.contains_key("x-llmd-ttft-ms"));
                break;
            }
        }
        homes.push(home);
    }
    homes.sort();
    homes.dedup();
    assert_eq!(homes.len(), 2, "nobody is starved");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rank_that_was_chosen_is_named_to_the_engine() {
    let engine = engine(|config| config.data_parallel_size = 2).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    front.until(|front| front.ready() == 2).await;
    let mut ranks = std::collections::BTreeSet::new();
    for who in 0..8_u32 {
        let body = json!({"prompt": vec![who; 64], "max_tokens": 1});
        let answer = front.caller.post("/v1/completions", &body, &[("x-llmd-explain", "1")]).await;
        ranks.insert(answer.headers["x-llmd-dp-rank"].to_str().unwrap().to_owned());
    }
    let page = crate::gateway::Caller::new(engine.local_addr()).get("/metrics").await.text;
    for rank in &ranks {
        let ran = page.lines().any(|line| {
            line.starts_with("vllm:prompt_tokens_total")
                && line.contains(&format!("engine=\"{rank}\""))
                && !line.ends_with(" 0.0")
                && !line.ends_with(" 0")
        });
        assert!(ran, "rank {rank} ran nothing:\n{page}");
    }
    assert_eq!(ranks.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_models_survives_an_engine() {
    let mut engines = vec![
        engine(|config| config.loras = vec!["tuned".into()]).await,
        engine(|config| config.model = "other".into()).await,
    ];
    let urls: Vec<String> = engines.iter().map(EngineServer::url).collect();
    let front = Front::of(&urls, |_| {}).await;
    let names = |answer: &serde_json::Value| -> Vec<String> {
        let cards = answer["data"].as_array().unwrap();
        cards.iter().map(|card| card["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&front.caller.get("/v1/models").await.json()), ["other", "tiny", "tuned"]);
    drop(engines.pop());
    assert_eq!(names(&front.caller.get("/v1/models").await.json()), ["other", "tiny", "tuned"]);
    // An adapter is asked for by its name.
    let body = json!({"model": "tuned", "prompt": "a", "max_tokens": 1});
    assert_eq!(front.caller.complete(&body).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_is_spoken_to_clients() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let body = json!({"prompt": "a", "max_tokens": 5, "stream": true}).to_string();
    let uri = format!("http://{}/v1/completions", front.caller.address);
    let request = hyper::Request::post(uri).body(Full::new(bytes::Bytes::from(body))).unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.version(), hyper::Version::HTTP_2);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_gets_one_of_its_models_under_that_models_name() {
    let engines = [
        engine(|config| config.model = "old".into()).await,
        engine(|config| config.model = "new".into()).await,
    ];
    let front = Front::of(&engines.each_ref().map(EngineServer::url), |config| {
        let aliases = json!({"prod": {"old": 1, "new": 1}});
        config.router.aliases = serde_json::from_value(aliases).unwrap();
    })
    .await;
    let mut answered = std::collections::BTreeSet::new();
    for session in 0..32 {
        let body = json!({"model": "prod", "prompt": "a", "max_tokens": 1});
        let session = [("x-session-id", &*session.to_string())];
        let first = front.caller.post("/v1/completions", &body, &session).await.json();
        let again = front.caller.post("/v1/completions", &body, &session).await.json();
        assert_eq!(first["model"], again["model"], "a session stays on its side");
        answered.insert(first["model"].as_str().unwrap().to_owned());
    }
    assert_eq!(answered.into_iter().collect::<Vec<_>>(), ["new", "old"]);
    let listed = front.caller.get("/v1/models").await.text;
    assert!(listed.contains("\"prod\""), "{listed}");
}
