//! What the engine publishes, and that it is what the engine holds.

use crate::engine::Engine;
use crate::msgpack::Tree;
use bytes::Bytes;
use llmd_bodies::engine_server::KvEventsConfig;
use llmd_bodies::zmtp::{Endpoint, Message, Subscription};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn events(message: &Message) -> Vec<Tree> {
    Tree::decode(&message[2]).list()[1].list().to_vec()
}

fn sequence(message: &Message) -> u64 {
    u64::from_be_bytes(message[1][..].try_into().unwrap())
}

/// Copies of each block on each medium, by name.
#[derive(Default, Debug)]
struct Held(BTreeMap<(String, u64), i64>);

impl Held {
    fn apply(&mut self, message: &Message) {
        for event in events(message) {
            let change = match event.field("type").text() {
                "BlockStored" => 1,
                "BlockRemoved" => -1,
                _ => {
                    self.0.clear();
                    continue;
                }
            };
            for hash in event.field("block_hashes").list() {
                let Tree::Unsigned(hash) = hash else { panic!("{hash:?}") };
                let medium = event.field("medium").text().to_owned();
                let copies = self.0.entry((medium, *hash)).or_default();
                *copies += change;
                assert!(*copies >= 0, "removed more often than stored");
            }
        }
        self.0.retain(|_, copies| *copies > 0);
    }

    fn copies(&self, medium: &str) -> i64 {
        self.0.iter().filter(|((on, _), _)| on == medium).map(|(_, copies)| copies).sum()
    }
}

/// What came until now: the replay socket knows how much that is.
async fn received(engine: &Engine, subscription: &mut Subscription, from: u64) -> Vec<Message> {
    let mut messages = Vec::new();
    for expected in engine.replay(0, from).await {
        let message = subscription.recv().await.unwrap();
        assert_eq!(message, expected, "PUB and replay disagree");
        messages.push(message);
    }
    messages
}

async fn ask(engine: &Engine, first_token: u32, tokens: u32) -> Value {
    let prompt: Vec<u32> = (first_token..first_token + tokens).collect();
    engine.complete(&json!({"prompt": prompt, "max_tokens": 1})).await
}

#[tokio::test]
async fn blocks_stored_are_those_of_prompt_and_output() {
    let engine = Engine::start(|_| {}).await;
    let mut subscription = engine.subscribe(0).await;
    let prompt: Vec<u32> = (100..170).collect();
    let body = json!({"prompt": prompt, "max_tokens": 43, "return_token_ids": true});

    let answer = engine.complete(&body).await;

    let messages = received(&engine, &mut subscription, 0).await;
    assert_eq!(messages.iter().map(sequence).collect::<Vec<u64>>(), [0, 1, 2, 3]);
    let topic = format!("kv@127.0.0.1:{}@tiny", engine.server.local_addr().port());
    assert!(messages.iter().all(|message| message[0] == topic.as_bytes()));
    let stored: Vec<Tree> = messages.iter().flat_map(events).collect();
    let tokens: Vec<Tree> =
        stored.iter().flat_map(|event| event.field("token_ids").list().to_vec()).collect();
    let output = answer["choices"][0]["token_ids"].as_array().unwrap();
    let all = prompt.iter().map(|&token| u64::from(token));
    let all = all.chain(output.iter().map(|token| token.as_u64().unwrap()));
    // 70 + 43 = 113 tokens, 112 of them inputs: 7 blocks, 4 of the prompt alone.
    let expected: Vec<Tree> = all.take(112).map(Tree::Unsigned).collect();
    assert_eq!(tokens, expected);
    let blocks: Vec<usize> =
        stored.iter().map(|event| event.field("block_hashes").list().len()).collect();
    assert_eq!(blocks, [4, 1, 1, 1]);
    for pair in stored.windows(2) {
        let last = pair[0].field("block_hashes").list().last().unwrap();
        assert_eq!(pair[1].field("parent_block_hash"), last, "a chain");
    }
    assert_eq!(*stored[0].field("parent_block_hash"), Tree::Nil);
}

#[tokio::test]
async fn what_events_add_up_to_is_what_prompts_hit() {
    let engine = Engine::start(|config| {
        config.engine.kv_blocks = 30;
        config.max_model_len = 480;
    })
    .await;
    let mut subscription = engine.subscribe(0).await;
    let mut held = Held::default();
    let mut next = 0;
    for round in 0..30 {
        // Five prompts of 6 blocks and a part that is their own do not fit together.
        let answer = ask(&engine, 10_000 * (round * 7 % 5), 100 + round).await;
        let hit = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_i64().unwrap();
        let before = held.copies("GPU");
        for message in received(&engine, &mut subscription, next).await {
            assert_eq!(sequence(&message), next);
            next += 1;
            held.apply(&message);
        }
        assert!(held.copies("GPU") <= 30, "more than fits");
        let computed = (100 + i64::from(round)) / 16 - hit / 16;
        assert!(held.copies("GPU") <= before + computed);
    }
    assert!(engine.metric("vllm:prefix_cache_hits_total").await > 0.0);
    let evictions = engine.replay(0, 0).await.iter().flat_map(events).collect::<Vec<_>>();
    assert!(evictions.iter().any(|event| event.field("type").text() == "BlockRemoved"));

    // Every block that the events leave is hit, and nothing else is.
    for family in 0..5 {
        let answer = ask(&engine, 10_000 * family, 97).await;
        let hit = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        let mut resident = 0;
        for event in &evictions {
            if event.field("type").text() == "BlockStored"
                && event.field("token_ids").list()[0] == Tree::Unsigned(u64::from(10_000 * family))
            {
                let hashes = event.field("block_hashes").list().iter();
                resident = hashes
                    .take(6)
                    .take_while(|hash| {
                        let Tree::Unsigned(hash) = hash else { return false };
                        held.0.contains_key(&("GPU".to_owned(), *hash))
                    })
                    .count();
            }
        }
        assert_eq!(hit, resident as u64 * 16, "family {family}");
        for message in received(&engine, &mut subscription, next).await {
            next += 1;
            held.apply(&message);
        }
    }
}

#[tokio::test]
async fn a_reset_is_announced_with_the_next_step() {
    let engine = Engine::start(|_| {}).await;
    let mut subscription = engine.subscribe(0).await;
    ask(&engine, 100, 40).await;
    engine.post("/reset_prefix_cache", &Value::Null).await.ok();
    assert_eq!(engine.replay(0, 0).await.len(), 1, "an idle engine says nothing");

    ask(&engine, 100, 40).await;

    let messages = received(&engine, &mut subscription, 0).await;
    let after: Vec<String> =
        events(&messages[1]).iter().map(|e| e.field("type").text().to_owned()).collect();
    assert_eq!(after, ["AllBlocksCleared", "BlockStored"]);
}

#[tokio::test]
async fn replay_starts_where_it_is_asked_to_and_forgets_the_oldest() {
    let engine = Engine::start(|config| {
        config.kv_events = Some(KvEventsConfig { buffer_steps: 3, ..KvEventsConfig::default() });
    })
    .await;
    for family in 0..5 {
        ask(&engine, 1_000 * family, 20).await;
    }
    let sequences =
        async |start| -> Vec<u64> { engine.replay(0, start).await.iter().map(sequence).collect() };
    assert_eq!(sequences(0).await, [2, 3, 4]);
    assert_eq!(sequences(3).await, [3, 4]);
    assert!(sequences(5).await.is_empty());
    assert!(sequences(u64::MAX).await.is_empty());
}

#[tokio::test]
async fn the_host_tier_takes_what_is_evicted_and_tells_what_it_is() {
    let engine = Engine::start(|config| {
        config.engine.kv_blocks = 8;
        config.engine.host_blocks = 100;
        config.max_model_len = 128;
    })
    .await;
    let mut subscription = engine.subscribe(0).await;
    ask(&engine, 0, 100).await;
    ask(&engine, 1_000, 100).await;
    let mut held = Held::default();
    let messages = received(&engine, &mut subscription, 0).await;
    messages.iter().for_each(|message| held.apply(message));
    assert_eq!((held.copies("GPU"), held.copies("CPU")), (7, 5));
    let first: Vec<Tree> = events(&messages[0]);
    let all: Vec<Tree> = messages.iter().flat_map(events).collect();
    let on_host: Vec<&Tree> =
        all.iter().filter(|e| e.find("medium") == Some(&Tree::Text("CPU".into()))).collect();
    let moved = on_host.first().unwrap();
    // The tail of the first prompt: block 5, and what it was stored as.
    let stored = &first[0];
    assert_eq!(moved.field("block_hashes").list()[0], stored.field("block_hashes").list()[5]);
    assert_eq!(*moved.field("parent_block_hash"), stored.field("block_hashes").list()[4]);
    assert_eq!(moved.field("token_ids").list(), &stored.field("token_ids").list()[80..]);
    assert_eq!(moved.names(), stored.names());

    let again = ask(&engine, 0, 100).await;

    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], 96);
    assert_eq!(engine.metric("vllm:external_prefix_cache_hits_total").await, 80.0);
    assert_eq!(engine.metric("vllm:prefix_cache_hits_total").await, 16.0);
}

#[tokio::test]
async fn garbage_on_the_replay_socket_is_not_answered_and_harms_nobody() {
    use llmd_bodies::zmtp::{Dealer, LinkConfig};
    let engine = Engine::start(|_| {}).await;
    ask(&engine, 0, 20).await;
    let source = &engine.server.kv_event_sources()[0];
    let endpoint = source.replay_endpoint.as_ref().unwrap();
    let mut dealer = Dealer::connect(endpoint, LinkConfig::default()).await.unwrap();
    let word = |value: u64| Bytes::copy_from_slice(&value.to_be_bytes());
    for garbage in [
        vec![Bytes::new()],
        vec![word(0), word(0)],
        vec![Bytes::new(), Bytes::from_static(b"123")],
        vec![Bytes::new(), word(0), word(0)],
    ] {
        dealer.send(&garbage);
    }
    dealer.send(&[Bytes::new(), word(0)]);
    assert_eq!(sequence(&dealer.recv().await.unwrap()[1..].to_vec()), 0);
    assert_eq!(dealer.recv().await.unwrap()[2][..], [0xFF; 8]);
}

#[tokio::test]
async fn without_events_there_are_no_sources() {
    let engine = Engine::start(|config| config.kv_events = None).await;
    assert_eq!(engine.get("/kv_event_sources").await.ok(), json!({}));
    ask(&engine, 0, 20).await;

    let engine = Engine::start(|config| {
        config.kv_events = Some(KvEventsConfig {
            endpoint: Endpoint::new("*", 0),
            replay_endpoint: None,
            topic: Some(String::new()),
            ..KvEventsConfig::default()
        });
    })
    .await;
    let sources = engine.get("/kv_event_sources").await.ok();
    assert!(sources["0"]["endpoint"].as_str().unwrap().starts_with("tcp://*:"));
    assert_eq!(sources["0"]["replay_endpoint"], Value::Null);
    assert_eq!(sources["0"]["topic"], "");
}
