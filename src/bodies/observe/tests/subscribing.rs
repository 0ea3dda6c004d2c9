use super::value::Value;
use crate::observe::{
    BackoffConfig, EventFormat, KvSink, LostReason, RestartSign, Subscriber, SubscriberConfig,
    SyncError,
};
use crate::zmtp::{Endpoint, LinkConfig, RouterServer, ZmtpPublisher};
use bytes::{Buf, Bytes};
use llmd_brain::index::{KvEvent, KvEventBatch};
use llmd_brain::{EndpointId, Slot};
use parking_lot::Mutex;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ENDPOINT: EndpointId = EndpointId { slot: Slot(3), generation: 1 };

/// What an engine publishes, under vLLM's protocol, with faults on demand.
struct Engine {
    publisher: ZmtpPublisher,
    /// What the replay socket serves: (sequence, payload).
    buffer: Arc<Mutex<Vec<(u64, Bytes)>>>,
    next: u64,
    started: f64,
    replay: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Engine {
    async fn start() -> Self {
        Self::start_at("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", 1.0).await
    }

    async fn start_at(events: &str, replay: &str, started: f64) -> Self {
        let publisher = bind(|| ZmtpPublisher::bind(events)).await;
        let mut router = bind(|| RouterServer::bind(replay)).await;
        let buffer = Arc::new(Mutex::new(Vec::<(u64, Bytes)>::new()));
        let address = router.local_addr();
        let kept = Arc::clone(&buffer);
        let serving = tokio::spawn(async move {
            let sender = router.sender();
            loop {
                let (asker, request) = router.recv().await;
                let from = request[1].clone().get_u64();
                let kept = kept.lock().clone();
                for (sequence, payload) in kept.into_iter().filter(|(s, _)| *s >= from) {
                    let reply = [Bytes::new(), "kv".into(), number(sequence), payload];
                    sender.send(&asker, &reply).await.unwrap();
                }
                let end = [Bytes::new(), Bytes::new(), number(u64::MAX), Bytes::new()];
                sender.send(&asker, &end).await.unwrap();
            }
        });
        Self { publisher, buffer, next: 0, started, replay: address, serving }
    }

    /// A new incarnation on the same ports.
    async fn restart(self) -> Self {
        let events = format!("tcp://{}", self.publisher.local_addr());
        let (replay, started) = (format!("tcp://{}", self.replay), self.started + 1.0);
        drop(self);
        Self::start_at(&events, &replay, started).await
    }

    /// Stores one block, named by the sequence.
    fn publish(&mut self) -> u64 {
        let payload = self.keep();
        self.send(self.next - 1, payload);
        self.next - 1
    }

    /// The same, lost on the way: only the replay buffer has it.
    fn keep(&mut self) -> Bytes {
        let event = json!(["BlockStored", [self.next], null, [1, 2], 2, null]);
        let batch = Value::from(json!([self.started, [event], 0])).write();
        self.buffer.lock().push((self.next, batch.clone().into()));
        self.next += 1;
        batch.into()
    }

    fn send(&self, sequence: u64, payload: Bytes) {
        self.publisher.publish(&"kv".into(), &[number(sequence), payload]);
    }

    fn config(&self) -> SubscriberConfig {
        SubscriberConfig {
            replay: Some(at(self.replay)),
            backoff: BackoffConfig {
                initial: Duration::from_millis(1),
                max: Duration::from_millis(20),
            },
            ..SubscriberConfig::new(at(self.publisher.local_addr()))
        }
    }
}

/// Tries until the port of a socket that was just dropped is free.
async fn bind<T, E, F: Future<Output = Result<T, E>>>(attempt: impl Fn() -> F) -> T {
    loop {
        match attempt().await {
            Ok(bound) => return bound,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn at(address: SocketAddr) -> Endpoint {
    Endpoint::new(address.ip().to_string(), address.port())
}

fn number(sequence: u64) -> Bytes {
    Bytes::copy_from_slice(&sequence.to_be_bytes())
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    /// Sequence of the message, and the name of the one block it stores.
    Stored(u64, u64),
    Lost(LostReason),
}

/// Remembers what it is told.
#[derive(Default)]
struct Notebook(Mutex<Vec<Told>>);

impl KvSink for Notebook {
    fn events(&self, endpoint: EndpointId, sequence: u64, batch: KvEventBatch) {
        assert_eq!(endpoint, ENDPOINT);
        let [KvEvent::Stored(stored)] = &batch.events[..] else { panic!("{batch:?}") };
        self.0.lock().push(Told::Stored(sequence, stored.block_hashes[0].0));
    }

    fn lost(&self, endpoint: EndpointId, reason: &LostReason) {
        assert_eq!(endpoint, ENDPOINT);
        self.0.lock().push(Told::Lost(reason.clone()));
    }
}

impl Notebook {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock())
    }
}

fn stored(sequences: impl IntoIterator<Item = u64>) -> Vec<Told> {
    sequences.into_iter().map(|sequence| Told::Stored(sequence, sequence)).collect()
}

fn follow(config: SubscriberConfig) -> (Subscriber, Arc<Notebook>) {
    let notebook = Arc::new(Notebook::default());
    (Subscriber::spawn(ENDPOINT, config, Arc::clone(&notebook) as _, 7), notebook)
}

#[tokio::test]
async fn a_late_subscriber_learns_all_and_then_follows() {
    let mut engine = Engine::start().await;
    for _ in 0..5 {
        engine.publish();
    }
    let (subscriber, notebook) = follow(engine.config());
    assert_eq!(subscriber.synchronized().await, Ok(Some(4)));
    assert_eq!(notebook.take(), stored(0..5));

    let last = engine.publish();
    subscriber.reached(last).await.unwrap();

    assert_eq!(notebook.take(), stored(5..6));
    let status = subscriber.wait_for(|status| status.is_settled).await.unwrap();
    assert_eq!((status.connections, status.batches, status.position), (1, 6, Some(5)));
    assert_eq!((status.recovery.lost, status.malformed_messages), (0, 0));
}

#[tokio::test]
async fn an_engine_that_has_nothing_yet_is_synchronized_at_none() {
    let engine = Engine::start().await;
    let (subscriber, notebook) = follow(engine.config());
    assert_eq!(subscriber.synchronized().await, Ok(None));
    assert_eq!(notebook.take(), []);
}

#[tokio::test]
async fn a_gap_is_filled_from_the_replay_socket() {
    let mut engine = Engine::start().await;
    engine.publish();
    let (subscriber, notebook) = follow(engine.config());
    subscriber.synchronized().await.unwrap();
    engine.keep();
    engine.keep();
    let last = engine.publish();
    subscriber.reached(last).await.unwrap();
    assert_eq!(notebook.take(), stored(0..4));
    assert_eq!(subscriber.status().recovery.gaps, 1);
}

#[tokio::test]
async fn a_loss_at_the_end_of_the_stream_is_found_by_asking() {
    let mut engine = Engine::start().await;
    engine.publish();
    let probing = SubscriberConfig { probe_interval: Duration::from_millis(5), ..engine.config() };
    let (asked, asked_notebook) = follow(engine.config());
    let (probing, probing_notebook) = follow(probing);
    asked.synchronized().await.unwrap();
    probing.reached(0).await.unwrap();
    engine.keep();
    assert_eq!(asked.synchronized().await, Ok(Some(1)));
    probing.reached(1).await.unwrap();
    assert_eq!(asked_notebook.take(), stored(0..2));
    assert_eq!(probing_notebook.take(), stored(0..2));
}

#[tokio::test]
async fn a_restart_of_the_engine_clears_and_starts_again() {
    let mut engine = Engine::start().await;
    engine.publish();
    engine.publish();
    let (subscriber, notebook) = follow(engine.config());
    subscriber.synchronized().await.unwrap();

    let mut engine = engine.restart().await;
    // As far as the old one had come: only the content tells.
    engine.publish();
    engine.publish();
    engine.publish();
    subscriber.wait_for(|status| status.recovery.restarts == 1).await.unwrap();
    assert_eq!(subscriber.synchronized().await, Ok(Some(2)));

    let restart = LostReason::Restart { sign: RestartSign::ReplayDisagrees };
    let expected = [stored(0..2), vec![Told::Lost(restart)], stored(0..3)].concat();
    assert_eq!(notebook.take(), expected);
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_restart() {
    let mut engine = Engine::start().await;
    engine.publish();
    let (subscriber, notebook) = follow(engine.config());
    subscriber.synchronized().await.unwrap();

    // The same history behind new sockets.
    let (history, next) = (engine.buffer.lock().clone(), engine.next);
    let mut engine = engine.restart().await;
    engine.buffer.lock().extend(history);
    (engine.next, engine.started) = (next, 1.0);
    subscriber.wait_for(|status| status.connections == 2 && status.is_settled).await.unwrap();
    let last = engine.publish();
    subscriber.reached(last).await.unwrap();

    assert_eq!(notebook.take(), stored(0..2));
}

#[tokio::test]
async fn garbage_is_counted_and_what_it_may_have_hidden_is_void() {
    let mut engine = Engine::start().await;
    let (subscriber, notebook) = follow(engine.config());
    subscriber.synchronized().await.unwrap();
    engine.publish();
    engine.publisher.publish(&"kv".into(), &["12".into(), "sequence of two bytes".into()]);
    engine.publisher.publish(&"kv".into(), &["two frames".into()]);
    engine.send(1, "not msgpack".into());
    engine.next = 2;
    let last = engine.publish();
    subscriber.reached(last).await.unwrap();

    let status = subscriber.status();
    assert_eq!((status.malformed_messages, status.undecodable_payloads), (2, 1));
    let told = notebook.take();
    let [before, Told::Lost(LostReason::Undecodable { sequence: 1, .. }), after] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!([before.clone(), after.clone()], [Told::Stored(0, 0), Told::Stored(2, 2)]);
}

#[tokio::test]
async fn without_a_replay_socket_a_gap_is_a_loss() {
    let mut engine = Engine::start().await;
    let config = SubscriberConfig { replay: None, ..engine.config() };
    let (subscriber, notebook) = follow(config);
    engine.publisher.subscribed(1).await;
    engine.publish();
    engine.keep();
    let last = engine.publish();
    subscriber.reached(last).await.unwrap();

    let lost = Told::Lost(LostReason::NoReplay { expected: 1, got: 2 });
    assert_eq!(notebook.take(), [Told::Stored(0, 0), lost, Told::Stored(2, 2)]);
    assert_eq!(subscriber.synchronized().await, Err(SyncError::NoReplay));
}

#[tokio::test]
async fn a_process_start_time_that_changes_is_a_restart_where_nothing_else_can_tell() {
    let mut engine = Engine::start().await;
    let config = SubscriberConfig { replay: None, ..engine.config() };
    let (subscriber, notebook) = follow(config);
    engine.publisher.subscribed(1).await;
    engine.publish();
    subscriber.reached(0).await.unwrap();
    subscriber.note_process_start(1_000.0);
    subscriber.note_process_start(1_000.0);
    subscriber.note_process_start(2_000.0);
    subscriber.wait_for(|status| status.recovery.restarts == 1).await.unwrap();
    let restart = LostReason::Restart { sign: RestartSign::ProcessStartTime };
    assert_eq!(notebook.take(), [Told::Stored(0, 0), Told::Lost(restart)]);
}

#[tokio::test]
async fn a_replay_socket_that_says_nothing_does_not_stop_the_stream() {
    let mut engine = Engine::start().await;
    let silent = RouterServer::bind("tcp://127.0.0.1:0").await.unwrap();
    let config = SubscriberConfig {
        replay: Some(at(silent.local_addr())),
        replay_timeout: Duration::from_millis(10),
        ..engine.config()
    };
    let (subscriber, notebook) = follow(config);
    engine.publisher.subscribed(1).await;
    engine.keep();
    engine.publish();
    subscriber.reached(1).await.unwrap();
    assert_eq!(notebook.take(), stored([1]));
    let status = subscriber.status();
    assert_eq!((status.recovery.failed_replays, status.recovery.lost), (3, 0));
    assert!(status.last_error.unwrap().contains("no answer within 10 ms"));
}

#[tokio::test]
async fn frames_that_lie_end_the_connection_and_the_next_one_works() {
    let faulty = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = faulty.local_addr().unwrap();
    let config = SubscriberConfig {
        backoff: BackoffConfig { initial: Duration::from_millis(1), max: Duration::from_millis(5) },
        link: LinkConfig { connect_timeout: Duration::from_secs(5), ..LinkConfig::default() },
        ..SubscriberConfig::new(at(address))
    };
    let (subscriber, notebook) = follow(config);
    // A PUB of ZMTP 3.0 that shakes hands; then 4 GiB announced, half a frame, plain garbage.
    let mut hello = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    hello.extend_from_slice(b"NULL");
    hello.resize(64, 0);
    hello.extend_from_slice(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB");
    let faults: [(&[u8], &str); 3] = [
        (b"\x02\0\0\0\x01\0\0\0\0", "a frame of 4294967296 bytes"),
        (b"\x01\x02kv\x00\x40half", "with 8 bytes of an unfinished frame"),
        (b"\xaa\xaa\xaa", "frame flags 0xaa"),
    ];
    for (bytes, says) in faults {
        let (mut stream, _) = faulty.accept().await.unwrap();
        stream.write_all(&[&hello[..], bytes].concat()).await.unwrap();
        stream.shutdown().await.unwrap();
        let status = subscriber
            .wait_for(|status| status.last_error.as_ref().is_some_and(|e| e.contains(says)))
            .await
            .unwrap();
        assert!(!status.is_connected);
    }
    drop(faulty);

    let mut engine = Engine::start_at(&format!("tcp://{address}"), "tcp://127.0.0.1:0", 1.0).await;
    engine.publisher.subscribed(1).await;
    engine.publish();
    subscriber.reached(0).await.unwrap();
    assert_eq!(notebook.take(), stored(0..1));
}

#[tokio::test]
async fn another_rank_s_events_are_told_apart_by_port_and_counted_otherwise() {
    let mut engine = Engine::start().await;
    let config = SubscriberConfig { dp_rank: 1, ..engine.config() };
    let (subscriber, _) = follow(config.clone());
    engine.publish();
    subscriber.reached(0).await.unwrap();
    assert_eq!(subscriber.status().rank_mismatches, 1);

    let of_rank_0 = SubscriberConfig {
        replay: Some("tcp://h:5657".parse().unwrap()),
        ..SubscriberConfig::new("tcp://h:5557".parse().unwrap())
    };
    let of_rank_3 = of_rank_0.for_rank(3).unwrap();
    assert_eq!(of_rank_3.events.to_string(), "tcp://h:5560");
    assert_eq!(of_rank_3.replay.unwrap().to_string(), "tcp://h:5660");
    assert_eq!((of_rank_3.dp_rank, of_rank_3.format), (3, EventFormat::Vllm));
}

#[tokio::test]
async fn a_topic_filters_at_the_engine() {
    let mut engine = Engine::start().await;
    let config = SubscriberConfig { topic: "other".into(), replay: None, ..engine.config() };
    let (_subscriber, _) = follow(config);
    engine.publisher.subscribed(1).await;
    engine.publish();
    assert_eq!(engine.publisher.stats().queued, 0);
}

#[tokio::test]
async fn a_subscriber_that_is_dropped_leaves() {
    let engine = Engine::start().await;
    let (subscriber, _) = follow(engine.config());
    engine.publisher.subscribed(1).await;
    drop(subscriber);
    while engine.publisher.stats().subscribers > 0 {
        tokio::task::yield_now().await;
    }
}
