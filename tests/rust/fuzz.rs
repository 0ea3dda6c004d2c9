//! Fuzzing without a fuzzer: captured bytes, mutated at random, through every decoder of foreign
//! bytes (`fuzz/targets.rs`). A few seconds each, or as many as `LLMD_FUZZ_SECONDS` says; the
//! same mutations for the same `LLMD_FUZZ_SEED`. Where `LLMD_FUZZ_CORPUS` names a folder, it only
//! writes the captured bytes there, as seeds for coverage-guided fuzzing: see `fuzz/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fuzz/targets.rs"]
mod targets;

use llmd_bodies::router::peers;
use llmd_brain::fleet::{
    EndpointSpec, Fleet, FleetConfig, Load, PeerHead, PeerLoad, PeerTotals, PrefillTotals,
};
use llmd_brain::index::snapshot::format::Writer;
use llmd_brain::index::snapshot::{MoreCopies, Record, Run};
use llmd_brain::predict::{EngineProfile, PredictConfig, Predictor};
use llmd_brain::rng::Rng;
use llmd_brain::{BlockKey, EngineHash, Tier, Time};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes that begin or end something in msgpack, ZMTP or a metrics page.
const TELLING_BYTES: &[u8] =
    b"\x00\x01\x02\x04\x06\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc4\xc6\xc7\
    \xc9\xcb\xcc\xcf\xd0\xd3\xd4\xd8\xd9\xdb\xdc\xdd\xde\xdf\xe0\xff\n \"\\{}=,#";
/// Longest input that mutation grows.
const MAX_INPUT_BYTES: usize = 64 << 10;

fn variable(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: use a number")),
        Err(_) => default,
    }
}

fn goldens(folder: &str, suffix: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(folder);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    files.sort();
    assert!(!files.is_empty(), "no golden file ends in {suffix}");
    files
}

/// The payloads of captured event messages: `[u32 LE frames]([u32 LE length][bytes])*`, repeated.
fn payloads(engine: &str) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    for path in goldens(engine, ".bin") {
        if path.to_str().unwrap().contains(".zmtp.") {
            continue;
        }
        let file = std::fs::read(path).unwrap();
        let mut at = 0;
        let number = |at: &mut usize| {
            *at += 4;
            u32::from_le_bytes(file[*at - 4..*at].try_into().unwrap()) as usize
        };
        while at < file.len() {
            let frames = number(&mut at);
            for frame in 1..=frames {
                let length = number(&mut at);
                if frame == frames {
                    payloads.push(file[at..at + length].to_vec());
                }
                at += length;
            }
        }
    }
    payloads
}

fn mutate(rng: &mut Rng, seeds: &[Vec<u8>], input: &mut Vec<u8>) {
    let below = |rng: &mut Rng, bound: usize| rng.below(bound as u64) as usize;
    for _ in 0..1 + rng.below(6) {
        let at = below(rng, input.len() + 1);
        let to = (at + 1 + below(rng, 16)).min(input.len()).max(at);
        match rng.below(8) {
            0 if at < input.len() => input[at] ^= 1 << rng.below(8),
            1 if at < input.len() => input[at] = TELLING_BYTES[below(rng, TELLING_BYTES.len())],
            2 if at < input.len() => input[at] = rng.next_u64() as u8,
            3 => input.truncate(at),
            4 => drop(input.drain(at..to)),
            5 => {
                let byte = TELLING_BYTES[below(rng, TELLING_BYTES.len())];
                input.insert(at, byte);
            }
            6 => {
                // A length far beyond the bytes that follow.
                let length = rng.next_u64().to_be_bytes();
                let width = 1 << rng.below(4);
                input.splice(at..at, length.into_iter().take(width));
            }
            _ => {
                let other = &seeds[below(rng, seeds.len())];
                let from = below(rng, other.len() + 1);
                let until = (from + below(rng, 64)).min(other.len());
                input.splice(at..to, other[from..until].iter().copied());
            }
        }
    }
    input.truncate(MAX_INPUT_BYTES);
}

/// Runs `target` on the seeds and then on what mutation makes of them.
fn fuzz(name: &str, seeds: &[Vec<u8>], target: fn(&[u8])) {
    if let Some(corpus) = std::env::var_os("LLMD_FUZZ_CORPUS") {
        let folder = Path::new(&corpus).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (i, input) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("golden-{i}")), input).unwrap();
        }
        return;
    }
    let seed = variable("LLMD_FUZZ_SEED", 0x6c6c_6d64);
    let time = Duration::from_secs(variable("LLMD_FUZZ_SECONDS", 2));
    for input in seeds {
        target(input);
    }
    let mut rng = Rng::new(seed);
    let mut inputs = 0u64;
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..256 {
            let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
            mutate(&mut rng, seeds, &mut input);
            inputs += 1;
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("{name} breaks on input {inputs} of LLMD_FUZZ_SEED={seed}: {hex}");
            }
        }
    }
    eprintln!("{name}: {inputs} inputs in {:.0} s, none breaks it", start.elapsed().as_secs_f64());
}

#[test]
fn vllm_events() {
    fuzz("vllm_events", &payloads("vllm"), targets::vllm_events);
}

#[test]
fn sglang_events() {
    fuzz("sglang_events", &payloads("sglang"), targets::sglang_events);
}

#[test]
fn zmtp_session() {
    let mut seeds = Vec::new();
    for path in goldens("vllm", ".zmtp.bin") {
        let captured = std::fs::read(path).unwrap();
        // Every socket type, with the greeting and, the handshake being made, without.
        for first in [0, 1, 2, 3, 0xf8, 0xfb] {
            seeds.push([&[first], &captured[..]].concat());
        }
        for first in [4, 5, 6, 7, 0xfc] {
            seeds.push([&[first], &captured[captured.len().min(64)..]].concat());
        }
    }
    fuzz("zmtp_session", &seeds, targets::zmtp_session);
}

#[test]
fn metrics_page() {
    let page = |path| String::from_utf8(std::fs::read(path).unwrap()).unwrap();
    // A few kilobytes each, so that a mutation hits something.
    let seeds: Vec<_> = goldens("vllm", ".metrics.txt")
        .into_iter()
        .flat_map(|path| {
            let page = page(path);
            let lines: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
            lines.chunks(20).map(|lines| lines.join("\n").into_bytes()).collect::<Vec<_>>()
        })
        .collect();
    fuzz("metrics_page", &seeds, targets::metrics_page);
}

#[test]
fn request_body() {
    let seeds = [
        r#"{"model":"base:a","messages":[{"role":"system","content":"be brief"},{"role":"user",
            "content":[{"type":"text","text":"caf\u00e9 \ud83d\ude00"},{"url":"x"}]}],"max_tokens":16}"#,
        r#"{"prompt": [[1, 22, 333], [4]], "cache_salt": "s", "priority": -1, "stop": ["]", "\"}"]}"#,
        r#"{"input": "say \"now\"", "max_output_tokens": 9, "tools": [{"a": {"b": [[]]}}]}"#,
        r#"{"messages":[{"content":null,"tool_calls":[{"id":"1"}],"role":"assistant"}],"n":1}"#,
        r#"{"prompt_token_ids":[7,8],"prompt":"p","stream":true}"#,
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    fuzz("request_body", &seeds, targets::request_body);
}

#[test]
fn engine_answer() {
    let seeds = [
        "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello, world",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
         transfer-encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n9;x=y\r\ndata: 22\n\r\n0\r\ntrailer: t\r\n\r\n",
        "HTTP/1.0 502 Bad Gateway\r\nconnection: keep-alive\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil it closes",
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| [&[3], seed.as_bytes()].concat()).collect();
    fuzz("engine_answer", &seeds, targets::engine_answer);
}

#[test]
fn chat_tokens() {
    let bodies =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/chats/bodies.json");
    let bodies: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(&std::fs::read_to_string(bodies).unwrap()).unwrap();
    let seeds: Vec<Vec<u8>> = bodies.values().map(|body| body.get().as_bytes().to_vec()).collect();
    fuzz("chat_tokens", &seeds, targets::chat_tokens);
}

#[test]
fn recovery() {
    // Connect, replay 0 to 3, follow, miss one, replay, reconnect, replay from another engine.
    let story = [
        0, 0, 0, 7, 0, 7, 1, 7, 2, 7, 3, 11, 0, 2, 4, 2, 6, 7, 4, 7, 5, 7, 6, 11, 0, 1, 0, 0, 0, 2,
        7, 0x17, 6, 11, 0, 0x17, 0, 0x17, 1, 11, 0, 14, 9, 14, 99, 15, 0, 13, 0,
    ];
    let seeds = [story.to_vec(), (0..200).collect(), vec![0; 64]];
    fuzz("recovery", &seeds, targets::recovery);
}

#[test]
fn snapshot() {
    let run = |parent: Option<u32>, tiers: &[Tier], first: u64, len: u64| {
        Record::Run(Run {
            parent,
            tiers: tiers.to_vec(),
            keys: (first..first + len).map(BlockKey).collect(),
            names: (first..first + if tiers.is_empty() { 0 } else { len })
                .map(EngineHash)
                .collect(),
        })
    };
    let copies = |run, offset, tier, names: &[u64]| {
        let names = names.iter().copied().map(EngineHash).collect();
        Record::Copies(MoreCopies { run, offset, tier, copies: 2, names })
    };
    let records = [
        Record::Group(1),
        run(None, &[Tier::Gpu], 1, 4),
        copies(0, 1, Tier::Gpu, &[2, 3]),
        run(Some(0), &[], 5, 2),
        run(Some(1), &[Tier::Cpu, Tier::Storage], 7, 5),
        copies(2, 4, Tier::Cpu, &[99]),
        run(Some(0), &[Tier::Gpu], 20, 3),
    ];
    let mut writer = Writer::new(16);
    let header = writer.take();
    records.iter().for_each(|record| writer.record(record));
    writer.endpoint_end(12);
    writer.end();
    let frames = writer.take();
    let whole = [&[0xfe][..], &header, &frames].concat();
    // The payload of the frame of records.
    let length = u32::from_le_bytes(frames[1..5].try_into().unwrap()) as usize;
    let payload = [&[0xff][..], &frames[5..5 + length]].concat();
    fuzz("snapshot", &[whole, payload], targets::snapshot);
}

#[test]
fn learned_models() {
    let profile = EngineProfile::named("qwen3-32b_h100_tp2").unwrap();
    let mut fleet = Fleet::new(FleetConfig::default());
    let mut predictor = Predictor::new(PredictConfig::default()).unwrap();
    for address in ["http://a", "http://b"] {
        let id = fleet.join(Time::ZERO, EndpointSpec::new(address, "m")).unwrap();
        predictor.admit(id.slot, fleet.columns().model[id.slot.index()], Some(profile));
    }
    fuzz("learned_models", &[predictor.save(&fleet).encode()], targets::learned_models);
}

#[test]
fn peer_totals() {
    let load = |address: &str, requests| PeerLoad {
        address: address.to_owned(),
        dp_rank: 0,
        load: Load { inflight_requests: requests, pending_prefill_tokens: 900, ..Load::default() },
        head: Some(PeerHead {
            booked_us_ago: 70_000,
            since_us_ago: 300,
            uncached_tokens: 900,
            pairs: 1 << 20,
        }),
        head_done_us_ago: Some(5_000_000_000),
        prefills: PrefillTotals {
            booked_requests: 9,
            booked_tokens: 1 << 33,
            ..PrefillTotals::default()
        },
    };
    let message = |endpoints| {
        let router = "10.0.0.1:17:5eed".to_owned();
        peers::encode(&PeerTotals { router, epoch: 1 << 50, sequence: 300, endpoints })
    };
    let seeds = [
        message(vec![]),
        message(vec![load("http://a", 1)]),
        message(vec![load("http://a", 3), load("http://b", u32::MAX), load("http://elsewhere", 2)]),
    ];
    fuzz("peer_totals", &seeds, targets::peer_totals);
}
