//! The embedded engine plays what a real vLLM played when its bytes were captured, and must hit
//! and say the same: same batches, same fields in the same order, same hashes, same evictions in
//! the same order. Only generated tokens differ, and with them the hashes of the blocks that hold
//! any: those are matched by where they stand.

use crate::engine::Engine;
use crate::msgpack::Tree;
use bytes::Bytes;
use llmd_bodies::engine_server::{HashForm, KvEventsConfig};
use llmd_brain::prompt::vllm::HashAlgorithm;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const LORA: &str = "tiny-llama-lora";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vllm")
}

/// `repeated [u32LE frames]([u32LE length][bytes])*`
fn captured(file: &str) -> Vec<Vec<Vec<u8>>> {
    let bytes = std::fs::read(folder().join(file)).unwrap();
    let mut rest = &bytes[..];
    let word = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk::<4>().unwrap();
        *rest = tail;
        u32::from_le_bytes(*head) as usize
    };
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let frames = word(&mut rest);
        let mut message = Vec::new();
        for _ in 0..frames {
            let length = word(&mut rest);
            let (frame, tail) = rest.split_at(length);
            message.push(frame.to_vec());
            rest = tail;
        }
        messages.push(message);
    }
    messages
}

async fn engine_like(
    algorithm: HashAlgorithm,
    seed: Option<&str>,
    form: HashForm,
    ranks: u32,
) -> Engine {
    Engine::start(|config| {
        config.model = "tiny-llama".into();
        config.loras = vec![LORA.into()];
        config.engine.block_size = 32;
        // vLLM keeps one of its 40 blocks as the null block.
        config.engine.kv_blocks = 39;
        config.engine.max_sequences = 8;
        config.max_model_len = 1_024;
        config.hash_algorithm = algorithm;
        if let Some(seed) = seed {
            config.hash_seed = seed.into();
        }
        config.data_parallel_size = ranks;
        config.kv_events = Some(KvEventsConfig { hash_form: form, ..KvEventsConfig::default() });
    })
    .await
}

/// vLLM's names of blocks that hold generated tokens, and ours.
#[derive(Default)]
struct Names(Vec<(Tree, Tree)>);

impl Names {
    fn translate(&self, theirs: &Tree) -> Tree {
        let known = self.0.iter().rev().find(|(name, _)| name == theirs);
        known.map_or_else(|| theirs.clone(), |(_, ours)| ours.clone())
    }

    /// What we should say where vLLM said `theirs`, given what we did say.
    fn expect(&mut self, theirs: &Tree, ours: &Tree) -> Tree {
        let mut expected = theirs.clone();
        if theirs.find("block_hashes").is_none() {
            return expected;
        }
        let retokenised =
            theirs.find("token_ids").filter(|ids| Some(*ids) != ours.find("token_ids"));
        if retokenised.is_some() {
            let count = |event: &Tree| event.field("token_ids").list().len();
            assert_eq!(count(theirs), count(ours), "{theirs:?}\n{ours:?}");
            let pairs =
                theirs.field("block_hashes").list().iter().zip(ours.field("block_hashes").list());
            self.0.extend(pairs.map(|(theirs, ours)| (theirs.clone(), ours.clone())));
            expected.set("token_ids", ours.field("token_ids").clone());
        }
        let hashes = theirs.field("block_hashes").list().iter().map(|hash| self.translate(hash));
        expected.set("block_hashes", Tree::List(hashes.collect()));
        if let Some(parent) = theirs.find("parent_block_hash") {
            expected.set("parent_block_hash", self.translate(parent));
        }
        expected
    }
}

/// Plays `steps` and compares, for each, hits and events.
async fn play(engine: &Engine, name: &str, steps: &[Value], files: &[String]) {
    let mut subscriptions = Vec::new();
    for rank in 0..files.len() {
        subscriptions.push(engine.subscribe(rank).await);
    }
    let captured: Vec<_> = files.iter().map(|file| captured(file)).collect();
    let mut names: Vec<Names> = files.iter().map(|_| Names::default()).collect();
    let mut hits = vec![0.0; files.len()];
    for step in steps {
        let title = format!("{name}: {}", step["step"]);
        play_step(engine, step).await;
        for rank in 0..files.len() {
            let label = rank.to_string();
            let series = format!(
                "vllm:prefix_cache_hits_total{{engine=\"{rank}\",model_name=\"tiny-llama\"}}"
            );
            let now = engine.metric(&series).await;
            assert_eq!(
                json!(now - std::mem::replace(&mut hits[rank], now)),
                json!(step["hit_tokens"][&label].as_f64()),
                "{title}"
            );
            for sequence in step["sequences"][&label].as_array().unwrap() {
                let sequence = sequence.as_u64().unwrap();
                let ours = subscriptions[rank].recv().await.unwrap();
                let theirs = &captured[rank][sequence as usize];
                assert_eq!(ours.len(), theirs.len());
                assert_eq!(ours[1][..], theirs[1][..], "{title}: the sequence number");
                compare(&title, theirs, &ours, &mut names[rank], rank);
            }
            let said = engine.replay(rank, 0).await.len() as u64;
            let expected = step["sequences"][&label].as_array().unwrap().last();
            if let Some(last) = expected {
                assert_eq!(said, last.as_u64().unwrap() + 1, "{title}: batches in all");
            }
        }
    }
}

fn compare(title: &str, theirs: &[Vec<u8>], ours: &[Bytes], names: &mut Names, rank: usize) {
    let (theirs, ours) = (Tree::decode(&theirs[2]), Tree::decode(&ours[2]));
    let [Tree::Float(_), Tree::List(ours), our_rank] = ours.list() else { panic!("{ours:?}") };
    let [Tree::Float(_), Tree::List(theirs), their_rank] = theirs.list() else { panic!() };
    assert_eq!(our_rank, their_rank);
    assert_eq!(*our_rank, Tree::Unsigned(rank as u64));
    let expected: Vec<Tree> =
        theirs.iter().zip(ours).map(|(theirs, ours)| names.expect(theirs, ours)).collect();
    assert_eq!(expected, *ours, "{title}");
    assert_eq!(theirs.len(), ours.len(), "{title}");
}

async fn play_step(engine: &Engine, step: &Value) {
    if step["step"] == "reset_prefix_cache" {
        let answer = engine.post("/reset_prefix_cache", &Value::Null).await.ok();
        assert_eq!(answer, json!({"success": true}));
        return;
    }
    let mut body = json!({
        "model": step.get("model").unwrap_or(&json!("tiny-llama")),
        "prompt": step["prompt"],
        "max_tokens": step["output"].as_array().unwrap().len(),
        "temperature": 0,
        "ignore_eos": true,
    });
    for field in ["cache_salt", "session_id"] {
        if let Some(value) = step.get(field) {
            body[field] = value.clone();
        }
    }
    let headers: Vec<(&str, &str)> =
        step.get("headers").and_then(Value::as_object).map_or_else(Vec::new, |headers| {
            headers.iter().map(|(name, value)| (&**name, value.as_str().unwrap())).collect()
        });
    engine.post_with("/v1/completions", &body, &headers).await.ok();
}

fn steps(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.steps.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn hits_events_and_evictions_are_those_of_a_real_vllm() {
    for (name, algorithm, seed) in [
        ("llama_sha256_cbor", HashAlgorithm::Sha256Cbor, None),
        ("qwen3moe_xxhash_seed42", HashAlgorithm::Xxhash, Some("42")),
    ] {
        let engine = engine_like(algorithm, seed, HashForm::Integer, 1).await;
        play(&engine, name, &steps(name), &[format!("{name}.events.bin")]).await;
    }
}

#[tokio::test]
async fn two_ranks_with_hashes_as_bytes_are_those_of_a_real_vllm() {
    let name = "llama_xxhash_cbor_seed0_bytes";
    let engine = engine_like(HashAlgorithm::XxhashCbor, Some("0"), HashForm::Bytes, 2).await;
    let files = [0, 1].map(|rank| format!("{name}.events.dp{rank}.bin"));
    play(&engine, name, &steps(name), &files).await;
}

#[tokio::test]
async fn duplicates_are_those_of_a_real_vllm() {
    let name = "llama_sha256";
    let engine = engine_like(HashAlgorithm::Sha256, None, HashForm::Integer, 1).await;
    let steps = steps(name);
    // The embedded engine computes no logprobs, and what follows depends on that step's copies.
    let end = steps.iter().position(|step| step.get("prompt_logprobs").is_some()).unwrap();
    play(&engine, name, &steps[..end], &[format!("{name}.events.bin")]).await;
}

#[tokio::test]
async fn events_of_sessions_and_adapters_have_the_fields_of_a_real_vllm() {
    let name = "llama_sha256";
    let engine = engine_like(HashAlgorithm::Sha256, None, HashForm::Integer, 1).await;
    let mut subscription = engine.subscribe(0).await;
    let captured = captured(&format!("{name}.events.bin"));
    for title in ["a session", "an adapter"] {
        let steps = steps(name);
        let step = steps.iter().find(|step| step["step"] == title).unwrap();
        play_step(&engine, step).await;
        let sequence = step["sequences"]["0"][0].as_u64().unwrap();
        let theirs = Tree::decode(&captured[sequence as usize][2]);
        let ours = Tree::decode(&subscription.recv().await.unwrap()[2]);
        let stored = |batch: &Tree| {
            let events = batch.list()[1].list();
            events.iter().find(|e| e.field("type").text() == "BlockStored").unwrap().clone()
        };
        let (theirs, ours) = (stored(&theirs), stored(&ours));
        assert_eq!(ours.names(), theirs.names());
        for field in ours.names() {
            // The path of the adapter is hashed, and is where vLLM ran.
            if title == "a session" || field != "block_hashes" {
                assert_eq!(ours.field(field), theirs.field(field), "{title}: {field}");
            }
        }
    }
}

/// Names of all fields, those of nested objects included; lists by their first element.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect()
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            json!([shape(&items[0])])
        }
        _ => Value::Null,
    }
}

/// What both sides say of usage differs by a flag of the captured vLLM.
fn without_usage_details(mut value: Value) -> Value {
    if let Some(usage) = value.get_mut("usage").and_then(Value::as_object_mut) {
        usage.remove("prompt_tokens_details");
    }
    value
}

fn bodies(exchange: &Value) -> Vec<Value> {
    let body = exchange["response"]["body"].as_str().unwrap();
    let chunks = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    let chunks: Vec<Value> = chunks.filter_map(|data| serde_json::from_str(data).ok()).collect();
    if chunks.is_empty() { serde_json::from_str(body).into_iter().collect() } else { chunks }
}

#[tokio::test]
async fn answers_have_the_shape_of_a_real_vllms() {
    let engine = engine_like(HashAlgorithm::Sha256, None, HashForm::Integer, 1).await;
    let text = std::fs::read_to_string(folder().join("http.jsonl")).unwrap();
    let mut compared = 0;
    for line in text.lines() {
        let exchange: Value = serde_json::from_str(line).unwrap();
        let name = exchange["name"].as_str().unwrap();
        let request = &exchange["request"];
        let headers: Vec<(&str, &str)> = request["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (&**name, value.as_str().unwrap()))
            .collect();
        let mut body = request["body"].clone();
        if name == "bad_token_id" {
            body["prompt"] = json!([5_000_000]);
        }
        let (method, path) =
            (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
        let answer = match method {
            "GET" => engine.get(path).await,
            _ => engine.post_with(path, &body, &headers).await,
        };
        assert_eq!(
            u64::from(answer.status.as_u16()),
            exchange["response"]["status"],
            "{name}: {}",
            answer.text
        );
        let theirs: Vec<Value> = bodies(&exchange).into_iter().map(without_usage_details).collect();
        let ours = json!({"response": {"body": answer.text}});
        let ours: Vec<Value> = bodies(&ours).into_iter().map(without_usage_details).collect();
        let shapes = |bodies: &[Value]| bodies.iter().map(shape).collect::<Vec<Value>>();
        // How many words a chunk holds is for either tokenizer to say.
        if name.ends_with("_stream") {
            assert_eq!(shapes(&theirs)[..1], shapes(&ours)[..1], "{name}: the first chunk");
            assert_eq!(
                shapes(&theirs[theirs.len() - 2..]),
                shapes(&ours[ours.len() - 2..]),
                "{name}"
            );
        } else {
            assert_eq!(shapes(&theirs), shapes(&ours), "{name}");
        }
        if name.starts_with("bad_") && !["bad_type", "bad_token_id", "bad_model"].contains(&name) {
            assert_eq!(theirs, ours, "{name}");
        }
        compared += 1;
    }
    assert!(compared >= 20);
}

#[tokio::test]
async fn metrics_have_the_names_types_and_labels_of_a_real_vllms() {
    let engine = engine_like(HashAlgorithm::Sha256, None, HashForm::Integer, 1).await;
    engine.complete(&json!({"prompt": vec![7; 40], "max_tokens": 3})).await;
    let ours = engine.get("/metrics").await.text;
    let theirs = std::fs::read_to_string(folder().join("llama_sha256.metrics.txt")).unwrap();
    // What a real GPU would do, and the clients' own bookkeeping, are not ours to say.
    let absent = |name: &str| {
        ["estimated_", "_created"].iter().any(|part| name.contains(part))
            || !name.starts_with("vllm:")
    };
    let types = |page: &str| -> Vec<String> {
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let mut types: Vec<String> =
            types.filter(|name| !absent(name)).map(str::to_owned).collect();
        types.sort_unstable();
        types.dedup();
        types
    };
    assert_eq!(types(&theirs), types(&ours));
    let series = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| !line.starts_with('#') && !absent(line));
        let names = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
        let mut names: Vec<String> =
            names.filter(|name| !name.contains("cache_config_info")).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(series(&theirs), series(&ours));
    let config = ours.lines().find(|line| line.starts_with("vllm:cache_config_info{")).unwrap();
    for label in
        ["block_size=\"32\"", "num_gpu_blocks=\"39\"", "engine=\"0\"", "cache_dtype=\"auto\""]
    {
        assert!(config.contains(label), "{config}");
    }
    let their_config =
        theirs.lines().find(|line| line.starts_with("vllm:cache_config_info{")).unwrap();
    let labels =
        config.split_once('{').unwrap().1.split('"').step_by(2).filter(|l| l.ends_with('='));
    for label in labels {
        assert!(their_config.contains(label), "{label} is none of vLLM's");
    }
}
