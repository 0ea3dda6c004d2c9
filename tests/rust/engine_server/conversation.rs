//! What a client sees of the cache, turn by turn, and that the metrics agree with it.

use crate::engine::Engine;
use llmd_bodies::engine_server::{Message, render_chat};
use serde_json::{Value, json};

fn cached_tokens(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

/// vLLM's rule: whole blocks, and the last token of the prompt is computed.
fn largest_hit(resident_tokens: u64, prompt_tokens: u64) -> u64 {
    let blocks = |tokens: u64| tokens / 16;
    blocks(resident_tokens).min(blocks(prompt_tokens - 1)) * 16
}

#[tokio::test]
async fn each_turn_hits_everything_that_the_turn_before_left() {
    let engine = Engine::start(|_| {}).await;
    let system = "You are a helpful assistant of a company that sells bicycles. ".repeat(8);
    let mut messages = vec![json!({"role": "system", "content": system})];
    let (mut resident, mut hits, mut prompts, mut generated) = (0, 0, 0, 0);
    for turn in 0..6 {
        messages.push(json!({"role": "user", "content": format!("Question {turn}, if I may.")}));
        // Every other turn ends by itself, with an end token; the others at their limit.
        let mut body = json!({"messages": messages});
        if turn % 2 == 0 {
            body["max_tokens"] = json!(50 + turn);
        }

        let answer = engine.chat(&body).await;

        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        let output = answer["usage"]["completion_tokens"].as_u64().unwrap();
        assert_eq!(cached_tokens(&answer), largest_hit(resident, prompt), "turn {turn}");
        let reason = answer["choices"][0]["finish_reason"].as_str().unwrap();
        assert_eq!(reason, if turn % 2 == 0 { "length" } else { "stop" });
        // The last token generated was never an input.
        resident = prompt + output - 1;
        hits += cached_tokens(&answer);
        prompts += prompt;
        generated += output;
        messages.push(answer["choices"][0]["message"].clone());
    }
    assert!(hits > prompts / 2, "{hits} of {prompts}");
    assert_eq!(engine.metric("vllm:prefix_cache_hits_total").await, hits as f64);
    assert_eq!(engine.metric("vllm:prefix_cache_queries_total").await, prompts as f64);
    assert_eq!(engine.metric("vllm:prompt_tokens_total").await, prompts as f64);
    assert_eq!(engine.metric("vllm:generation_tokens_total").await, generated as f64);
    assert_eq!(engine.metric("vllm:time_to_first_token_seconds_count").await, 6.0);
    let between = engine.metric("vllm:inter_token_latency_seconds_count").await;
    assert_eq!(between, generated as f64 - 6.0);
    assert_eq!(engine.metric("vllm:num_requests_running").await, 0.0);
    assert_eq!(engine.metric("vllm:kv_cache_usage_perc").await, 0.0);
}

#[tokio::test]
async fn text_sent_back_with_its_completion_hits_the_completion() {
    let engine = Engine::start(|_| {}).await;
    let prompt = "It was a bright cold day in April, and the clocks were striking thirteen";
    let first = engine.complete(&json!({"prompt": prompt, "max_tokens": 100})).await;
    let longer = format!("{prompt}{}", first["choices"][0]["text"].as_str().unwrap());

    let second = engine.complete(&json!({"prompt": longer, "max_tokens": 1})).await;

    let tokens = first["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(second["usage"]["prompt_tokens"], tokens);
    assert_eq!(cached_tokens(&second), largest_hit(tokens - 1, tokens));
}

#[tokio::test]
async fn prompts_meet_in_the_cache_only_under_one_salt_and_one_adapter() {
    let engine = Engine::start(|config| config.loras = vec!["sql".into()]).await;
    let prompt: Vec<u32> = (100..200).collect();
    let ask = async |extra: Value| {
        let mut body = json!({"prompt": prompt, "max_tokens": 1});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        cached_tokens(&engine.complete(&body).await)
    };
    for scope in
        [json!({}), json!({"cache_salt": "a"}), json!({"cache_salt": "b"}), json!({"model": "sql"})]
    {
        assert_eq!(ask(scope.clone()).await, 0, "{scope}");
        assert_eq!(ask(scope.clone()).await, 96, "{scope}");
    }
}

#[tokio::test]
async fn every_server_says_the_same_to_the_same_prompt() {
    let (one, other) =
        (Engine::start(|_| {}).await, Engine::start(|c| c.engine.block_size = 8).await);
    let body =
        json!({"prompt": "Tell me more", "max_tokens": 40, "n": 3, "return_token_ids": true});
    let (one, other) = (one.complete(&body).await, other.complete(&body).await);
    assert_eq!(one["choices"], other["choices"]);
    assert_ne!(one["choices"][0]["text"], one["choices"][1]["text"]);
    assert_eq!(one["usage"]["completion_tokens"], 120);
}

#[tokio::test]
async fn tokenize_and_detokenize_are_what_prompts_are_made_of() {
    let engine = Engine::start(|_| {}).await;
    let text = "def f(x):\n    return x + 41  # naïve, 漢字";
    let tokenized = engine.post("/tokenize", &json!({"prompt": text})).await.ok();
    assert_eq!(tokenized["count"], tokenized["tokens"].as_array().unwrap().len());
    let body = json!({"tokens": tokenized["tokens"]});
    assert_eq!(engine.post("/detokenize", &body).await.ok(), json!({"prompt": text}));

    let messages = json!([{"role": "user", "content": "Hi"}]);
    let chat = engine.post("/tokenize", &json!({"messages": messages})).await.ok();
    let mut expected = Vec::new();
    render_chat(&[Message { role: "user".into(), content: "Hi".into() }], true, &mut expected);
    assert_eq!(chat["tokens"], json!(expected));
    let body = json!({"messages": messages, "max_tokens": 1, "return_token_ids": true});
    assert_eq!(engine.chat(&body).await["prompt_token_ids"], json!(expected));
}

#[tokio::test]
async fn a_reset_empties_the_cache() {
    let engine = Engine::start(|_| {}).await;
    let body = json!({"prompt": vec![9; 64], "max_tokens": 1});
    engine.complete(&body).await;
    assert_eq!(cached_tokens(&engine.complete(&body).await), 48);

    let reset = engine.post("/reset_prefix_cache", &Value::Null).await.ok();

    assert_eq!(reset, json!({"success": true}));
    assert_eq!(cached_tokens(&engine.complete(&body).await), 0);
}

#[tokio::test]
async fn requests_at_once_all_finish_though_the_cache_is_too_small_for_them() {
    let engine = Engine::start(|config| {
        config.engine.kv_blocks = 40;
        config.max_model_len = 640;
    })
    .await;
    let ask = |index: u32| {
        let prompt: Vec<u32> = (0..200).map(|token| 1_000 * (index % 5) + token).collect();
        let body = json!({"prompt": prompt, "max_tokens": 200, "return_token_ids": true});
        let engine = &engine;
        async move { engine.complete(&body).await }
    };
    let asked: Vec<_> = (0..20).map(ask).collect();
    let answers = futures_util::future::join_all(asked).await;

    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer["usage"]["completion_tokens"], 200);
        assert_eq!(
            answer["choices"][0]["token_ids"],
            answers[index % 5]["choices"][0]["token_ids"]
        );
    }
    assert!(engine.metric("vllm:num_preemptions_total").await > 0.0);
    assert_eq!(engine.metric("vllm:request_num_preemptions_count").await, 20.0);
    let by_source = "vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"tiny\",source=";
    let local = engine.metric(&format!("{by_source}\"local_compute\"}}")).await;
    let hits = engine.metric(&format!("{by_source}\"local_cache_hit\"}}")).await;
    assert_eq!(local + hits, 20.0 * 200.0);
    assert_eq!(engine.metric("vllm:prefix_cache_hits_total").await, hits);
}
