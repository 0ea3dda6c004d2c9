//! Whatever comes in, a clear answer goes out and the engine lives on.

use crate::engine::Engine;
use llmd_bodies::engine_server::{EngineServer, EngineServerConfig, KvEventsConfig};
use llmd_bodies::zmtp::Endpoint;
use llmd_brain::predict::EngineProfile;
use serde_json::{Value, json};

#[tokio::test]
async fn bodies_that_are_no_request_are_refused_by_name() {
    let engine = Engine::start(|_| {}).await;
    for (path, body, param) in [
        ("/v1/completions", "", "body"),
        ("/v1/completions", "{\"prompt\":", "body.prompt"),
        ("/v1/completions", "[]", "body"),
        ("/v1/completions", "{\"prompt\": \"a\"} x", "body"),
        ("/v1/completions", "{}", "body.prompt"),
        ("/v1/completions", "{\"prompt\": {}}", "body.prompt"),
        ("/v1/completions", "{\"prompt\": [1, \"a\"]}", "body.prompt[1]"),
        ("/v1/completions", "{\"prompt\": \"a\", \"stream\": \"yes\"}", "body.stream"),
        ("/v1/completions", "{\"prompt\": \"a\", \"stream_options\": {}}", "body.stream_options"),
        ("/v1/chat/completions", "{\"messages\": 5}", "body.messages"),
        ("/v1/chat/completions", "{\"messages\": [{\"content\": \"a\"}]}", "body.messages[0]"),
        ("/v1/chat/completions", "{\"prompt\": \"a\"}", "body.messages"),
        ("/tokenize", "{}", "body.prompt"),
        ("/detokenize", "{\"tokens\": \"a\"}", "body.tokens"),
    ] {
        let answer = engine.post_text(path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}");
        let error = &answer.json()["error"];
        assert_eq!(error["param"], param, "{path} {body}: {error}");
        assert_eq!(error["code"], 400);
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    engine.complete(&json!({"prompt": "still here", "max_tokens": 1})).await;
}

#[tokio::test]
async fn values_out_of_range_are_refused_with_the_value() {
    let engine = Engine::start(|config| config.max_model_len = 100).await;
    let token = json!({"prompt": [5, 4_000_000_000_u64], "max_tokens": 1});
    for (body, part) in [
        (json!({"prompt": ""}), "at least one prompt"),
        (json!({"prompt": [[1], []]}), "at least one prompt"),
        (token, "Token id 4000000000 is out of vocabulary"),
        (json!({"prompt": [-3]}), "Token id -3 is out of vocabulary"),
        (json!({"prompt": "a", "max_tokens": 0}), "max_tokens must be at least 1, got 0."),
        (json!({"prompt": vec![1; 99], "max_tokens": 2}), "for a total of 101 tokens"),
        (json!({"prompt": "a", "max_tokens": i64::MAX}), "maximum context length is 100 tokens"),
        (json!({"prompt": "a", "n": 1_000}), "n must be at most 128, got 1000."),
        (json!({"prompt": vec!["a"; 1_025]}), "at most 1024 prompts times choices"),
        (json!({"prompt": "a", "logprobs": 1}), "logprobs is not produced"),
    ] {
        let answer = engine.post("/v1/completions", &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(part), "{message}");
    }
    let full = json!({"prompt": vec![1; 99], "max_tokens": 1});
    assert_eq!(engine.complete(&full).await["usage"]["total_tokens"], 100);
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not() {
    let engine = Engine::start(|_| {}).await;
    let absent = engine.get("/v2/nothing").await;
    assert_eq!((absent.status.as_u16(), absent.json()), (404, json!({"detail": "Not Found"})));
    let wrong = engine.get("/v1/completions").await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.json()),
        (405, json!({"detail": "Method Not Allowed"}))
    );
    let model = engine.post("/v1/completions", &json!({"model": "gpt", "prompt": "a"})).await;
    assert_eq!(model.status, 404);
    assert_eq!(model.json()["error"]["param"], "model");
    assert_eq!(engine.get("/health").await.text, "");
}

#[tokio::test]
async fn a_request_id_comes_back_and_names_the_answer() {
    let engine = Engine::start(|_| {}).await;
    let headers = [("X-Request-Id", "abc-1")];
    let body = json!({"prompt": "a", "max_tokens": 1});
    let answer = engine.post_with("/v1/completions", &body, &headers).await;
    assert_eq!(answer.headers["x-request-id"], "abc-1");
    assert_eq!(answer.ok()["id"], "cmpl-abc-1");
    let refused = engine.post_with("/v1/completions", &json!({}), &headers).await;
    assert_eq!(refused.headers["x-request-id"], "abc-1");
    let (one, other) = (engine.complete(&body).await, engine.complete(&body).await);
    assert_ne!(one["id"], other["id"]);
}

async fn refusal(change: impl FnOnce(&mut EngineServerConfig)) -> String {
    let profile = *EngineProfile::named("llama-3.1-8b_h100_tp1").unwrap();
    let mut config = EngineServerConfig::new("tiny", profile);
    change(&mut config);
    EngineServer::start(config).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_server_that_cannot_be_says_why() {
    let taken = Engine::start(|_| {}).await;
    let port = taken.server.local_addr().port();
    let message = refusal(|config| config.port = port).await;
    assert!(message.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{message}");
    assert!(message.ends_with("choose another port, or 0 for a free one"), "{message}");

    let events = taken.server.kv_event_sources()[0].endpoint.clone();
    let message = refusal(|config| {
        let endpoint = events.clone();
        config.kv_events = Some(KvEventsConfig { endpoint, ..KvEventsConfig::default() });
    })
    .await;
    assert!(message.starts_with(&format!("cannot publish KV events on {events}: ")), "{message}");

    let last = Endpoint::new("127.0.0.1", 65_535);
    let message = refusal(|config| {
        config.data_parallel_size = 2;
        config.kv_events = Some(KvEventsConfig { endpoint: last, ..KvEventsConfig::default() });
    })
    .await;
    assert!(message.contains("past 65535"), "{message}");

    for (change, part) in [
        ((|config| config.speed = 0.0) as fn(&mut EngineServerConfig), "speed 0 is out of range"),
        (|config| config.speed = f64::NAN, "speed NaN"),
        (|config| config.max_model_len = 1_000_000, "max_model_len 1000000 is out of range"),
        (|config| config.data_parallel_size = 0, "data_parallel_size 0"),
        (|config| config.loras = vec!["tiny".into()], "\"tiny\" is given twice"),
        (|config| config.model = String::new(), "not be empty"),
        (|config| config.engine.max_sequences = 0, "max_sequences = 0"),
    ] {
        let message = refusal(change).await;
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn models_are_listed_with_their_adapters() {
    let engine = Engine::start(|config| config.loras = vec!["sql".into(), "law".into()]).await;
    let models = engine.get("/v1/models").await.ok();
    let cards: Vec<(&Value, &Value, &Value)> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|card| (&card["id"], &card["parent"], &card["max_model_len"]))
        .collect();
    let (tiny, null) = (json!("tiny"), json!(null));
    let (sql, law, length) = (json!("sql"), json!("law"), json!(131_072));
    assert_eq!(cards, [(&tiny, &null, &length), (&sql, &tiny, &null), (&law, &tiny, &null)]);
}
