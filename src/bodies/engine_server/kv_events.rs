//! KV events as vLLM sends them: a PUB socket for what happens, a ROUTER socket for what happened.
//!
//! A message is three frames: topic, sequence number (`u64`, big-endian, from 0), and a msgpack
//! array `[seconds since the epoch, [event, ...], dp_rank]`. Events are maps whose fields and
//! their order are those of the structs here; an optional field that is `None` is left out. On the
//! ROUTER a request is `[empty, first sequence wanted]`, the answer every such batch that the
//! buffer still has as `[empty, topic, sequence, payload]`, then `[empty, empty, -1, empty]`.

use crate::zmtp::{
    Endpoint, Identity, Message, RouterSender, RouterServer, ZmtpError, ZmtpPublisher,
};
use bytes::Bytes;
use llmd_brain::prompt::vllm::FullHash;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How events name a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HashForm {
    /// The last 8 bytes of its hash as an integer, vLLM's default.
    #[default]
    Integer,
    /// All of it, as bytes (`VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0`).
    Bytes,
}

/// A block's name, in the form that events carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WireHash(pub(super) FullHash, pub(super) HashForm);

impl Serialize for WireHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            HashForm::Integer => serializer.serialize_u64(self.0.external().0),
            HashForm::Bytes => serializer.serialize_bytes(self.0.as_bytes()),
        }
    }
}

/// One event.
#[derive(Debug, Serialize)]
#[serde(tag = "type")]
pub(super) enum WireEvent<'a> {
    BlockStored(WireStored<'a>),
    BlockRemoved(WireRemoved),
    AllBlocksCleared,
}

#[derive(Debug, Serialize)]
pub(super) struct WireStored<'a> {
    pub(super) block_hashes: Vec<WireHash>,
    pub(super) parent_block_hash: Option<WireHash>,
    pub(super) token_ids: &'a [u32],
    pub(super) block_size: u32,
    pub(super) lora_id: Option<u32>,
    pub(super) medium: &'static str,
    pub(super) lora_name: Option<&'a str>,
    /// For each block, what its hash depends on besides its tokens.
    pub(super) extra_keys: Vec<Option<Vec<&'a str>>>,
    pub(super) group_idx: u32,
    pub(super) kv_cache_spec_kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<&'a str>,
}

#[derive(Debug, Serialize)]
pub(super) struct WireRemoved {
    pub(super) block_hashes: [WireHash; 1],
    pub(super) medium: &'static str,
    pub(super) group_idx: u32,
}

/// What vLLM calls the engine's own memory, whatever it is made of.
pub(super) const MEDIUM_GPU: &str = "GPU";
/// The host tier.
pub(super) const MEDIUM_CPU: &str = "CPU";
/// The only KV cache group of a model whose layers all attend to everything.
pub(super) const FULL_ATTENTION: &str = "full_attention";

/// Where and how events are published.
#[derive(Debug, Clone, PartialEq)]
pub struct KvEventsConfig {
    /// PUB socket of rank 0; rank `r` listens `r` ports further. Port 0 takes free ones.
    pub endpoint: Endpoint,
    /// ROUTER socket, likewise; `None` for no replay.
    pub replay_endpoint: Option<Endpoint>,
    /// First frame of every message; `None` for `kv@<host>:<port>@<model>` of the HTTP server.
    pub topic: Option<String>,
    /// Batches kept for replay.
    pub buffer_steps: usize,
    /// How events name blocks.
    pub hash_form: HashForm,
}

impl Default for KvEventsConfig {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::new("127.0.0.1", 0),
            replay_endpoint: Some(Endpoint::new("127.0.0.1", 0)),
            topic: None,
            buffer_steps: 10_000,
            hash_form: HashForm::Integer,
        }
    }
}

/// The publisher of one rank.
#[derive(Debug)]
pub(super) struct KvEventPublisher {
    publisher: ZmtpPublisher,
    topic: Bytes,
    dp_rank: u32,
    buffer: Arc<Mutex<ReplayBuffer>>,
    _stop_replay: Option<DropGuard>,
}

/// The latest batches. The oldest goes first.
#[derive(Debug)]
struct ReplayBuffer {
    batches: VecDeque<Bytes>,
    capacity: usize,
    next_sequence: u64,
}

impl ReplayBuffer {
    fn push(&mut self, payload: Bytes) -> u64 {
        if self.batches.len() == self.capacity {
            self.batches.pop_front();
        }
        if self.capacity > 0 {
            self.batches.push_back(payload);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    fn from(&self, start: u64) -> Vec<(u64, Bytes)> {
        let oldest = self.next_sequence - self.batches.len() as u64;
        (oldest..).zip(self.batches.iter().cloned()).skip_while(|(at, _)| *at < start).collect()
    }
}

/// The sockets of one rank, bound and silent.
#[derive(Debug)]
pub(super) struct BoundSockets {
    publisher: ZmtpPublisher,
    replay: Option<RouterServer>,
}

/// Attempts to find consecutive free ports for all ranks.
const BIND_ATTEMPTS: usize = 100;

impl BoundSockets {
    /// Binds the sockets of `ranks` ranks.
    ///
    /// # Errors
    /// [`ZmtpError`] of the first that cannot be bound.
    pub(super) async fn bind(config: &KvEventsConfig, ranks: u32) -> Result<Vec<Self>, ZmtpError> {
        let publishers =
            bind_ranks(&config.endpoint, ranks, async |at| ZmtpPublisher::bind(&at).await).await?;
        let mut replays = Vec::new();
        if let Some(endpoint) = &config.replay_endpoint {
            replays = bind_ranks(endpoint, ranks, async |at| RouterServer::bind(&at).await).await?;
        }
        let mut replays = replays.into_iter();
        let pair = |publisher| Self { publisher, replay: replays.next() };
        Ok(publishers.into_iter().map(pair).collect())
    }

    /// Where the rank publishes: the host as configured, the port as bound.
    pub(super) fn endpoint(&self, config: &KvEventsConfig) -> Endpoint {
        Endpoint::new(config.endpoint.host(), self.publisher.local_port())
    }

    /// Where it replays.
    pub(super) fn replay_endpoint(&self, config: &KvEventsConfig) -> Option<Endpoint> {
        let host = config.replay_endpoint.as_ref()?.host();
        Some(Endpoint::new(host, self.replay.as_ref()?.local_port()))
    }
}

/// One socket a rank on consecutive ports. Where the first port is for the operating system to
/// choose, its neighbours may be taken: then all are chosen anew.
async fn bind_ranks<S: LocalPort>(
    first: &Endpoint,
    ranks: u32,
    bind: impl AsyncFn(String) -> Result<S, ZmtpError>,
) -> Result<Vec<S>, ZmtpError> {
    let mut attempts = if first.port() == 0 { BIND_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let mut sockets: Vec<S> = Vec::new();
        let mut failed = None;
        for rank in 0..ranks {
            let base = sockets.first().map_or(first.port(), LocalPort::local_port);
            let endpoint = Endpoint::new(first.host(), base).for_rank(rank);
            let bound = match endpoint {
                Ok(endpoint) => bind(endpoint.to_string()).await,
                Err(error) => Err(error),
            };
            match bound {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        match failed {
            None => return Ok(sockets),
            Some(error) if attempts == 0 => return Err(error),
            Some(_) => {}
        }
    }
}

trait LocalPort {
    fn local_port(&self) -> u16;
}

impl LocalPort for ZmtpPublisher {
    fn local_port(&self) -> u16 {
        self.local_addr().port()
    }
}

impl LocalPort for RouterServer {
    fn local_port(&self) -> u16 {
        self.local_addr().port()
    }
}

impl KvEventPublisher {
    /// Starts to answer replay requests.
    pub(super) fn start(
        sockets: BoundSockets,
        topic: Bytes,
        dp_rank: u32,
        buffer_steps: usize,
    ) -> Self {
        let buffer = Arc::new(Mutex::new(ReplayBuffer {
            batches: VecDeque::new(),
            capacity: buffer_steps,
            next_sequence: 0,
        }));
        let stop_replay = sockets.replay.map(|router| {
            let stop = CancellationToken::new();
            let replay = answer_replays(router, topic.clone(), Arc::clone(&buffer));
            tokio::spawn(stop.clone().run_until_cancelled_owned(replay));
            stop.drop_guard()
        });
        let publisher = sockets.publisher;
        Self { publisher, topic, dp_rank, buffer, _stop_replay: stop_replay }
    }

    /// Sends one batch; nothing where there are no events.
    pub(super) fn publish(&self, timestamp_s: f64, events: &[WireEvent<'_>]) {
        if events.is_empty() {
            return;
        }
        match rmp_serde::to_vec_named(&(timestamp_s, events, self.dp_rank)) {
            Ok(payload) => {
                let payload = Bytes::from(payload);
                let sequence = self.buffer.lock().push(payload.clone());
                let sequence = Bytes::copy_from_slice(&sequence.to_be_bytes());
                self.publisher.publish(&self.topic, &[sequence, payload]);
            }
            // Plain structs into memory: only a bug gets here, and a gap in the sequence would
            // then send subscribers to the replay socket in vain.
            Err(error) => tracing::error!(%error, "a KV event batch cannot be encoded"),
        }
    }
}

/// Replays that are sent at once; more wait.
const CONCURRENT_REPLAYS: usize = 8;
/// vLLM's end marker: sequence -1.
const END_OF_REPLAY: [u8; 8] = [0xFF; 8];

async fn answer_replays(mut router: RouterServer, topic: Bytes, buffer: Arc<Mutex<ReplayBuffer>>) {
    let permits = Arc::new(Semaphore::new(CONCURRENT_REPLAYS));
    loop {
        let (peer, request) = router.recv().await;
        let Some(start) = replay_start(&request) else {
            tracing::warn!(frames = request.len(), "a replay request that is not [empty, u64]");
            continue;
        };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let batches = buffer.lock().from(start);
        let (sender, topic) = (router.sender(), topic.clone());
        tokio::spawn(async move {
            // A peer that left before the end of its replay has no use for the rest.
            let _ = replay(&sender, &peer, topic, batches).await;
            drop(permit);
        });
    }
}

fn replay_start(request: &Message) -> Option<u64> {
    let [delimiter, start] = &request[..] else { return None };
    let start: [u8; 8] = start[..].try_into().ok()?;
    delimiter.is_empty().then(|| u64::from_be_bytes(start))
}

async fn replay(
    sender: &RouterSender,
    peer: &Identity,
    topic: Bytes,
    batches: Vec<(u64, Bytes)>,
) -> Result<(), ZmtpError> {
    for (sequence, payload) in batches {
        let sequence = Bytes::copy_from_slice(&sequence.to_be_bytes());
        sender.send(peer, &[Bytes::new(), topic.clone(), sequence, payload]).await?;
    }
    let end = Bytes::from_static(&END_OF_REPLAY);
    sender.send(peer, &[Bytes::new(), Bytes::new(), end, Bytes::new()]).await
}
