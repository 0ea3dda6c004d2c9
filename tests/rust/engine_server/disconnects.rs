//! Clients that go away.

use crate::engine::Engine;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ABORTED: &str =
    "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"tiny\"}";

/// Real time: 5,000 tokens take half a minute.
async fn slow_engine() -> Engine {
    Engine::start(|config| config.speed = 1.0).await
}

#[tokio::test]
async fn a_stream_that_nobody_reads_any_more_is_aborted() {
    let engine = slow_engine().await;
    let body = json!({"prompt": vec![7; 100], "max_tokens": 5_000, "n": 2, "stream": true});
    let mut response = engine.open("POST", "/v1/completions", body.to_string(), &[]).await;
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(engine.metric("vllm:num_requests_running").await, 2.0);
    assert!(engine.metric("vllm:kv_cache_usage_perc").await > 0.0);

    drop(response);

    engine.until_metric(ABORTED, |aborted| aborted == 2.0).await;
    engine.until_metric("vllm:num_requests_running", |running| running == 0.0).await;
    assert_eq!(engine.metric("vllm:kv_cache_usage_perc").await, 0.0);
    // What was computed stays.
    let again = engine.complete(&json!({"prompt": vec![7; 100], "max_tokens": 1})).await;
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 96);
}

#[tokio::test]
async fn a_client_that_hangs_up_before_its_answer_aborts_it() {
    let engine = slow_engine().await;
    let body = json!({"prompt": "a", "max_tokens": 5_000}).to_string();
    let mut client = TcpStream::connect(engine.server.local_addr()).await.unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    engine.until_metric("vllm:num_requests_running", |running| running == 1.0).await;

    drop(client);

    engine.until_metric(ABORTED, |aborted| aborted == 1.0).await;
}

#[tokio::test]
async fn a_reset_is_refused_while_a_request_holds_blocks() {
    let engine = slow_engine().await;
    let body = json!({"prompt": "a", "max_tokens": 5_000, "stream": true});
    let response = engine.open("POST", "/v1/completions", body.to_string(), &[]).await;
    engine.until_metric("vllm:num_requests_running", |running| running == 1.0).await;
    let refused = engine.post("/reset_prefix_cache", &json!(null)).await.ok();
    assert_eq!(refused, json!({"success": false}));
    drop(response);
}

#[tokio::test]
async fn a_full_queue_refuses_and_counts() {
    let engine = Engine::start(|config| {
        config.speed = 1.0;
        config.max_queued_requests = 1;
    })
    .await;
    let body = json!({"prompt": "a", "max_tokens": 5_000, "stream": true});
    let _open = engine.open("POST", "/v1/completions", body.to_string(), &[]).await;

    let refused = engine.post("/v1/completions", &json!({"prompt": "b"})).await;

    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["error"]["type"], "ServiceUnavailableError");
    let series =
        "vllm:admission_rejections_total{model_name=\"tiny\",reason=\"max_num_queued_reqs\"}";
    assert_eq!(engine.metric(series).await, 1.0);
}
