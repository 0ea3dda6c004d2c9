//! Every captured frame, decoded twice: by the decoder, and from rmp-serde's tree of it.

use super::value::Value;
use crate::observe::{DecodeLimits, Skipped, sglang, vllm};
use llmd_brain::index::{
    BlockRemoved, BlockStored, ExtraKey, GroupSpec, KvEvent, KvEventBatch, SpecKind,
};
use llmd_brain::{EngineHash, Tier};
use std::path::{Path, PathBuf};

/// The frames of a golden file: repeated `[u32 LE frames]([u32 LE length][bytes])*`.
pub fn messages(path: &Path) -> Vec<Vec<Vec<u8>>> {
    let file = std::fs::read(path).unwrap();
    let mut rest = &file[..];
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk().unwrap();
        *rest = tail;
        u32::from_le_bytes(*head) as usize
    };
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let frames = number(&mut rest);
        let mut message = Vec::new();
        for _ in 0..frames {
            let length = number(&mut rest);
            let (frame, tail) = rest.split_at(length);
            message.push(frame.to_vec());
            rest = tail;
        }
        messages.push(message);
    }
    messages
}

/// The event files of an engine.
pub fn files(engine: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(engine);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.contains(".events.") && name.ends_with(".bin")
        })
        .collect();
    files.sort();
    files
}

fn hash(value: &Value) -> EngineHash {
    EngineHash(match value {
        Value::Int(value) => *value as u64,
        Value::Bytes(raw) => u64::from_be_bytes(raw[raw.len() - 8..].try_into().unwrap()),
        other => panic!("{other:?}"),
    })
}

fn some<'a, T>(value: &'a Value, read: impl Fn(&'a Value) -> T) -> Option<T> {
    (*value != Value::Nil).then(|| read(value))
}

fn text(value: &Value) -> String {
    let Value::Text(text) = value else { panic!("{value:?}") };
    text.clone()
}

fn small(value: &Value) -> u32 {
    value.int().try_into().unwrap()
}

fn tier(medium: &Value) -> Tier {
    match some(medium, text).as_deref() {
        None | Some("GPU") => Tier::Gpu,
        Some("CPU" | "CPU_PINNED") => Tier::Cpu,
        Some("DISK" | "STORAGE") => Tier::Storage,
        other => panic!("{other:?}"),
    }
}

fn extra_key(value: &Value) -> ExtraKey {
    match value {
        Value::Text(text) => ExtraKey::Text(text.clone()),
        Value::Bytes(digest) => {
            ExtraKey::Text(digest.iter().map(|byte| format!("{byte:02x}")).collect())
        }
        pair => ExtraKey::Multimodal {
            identifier: text(&pair.items()[0]),
            offset: pair.items()[1].int().try_into().unwrap(),
        },
    }
}

fn extra_keys(value: &Value) -> Vec<Vec<ExtraKey>> {
    let Value::Array(blocks) = value else { return Vec::new() };
    if blocks.iter().all(|block| *block == Value::Nil) {
        return Vec::new();
    }
    let keys = |block: &Value| some(block, |keys| keys.items().iter().map(extra_key).collect());
    blocks.iter().map(|block| keys(block).unwrap_or_default()).collect()
}

fn spec_kind(value: &Value) -> SpecKind {
    match some(value, text).as_deref() {
        None => SpecKind::Unstated,
        Some("full_attention") => SpecKind::FullAttention,
        Some("sliding_window") => SpecKind::SlidingWindow,
        other => panic!("{other:?}"),
    }
}

/// An array event as the map that it stands for.
fn as_map(event: &Value) -> Value {
    let Value::Array(items) = event else { return event.clone() };
    let names = ["type", "block_hashes", "parent_block_hash", "token_ids", "block_size"];
    let names: Vec<&str> = match &items[0] {
        kind if *kind == Value::from("BlockRemoved") => vec!["type", "block_hashes", "medium"],
        _ => names.into_iter().chain(["lora_id", "medium"]).collect(),
    };
    assert!(items.len() <= names.len(), "{items:?}");
    Value::Map(names.iter().map(|&name| name.into()).zip(items.iter().cloned()).collect())
}

/// The batch, and how many of its events the decoder has to leave out.
fn batch(tree: &Value) -> (KvEventBatch, u64) {
    let [Value::Float(timestamp_s), events, rank] = tree.items() else { panic!("{tree:?}") };
    let mut paired = 0;
    let mut batch =
        KvEventBatch { timestamp_s: *timestamp_s, dp_rank: some(rank, small), events: Vec::new() };
    for event in events.items().iter().map(as_map) {
        let get = |name| event.get(name);
        let hashes = || get("block_hashes").items().iter().map(hash).collect::<Vec<_>>();
        batch.events.push(match text(get("type")).as_str() {
            "AllBlocksCleared" => KvEvent::Cleared,
            "BlockRemoved" => KvEvent::Removed(BlockRemoved {
                block_hashes: hashes(),
                tier: tier(get("medium")),
                group: some(get("group_idx"), small),
            }),
            _ if matches!(get("token_ids").items().first(), Some(Value::Array(_))) => {
                paired += 1;
                continue;
            }
            _ => {
                let block_hashes = hashes();
                let mut extra_keys = extra_keys(get("extra_keys"));
                if let Some(salt) = some(get("cache_salt"), text) {
                    extra_keys = vec![Vec::new(); block_hashes.len()];
                    extra_keys[0].push(ExtraKey::Text(salt));
                }
                KvEvent::Stored(BlockStored {
                    block_hashes,
                    parent: some(get("parent_block_hash"), hash),
                    token_ids: get("token_ids").items().iter().map(small).collect(),
                    block_size: small(get("block_size")),
                    tier: tier(get("medium")),
                    lora: some(get("lora_name"), text),
                    extra_keys,
                    group: some(get("group_idx"), |index| GroupSpec {
                        index: small(index),
                        kind: spec_kind(get("kv_cache_spec_kind")),
                        sliding_window_tokens: some(get("kv_cache_spec_sliding_window"), small),
                    }),
                })
            }
        });
    }
    (batch, paired)
}

/// With removals that follow each other as one, where tier and group are equal.
fn merged(batch: KvEventBatch) -> KvEventBatch {
    let mut events: Vec<KvEvent> = Vec::new();
    for event in batch.events {
        match (events.last_mut(), event) {
            (Some(KvEvent::Removed(last)), KvEvent::Removed(next))
                if (last.tier, last.group) == (next.tier, next.group) =>
            {
                last.block_hashes.extend(next.block_hashes);
            }
            (_, event) => events.push(event),
        }
    }
    KvEventBatch { events, ..batch }
}

#[test]
fn every_vllm_frame_decodes_to_what_its_tree_says() {
    let mut events = 0;
    for path in files("vllm") {
        for (i, message) in messages(&path).iter().enumerate() {
            let [_, sequence, payload] = &message[..] else { panic!("{} frames", message.len()) };
            assert_eq!(sequence[..], (i as u64).to_be_bytes(), "{}", path.display());
            let decoded = vllm::decode(payload, &DecodeLimits::default()).unwrap();
            let (expected, paired) = batch(&Value::read(payload));
            events += expected.events.len();
            assert_eq!(decoded.batch, merged(expected), "{} batch {i}", path.display());
            assert_eq!((decoded.skipped, paired), (Skipped::default(), 0));
        }
    }
    assert!(events > 100, "only {events} events");
}

#[test]
fn every_sglang_frame_decodes_to_what_its_tree_says() {
    let files = files("sglang");
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        for message in messages(&path) {
            let [_, _, payload] = &message[..] else { panic!("{} frames", message.len()) };
            let decoded = sglang::decode(payload, &DecodeLimits::default()).unwrap();
            let (expected, paired) = batch(&Value::read(payload));
            assert_eq!(decoded.batch, merged(expected), "{}", path.display());
            let skipped = Skipped { paired_token_stores: paired, ..Skipped::default() };
            assert_eq!(decoded.skipped, skipped);
        }
    }
}
