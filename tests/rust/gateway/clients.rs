//! Clients that go away.

use crate::gateway::{Front, engine};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Real time: 5,000 tokens take half a minute.
async fn slow() -> llmd_bodies::engine_server::EngineServer {
    engine(|config| config.speed = 1.0).await
}

pub async fn running(engine: &llmd_bodies::engine_server::EngineServer) -> f64 {
    let page = crate::gateway::Caller::new(engine.local_addr()).get("/metrics").await.text;
    let line = page.lines().find(|line| line.starts_with("vllm:num_requests_running"));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_aborts_its_stream_at_the_engine() {
    let engine = slow().await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let body = json!({"prompt": [7, 8], "max_tokens": 5_000, "stream": true}).to_string();
    let mut response = front.caller.open("POST", "/v1/completions", body, &[]).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!((running(&engine).await, front.booked()), (1.0, 1));
    drop(response);
    while running(&engine).await > 0.0 {
        tokio::task::yield_now().await;
    }
    front.until(|front| front.booked() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_its_answer_aborts_it() {
    let engine = slow().await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let body = json!({"prompt": "a", "max_tokens": 5_000}).to_string();
    let mut client = TcpStream::connect(front.caller.address).await.unwrap();
    let length = body.len();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(body.as_bytes()).await.unwrap();
    while running(&engine).await == 0.0 {
        tokio::task::yield_now().await;
    }
    drop(client);
    while running(&engine).await > 0.0 {
        tokio::task::yield_now().await;
    }
    front.until(|front| front.booked() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_while_it_is_held_leaves_no_trace() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    let router = front.server.gateway().router();
    // Nobody can take anything: it has to wait.
    let id = router.endpoints()[0].id;
    let cordon = llmd_brain::brain::EndpointChange::Cordon;
    let member = llmd_bodies::router::MemberRef::Id(id);
    router.change_endpoint(&member, cordon).unwrap();
    let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
    let waiting = front.caller.open("POST", "/v1/completions", body, &[]);
    let gone = tokio::time::timeout(std::time::Duration::from_millis(200), waiting).await;
    assert!(gone.is_err(), "it was answered: {gone:?}");
    // The connection is closed with the call.
    while router.stats().requests.holding_now > 0 {
        tokio::task::yield_now().await;
    }
}
