//! What 64 engines send: bytes of their PUB sockets after the handshake, in vLLM's map format.

use bytes::Bytes;
use llmd_bodies::zmtp::{Session, SessionConfig, SocketType};
use llmd_brain::rng::Rng;
use serde::Serialize;
use std::collections::VecDeque;

pub const ENDPOINTS: usize = 64;
pub const BLOCK_TOKENS: usize = 16;
/// Blocks that a prefill stores in one event, and blocks that decoding then appends one by one.
const PREFILL_BLOCKS: usize = 128;
const DECODE_BLOCKS: usize = 128;
/// Blocks removed from the end of every fourth sequence once it is done, last first.
const TAIL_BLOCKS: usize = 64;
/// Sequences of one endpoint, and how many of them it decodes at a time.
const SEQUENCES: usize = 32;
const RUNNING: usize = 8;
/// Of 64 running sequences four fill a block in one step of the engine; here it is four of eight,
/// which is the same message.
const APPENDS_A_STEP: usize = 4;
/// Llama 3's vocabulary. Drawn evenly, half of the ids take three bytes and half take five, in no
/// order that a branch predictor could learn: text is kinder.
const VOCABULARY: u64 = 128_256;
const TOPIC: &[u8] = b"kv@10.0.0.1:8000@meta-llama/Llama-3.1-8B-Instruct";

/// Field for field what vLLM 0.32 sends (compare `tests/goldens/vllm`).
#[derive(Serialize)]
#[serde(tag = "type")]
enum Event<'a> {
    BlockStored {
        block_hashes: &'a [u64],
        parent_block_hash: Option<u64>,
        token_ids: &'a [u32],
        block_size: u32,
        lora_id: Option<u32>,
        medium: &'static str,
        lora_name: Option<&'a str>,
        extra_keys: Vec<Option<()>>,
        group_idx: u32,
        kv_cache_spec_kind: &'static str,
    },
    BlockRemoved {
        block_hashes: [u64; 1],
        medium: &'static str,
        group_idx: u32,
    },
}

fn stored<'a>(block_hashes: &'a [u64], parent: Option<u64>, token_ids: &'a [u32]) -> Event<'a> {
    Event::BlockStored {
        block_hashes,
        parent_block_hash: parent,
        token_ids,
        block_size: BLOCK_TOKENS as u32,
        lora_id: None,
        medium: "GPU",
        lora_name: None,
        extra_keys: vec![None; block_hashes.len()],
        group_idx: 0,
        kv_cache_spec_kind: "full_attention",
    }
}

struct Sequence {
    hashes: Vec<u64>,
    tokens: Vec<u32>,
    decoded: usize,
}

impl Sequence {
    /// The prompt is another endpoint's too, the answer is this one's own.
    fn new(endpoint: usize, number: usize) -> Self {
        let shared = (endpoint as u64 / 2) << 32 | number as u64;
        let (mut prompt, mut answer) = (Rng::new(shared), Rng::new(!shared ^ endpoint as u64));
        let mut tokens = Vec::new();
        tokens.extend((0..PREFILL_BLOCKS * BLOCK_TOKENS).map(|_| token(&mut prompt)));
        tokens.extend((0..DECODE_BLOCKS * BLOCK_TOKENS).map(|_| token(&mut answer)));
        let mut hashes: Vec<_> = (0..PREFILL_BLOCKS).map(|_| prompt.next_u64()).collect();
        hashes.extend((0..DECODE_BLOCKS).map(|_| answer.next_u64()));
        Self { hashes, tokens, decoded: PREFILL_BLOCKS }
    }

    fn prefill(&self) -> Event<'_> {
        stored(&self.hashes[..PREFILL_BLOCKS], None, &self.tokens[..PREFILL_BLOCKS * BLOCK_TOKENS])
    }

    fn append(&mut self) -> Event<'_> {
        let at = self.decoded;
        self.decoded += 1;
        let tokens = &self.tokens[at * BLOCK_TOKENS..(at + 1) * BLOCK_TOKENS];
        stored(&self.hashes[at..=at], Some(self.hashes[at - 1]), tokens)
    }

    fn is_done(&self) -> bool {
        self.decoded == self.hashes.len()
    }

    fn tail(&self) -> impl Iterator<Item = Event<'static>> {
        self.hashes.iter().rev().take(TAIL_BLOCKS).map(|&hash| Event::BlockRemoved {
            block_hashes: [hash],
            medium: "GPU",
            group_idx: 0,
        })
    }
}

fn token(rng: &mut Rng) -> u32 {
    rng.below(VOCABULARY) as u32
}

/// What one endpoint sends, and how many blocks that stores and removes.
pub struct Stream {
    pub wire: Vec<u8>,
    pub stored_blocks: u64,
    pub removed_blocks: u64,
}

struct Sender {
    session: Session,
    sequence: u64,
}

impl Sender {
    fn send(&mut self, events: &[Event<'_>]) {
        let batch = (1.7e9 + self.sequence as f64 / 64.0, events, 0);
        let Ok(payload) = rmp_serde::to_vec_named(&batch) else { unreachable!("plain structs") };
        let sequence = Bytes::copy_from_slice(&self.sequence.to_be_bytes());
        self.session.send(&[Bytes::from_static(TOPIC), sequence, payload.into()]);
        self.sequence += 1;
    }
}

impl Stream {
    pub fn new(endpoint: usize) -> Self {
        let mut session = Session::new(SessionConfig::new(SocketType::Pub));
        session.output().clear();
        let mut sender = Sender { session, sequence: 0 };
        let (mut stored_blocks, mut removed_blocks) = (0, 0);
        let mut waiting: VecDeque<_> = (0..SEQUENCES).collect();
        let mut running: VecDeque<Sequence> = VecDeque::new();
        loop {
            while running.len() < RUNNING
                && let Some(number) = waiting.pop_front()
            {
                let sequence = Sequence::new(endpoint, number);
                sender.send(&[sequence.prefill()]);
                stored_blocks += PREFILL_BLOCKS as u64;
                running.push_back(sequence);
                // Sequences are at different places of their answers.
                let early = running.len() * DECODE_BLOCKS / RUNNING;
                if waiting.len() + RUNNING >= SEQUENCES {
                    for _ in 0..early {
                        if let Some(last) = running.back_mut() {
                            sender.send(&[last.append()]);
                            stored_blocks += 1;
                        }
                    }
                }
            }
            running.rotate_left(APPENDS_A_STEP.min(running.len()));
            let appends: Vec<_> = running
                .iter_mut()
                .take(APPENDS_A_STEP)
                .filter(|sequence| !sequence.is_done())
                .map(Sequence::append)
                .collect();
            if !appends.is_empty() {
                stored_blocks += appends.len() as u64;
                sender.send(&appends);
            }
            let (done, left): (Vec<_>, Vec<_>) = running.into_iter().partition(Sequence::is_done);
            running = left.into();
            for sequence in done {
                if sequence.hashes[0] % 4 == 0 {
                    let tail: Vec<_> = sequence.tail().collect();
                    removed_blocks += tail.len() as u64;
                    sender.send(&tail);
                }
            }
            if running.is_empty() && waiting.is_empty() {
                break;
            }
        }
        Self { wire: sender.session.output().to_vec(), stored_blocks, removed_blocks }
    }
}
