//! What is fuzzed: one function a decoder of foreign bytes. Each panics where a promise is broken.
//! Shared by libFuzzer (`fuzz_targets/`) and by the mutating test (`tests/rust/fuzz.rs`).

use bytes::Bytes;
use llmd_bodies::gateway::decode_answer;
use llmd_bodies::observe::metrics::{self, SeriesFilter};
use llmd_bodies::observe::{DecodeLimits, Decoded, EventFormat, Recovery, RecoveryConfig, Step};
use llmd_bodies::request_body::{BodyPrompt, RequestBody};
use llmd_bodies::router::peers;
use llmd_bodies::tokenize::Model;
use llmd_bodies::zmtp::{Session, SessionConfig, SocketType};
use llmd_brain::fleet::{EndpointSpec, Fleet, FleetConfig, Load};
use llmd_brain::index::snapshot::format::{Item, Reader, Writer};
use llmd_brain::index::snapshot::{ImportError, Record};
use llmd_brain::index::{IndexConfig, KvEvent, Residency, Source};
use llmd_brain::predict::SavedModels;
use llmd_brain::{EndpointId, Slot, Time};
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// vLLM's KV event payloads.
pub fn vllm_events(data: &[u8]) {
    events(EventFormat::Vllm, data);
}

/// SGLang's KV event payloads.
pub fn sglang_events(data: &[u8]) {
    events(EventFormat::Sglang, data);
}

/// Decoding never panics, is a function of the bytes, and yields no more than they hold.
fn events(format: EventFormat, data: &[u8]) {
    let limits = DecodeLimits::default();
    let Ok(decoded) = format.decode(data, &limits) else { return };
    let again = format.decode(data, &limits).map(|again| format!("{again:?}"));
    assert_eq!(again.as_deref(), Ok(format!("{decoded:?}").as_str()));
    let Decoded { batch, .. } = decoded;
    let mut elements = batch.events.len();
    for event in &batch.events {
        elements += match event {
            KvEvent::Stored(stored) => {
                let keys: usize = stored.extra_keys.iter().map(Vec::len).sum();
                assert!(stored.token_ids.len() <= limits.max_tokens);
                assert!(stored.block_hashes.len() <= limits.max_blocks);
                stored.block_hashes.len() + stored.token_ids.len() + keys
            }
            KvEvent::Removed(removed) => removed.block_hashes.len(),
            KvEvent::Cleared => 0,
        };
    }
    assert!(elements <= data.len(), "{elements} elements out of {} bytes", data.len());
}

/// Learned latency models: what is decoded is written again as it was read.
pub fn learned_models(data: &[u8]) {
    let Ok(saved) = SavedModels::decode(data) else { return };
    assert_eq!(SavedModels::decode(&saved.encode()), Ok(saved));
}

/// A ZMTP connection. The first byte says which socket type we are, whether the handshake has been
/// made, and in which pieces the rest arrives.
pub fn zmtp_session(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let (ours, theirs) = [
        (SocketType::Sub, SocketType::Pub),
        (SocketType::Pub, SocketType::Sub),
        (SocketType::Dealer, SocketType::Router),
        (SocketType::Router, SocketType::Dealer),
    ][usize::from(first & 3)];
    let mut session = Session::new(SessionConfig::new(ours));
    if first & 4 != 0 {
        let mut peer = Session::new(SessionConfig::new(theirs));
        for _ in 0..2 {
            session.input().extend_from_slice(&peer.output().split());
            let _ = session.poll();
            peer.input().extend_from_slice(&session.output().split());
            let _ = peer.poll();
        }
    }
    let limits = SessionConfig::new(ours).limits;
    for piece in data.chunks(1 + usize::from(first >> 3)) {
        session.input().extend_from_slice(piece);
        loop {
            match session.poll() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(session.partial_bytes() <= data.len());
        // A greeting's answer, and a pong no longer than its ping.
        assert!(session.output().len() <= 256 + data.len());
        assert!(session.input().capacity() <= 2 * limits.max_message_bytes);
    }
}

/// The body of a request: what is found in it is bounded by its length, and a beginning of it never
/// looks like all of one that is not.
pub fn request_body(data: &[u8]) {
    let whole = RequestBody::read(data, data.len());
    let found = match &whole.prompt {
        None => 0,
        Some(BodyPrompt::Tokens(ids)) => ids.len(),
        Some(BodyPrompt::Text(text)) => text.len(),
    };
    assert!(found <= data.len(), "{found} out of {} bytes", data.len());
    for cut in [data.len() / 2, data.len().saturating_sub(1)] {
        let part = RequestBody::read(&data[..cut], data.len());
        assert!(!part.is_whole || whole.is_whole);
    }
}

/// An engine's answer in HTTP/1.1. The first byte says in which pieces the rest comes: it is the same answer in
/// any, holds no more than came, and is over where its length says.
pub fn engine_answer(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let whole = decode_answer([data]);
    let pieces = decode_answer(data.chunks(1 + usize::from(first)));
    match (&whole, &pieces) {
        // Which fault is found first depends on what has come.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, pieces),
    }
    let Ok(Some(answer)) = whole else { return };
    assert!(answer.body.len() + answer.rest_bytes < data.len());
    let length = answer.headers.get("content-length");
    let length = length.map(|it| it.to_str().unwrap_or_default().parse::<u64>());
    // Some have no body, whatever they say of its length.
    if [204, 304].contains(&answer.status.as_u16()) {
        assert!(answer.is_over && answer.body.is_empty());
    } else if let (Some(length), false) = (length, answer.headers.contains_key("transfer-encoding"))
    {
        let length = length.unwrap_or_else(|why| panic!("{why}: {:?}", answer.headers));
        assert_eq!(answer.body.len() as u64 == length, answer.is_over);
    }
}

/// A chat's request, as tokens: whatever it says, it is rendered or refused, its ids are those of its text, and
/// they are the same again, from the cache.
pub fn chat_tokens(data: &[u8]) {
    let model = chat_model();
    let Ok(first) = model.encode_body(data) else { return };
    let again = model.encode_body(data);
    assert_eq!(again.as_ref().map(|it| &it.ids), Ok(&first.ids));
    assert!(
        first.ids.len() <= first.text_bytes,
        "{} ids of {} bytes",
        first.ids.len(),
        first.text_bytes
    );
}

/// Bytes as tokens, with two special ones, and a template that does much of what templates do.
fn chat_model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("llmd-fuzz-chats-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for a tokenizer");
        let tokenizer = include_str!("chat_model/tokenizer.json");
        let template = include_str!("../tests/goldens/chats/templates/tools_and_thought.jinja");
        std::fs::write(folder.join("tokenizer.json"), tokenizer).expect("room for a tokenizer");
        std::fs::write(folder.join("chat_template.jinja"), template).expect("room for a template");
        let model = Model::load(&folder).expect("a tokenizer");
        std::fs::remove_dir_all(&folder).expect("the folder was made above");
        model
    })
}

/// A metrics page, read for one rank and for all.
pub fn metrics_page(data: &[u8]) {
    let page = String::from_utf8_lossy(data);
    for dp_rank in [None, Some(1)] {
        let filter = SeriesFilter { dp_rank, ..SeriesFilter::default() };
        let mut unreadable = 0;
        let sample = metrics::parse(&page, &filter, &mut unreadable);
        assert!(unreadable <= page.lines().count() as u64);
        for names in [sample.running_loras, sample.waiting_loras].into_iter().flatten() {
            assert!(names.len() <= data.len());
        }
    }
}

/// Any order of events of a stream: what is applied is a run until it is said to be lost, and
/// nothing that happens asks for more than one replay at a time without end.
pub fn recovery(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let config = RecoveryConfig {
        has_replay: first & 1 == 0,
        max_held_messages: 8,
        max_held_bytes: 64,
        ..RecoveryConfig::default()
    };
    let mut recovery = Recovery::new(config);
    let mut previous: Option<u64> = None;
    for pair in data.chunks_exact(2) {
        let sequence = match pair[1] {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            small => u64::from(small),
        };
        let payload = Bytes::from(vec![pair[0] >> 4; 1 + usize::from(pair[1] & 7)]);
        match pair[0] & 15 {
            0 => recovery.on_connected(),
            1 => recovery.on_disconnected(),
            2..=6 => recovery.on_live(sequence, payload),
            7..=10 => recovery.on_replayed(sequence, payload),
            11 | 12 => {
                let _ = recovery.on_replay_end();
            }
            13 => recovery.on_replay_failed(),
            14 => recovery.on_process_start(f64::from(pair[1])),
            _ => {
                let _ = recovery.probe();
            }
        }
        let mut steps = 0;
        while let Some(step) = recovery.next_step() {
            steps += 1;
            match step {
                Step::Apply { sequence, .. } => {
                    if let Some(previous) = previous {
                        assert_eq!(sequence, previous.saturating_add(1));
                    }
                    previous = Some(sequence);
                }
                Step::Lost(reason) => {
                    assert!(!reason.to_string().is_empty());
                    previous = None;
                }
                Step::Replay { .. } => {}
            }
        }
        assert!(steps <= 32, "{steps} steps for one event");
    }
}

/// A saved index. The first byte says whether the rest is the stream, or records of a frame whose
/// checksum is right: else nothing that is mutated would get past it.
pub fn snapshot(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let mut stream = data.to_vec();
    if first & 1 != 0 {
        stream = Writer::new(16).take();
        let check = xxh3_64_with_seed(&stream, 0);
        let mut frame = vec![2];
        frame.extend((data.len() as u32).to_le_bytes());
        frame.extend(data);
        let check = xxh3_64_with_seed(&frame, check);
        stream.extend(frame);
        stream.extend(check.to_le_bytes());
    }
    let (mut reader, mut records) = (Reader::new(), Vec::new());
    for piece in stream.chunks(1 + usize::from(first >> 1)) {
        reader.push(piece);
        loop {
            match reader.next() {
                Ok(Some(Item::Record(record))) => records.push(record),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let keys = records.iter().map(|record| match record {
        Record::Run(run) => run.keys.len() + run.names.len(),
        Record::Copies(more) => more.names.len(),
        Record::Group(_) => 0,
    });
    assert!(8 * keys.sum::<usize>() <= data.len());
    let Ok(index) = Residency::new(IndexConfig::default(), 16) else { return };
    let endpoint = EndpointId { slot: Slot(0), generation: 1 };
    index.join(endpoint, "m", Source::Events);
    let mut records = records.into_iter();
    let imported = index.import(Time::ZERO, endpoint, || Ok::<_, ImportError>(records.next()));
    let held: u64 = index.blocks(endpoint).map_or(0, |blocks| blocks.exact.iter().sum());
    match imported {
        Ok(blocks) => {
            // A run may name a block again.
            assert!(held <= blocks);
            let mut again = Vec::new();
            index.export(endpoint, |record| again.push(record));
            let mut again = again.into_iter();
            let imported =
                index.import(Time::ZERO, endpoint, || Ok::<_, ImportError>(again.next()));
            assert_eq!(imported, Ok(held));
        }
        Err(_) => assert_eq!((held, index.stats().keys), (0, 0)),
    }
}

/// Another router's message: what is decoded is written again as it was read, and counts until its
/// router falls silent, whatever it says.
pub fn peer_totals(data: &[u8]) {
    let Ok(totals) = peers::decode(data) else { return };
    assert_eq!(peers::decode(&peers::encode(&totals)).as_ref(), Ok(&totals));
    let config = FleetConfig::default();
    let silent = Time::from_millis_f64(config.peer_ttl_ms as f64);
    let mut fleet = Fleet::new(config);
    for address in ["http://a", "http://b"] {
        let _ = fleet.join(Time::ZERO, EndpointSpec::new(address, ""));
    }
    let _ = fleet.apply_peer(Time::ZERO, &totals);
    fleet.expire(silent);
    for id in fleet.ids().collect::<Vec<_>>() {
        assert_eq!(fleet.peer_load(id.slot), Load::default());
        assert_eq!(fleet.columns().load(id.slot).inflight_requests, 0);
    }
}
