//! Follows the KV events of one engine and rank, for as long as it lives.
//!
//! One tokio task: it connects, subscribes, lets [`Recovery`] decide, fetches replays, decodes and
//! hands batches to the [`KvSink`]. It never gives up: it reconnects with bounded, jittered,
//! exponential waits, and all that happens shows in [`SubscriberStatus`].

use super::cursor::Bookmark;
use super::decoded::{DecodeError, DecodeLimits, Decoded, Skipped};
use super::discovery::KvEventSource;
use super::lost::LostReason;
use super::recovery::{Recovery, RecoveryConfig, RecoveryCounts, Step};
use super::replay::{Replay, ReplayItem};
use super::{Backoff, BackoffConfig, KvSink, sglang, vllm};
use crate::zmtp::{Endpoint, LinkConfig, Message, Subscription, ZmtpError};
use bytes::Bytes;
use llmd_brain::EndpointId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The sequence, -1 to the engine, by which it ends a replay.
const END_OF_REPLAY: u64 = u64::MAX;

/// Commands that wait while a connection is being made.
const COMMANDS: usize = 64;

/// When a new connection is first probed; then at doubled intervals up to the configured one.
const FIRST_PROBE: Duration = Duration::from_millis(100);

/// Whose event format a stream has.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum EventFormat {
    /// vLLM's, which the embedded engine also speaks.
    #[default]
    Vllm,
    /// SGLang's.
    Sglang,
}

impl EventFormat {
    /// Decodes the payload of one message.
    ///
    /// # Errors
    /// As [`vllm::decode`].
    pub fn decode(self, payload: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
        match self {
            Self::Vllm => vllm::decode(payload, limits),
            Self::Sglang => sglang::decode(payload, limits),
        }
    }
}

/// Which stream to follow, and how.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// The engine's PUB socket, of this very rank.
    pub events: Endpoint,
    /// Its ROUTER socket for replays, of this very rank; `None` where it has none.
    pub replay: Option<Endpoint>,
    /// Topics wanted, by prefix; empty: all.
    pub topic: Bytes,
    /// Which rank it should speak for.
    pub dp_rank: u32,
    /// Whose format it has.
    pub format: EventFormat,
    /// Patience and frame limits of its connections.
    pub link: LinkConfig,
    /// Limits on one payload.
    pub decode: DecodeLimits,
    /// Bounds of gap recovery; [`RecoveryConfig::has_replay`] follows `replay`.
    pub recovery: RecoveryConfig,
    /// Waits between connections, and between replays that bring nothing.
    pub backoff: BackoffConfig,
    /// A replay that sends nothing for this long has failed. (vLLM answers within 0.1 s of its
    /// publisher thread getting its turn.)
    pub replay_timeout: Duration,
    /// How often the replay socket is asked whether the end of the stream was missed: nothing
    /// else shows that while an engine is idle. More often after connecting. Zero: never.
    pub probe_interval: Duration,
}

impl SubscriberConfig {
    /// Rank 0 of a vLLM engine that publishes here, without replay.
    #[must_use]
    pub fn new(events: Endpoint) -> Self {
        Self {
            events,
            replay: None,
            topic: Bytes::new(),
            dp_rank: 0,
            format: EventFormat::default(),
            link: LinkConfig::default(),
            decode: DecodeLimits::default(),
            recovery: RecoveryConfig::default(),
            backoff: BackoffConfig::default(),
            replay_timeout: Duration::from_secs(10),
            probe_interval: Duration::from_secs(10),
        }
    }

    /// What discovery found for a rank.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`] where an address is of a kind that is not spoken here.
    pub fn of_source(source: &KvEventSource, dp_rank: u32) -> Result<Self, ZmtpError> {
        let replay = source.replay_endpoint.as_deref().map(str::parse).transpose()?;
        let topic = Bytes::copy_from_slice(source.topic.as_bytes());
        Ok(Self { replay, topic, dp_rank, ..Self::new(source.endpoint.parse()?) })
    }

    /// The same for another rank, where this one is for rank 0: engines count ports up from rank
    /// 0's.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`] past port 65535.
    pub fn for_rank(&self, dp_rank: u32) -> Result<Self, ZmtpError> {
        Ok(Self {
            events: self.events.for_rank(dp_rank)?,
            replay: self.replay.as_ref().map(|replay| replay.for_rank(dp_rank)).transpose()?,
            dp_rank,
            ..self.clone()
        })
    }
}

/// How a subscriber is doing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscriberStatus {
    /// Whether it is subscribed now.
    pub is_connected: bool,
    /// Whether, besides, all that came has been applied, and no gap is being filled.
    pub is_settled: bool,
    /// The last sequence applied; `None` where none is, or what was applied became void.
    pub position: Option<u64>,
    /// Gaps, replays, restarts and losses.
    pub recovery: RecoveryCounts,
    /// Connections made.
    pub connections: u64,
    /// Batches handed to the sink.
    pub batches: u64,
    /// Messages that are not a topic, a sequence number and a payload.
    pub malformed_messages: u64,
    /// Times that the sink was told that what it believes is void, for whatever reason.
    pub losses: u64,
    /// Payloads that could not be decoded; each made what is believed void.
    pub undecodable_payloads: u64,
    /// What was left out of decoded payloads.
    pub skipped: Skipped,
    /// Batches that name another rank than the configured one.
    pub rank_mismatches: u64,
    /// Why the last connection or replay ended.
    pub last_error: Option<String>,
}

/// Why a barrier cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyncError {
    /// There is nothing to compare with.
    #[error("the engine has no replay socket to compare with: configure its replay_endpoint")]
    NoReplay,
    /// The subscriber was dropped.
    #[error("the subscriber has ended")]
    Ended,
}

enum Command {
    Synchronize(oneshot::Sender<Option<u64>>),
    ProcessStart(f64),
    Between(Between),
}

/// Done between two messages: gets where the stream is, and says where it goes on.
type Between = Box<dyn FnOnce(Option<Bookmark>) -> GoOn + Send>;

/// Where a stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoOn {
    /// Where it is.
    Here,
    /// What was applied was replaced by all up to this message, or by nothing.
    Behind(Option<Bookmark>),
}

/// A subscriber at work. Dropping it ends it.
#[derive(Debug)]
pub struct Subscriber {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<SubscriberStatus>,
    has_replay: bool,
    _stop: DropGuard,
}

impl Subscriber {
    /// Begins to follow. Needs a tokio runtime. `seed` makes the jitter of its waits repeatable.
    #[must_use]
    pub fn spawn(
        endpoint: EndpointId,
        mut config: SubscriberConfig,
        sink: Arc<dyn KvSink>,
        seed: u64,
    ) -> Self {
        config.recovery.has_replay = config.replay.is_some();
        let has_replay = config.recovery.has_replay;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (publish, status) = watch::channel(SubscriberStatus::default());
        let stop = CancellationToken::new();
        let task = Task {
            recovery: Recovery::new(config.recovery.clone()),
            backoff: Backoff::new(config.backoff.clone(), seed),
            endpoint,
            config,
            sink,
            inbox,
            publish,
            status: SubscriberStatus::default(),
            replay: None,
            waiting: Vec::new(),
            last_end: None,
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(task.run()));
        Self { commands, status, has_replay, _stop: stop.drop_guard() }
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> SubscriberStatus {
        self.status.borrow().clone()
    }

    /// Waits until the status is as wanted, and returns it.
    ///
    /// # Errors
    /// [`SyncError::Ended`].
    pub async fn wait_for(
        &self,
        wanted: impl FnMut(&SubscriberStatus) -> bool,
    ) -> Result<SubscriberStatus, SyncError> {
        let mut status = self.status.clone();
        let status = status.wait_for(wanted).await.map_err(|_| SyncError::Ended)?;
        Ok(status.clone())
    }

    /// Waits until the message with this sequence has been applied.
    ///
    /// # Errors
    /// [`SyncError::Ended`].
    pub async fn reached(&self, sequence: u64) -> Result<(), SyncError> {
        self.wait_for(|status| status.position >= Some(sequence)).await.map(drop)
    }

    /// Waits until everything that the engine has published by now is applied, and returns the
    /// position. Asks the replay socket until two replays in a row end at the same sequence and
    /// that is applied: one alone may be answered before a batch that is queued already. So it
    /// needs an engine that pauses for a moment.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn synchronized(&self) -> Result<Option<u64>, SyncError> {
        if !self.has_replay {
            return Err(SyncError::NoReplay);
        }
        let (done, outcome) = oneshot::channel();
        self.commands.send(Command::Synchronize(done)).await.map_err(|_| SyncError::Ended)?;
        outcome.await.map_err(|_| SyncError::Ended)
    }

    /// Does something between two messages, when all that was applied is in the sink: `work` gets
    /// the last of them, and says where the stream goes on.
    ///
    /// # Errors
    /// [`SyncError::Ended`].
    pub async fn between<T: Send + 'static>(
        &self,
        work: impl FnOnce(Option<Bookmark>) -> (T, GoOn) + Send + 'static,
    ) -> Result<T, SyncError> {
        let (done, outcome) = oneshot::channel();
        let between: Between = Box::new(move |bookmark| {
            let (result, go_on) = work(bookmark);
            // Whoever stopped waiting needs no answer.
            let _ = done.send(result);
            go_on
        });
        self.commands.send(Command::Between(between)).await.map_err(|_| SyncError::Ended)?;
        outcome.await.map_err(|_| SyncError::Ended)
    }

    /// Tells it what `process_start_time_seconds` the engine's metrics page shows: a change is a
    /// sign of a restart.
    pub fn note_process_start(&self, process_start_s: f64) {
        // A full queue or an ended task: the next reading of the page says it again.
        let _ = self.commands.try_send(Command::ProcessStart(process_start_s));
    }
}

struct Task {
    endpoint: EndpointId,
    config: SubscriberConfig,
    sink: Arc<dyn KvSink>,
    inbox: mpsc::Receiver<Command>,
    publish: watch::Sender<SubscriberStatus>,
    status: SubscriberStatus,
    recovery: Recovery,
    backoff: Backoff,
    replay: Option<Replay>,
    waiting: Vec<oneshot::Sender<Option<u64>>>,
    /// Where the last replay ended, while somebody waits for two that agree.
    last_end: Option<Option<u64>>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let topics = [self.config.topic.clone()];
            let connecting =
                Subscription::connect(&self.config.events, &topics, self.config.link.clone());
            let error = match connecting.await {
                Ok(subscription) => {
                    self.status.connections += 1;
                    self.status.is_connected = true;
                    self.recovery.on_connected();
                    let error = self.follow(subscription).await;
                    self.replay = None;
                    self.status.is_connected = false;
                    self.recovery.on_disconnected();
                    error
                }
                Err(error) => error,
            };
            tracing::debug!(endpoint = %self.endpoint, events = %self.config.events, %error,
                "KV event stream is down");
            self.status.last_error = Some(error.to_string());
            self.show();
            let wait = sleep(self.backoff.next_wait());
            tokio::pin!(wait);
            // Commands are heard while waiting, too.
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    Some(command) = self.inbox.recv() => self.command(command),
                }
            }
        }
    }

    async fn follow(&mut self, mut subscription: Subscription) -> ZmtpError {
        // A PUB takes note of a subscription only when it next sends: what it sent just before is
        // missed, and the first replay may have been answered even earlier. So ask soon again.
        let mut pause = FIRST_PROBE.min(self.config.probe_interval);
        let mut next_probe = (!pause.is_zero()).then(|| Instant::now() + pause);
        loop {
            self.carry_out();
            self.show();
            tokio::select! {
                message = subscription.recv() => match message {
                    Ok(message) => self.live(&message),
                    Err(error) => return error,
                },
                item = replay_item(&mut self.replay) => self.replayed(item),
                Some(command) = self.inbox.recv() => self.command(command),
                () = sleep_until(next_probe.unwrap_or_else(Instant::now)), if next_probe.is_some() => {
                    self.recovery.probe();
                    pause = (pause * 2).min(self.config.probe_interval);
                    next_probe = Some(Instant::now() + pause);
                }
            }
        }
    }

    fn live(&mut self, message: &Message) {
        match parse(message) {
            // A number that no engine reaches, and that ends a replay.
            Some((sequence, payload)) if message.len() == 3 && sequence < END_OF_REPLAY => {
                self.backoff.reset();
                self.recovery.on_live(sequence, payload);
            }
            _ => self.malformed(message),
        }
    }

    fn replayed(&mut self, item: Result<ReplayItem, ZmtpError>) {
        match item {
            Ok(ReplayItem::Message(message)) => match parse(&message) {
                Some((END_OF_REPLAY, _)) => {
                    self.replay = None;
                    self.backoff.reset();
                    let end = self.recovery.on_replay_end();
                    self.compare(end.map(|end| end.last));
                }
                Some((sequence, payload)) => self.recovery.on_replayed(sequence, payload),
                None => self.malformed(&message),
            },
            Ok(ReplayItem::Connected) => {}
            Err(error) => {
                tracing::debug!(endpoint = %self.endpoint, %error, "KV event replay failed");
                self.status.last_error = Some(format!("replay: {error}"));
                self.replay = None;
                self.recovery.on_replay_failed();
                self.keep_comparing();
            }
        }
    }

    fn malformed(&mut self, message: &Message) {
        self.status.malformed_messages += 1;
        if self.status.malformed_messages.is_power_of_two() {
            tracing::warn!(endpoint = %self.endpoint, frames = message.len(),
                dropped = self.status.malformed_messages,
                "dropped a KV event message that is not [topic, sequence, payload]");
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::ProcessStart(at) => self.recovery.on_process_start(at),
            Command::Between(work) => {
                self.carry_out();
                if let GoOn::Behind(bookmark) = work(self.recovery.bookmark()) {
                    self.replay = None;
                    self.recovery.resume(bookmark);
                }
            }
            Command::Synchronize(done) => {
                self.waiting.push(done);
                // What a replay already under way says may be older than the question.
                self.last_end = None;
                self.recovery.probe();
            }
        }
    }

    /// A replay ended: lets go of those who wait for two that agree.
    fn compare(&mut self, end: Option<Option<u64>>) {
        self.carry_out();
        if self.waiting.is_empty() {
            return;
        }
        let agrees = end.is_some() && end == self.last_end;
        self.last_end = end;
        if agrees && self.recovery.is_settled() && end <= Some(self.recovery.position()) {
            self.last_end = None;
            self.show();
            for done in self.waiting.drain(..) {
                // Whoever stopped waiting needs no answer.
                let _ = done.send(self.status.position);
            }
        } else {
            self.keep_comparing();
        }
    }

    fn keep_comparing(&mut self) {
        self.waiting.retain(|done| !done.is_closed());
        if !self.waiting.is_empty() {
            self.recovery.probe();
        }
    }

    fn carry_out(&mut self) {
        while let Some(step) = self.recovery.next_step() {
            match step {
                Step::Apply { sequence, payload } => self.apply(sequence, &payload),
                Step::Lost(reason) => self.lost(&reason),
                Step::Replay { from, fruitless } => {
                    let Some(endpoint) = &self.config.replay else { continue };
                    let wait = match fruitless {
                        0 => Duration::ZERO,
                        _ => self.backoff.wait(fruitless),
                    };
                    self.replay = Some(Replay::start(
                        endpoint.clone(),
                        self.config.link.clone(),
                        from,
                        wait,
                        self.config.replay_timeout,
                    ));
                }
            }
        }
    }

    fn apply(&mut self, sequence: u64, payload: &[u8]) {
        match self.config.format.decode(payload, &self.config.decode) {
            Ok(Decoded { batch, skipped }) => {
                self.note_skipped(skipped);
                if batch.dp_rank.is_some_and(|rank| rank != self.config.dp_rank) {
                    self.status.rank_mismatches += 1;
                    if self.status.rank_mismatches == 1 {
                        tracing::warn!(endpoint = %self.endpoint, expected = self.config.dp_rank,
                            got = batch.dp_rank, "KV events of another data-parallel rank: \
                            right only if the engine was given that rank from outside");
                    }
                }
                self.status.batches += 1;
                self.sink.events(self.endpoint, sequence, batch);
            }
            Err(error) => {
                self.status.undecodable_payloads += 1;
                self.lost(&LostReason::Undecodable { sequence, why: error.to_string() });
            }
        }
    }

    fn note_skipped(&mut self, skipped: Skipped) {
        if skipped.paired_token_stores > 0 && self.status.skipped.paired_token_stores == 0 {
            tracing::warn!(endpoint = %self.endpoint, "the engine names blocks by pairs of tokens \
                (speculative decoding with EAGLE): they cannot be matched and are left out");
        }
        if skipped.unknown_mediums > 0 && self.status.skipped.unknown_mediums == 0 {
            tracing::warn!(endpoint = %self.endpoint, "KV events about an unknown medium are left out");
        }
        if skipped.malformed_stores > 0 && self.status.skipped.malformed_stores == 0 {
            tracing::warn!(endpoint = %self.endpoint, "KV events that contradict themselves are left out");
        }
        self.status.skipped += skipped;
    }

    fn lost(&mut self, reason: &LostReason) {
        self.status.losses += 1;
        if self.status.losses.is_power_of_two() {
            tracing::warn!(endpoint = %self.endpoint, %reason, losses = self.status.losses,
                "what the engine's KV cache holds is unknown: forgotten");
        }
        self.sink.lost(self.endpoint, reason);
    }

    fn show(&mut self) {
        self.status.position = self.recovery.position();
        self.status.is_settled = self.recovery.is_settled();
        self.status.recovery = self.recovery.counts();
        let status = &self.status;
        self.publish.send_if_modified(|shown| {
            let is_new = shown != status;
            if is_new {
                shown.clone_from(status);
            }
            is_new
        });
    }
}

/// The last two frames are the sequence number and the payload. Before them a message has its
/// topic; a replay has an empty frame and, in newer releases, the topic.
fn parse(message: &Message) -> Option<(u64, Bytes)> {
    let [.., sequence, payload] = &message[..] else { return None };
    let sequence = <[u8; 8]>::try_from(&sequence[..]).ok()?;
    Some((u64::from_be_bytes(sequence), payload.clone()))
}

async fn replay_item(replay: &mut Option<Replay>) -> Result<ReplayItem, ZmtpError> {
    match replay {
        Some(replay) => replay.next().await,
        None => std::future::pending().await,
    }
}
