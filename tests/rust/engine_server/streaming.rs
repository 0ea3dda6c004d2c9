//! Server-sent events.

use crate::engine::Engine;
use serde_json::{Value, json};

fn texts(chunks: &[Value], of: impl Fn(&Value) -> &Value) -> String {
    let pieces = chunks.iter().filter_map(|chunk| of(&chunk["choices"][0]).as_str());
    pieces.collect()
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let engine = Engine::start(|_| {}).await;
    let body = json!({"prompt": "Once upon", "max_tokens": 30, "return_token_ids": true});
    let whole = engine.complete(&body).await;
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});

    let answer = engine.post("/v1/completions", &streamed).await;

    assert_eq!(answer.headers["content-type"], "text/event-stream; charset=utf-8");
    let chunks = answer.chunks();
    assert_eq!(texts(&chunks, |choice| &choice["text"]), whole["choices"][0]["text"]);
    let ids = chunks
        .iter()
        .flat_map(|chunk| chunk["choices"][0]["token_ids"].as_array().cloned().unwrap_or_default());
    assert_eq!(json!(ids.collect::<Vec<Value>>()), whole["choices"][0]["token_ids"]);
    let first = &chunks[0]["choices"][0];
    assert_eq!(first["prompt_token_ids"], whole["choices"][0]["prompt_token_ids"]);
    let last = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(last["finish_reason"], "length");
    let usage = &chunks[chunks.len() - 1]["usage"];
    assert_eq!(usage["completion_tokens"], 30);
    assert_eq!(usage["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn at_real_speed_every_step_is_a_chunk() {
    let engine = Engine::start(|config| config.speed = 2.0).await;
    let body = json!({
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 12,
        "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    });

    let chunks = engine.post("/v1/chat/completions", &body).await.chunks();

    let opening = &chunks[0];
    assert_eq!(opening["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let counts: Vec<u64> =
        chunks.iter().map(|c| c["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&12));
    let opened_by_space = chunks[1]["choices"][0]["delta"]["content"].as_str().unwrap();
    assert!(!opened_by_space.starts_with(' '));
    assert_eq!(chunks[chunks.len() - 2]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn choices_of_several_prompts_are_told_apart_by_their_index() {
    let engine = Engine::start(|_| {}).await;
    let body = json!({"prompt": ["One", "Two"], "n": 2, "max_tokens": 5, "stream": true});

    let chunks = engine.post("/v1/completions", &body).await.chunks();

    let whole = json!({"prompt": ["One", "Two"], "n": 2, "max_tokens": 5});
    let whole = engine.complete(&whole).await;
    for index in 0..4 {
        let of_choice: Vec<Value> =
            chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index).cloned().collect();
        let text = texts(&of_choice, |choice| &choice["text"]);
        assert_eq!(json!(text), whole["choices"][index]["text"], "choice {index}");
    }
    assert_eq!(whole["usage"]["completion_tokens"], 20);
    assert_eq!(whole["usage"]["prompt_tokens"], 2, "a prompt counts once");
}

#[tokio::test]
async fn a_stop_string_is_never_shown() {
    let engine = Engine::start(|config| config.speed = 20.0).await;
    let free = engine.complete(&json!({"prompt": "Hi", "max_tokens": 20})).await;
    let text = free["choices"][0]["text"].as_str().unwrap().to_owned();
    let stop = &text[22..28];
    let body = json!({"prompt": "Hi", "max_tokens": 20, "stop": stop, "stream": true});

    let chunks = engine.post("/v1/completions", &body).await.chunks();

    let shown = texts(&chunks, |choice| &choice["text"]);
    assert_eq!(Some(&*shown), text.split(stop).next());
    let last = &chunks[chunks.len() - 1]["choices"][0];
    assert_eq!((&last["finish_reason"], &last["stop_reason"]), (&json!("stop"), &json!(stop)));
    let finished =
        "vllm:request_success_total{engine=\"0\",finished_reason=\"stop\",model_name=\"tiny\"}";
    assert_eq!(engine.metric(finished).await, 1.0);
}
