//! Several engines behind one port.

use crate::engine::Engine;
use crate::msgpack::Tree;
use serde_json::{Value, json};

#[tokio::test]
async fn each_rank_has_its_own_cache_events_and_samples() {
    let engine = Engine::start(|config| config.data_parallel_size = 3).await;
    let sources = engine.server.kv_event_sources();
    let ports: Vec<u16> = sources.iter().map(|source| source.endpoint.port()).collect();
    assert_eq!(ports, [ports[0], ports[0] + 1, ports[0] + 2]);
    let mut subscriptions = Vec::new();
    for rank in 0..3 {
        subscriptions.push(engine.subscribe(rank).await);
    }
    let body = json!({"prompt": vec![7; 50], "max_tokens": 1});
    for (rank, expected) in [("0", 0), ("2", 0), ("2", 48), ("0", 48), ("1", 0)] {
        let headers = [("X-data-parallel-rank", rank)];
        let answer = engine.post_with("/v1/completions", &body, &headers).await.ok();
        let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(*cached, json!(expected), "rank {rank}");
    }
    for (rank, hits) in [(0, 48.0), (1, 0.0), (2, 48.0)] {
        let series =
            format!("vllm:prefix_cache_hits_total{{engine=\"{rank}\",model_name=\"tiny\"}}");
        assert_eq!(engine.metric(&series).await, hits);
        let batch = subscriptions[rank].recv().await.unwrap();
        assert_eq!(Tree::decode(&batch[2]).list()[2], Tree::Unsigned(rank as u64));
        assert_eq!(engine.replay(rank, 0).await.len(), 1);
    }
}

#[tokio::test]
async fn a_rank_that_there_is_not_is_refused() {
    let engine = Engine::start(|config| config.data_parallel_size = 2).await;
    for rank in ["2", "-1", "x", ""] {
        let headers = [("X-data-parallel-rank", rank)];
        let body = json!({"prompt": "a", "max_tokens": 1});
        let answer = engine.post_with("/v1/completions", &body, &headers).await;
        assert_eq!(answer.status, 400);
        let message = format!("data_parallel_rank {rank} is out of range [0, 2).");
        let expected = json!({
            "error": {"message": message, "type": "BadRequestError", "param": null, "code": 400}
        });
        assert_eq!(answer.json(), expected);
    }
}

#[tokio::test]
async fn requests_without_a_rank_go_where_least_is_in_flight() {
    let engine = Engine::start(|config| {
        config.data_parallel_size = 2;
        config.speed = 1.0;
    })
    .await;
    let endless = json!({"prompt": "a", "max_tokens": 5_000, "stream": true});
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(engine.open("POST", "/v1/completions", endless.to_string(), &[]).await);
    }
    for rank in 0..2 {
        let series = format!("vllm:num_requests_running{{engine=\"{rank}\",model_name=\"tiny\"}}");
        engine.until_metric(&series, |running| running == 2.0).await;
    }
}

#[tokio::test]
async fn a_reset_resets_all_ranks() {
    let engine = Engine::start(|config| config.data_parallel_size = 2).await;
    let body = json!({"prompt": vec![7; 50], "max_tokens": 1});
    for _ in 0..2 {
        for rank in ["0", "1"] {
            let headers = [("X-data-parallel-rank", rank)];
            let answer = engine.post_with("/v1/completions", &body, &headers).await.ok();
            assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
        }
        engine.post("/reset_prefix_cache", &Value::Null).await.ok();
    }
}
