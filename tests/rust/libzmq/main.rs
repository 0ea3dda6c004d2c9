//! Our ZMTP against libzmq, both ways round: what an engine's pyzmq sockets are.
//!
//! Needs a Python with pyzmq: `LLMD_TEST_PYTHON`, else the repository's `.venv`, else `python3`.
//! Skips with a reason without one, and fails instead where `LLMD_REQUIRE` names `pyzmq`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::{Buf, Bytes};
use llmd_bodies::observe::{KvSink, LostReason, Subscriber, SubscriberConfig};
use llmd_bodies::zmtp::{
    Dealer, Endpoint, LinkConfig, RouterServer, Subscription, ZmtpError, ZmtpPublisher,
};
use llmd_brain::index::{KvEvent, KvEventBatch};
use llmd_brain::{EndpointId, Slot};
use parking_lot::Mutex;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts the peer in a role; `None` where there is no pyzmq.
    async fn start(arguments: &[&str]) -> Option<Self> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let in_repository = repository.join(".venv/bin/python");
        let python = match std::env::var_os("LLMD_TEST_PYTHON") {
            Some(python) => python.into(),
            None if in_repository.exists() => in_repository,
            None => "python3".into(),
        };
        let probe = Command::new(&python).args(["-c", "import zmq"]).output().await;
        if !probe.is_ok_and(|output| output.status.success()) {
            let required = std::env::var("LLMD_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|kind| kind == "pyzmq"), "pyzmq is required");
            eprintln!("skipped: {} cannot import zmq", python.display());
            return None;
        }
        let mut child = Command::new(python)
            .arg(repository.join("tests/rust/libzmq/peer.py"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { child, lines })
    }

    /// The next line, which must start with `word`; what follows it.
    async fn expect(&mut self, word: &str) -> String {
        let line = self.lines.next_line().await.unwrap().expect("the peer has ended");
        let rest = line.strip_prefix(word).unwrap_or_else(|| panic!("{line:?} for {word:?}"));
        rest.trim_start().to_owned()
    }

    async fn endpoint(&mut self) -> Endpoint {
        Endpoint::new("127.0.0.1", self.expect("port").await.parse().unwrap())
    }

    async fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }
}

fn address(of: std::net::SocketAddr) -> String {
    format!("tcp://{of}")
}

#[tokio::test]
async fn our_subscription_hears_libzmq_publish() {
    let Some(mut peer) = Peer::start(&["publish"]).await else { return };
    let endpoint = peer.endpoint().await;

    let topics = [Bytes::from_static(b"kv@")];
    let mut subscription =
        Subscription::connect(&endpoint, &topics, LinkConfig::default()).await.unwrap();

    assert_eq!(peer.expect("subscribed").await, "016b7640");
    assert_eq!(subscription.peer().socket_type, "XPUB");
    for size in [0, 100, 70_000] {
        peer.tell(&format!("40 {size}")).await;
        for i in 0u8..40 {
            let message = subscription.recv().await.unwrap();
            let [topic, sequence, body] = &message[..] else { panic!("{message:?}") };
            assert_eq!((&topic[..], sequence.clone().get_u64()), (&b"kv@a"[..], u64::from(i)));
            assert!(body.len() == size && body.iter().all(|&byte| byte == i));
        }
        peer.expect("sent").await;
    }
    peer.child.kill().await.unwrap();
    let error = subscription.recv().await.unwrap_err();
    assert!(matches!(error, ZmtpError::Closed { .. } | ZmtpError::Io { .. }), "{error}");
}

#[tokio::test]
async fn libzmq_subscribes_to_our_publisher() {
    let publisher = ZmtpPublisher::bind("tcp://127.0.0.1:*").await.unwrap();
    let address = address(publisher.local_addr());
    let Some(mut peer) = Peer::start(&["subscribe", &address, "kv@"]).await else { return };
    publisher.subscribed(1).await;

    for size in [0usize, 255, 256, 1 << 20] {
        publisher.publish(&"other".into(), &["nobody wants this".into()]);
        publisher.publish(&"kv@b".into(), &[Bytes::new(), vec![3; size].into()]);
        assert_eq!(peer.expect("message").await, format!("3 kv@b {size} {}", 3 * size));
    }
}

#[tokio::test]
async fn libzmq_subscribes_again_after_our_publisher_restarts() {
    let first = ZmtpPublisher::bind("tcp://127.0.0.1:*").await.unwrap();
    let address = address(first.local_addr());
    let Some(mut peer) = Peer::start(&["subscribe", &address, ""]).await else { return };
    first.subscribed(1).await;
    first.publish(&"first".into(), &[]);
    peer.expect("message 1 first").await;

    drop(first);
    let second = loop {
        // The old listener closes when its task is dropped, a moment after the publisher.
        match ZmtpPublisher::bind(&address).await {
            Ok(publisher) => break publisher,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    second.subscribed(1).await;
    second.publish(&"second".into(), &[]);
    peer.expect("message 1 second").await;
}

#[tokio::test]
async fn our_dealer_replays_from_a_libzmq_router() {
    let Some(mut peer) = Peer::start(&["answer"]).await else { return };
    let mut dealer = Dealer::connect(&peer.endpoint().await, LinkConfig::default()).await.unwrap();

    for first in [0u64, 1000] {
        dealer.send(&[Bytes::new(), Bytes::copy_from_slice(&first.to_be_bytes())]);
        for i in first..first + 300 {
            let reply = dealer.recv().await.unwrap();
            assert_eq!((reply[1].clone().get_u64(), reply[2].len() as u64), (i, i));
        }
        assert_eq!(dealer.recv().await.unwrap()[1], [0xff; 8][..]);
    }
}

#[tokio::test]
async fn libzmq_asks_our_router() {
    for role in ["ask-dealer", "ask-req"] {
        let mut router = RouterServer::bind("tcp://127.0.0.1:*").await.unwrap();
        let address = address(router.local_addr());
        let Some(mut peer) = Peer::start(&[role, &address]).await else { return };
        for i in 0..3 {
            let (identity, request) = router.recv().await;
            assert_eq!(request, [Bytes::new(), i.to_string().into()]);
            let reply = [Bytes::new(), "answer".into(), request[1].clone()];
            router.sender().send(&identity, &reply).await.unwrap();
            let empty = if role == "ask-req" { "" } else { "- " };
            assert_eq!(peer.expect("reply").await, format!("{empty}answer {i}"));
        }
    }
}

/// The blocks that are held, by what a sink is told.
#[derive(Default)]
struct Held(Mutex<(Vec<u64>, u32)>);

impl KvSink for Held {
    fn events(&self, _: EndpointId, _: u64, batch: KvEventBatch) {
        for event in batch.events {
            let KvEvent::Stored(stored) = event else { panic!("{event:?}") };
            self.0.lock().0.extend(stored.block_hashes.iter().map(|hash| hash.0));
        }
    }

    fn lost(&self, _: EndpointId, _: &LostReason) {
        let mut held = self.0.lock();
        held.0.clear();
        held.1 += 1;
    }
}

#[tokio::test]
async fn a_subscriber_follows_a_libzmq_engine_through_gap_kill_and_restart() {
    let Some(mut engine) = Peer::start(&["engine", "*", "*"]).await else { return };
    let ports = engine.expect("ports").await;
    let (events, replay) = ports.split_once(' ').unwrap();
    let at = |port: &str| Endpoint::new("127.0.0.1", port.parse().unwrap());
    let config = SubscriberConfig { replay: Some(at(replay)), ..SubscriberConfig::new(at(events)) };
    let held = Arc::new(Held::default());
    let endpoint = EndpointId { slot: Slot(0), generation: 1 };
    engine.tell("publish").await;
    let subscriber = Subscriber::spawn(endpoint, config, Arc::clone(&held) as _, 1);
    subscriber.reached(0).await.unwrap();

    for command in ["publish", "keep", "keep", "publish"] {
        engine.tell(command).await;
    }
    subscriber.reached(4).await.unwrap();
    engine.tell("keep").await;
    engine.tell("keep").await;
    // Commands and requests come by different ways: ask until the commands have been heard.
    while subscriber.synchronized().await != Ok(Some(6)) {}
    assert_eq!(*held.0.lock(), ((0..7).collect(), 0));

    engine.child.kill().await.unwrap();
    let mut engine = Peer::start(&["engine", events, replay]).await.unwrap();
    engine.expect("ports").await;
    for _ in 0..9 {
        engine.tell("publish").await;
    }
    subscriber.wait_for(|status| status.recovery.restarts == 1).await.unwrap();
    while subscriber.synchronized().await != Ok(Some(8)) {}
    assert_eq!(*held.0.lock(), ((0..9).collect(), 1));
}
