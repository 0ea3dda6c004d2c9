//! vLLM's block hashes, held against what vLLM computed (`hash_vectors.json`) and published
//! (`*.events*.bin`); both are captured by `make goldens`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it calls as well"
)]

use llmd_brain::EngineHash;
use llmd_brain::prompt::MultimodalItem;
use llmd_brain::prompt::vllm::{
    BlockHasher, DEFAULT_SEED, ExtraKey, FullHash, HashAlgorithm, LoraAdapter, RequestExtras,
    block_hashes, none_hash,
};
use proptest::prelude::*;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Formatter;
use std::path::{Path, PathBuf};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vllm")
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

// What vLLM computed.

#[derive(Deserialize)]
struct Vectors {
    tokens: Vec<u32>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    algo: String,
    seed: String,
    /// Which of the capture's requests it is.
    extra: String,
    block_size: u32,
    extra_keys: Vec<Option<Vec<Vec<Part>>>>,
    none_hash: String,
    hashes: Vec<String>,
}

/// A part of a tagged extra key.
#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Integer(i64),
    Bytes { hex: String },
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => panic!("not a text"),
        }
    }

    fn integer(&self) -> i64 {
        match self {
            Self::Integer(integer) => *integer,
            _ => panic!("not an integer"),
        }
    }

    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Bytes { hex } => from_hex(hex).try_into().unwrap(),
            _ => panic!("not a digest"),
        }
    }
}

fn vectors() -> Vectors {
    let read = std::fs::read_to_string(goldens().join("hash_vectors.json")).unwrap();
    let vectors: Vectors = serde_json::from_str(&read).unwrap();
    assert!(vectors.vectors.len() >= 48, "only {} vectors", vectors.vectors.len());
    for algorithm in HashAlgorithm::ALL {
        assert!(vectors.vectors.iter().any(|vector| vector.algo == algorithm.name()));
    }
    vectors
}

impl Vector {
    fn root(&self) -> FullHash {
        none_hash(self.algo.parse().unwrap(), &self.seed)
    }

    fn digests(&self) -> Vec<[u8; 32]> {
        let keys = self.extra_keys.iter().flatten().flatten();
        let embeds = keys.filter(|key| key[0].text() == "prompt_embeds");
        embeds.map(|key| key[1].digest()).collect()
    }
}

#[test]
fn every_vector_is_matched_from_its_listed_extra_keys() {
    let Vectors { tokens, vectors } = vectors();
    for vector in vectors {
        let mut hasher = BlockHasher::new(vector.algo.parse().unwrap());
        let mut parent = vector.root();
        assert_eq!(parent.to_string(), vector.none_hash, "{} {}", vector.algo, vector.seed);

        let digests = vector.digests();
        let mut digests = digests.iter();
        let blocks = tokens.chunks_exact(vector.block_size as usize);
        assert_eq!(blocks.len(), vector.hashes.len());
        for ((block, listed), expected) in blocks.zip(&vector.extra_keys).zip(&vector.hashes) {
            let keys: Vec<_> = listed
                .iter()
                .flatten()
                .map(|key| match key[0].text() {
                    "lora" => {
                        ExtraKey::Lora(LoraAdapter { name: key[1].text(), path: key[2].text() })
                    }
                    "mm" => {
                        ExtraKey::Multimodal { identifier: key[1].text(), offset: key[2].integer() }
                    }
                    "cache_salt" => ExtraKey::CacheSalt(key[1].text()),
                    "prompt_embeds" => ExtraKey::PromptEmbeds(digests.next().unwrap()),
                    tag => panic!("unknown tag {tag}"),
                })
                .collect();
            parent = hasher.next(&parent, block, &keys);
            assert_eq!(parent.to_string(), *expected, "{} {}", vector.algo, vector.extra);
        }
    }
}

#[test]
fn every_vector_is_matched_from_its_request() {
    // The requests of tests/engines/hash_vectors.py.
    let item = |identifier: &str, offset_tokens, length_tokens| MultimodalItem {
        identifier: identifier.into(),
        offset_tokens,
        length_tokens,
    };
    let (first, second) = ("0123456789abcdef", "fedcba9876543210");
    let one = [item(first, 10, 40)];
    let two = [item(first, 3, 5), item(second, 9, 60)];
    let twice = [item(first, 2, 4), item(first, 8, 4)];
    let lora = Some(LoraAdapter { name: "my-lora", path: "/models/lora1" });
    let cache_salt = Some("tenant-A");

    let Vectors { tokens, vectors } = vectors();
    for vector in vectors {
        let digests = vector.digests();
        let plain = RequestExtras::default();
        let extras = match vector.extra.as_str() {
            "none" => plain,
            "salt" => RequestExtras { cache_salt, ..plain },
            "unicode_salt" => RequestExtras { cache_salt: Some("mandant-ä-租户-🦀"), ..plain },
            "lora" => RequestExtras { lora, ..plain },
            "mm" => RequestExtras { multimodal: &one, ..plain },
            "two_mm_in_a_block" => RequestExtras { multimodal: &two, ..plain },
            "same_mm_twice_in_a_block" => RequestExtras { multimodal: &twice, ..plain },
            "mm+salt" => RequestExtras { multimodal: &one, cache_salt, ..plain },
            "lora+salt" => RequestExtras { lora, cache_salt, ..plain },
            "lora+mm+salt" => RequestExtras { lora, multimodal: &one, cache_salt, ..plain },
            "prompt_embeds" => RequestExtras { prompt_embeds: Some(&digests), ..plain },
            other => panic!("no request is known for the case {other:?}: add it here"),
        };
        let algorithm = vector.algo.parse().unwrap();
        let hashes = block_hashes(algorithm, &vector.root(), &tokens, vector.block_size, &extras);
        let hashes: Vec<_> = hashes.iter().map(ToString::to_string).collect();
        assert_eq!(hashes, vector.hashes, "{algorithm} {}", vector.extra);
    }
}

// What vLLM published.

/// The payload of one message: time, events, data-parallel rank.
#[derive(Deserialize)]
struct Batch(#[allow(dead_code)] f64, Vec<Event>, #[allow(dead_code)] u32);

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Event {
    BlockStored {
        block_hashes: Vec<Name>,
        parent_block_hash: Option<Name>,
        token_ids: Vec<u32>,
        block_size: u32,
        lora_name: Option<String>,
        #[serde(default)]
        extra_keys: Vec<Option<Vec<String>>>,
        kv_cache_spec_kind: String,
    },
    BlockRemoved {},
    AllBlocksCleared {},
}

/// How an event names a block: by 64 bits, or by all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Short(u64),
    Full(Vec<u8>),
}

impl Name {
    fn names(&self, hash: &FullHash) -> bool {
        match self {
            Self::Short(short) => hash.external() == EngineHash(*short),
            Self::Full(bytes) => FullHash::try_from(&bytes[..]) == Ok(*hash),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerOrBytes;
        impl Visitor<'_> for IntegerOrBytes {
            type Value = Name;

            fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str("an unsigned integer or bytes")
            }

            fn visit_u64<E>(self, short: u64) -> Result<Name, E> {
                Ok(Name::Short(short))
            }

            fn visit_bytes<E>(self, full: &[u8]) -> Result<Name, E> {
                Ok(Name::Full(full.to_vec()))
            }
        }
        deserializer.deserialize_any(IntegerOrBytes)
    }
}

/// The last frame of each message of a capture.
fn payloads(mut captured: &[u8]) -> Vec<&[u8]> {
    fn u32_le(bytes: &mut &[u8]) -> usize {
        let (head, rest) = bytes.split_first_chunk().unwrap();
        *bytes = rest;
        u32::from_le_bytes(*head) as usize
    }
    let mut payloads = Vec::new();
    while !captured.is_empty() {
        let mut last = captured;
        for _ in 0..u32_le(&mut captured) {
            let length = u32_le(&mut captured);
            (last, captured) = captured.split_at(length);
        }
        payloads.push(last);
    }
    payloads
}

#[test]
fn every_full_attention_block_that_was_published_is_matched() {
    use HashAlgorithm::{Sha256, Sha256Cbor, Xxhash, XxhashCbor};
    let captures = [
        ("llama_sha256.events.bin", Sha256, DEFAULT_SEED),
        ("llama_sha256_cbor.events.bin", Sha256Cbor, DEFAULT_SEED),
        ("qwen3moe_xxhash_seed42.events.bin", Xxhash, "42"),
        ("llama_xxhash_cbor_seed0_bytes.events.dp0.bin", XxhashCbor, "0"),
        ("llama_xxhash_cbor_seed0_bytes.events.dp1.bin", XxhashCbor, "0"),
        ("gemma3_sha256_hybrid.events.bin", Sha256, DEFAULT_SEED),
    ];
    let listed: BTreeSet<String> = captures.iter().map(|(file, ..)| (*file).to_owned()).collect();
    let there = std::fs::read_dir(goldens()).unwrap();
    let there = there.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.filter(|file| file.contains(".events.")).collect::<BTreeSet<_>>(), listed);

    for (file, algorithm, seed) in captures {
        let blocks = match_capture(&goldens().join(file), algorithm, seed);
        assert!(blocks >= 10, "{file} has only {blocks} blocks of full attention");
    }
}

/// Recomputes each stored block's hash; how many there were.
fn match_capture(file: &Path, algorithm: HashAlgorithm, seed: &str) -> usize {
    let captured = std::fs::read(file).unwrap();
    let mut hasher = BlockHasher::new(algorithm);
    let mut known: HashMap<Name, FullHash> = HashMap::new();
    let mut matched = 0;
    for payload in payloads(&captured) {
        let Batch(_, events, _) = rmp_serde::from_slice(payload).unwrap();
        for event in events {
            let Event::BlockStored {
                block_hashes: names,
                parent_block_hash,
                token_ids,
                block_size,
                lora_name,
                extra_keys,
                kv_cache_spec_kind,
            } = event
            else {
                continue;
            };
            if kv_cache_spec_kind != "full_attention" {
                continue;
            }
            let mut parent = match parent_block_hash {
                Some(name) => known[&name],
                None => none_hash(algorithm, seed),
            };
            // The captures' adapter is loaded from a path that is spelled like its name.
            let lora = lora_name.as_deref().map(|name| LoraAdapter { name, path: name });
            let blocks = token_ids.chunks_exact(block_size as usize);
            assert_eq!(blocks.len(), names.len());
            for (number, (block, name)) in blocks.zip(names).enumerate() {
                let texts = extra_keys.get(number).into_iter().flatten().flatten();
                let salts = texts.skip(usize::from(lora.is_some()));
                let salts = salts.map(|salt| ExtraKey::CacheSalt(salt));
                let keys: Vec<_> = lora.map(ExtraKey::Lora).into_iter().chain(salts).collect();
                parent = hasher.next(&parent, block, &keys);
                assert!(name.names(&parent), "{}: {name:?} is not {parent}", file.display());
                known.insert(name, parent);
                matched += 1;
            }
        }
    }
    matched
}

// What holds without a capture.

fn algorithms() -> impl Strategy<Value = HashAlgorithm> {
    prop::sample::select(HashAlgorithm::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn extending_turn_by_turn_gives_the_hashes_of_the_whole(
        algorithm in algorithms(),
        tokens in prop::collection::vec(any::<u32>(), 1..300),
        block_size in 1..=64u32,
        turns in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        offset_tokens in 0..100u32,
    ) {
        let items = [MultimodalItem { identifier: "i".into(), offset_tokens, length_tokens: 50 }];
        let extras = RequestExtras {
            lora: Some(LoraAdapter { name: "l", path: "p" }),
            multimodal: &items,
            cache_salt: Some("salt"),
            prompt_embeds: Some(&[[7; 32]; 2]),
        };
        let root = none_hash(algorithm, "0");
        let mut hasher = BlockHasher::new(algorithm);
        let mut hashes = Vec::new();
        let lengths = turns.iter().map(|turn| turn.index(tokens.len()));
        for length in lengths.chain([tokens.len()]) {
            hasher.extend(&mut hashes, &root, &tokens[..length], block_size, &extras);
        }
        prop_assert_eq!(hashes, block_hashes(algorithm, &root, &tokens, block_size, &extras));
    }
}

#[test]
fn an_external_hash_is_the_last_eight_bytes_big_endian() {
    let bytes: Vec<u8> = (0..32).collect();
    let of_32 = FullHash::try_from(&bytes[..]).unwrap();
    let of_16 = FullHash::try_from(&bytes[..16]).unwrap();
    assert_eq!(of_32.external(), EngineHash(0x1819_1A1B_1C1D_1E1F));
    assert_eq!(of_16.external(), EngineHash(0x0809_0A0B_0C0D_0E0F));
    assert_eq!(of_16.as_bytes(), &bytes[..16]);
    assert_eq!(of_16.to_string(), "000102030405060708090a0b0c0d0e0f");
}

#[test]
fn hashes_of_other_lengths_and_unknown_algorithms_are_refused() {
    let refusal = FullHash::try_from(&[0; 20][..]).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "a block hash has 16 bytes (xxhash) or 32 bytes (sha256), not 20"
    );
    let refusal = "md5".parse::<HashAlgorithm>().unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "unknown hash algorithm \"md5\": use sha256, sha256_cbor, xxhash or xxhash_cbor"
    );
    for algorithm in HashAlgorithm::ALL {
        assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
    }
}

#[test]
fn a_block_size_of_zero_gives_no_hashes() {
    let algorithm = HashAlgorithm::Sha256;
    let root = none_hash(algorithm, DEFAULT_SEED);
    assert_eq!(block_hashes(algorithm, &root, &[1, 2, 3], 0, &RequestExtras::default()), []);
}
