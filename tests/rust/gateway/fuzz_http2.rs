//! Frames that are nearly HTTP/2, at the live gateway: what breaks the protocol ends its connection,
//! costs bounded memory, and nothing that is in doubt comes to the engine.

use crate::fuzz_http1::{for_seconds, front, is_well};
use crate::gateway::{Front, HUNG};
use crate::hostile::{Conduct, Hostile};
use crate::witness::Witness;
use llmd_brain::rng::Rng;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const BODY: &[u8] = br#"{"prompt": "a", "max_tokens": 1, "stream": true}"#;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A length in HPACK's code, of seven bits and what follows.
fn length(bytes: &[u8]) -> Vec<u8> {
    let mut left = bytes.len();
    if left < 127 {
        return vec![left as u8];
    }
    let mut code = vec![127];
    left -= 127;
    while left >= 128 {
        code.push((left % 128) as u8 | 128);
        left /= 128;
    }
    code.push(left as u8);
    code
}

/// A header as HPACK writes one that is in no table.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0][..], &length(name), name, &length(value), value].concat()
}

fn block(path: &str, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let own: [(&[u8], &[u8]); 4] = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", b"x"),
        (b":path", path.as_bytes()),
    ];
    own.iter().chain(more).flat_map(|(name, value)| field(name, value)).collect()
}

fn request(stream: u32, more: &[(&[u8], &[u8])]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &block("/v1/completions", more));
    [head, frame(DATA, END_STREAM, stream, BODY)].concat()
}

fn opening(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()
}

/// Sends until all is sent or the other end has had enough; returns how much was sent, and the frames
/// that came until it was closed, as kind and payload.
async fn exchange(
    address: SocketAddr,
    pieces: impl Iterator<Item = Vec<u8>>,
) -> (usize, Vec<(u8, Vec<u8>)>) {
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let write = async {
        let mut sent = 0;
        for piece in pieces {
            if writer.write_all(&piece).await.is_err() {
                return sent;
            }
            sent += piece.len();
        }
        // Says that no more comes; what is under way may still be answered.
        let _ = writer.shutdown().await;
        sent
    };
    let read = async {
        let mut answer = Vec::new();
        while reader.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
        answer
    };
    let both = tokio::time::timeout(HUNG, async { tokio::join!(write, read) });
    let (sent, mut answer) = both.await.expect("neither answered nor closed");
    let mut frames = Vec::new();
    while answer.len() >= 9 {
        let length = u32::from_be_bytes([0, answer[0], answer[1], answer[2]]) as usize;
        let rest = answer.split_off((9 + length).min(answer.len()));
        frames.push((answer[3], answer[9..].to_vec()));
        answer = rest;
    }
    (sent, frames)
}

/// The reason of the last GOAWAY.
fn reason(frames: &[(u8, Vec<u8>)]) -> Option<u32> {
    let (_, last) = frames.iter().rev().find(|(kind, _)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(last.get(4..8)?.try_into().unwrap()))
}

fn anything(rng: &mut Rng, stream: u32) -> Vec<u8> {
    let mut payload =
        |most: u64| -> Vec<u8> { (0..rng.below(most)).map(|_| rng.next_u64() as u8).collect() };
    let payload = payload(64);
    let odd: [(&[u8], &[u8]); 9] = [
        (b"x-split", b"a\r\n\r\nPOST /v1/completions?inner HTTP/1.1\r\n\r\n"),
        (b"x-name: a\r\ncontent-length", b"0"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"content-length"),
        (b"content-length", b"3"),
        (b"content-length", b"+48"),
        (b"Upper", b"case"),
        (b":path", b"/health"),
        (b"x-long", &[b'a'; 20_000]),
    ];
    match rng.below(9) {
        0 => request(stream, &[]),
        1 => request(stream, &[odd[rng.below(9) as usize], odd[rng.below(9) as usize]]),
        2 => {
            let path = ["/v1/completions HTTP/1.1\r\nx: y", "", "*", "/\0", "http://y/v1/score"];
            let path = path[rng.below(5) as usize];
            frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(path, &[]))
        }
        // A request, somewhere else or with other flags.
        3 => frame(HEADERS, rng.next_u64() as u8, stream, &block("/v1/completions", &[])),
        4 => frame(DATA, rng.next_u64() as u8, stream, &payload),
        5 => frame(HEADERS, END_HEADERS, stream, &payload),
        6 => {
            let mut bytes = request(stream, &[]);
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            bytes
        }
        7 => {
            frame(WINDOW_UPDATE, 0, stream * rng.below(2) as u32, &payload[..payload.len().min(4)])
        }
        _ => frame(rng.below(12) as u8, rng.next_u64() as u8, rng.below(8) as u32, &payload),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nearly_http_2_brings_nothing_to_the_engine_that_is_in_doubt() {
    let witness = Witness::start().await;
    let front = front(&witness).await;
    let mut asked_before = 0;
    for_seconds("http2", async |seed| {
        let mut rng = Rng::new(seed);
        let mut cases = Vec::new();
        for _ in 0..32 {
            let mut stream = 1;
            let mut pieces = vec![opening(&[])];
            for _ in 0..1 + rng.below(12) {
                pieces.push(anything(&mut rng, stream));
                stream += [0, 2, 2, 2][rng.below(4) as usize];
            }
            cases.push(exchange(front.caller.address, pieces.into_iter()));
        }
        futures_util::future::join_all(cases).await;
        let asked = front.counter("gateway_requests_total").await as usize;
        let seen = witness.take();
        let inner = seen.iter().find(|it| it.head.contains("inner"));
        assert!(inner.is_none() && seen.len() <= asked - asked_before, "seed {seed}: {inner:?}");
        asked_before = asked;
    })
    .await;
    assert!(asked_before > 0, "no request was right");
    is_well(&front, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_http_2_is_told_so_and_its_connection_is_closed() {
    let witness = Witness::start().await;
    let front = front(&witness).await;
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let block = block("/v1/completions", &[]);
    let settings = |id: u8, value: u32| [&[0, id][..], &value.to_be_bytes()].concat();
    for sent in [
        // An index that no table has.
        frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x7f]),
        // A string that ends before its length.
        frame(HEADERS, END_HEADERS, 1, &[0, 0x7f, 0xff]),
        // Larger than was agreed.
        frame(DATA, 0, 1, &vec![0; 20_000]),
        frame(SETTINGS, 0, 0, &[1, 2, 3]),
        [frame(WINDOW_UPDATE, 0, 0, &most), frame(WINDOW_UPDATE, 0, 0, &most)].concat(),
        frame(SETTINGS, 0, 0, &settings(4, u32::MAX)),
        frame(SETTINGS, 0, 0, &settings(5, 1)),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(HEADERS, END_HEADERS, 2, &block),
        frame(DATA, 0, 0, BODY),
        // Another frame within the head of a request.
        [frame(HEADERS, 0, 1, &block), frame(DATA, 0, 1, BODY)].concat(),
    ] {
        let shown = format!("{:?}", &sent[..sent.len().min(20)]);
        let (_, frames) = exchange(front.caller.address, [opening(&[]), sent].into_iter()).await;
        assert!(reason(&frames).is_some_and(|it| it > 0), "{shown}: {frames:?}");
    }
    assert!(witness.take().is_empty());
    is_well(&front, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_are_ended_after_a_bounded_number() {
    let witness = Witness::start().await;
    let front = front(&witness).await;
    let address = front.caller.address;
    // Heads without end: 16 KB at a time, 64 MB in all.
    let open = frame(HEADERS, 0, 1, &block("/v1/completions", &[]));
    let filler = field(b"x", &vec![b'a'; 16_000]);
    let flood = std::iter::repeat_n(frame(CONTINUATION, 0, 1, &filler), 4_000);
    let (sent, _) = exchange(address, [opening(&[]), open].into_iter().chain(flood)).await;
    assert!(sent < 16 << 20, "{sent} bytes of one head were taken");
    // Requests that are taken back as soon as they are made.
    let streams = (0..200_000_u32).map(|at| 2 * at + 1);
    let reset = streams.map(|stream| {
        let head = frame(HEADERS, END_HEADERS, stream, &block("/v1/completions", &[]));
        [head, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let (sent, frames) = exchange(address, std::iter::once(opening(&[])).chain(reset)).await;
    assert!(sent < 16 << 20, "{sent} bytes of resets were taken");
    // What it is told may be lost with the connection.
    assert!(matches!(reason(&frames), None | Some(ENHANCE_YOUR_CALM)), "{frames:?}");
    is_well(&front, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_no_window_slows_its_engine() {
    let engine = Hostile::start(Conduct::Flood).await;
    let front = Front::of(&[engine.url()], |_| {}).await;
    // No byte may be sent to it, on any of its streams.
    let closed = [&[0, 4][..], &0_u32.to_be_bytes()].concat();
    let mut client = TcpStream::connect(front.caller.address).await.unwrap();
    client.write_all(&opening(&closed)).await.unwrap();
    for at in 0..20 {
        client.write_all(&request(2 * at + 1, &[])).await.unwrap();
    }
    while engine.requests() < 20 {
        tokio::task::yield_now().await;
    }
    // What is taken fills the buffers on the way, and then no more.
    let mut before = usize::MAX;
    let still = async {
        loop {
            let now = engine.sent_bytes.load(SeqCst);
            if now == before {
                return now;
            }
            before = now;
            for _ in 0..20 {
                assert_eq!(front.caller.get("/health").await.status, 200);
            }
        }
    };
    let taken = tokio::time::timeout(HUNG, still).await.expect("it takes more and more");
    assert!(taken < 20 * (8 << 20), "{taken} bytes for nobody");
    drop(client);
    front.until(|front| front.booked() == 0).await;
}
