use super::frame;
use super::*;
use bytes::{Buf, BytesMut};
use proptest::prelude::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LONG_LENGTH_4_GIB: &[u8] = b"\x02\x00\x00\x00\x01\x00\x00\x00\x00";

fn session(socket_type: SocketType) -> Session {
    Session::new(SessionConfig::new(socket_type))
}

/// Moves `chunk` bytes at a time between two sessions until both are quiet.
fn converse(a: &mut Session, b: &mut Session, chunk: usize) -> (Vec<Event>, Vec<Event>) {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    while !a.output().is_empty() || !b.output().is_empty() {
        convey(a, b, chunk, &mut of_b);
        convey(b, a, chunk, &mut of_a);
    }
    (of_a, of_b)
}

fn convey(from: &mut Session, to: &mut Session, chunk: usize, events: &mut Vec<Event>) {
    let n = chunk.min(from.output().len());
    to.input().extend_from_slice(&from.output().split_to(n));
    while let Some(event) = to.poll().unwrap() {
        events.push(event);
    }
}

fn connected(a: SocketType, b: SocketType) -> (Session, Session) {
    let (mut a, mut b) = (session(a), session(b));
    converse(&mut a, &mut b, usize::MAX);
    (a, b)
}

fn frames(of: &[&'static [u8]]) -> Message {
    of.iter().map(|frame| Bytes::from_static(frame)).collect()
}

fn refusal(socket_type: SocketType, bytes: &[u8]) -> ZmtpError {
    let (mut ours, _) = match socket_type {
        SocketType::Sub => connected(SocketType::Sub, SocketType::Pub),
        _ => connected(SocketType::Pub, SocketType::Sub),
    };
    ours.input().extend_from_slice(bytes);
    ours.poll().unwrap_err()
}

#[test]
fn two_sessions_shake_hands_byte_by_byte() {
    let mut dealer = Session::new(SessionConfig {
        identity: Bytes::from_static(b"router-7"),
        ..SessionConfig::new(SocketType::Dealer)
    });
    let mut router = session(SocketType::Router);

    let (of_dealer, of_router) = converse(&mut dealer, &mut router, 1);

    let peer = |socket_type: &str, identity: &'static [u8]| {
        let identity = Bytes::from_static(identity);
        Event::Ready(PeerInfo { minor: 1, socket_type: socket_type.into(), identity })
    };
    assert_eq!(of_dealer, [peer("ROUTER", b"")]);
    assert_eq!(of_router, [peer("DEALER", b"router-7")]);
}

#[test]
fn a_subscription_is_a_command_in_3_1_and_a_message_in_3_0() {
    for minor in [1, 0] {
        let (mut sub, mut publisher) = (session(SocketType::Sub), session(SocketType::Pub));
        publisher.output()[11] = minor;
        converse(&mut sub, &mut publisher, usize::MAX);

        sub.subscribe(b"kv@");

        let is_command = sub.output()[0] & 4 != 0;
        assert_eq!(is_command, minor == 1);
        let (_, events) = converse(&mut sub, &mut publisher, usize::MAX);
        assert_eq!(events, [Event::Subscribe(Bytes::from_static(b"kv@"))]);
        assert_eq!(sub.ping(), minor == 1, "3.0 has no heartbeats");
    }
}

#[test]
fn a_subscription_is_cancelled_by_either_form() {
    for cancel in [&b"\x04\x0c\x06CANCELtopic"[..], b"\x00\x06\x00topic"] {
        let (mut publisher, _) = connected(SocketType::Pub, SocketType::Sub);
        publisher.input().extend_from_slice(cancel);
        let event = publisher.poll().unwrap();
        assert_eq!(event, Some(Event::Unsubscribe(Bytes::from_static(b"topic"))));
    }
}

#[test]
fn a_ping_is_answered_with_its_context() {
    let (mut sub, _) = connected(SocketType::Sub, SocketType::Pub);
    sub.input().extend_from_slice(b"\x04\x0b\x04PING\x00\x00ctxt");
    assert_eq!(sub.poll().unwrap(), None);
    assert_eq!(&sub.output()[..], b"\x04\x09\x04PONGctxt");
}

#[test]
fn an_unknown_command_is_skipped() {
    let (mut sub, _) = connected(SocketType::Sub, SocketType::Pub);
    sub.input().extend_from_slice(b"\x04\x04\x03NEW\x00\x02hi");
    assert_eq!(sub.poll().unwrap(), Some(Event::Message(frames(&[b"hi"]))));
}

#[test]
fn a_length_prefix_beyond_the_limit_is_refused_at_the_header() {
    let error = refusal(SocketType::Sub, LONG_LENGTH_4_GIB);
    assert!(
        matches!(error, ZmtpError::TooLarge { bytes: 0x1_0000_0000, limit, .. } if limit == 64 << 20),
        "{error}"
    );
    let error = refusal(SocketType::Sub, b"\x06\xff\xff\xff\xff\xff\xff\xff\xff");
    assert!(matches!(error, ZmtpError::TooLarge { bytes: u64::MAX, .. }), "{error}");
}

#[test]
fn the_frames_of_a_message_share_one_limit() {
    let limits = Limits { max_message_bytes: 10, ..Limits::default() };
    let mut ours = Session::new(SessionConfig { limits, ..SessionConfig::new(SocketType::Sub) });
    let mut theirs = session(SocketType::Pub);
    converse(&mut ours, &mut theirs, usize::MAX);

    theirs.send(&frames(&[b"12345", b"67890"]));
    converse(&mut ours, &mut theirs, usize::MAX);
    ours.input().extend_from_slice(b"\x01\x0512345\x00\x06678901");

    let error = ours.poll().unwrap_err();
    assert!(matches!(error, ZmtpError::TooLarge { bytes: 6, limit: 5, .. }), "{error}");
}

#[test]
fn a_message_of_endless_frames_is_refused() {
    let error = refusal(SocketType::Sub, &[1, 0].repeat(17));
    assert!(matches!(error, ZmtpError::TooManyFrames(16)), "{error}");
}

#[test]
fn breaches_of_the_protocol_are_named() {
    for (bytes, says) in [
        (&b"\x08\x00"[..], "frame flags 0x08"),
        (b"\x05\x04\x03NEW", "MORE flag"),
        (b"\x04\x00", "without a name"),
        (b"\x04\x05\x04PING", "PING of the wrong length"),
        (b"\x04\x06\x05READY", "second READY"),
    ] {
        let error = refusal(SocketType::Sub, bytes).to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn other_protocols_are_refused_at_their_first_bytes() {
    let mut curve = greeting::greeting().to_vec();
    curve[12..17].copy_from_slice(b"CURVE");
    for (bytes, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], "first byte 0x48"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7e", "signature ends in 0x7e"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x01", "version 1"),
        (&curve, "mechanism \"CURVE\""),
    ] {
        let mut ours = session(SocketType::Sub);
        ours.input().extend_from_slice(bytes);
        let error = ours.poll().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn swapped_ports_are_named() {
    let (mut sub, mut router) = (session(SocketType::Sub), session(SocketType::Router));
    sub.poll().unwrap();
    sub.input().extend_from_slice(router.output());
    router.input().extend_from_slice(&sub.output().split());
    router.poll().unwrap();
    sub.poll().unwrap();
    sub.input().extend_from_slice(&router.output()[64..]);

    let error = sub.poll().unwrap_err().to_string();
    assert!(error.contains("ROUTER socket, which never talks to a SUB"), "{error}");
}

#[test]
fn endpoints_resolve_hosts_and_ranks() {
    let parse = |text: &str| text.parse::<Endpoint>();
    let wildcard = parse("tcp://*:5557").unwrap();
    assert!(wildcard.is_wildcard());
    assert_eq!(wildcard.on_host("gpu-3").for_rank(2).unwrap(), Endpoint::new("gpu-3", 5559));
    assert_eq!(parse("tcp://[::]:1").unwrap().on_host("fe80::1").to_string(), "tcp://[fe80::1]:1");
    assert_eq!(parse("tcp://10.0.0.1:9").unwrap().on_host("gpu-3"), Endpoint::new("10.0.0.1", 9));
    for (text, says) in [
        ("ipc:///tmp/kv", "only tcp://"),
        ("inproc://kv", "only tcp://"),
        ("tcp://host", "no port"),
        ("tcp://host:70000", "0 to 65535"),
        ("tcp://::1:5557", "brackets"),
        ("tcp://[::1:5557", "not closed"),
        ("tcp://:5557", "no host"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(text), "{error}");
    }
    assert!(Endpoint::new("h", 65_535).for_rank(1).is_err());
}

proptest! {
    #[test]
    fn messages_survive_any_chunking(
        messages in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..5), 0..8),
        chunk in 1usize..700,
    ) {
        let (mut ours, mut theirs) = connected(SocketType::Sub, SocketType::Pub);
        let messages: Vec<Message> =
            messages.into_iter().map(|m| m.into_iter().map(Bytes::from).collect()).collect();
        for message in &messages {
            theirs.send(message);
        }
        let (events, _) = converse(&mut ours, &mut theirs, chunk);
        prop_assert_eq!(events, messages.into_iter().map(Event::Message).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_break_a_session(
        after_handshake in any::<bool>(),
        is_sub in any::<bool>(),
        bytes in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..300),
    ) {
        let kinds = [SocketType::Pub, SocketType::Sub];
        let (mut ours, _) = match after_handshake {
            true => connected(kinds[usize::from(is_sub)], kinds[usize::from(!is_sub)]),
            false => (session(kinds[usize::from(is_sub)]), session(SocketType::Pub)),
        };
        ours.input().extend_from_slice(&bytes);
        while let Ok(Some(_)) = ours.poll() {}
        prop_assert!(ours.partial_bytes() <= bytes.len());
    }
}

// ---- sockets -----------------------------------------------------------------------------

fn impatient() -> LinkConfig {
    LinkConfig {
        heartbeat_interval: Duration::from_millis(20),
        silence_timeout: Duration::from_millis(80),
        ..LinkConfig::default()
    }
}

fn at(address: std::net::SocketAddr) -> Endpoint {
    Endpoint::new(address.ip().to_string(), address.port())
}

async fn subscribe(publisher: &ZmtpPublisher, topic: &'static [u8]) -> Subscription {
    let topics = [Bytes::from_static(topic)];
    Subscription::connect(&at(publisher.local_addr()), &topics, LinkConfig::default())
        .await
        .unwrap()
}

/// A PUB that says only what the test wants: completes the handshake, sends `bytes`, then holds
/// the connection open until the peer closes it, unless `hang_up`.
async fn raw_publisher(bytes: &'static [u8], hang_up: bool) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut script = greeting::greeting().to_vec();
        script[11] = 0;
        let mut ready = BytesMut::new();
        command::encode_ready(&mut ready, SocketType::Pub, b"");
        script.extend_from_slice(&ready);
        script.extend_from_slice(bytes);
        stream.write_all(&script).await.unwrap();
        if hang_up {
            stream.shutdown().await.unwrap();
        }
        while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
    });
    at(address)
}

async fn first_failure(endpoint: &Endpoint) -> ZmtpError {
    match Subscription::connect(endpoint, &[Bytes::new()], LinkConfig::default()).await {
        Ok(mut subscription) => subscription.recv().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_subscriber_gets_its_topics_in_order() {
    let publisher = ZmtpPublisher::bind("tcp://127.0.0.1:*").await.unwrap();
    let mut all = subscribe(&publisher, b"").await;
    let mut some = subscribe(&publisher, b"kv@a").await;

    let mut outcomes = Vec::new();
    for (topic, body) in [("kv@a@m", "1"), ("kv@b@m", "2"), ("kv@a@m", "3")] {
        outcomes.push(publisher.publish(&topic.into(), &[body.into()]).queued);
    }

    assert_eq!(outcomes, [2, 1, 2]);
    for expected in ["1", "2", "3"] {
        assert_eq!(all.recv().await.unwrap()[1], expected);
    }
    for expected in ["1", "3"] {
        assert_eq!(some.recv().await.unwrap(), [Bytes::from("kv@a@m"), Bytes::from(expected)]);
    }
    assert_eq!(publisher.stats().subscribers, 2);
}

#[tokio::test]
async fn the_end_of_a_publisher_is_noticed() {
    let publisher = ZmtpPublisher::bind("tcp://127.0.0.1:*").await.unwrap();
    let mut subscription = subscribe(&publisher, b"").await;
    publisher.publish(&"t".into(), &["last words".into()]);
    assert_eq!(subscription.recv().await.unwrap()[1], "last words");
    drop(publisher);
    let error = subscription.recv().await.unwrap_err();
    assert!(
        matches!(error, ZmtpError::Closed { partial_bytes: 0 } | ZmtpError::Io { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_subscriber_that_leaves_is_forgotten() {
    let publisher = ZmtpPublisher::bind("tcp://127.0.0.1:*").await.unwrap();
    let first = subscribe(&publisher, b"").await;
    let _second = subscribe(&publisher, b"").await;
    drop(first);
    while publisher.stats().subscribers > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(publisher.publish(&"t".into(), &[]).queued, 1);
}

#[tokio::test]
async fn half_a_frame_is_told_from_a_clean_end() {
    let cut = raw_publisher(b"\x00\x64only eleven", true).await;
    let error = first_failure(&cut).await;
    assert!(matches!(error, ZmtpError::Closed { partial_bytes: 13 }), "{error}");

    let clean = raw_publisher(b"", true).await;
    let error = first_failure(&clean).await;
    assert!(matches!(error, ZmtpError::Closed { partial_bytes: 0 }), "{error}");
}

#[tokio::test]
async fn a_4_gib_length_prefix_ends_the_connection_without_memory() {
    let endpoint = raw_publisher(LONG_LENGTH_4_GIB, false).await;
    let error = first_failure(&endpoint).await;
    assert!(matches!(error, ZmtpError::TooLarge { bytes: 0x1_0000_0000, .. }), "{error}");
}

#[tokio::test]
async fn a_port_that_is_not_zeromq_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = Dealer::connect(&endpoint, LinkConfig::default()).await.unwrap_err().to_string();
    assert!(error.contains("is this port a ZeroMQ socket?"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_greets_runs_into_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = at(listener.local_addr().unwrap());
    let config = LinkConfig { connect_timeout: Duration::from_millis(30), ..LinkConfig::default() };
    let error = Dealer::connect(&endpoint, config).await.unwrap_err();
    assert!(matches!(error, ZmtpError::Timeout(30)), "{error}");
}

#[tokio::test]
async fn a_peer_that_stops_answering_heartbeats_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = BytesMut::from(&greeting::greeting()[..]);
        command::encode_ready(&mut hello, SocketType::Router, b"");
        stream.write_all(&hello).await.unwrap();
        while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
    });
    let mut dealer = Dealer::connect(&endpoint, impatient()).await.unwrap();
    let error = dealer.recv().await.unwrap_err();
    assert!(matches!(error, ZmtpError::Silent(80)), "{error}");
}

#[tokio::test]
async fn heartbeats_keep_an_idle_connection() {
    let publisher = ZmtpPublisher::bind("tcp://127.0.0.1:*").await.unwrap();
    let topics = [Bytes::new()];
    let mut subscription =
        Subscription::connect(&at(publisher.local_addr()), &topics, impatient()).await.unwrap();
    // Twice the silence that would end it.
    let idle = tokio::time::timeout(Duration::from_millis(160), subscription.recv()).await;
    assert!(idle.is_err(), "{idle:?}");
    publisher.publish(&"t".into(), &[]);
    assert_eq!(subscription.recv().await.unwrap(), ["t"]);
}

#[tokio::test]
async fn a_slow_subscriber_loses_messages_and_others_do_not() {
    let config = PublisherConfig { high_water_messages: 8, ..PublisherConfig::default() };
    let publisher = ZmtpPublisher::bind_with("tcp://127.0.0.1:*", config).await.unwrap();
    let mut stuck = TcpStream::connect(publisher.local_addr()).await.unwrap();
    let mut hello = BytesMut::from(&greeting::greeting()[..]);
    command::encode_ready(&mut hello, SocketType::Sub, b"");
    command::encode_subscribe(&mut hello, 1, b"");
    stuck.write_all(&hello).await.unwrap();
    publisher.subscribed(1).await;
    let mut quick = subscribe(&publisher, b"").await;

    let body = Bytes::from(vec![7; 1 << 20]);
    let mut sent = 0;
    while publisher.stats().dropped == 0 {
        publisher.publish(&"t".into(), &[Bytes::copy_from_slice(&[sent]), body.clone()]);
        assert_eq!(quick.recv().await.unwrap()[1][0], sent);
        sent += 1;
    }

    let stats = publisher.stats();
    assert_eq!(stats.published, u64::from(sent));
    assert_eq!(stats.queued + stats.dropped, 2 * u64::from(sent));
}

#[tokio::test]
async fn queued_bytes_are_bounded_too() {
    let config = PublisherConfig { high_water_bytes: 100, ..PublisherConfig::default() };
    let publisher = ZmtpPublisher::bind_with("tcp://127.0.0.1:*", config).await.unwrap();
    let _subscription = subscribe(&publisher, b"").await;
    // One thread: the peer's task cannot take anything between these.
    let outcomes: Vec<_> =
        (0..3).map(|_| publisher.publish(&"t".into(), &[vec![0; 60].into()]).queued).collect();
    assert_eq!(outcomes, [1, 0, 0]);
}

#[tokio::test]
async fn subscriptions_are_bounded_in_length_and_number() {
    let config = PublisherConfig { max_subscriptions: 2, ..PublisherConfig::default() };
    let publisher = ZmtpPublisher::bind_with("tcp://127.0.0.1:*", config).await.unwrap();
    let endpoint = at(publisher.local_addr());
    for topics in [vec![Bytes::from(vec![b'x'; 1025])], vec![Bytes::new(); 3]] {
        let error =
            Subscription::connect(&endpoint, &topics, LinkConfig::default()).await.unwrap_err();
        assert!(matches!(error, ZmtpError::Closed { .. } | ZmtpError::Io { .. }), "{error}");
    }
}

#[tokio::test]
async fn one_peer_too_many_is_turned_away() {
    let config = PublisherConfig {
        server: ServerConfig { max_peers: 1, ..ServerConfig::default() },
        ..PublisherConfig::default()
    };
    let publisher = ZmtpPublisher::bind_with("tcp://127.0.0.1:*", config).await.unwrap();
    let _first = subscribe(&publisher, b"").await;
    let endpoint = at(publisher.local_addr());
    let error =
        Subscription::connect(&endpoint, &[Bytes::new()], LinkConfig::default()).await.unwrap_err();
    assert!(matches!(error, ZmtpError::Closed { .. } | ZmtpError::Io { .. }), "{error}");
}

#[tokio::test]
async fn a_router_answers_whom_it_was_asked_by_and_loses_nothing() {
    let mut router = RouterServer::bind("tcp://127.0.0.1:*").await.unwrap();
    let endpoint = at(router.local_addr());
    let mut a = Dealer::connect(&endpoint, LinkConfig::default()).await.unwrap();
    let mut b = Dealer::connect(&endpoint, LinkConfig::default()).await.unwrap();
    let sender = router.sender();
    tokio::spawn(async move {
        loop {
            let (identity, request) = router.recv().await;
            for i in 0u32..5_000 {
                let reply = [request[1].clone(), Bytes::copy_from_slice(&i.to_be_bytes())];
                sender.send(&identity, &reply).await.unwrap();
            }
        }
    });

    for (dealer, name) in [(&mut a, &b"a"[..]), (&mut b, b"b")] {
        dealer.send(&[Bytes::new(), Bytes::from_static(name)]);
        for i in 0u32..5_000 {
            let reply = dealer.recv().await.unwrap();
            assert_eq!((&reply[0][..], reply[1].clone().get_u32()), (name, i));
        }
    }
}

#[tokio::test]
async fn a_reply_to_a_peer_that_left_is_an_error() {
    let mut router = RouterServer::bind("tcp://127.0.0.1:*").await.unwrap();
    let endpoint = at(router.local_addr());
    let mut dealer = Dealer::connect(&endpoint, LinkConfig::default()).await.unwrap();
    dealer.send(&[Bytes::from_static(b"hi")]);
    let mut asked = None;
    while asked.is_none() {
        tokio::select! {
            request = router.recv() => asked = Some(request.0),
            reply = dealer.recv() => panic!("{reply:?}"),
        }
    }
    let identity = asked.unwrap();
    drop(dealer);
    let sender = router.sender();
    let error = loop {
        match sender.send(&identity, &[Bytes::from_static(b"?")]).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ZmtpError::UnknownPeer), "{error}");
}

#[test]
fn short_and_long_frames_differ_at_256_bytes() {
    for (length, header) in [(255, 2), (256, 9)] {
        let mut out = BytesMut::new();
        frame::encode(&mut out, false, false, &vec![0; length]);
        assert_eq!(out.len(), header + length);
    }
}

#[test]
fn a_captured_replay_of_a_real_engine_is_read() {
    let goldens = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/vllm");
    let captured = std::fs::read(goldens.join("replay_server.zmtp.bin")).unwrap();
    for chunk in [1, 7, captured.len()] {
        let mut dealer = session(SocketType::Dealer);
        let mut events = Vec::new();
        for piece in captured.chunks(chunk) {
            dealer.input().extend_from_slice(piece);
            while let Some(event) = dealer.poll().unwrap() {
                events.push(event);
            }
        }
        let Event::Ready(peer) = events.remove(0) else { panic!("{events:?}") };
        assert_eq!((peer.socket_type.as_str(), peer.minor), ("ROUTER", 1));
        let messages: Vec<_> = events
            .into_iter()
            .map(|event| match event {
                Event::Message(message) => message,
                other => panic!("{other:?}"),
            })
            .collect();
        // [empty, topic, sequence, payload], the last with a sequence of -1 and nothing else.
        assert!(messages.iter().all(|message| message.len() == 4 && message[0].is_empty()));
        let last = messages.last().unwrap();
        assert_eq!(last[1..], [Bytes::new(), Bytes::from(vec![0xff; 8]), Bytes::new()]);
        assert!(messages.len() > 2 && messages[0][1].starts_with(b"kv@"));
        assert_eq!(dealer.partial_bytes(), 0);
    }
}
