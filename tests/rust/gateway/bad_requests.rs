//! Requests that cannot be.

use crate::gateway::{Front, HUNG, engine};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_reason() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |config| config.limits.max_body_bytes = 1_000).await;
    let caller = &front.caller;
    let answer = caller.complete(&json!({"model": "nobody", "prompt": "a"})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "model_not_found"));
    let answer = caller.complete(&json!({"prompt": "a".repeat(2_000)})).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "too_large"));
    let answer = caller.get("/v1/completions").await;
    assert_eq!((answer.status.as_u16(), answer.headers["allow"].to_str().unwrap()), (405, "POST"));
    let answer = caller.get("/nothing").await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (404, "not_found"));
    let body = json!({"prompt": "a", "max_tokens": 1});
    let answer = caller.post("/v1/completions", &body, &[("x-slo-ttft-ms", "soon")]).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "invalid_header"));
    // What the engine refuses, it refuses itself.
    let answer = caller.open("POST", "/v1/completions", "no json", &[]).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert_eq!(front.booked(), 0);
}

/// What a raw connection is answered, until it is closed or `enough` came.
async fn raw(front: &Front, bytes: &[u8], enough: &str) -> String {
    let mut stream = TcpStream::connect(front.caller.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if text.contains(enough) || stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                return text;
            }
        }
    };
    tokio::time::timeout(HUNG, read).await.expect("it was never answered")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_length_is_in_doubt_never_reaches_an_engine() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let body = "0\r\n\r\n";
    for head in [
        "content-length: 5\r\ncontent-length: 6",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "content-length: +5",
        "content-length : 5",
    ] {
        let request = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{body}");
        let answer = raw(&front, request.as_bytes(), "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head}: {answer}");
    }
    assert_eq!(front.counter("gateway_completed_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_or_never_ends_is_refused() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |config| {
        config.limits.max_head_bytes = 8_192;
        config.timeouts.client_head_ms = 100;
        config.timeouts.client_body_ms = 100;
    })
    .await;
    let large = format!("GET /health HTTP/1.1\r\nx-a: {}\r\n\r\n", "a".repeat(20_000));
    assert!(raw(&front, large.as_bytes(), "\r\n\r\n").await.starts_with("HTTP/1.1 431"));
    // Closed without a word, or with a 408.
    let answer = raw(&front, b"GET /health HTTP/1.1\r\nx-a: ", "\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let body = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{";
    let answer = raw(&front, body, "}}").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_length_and_chunks_the_chunks_count_and_the_engine_gets_a_length() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let body = r#"{"prompt": "a", "max_tokens": 1}"#;
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for head in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let request =
            format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{chunked}");
        let answer = raw(&front, request.as_bytes(), "completion_tokens").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{head}: {answer}");
    }
    assert_eq!(front.counter("gateway_requests_total").await, 2.0);
}
