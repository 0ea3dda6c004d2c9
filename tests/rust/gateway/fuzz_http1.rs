//! Requests that are nearly HTTP/1.1, at the live gateway. Each is answered by what it is or by a 4xx,
//! or its connection is closed; the engine gets one request for each 200, and nothing that is in doubt.
//!
//! Two seconds, or `LLMD_FUZZ_SECONDS`; the same requests for the same `LLMD_FUZZ_SEED`.

use crate::gateway::{Caller, Front, HUNG};
use crate::witness::Witness;
use llmd_brain::rng::Rng;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY: &str = r#"{"prompt": "a", "max_tokens": 1}"#;
/// A request in the body of another.
const INNER: &str = "POST /v1/completions?inner HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
/// At a time: most of one's time is waiting for its connection to be closed.
const AT_ONCE: usize = 32;

pub fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs rounds of cases until the time is up.
pub async fn for_seconds(what: &str, mut round: impl AsyncFnMut(u64)) {
    let seed = variable("LLMD_FUZZ_SEED", 0x6c6c_6d64);
    let time = Duration::from_secs(variable("LLMD_FUZZ_SECONDS", 2));
    let (start, mut rounds) = (Instant::now(), 0);
    while rounds == 0 || start.elapsed() < time {
        round(seed.wrapping_add(rounds)).await;
        rounds += 1;
    }
    eprintln!("{what}: {rounds} rounds from LLMD_FUZZ_SEED={seed}, none breaks it");
}

fn pick<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.below(of.len() as u64) as usize]
}

/// A header that may be wrong, and often says how long the body is.
fn header(rng: &mut Rng) -> String {
    let long = |rng: &mut Rng| "a".repeat(rng.below(12_000) as usize);
    match rng.below(14) {
        0 => format!("content-length: {}", BODY.len() as u64 - 1 + rng.below(3)),
        1 => format!(
            "content-length:{}",
            pick(
                rng,
                &["", "+5", "-1", "0x20", "5,5", "5, 6", " 5 5", "18446744073709551616", "032"]
            )
        ),
        2 => format!(
            "{}: 32",
            pick(
                rng,
                &[
                    "content-length ",
                    " content-length",
                    "content\0length",
                    "content_length",
                    "Content-Length",
                    "content-length\t"
                ]
            )
        ),
        3 => format!(
            "transfer-encoding: {}",
            pick(
                rng,
                &[
                    "chunked",
                    "chunked, chunked",
                    "gzip, chunked",
                    "chunked, identity",
                    "identity",
                    "xchunked",
                    "\"chunked\"",
                    "chunked;q=1",
                    "\x0bchunked",
                    "chunKed",
                    ""
                ]
            )
        ),
        4 => format!(
            "{}: chunked",
            pick(
                rng,
                &[
                    "transfer-encoding ",
                    "transfer\rencoding",
                    "Transfer-Encoding",
                    "transfer_encoding",
                    "\ttransfer-encoding"
                ]
            )
        ),
        // A line that goes on in the next.
        5 => format!(
            "x-folded: a\r\n{}transfer-encoding: chunked",
            pick(rng, &[" ", "\t", "\r ", ""])
        ),
        6 => format!(
            "x-odd: {}",
            pick(rng, &["a\nb: c", "a\rb", "a\0b", "\u{7f}", "\u{e9}", "a\n\nGET / HTTP/1.1\n\n"])
        ),
        7 => format!(
            "connection: {}",
            pick(
                rng,
                &[
                    "close",
                    "keep-alive",
                    "content-length",
                    "transfer-encoding, host",
                    "upgrade",
                    "x,,\t,y"
                ]
            )
        ),
        8 => format!("upgrade: {}", pick(rng, &["h2c", "websocket", ""])),
        9 => format!("expect: {}", pick(rng, &["100-continue", "200-maybe"])),
        10 => format!("x-{}: {}", long(rng), long(rng)),
        11 => "a: b\r\n".repeat(rng.below(220) as usize) + "a: b",
        12 => format!("host: {}", pick(rng, &["", "a b", "x, y", "http://x/"])),
        _ => format!("x-llmd-{}: {}", pick(rng, &["explain", "none"]), rng.below(3)),
    }
}

/// The body in chunks, some of them odd.
fn chunks(rng: &mut Rng, body: &str) -> String {
    let size = match rng.below(10) {
        0 => format!(
            "{}{:x}",
            pick(rng, &["+", "-", "0x", " ", "000000000000000000000"]),
            body.len()
        ),
        1 => format!(
            "{:x}{}",
            body.len(),
            pick(rng, &[" ", "\t", ";a=\"b\"", ";\n", ";a\0", "g", ";", "\r"])
        ),
        2 => format!("{:x};{}", body.len(), "e".repeat(rng.below(40_000) as usize)),
        3 => pick(rng, &["fffffffffffffffff", "7fffffffffffffff", "80000000"]).to_owned(),
        _ => format!("{:x}", body.len()),
    };
    let (line, last) =
        (pick(rng, &["\r\n", "\r\n", "\r\n", "\n"]), pick(rng, &["0", "0", "000", "-0", "0;x"]));
    let trailers = match rng.below(6) {
        0 => "x-trailer: 1\r\n".repeat(rng.below(2_000) as usize),
        1 => "content-length: 9\r\ntransfer-encoding: chunked\r\n".to_owned(),
        _ => String::new(),
    };
    format!("{size}{line}{body}\r\n{last}\r\n{trailers}\r\n")
}

fn case(rng: &mut Rng) -> Vec<u8> {
    let method = pick(rng, &["POST", "POST", "POST", "GET", "post", "P\0ST", "CONNECT", "PRI", ""]);
    let path = pick(
        rng,
        &[
            "/v1/completions",
            "/v1/completions",
            "/v1/completions?a=%0d%0a",
            "http://other/v1/completions",
            "*",
            "/v1/completions\t",
            "//v1/completions",
            "/v1/../v1/completions",
            "/health",
            "/v1/completions HTTP/1.1\r\nx: y",
        ],
    );
    let version = pick(
        rng,
        &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "http/1.1", ""],
    );
    let mut head = format!("{method} {path} {version}\r\n");
    if rng.below(8) > 0 {
        head += "host: x\r\n";
    }
    let is_chunked = rng.below(2) == 0;
    let body = match rng.below(4) {
        0 => format!("{BODY}{INNER}"),
        _ => BODY.to_owned(),
    };
    if rng.below(8) > 0 {
        match is_chunked {
            true => head += "transfer-encoding: chunked\r\n",
            false => head += &format!("content-length: {}\r\n", BODY.len()),
        }
    }
    for _ in 0..rng.below(3) {
        head += &header(rng);
        head += pick(rng, &["\r\n", "\r\n", "\r\n", "\r\n", "\n"]);
    }
    head += "\r\n";
    head += &if is_chunked { chunks(rng, &body) } else { body };
    head += match rng.below(5) {
        0 => INNER,
        1 => "\r\n\r\ngarbage \0\u{1}\r\n\r\n",
        _ => "",
    };
    let mut bytes = head.into_bytes();
    for _ in 0..rng.below(8).saturating_sub(5) {
        let at = rng.below(bytes.len() as u64) as usize;
        match rng.below(3) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes.truncate(at + 1),
            _ => bytes.insert(at, b"\r\n\0 :;,"[rng.below(7) as usize]),
        }
    }
    bytes
}

/// Sends bytes in pieces and returns all that came before the connection was closed.
async fn exchange(address: SocketAddr, bytes: &[u8], piece: usize) -> Vec<u8> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        for piece in bytes.chunks(piece) {
            // It may have been closed for what came before.
            if writer.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // Not closed from here: that would be a client that went away.
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut answer = Vec::new();
        while reader.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
        answer
    };
    let answered = async {
        tokio::select! {
            answer = read => answer,
            () = write => Vec::new(),
        }
    };
    tokio::time::timeout(HUNG, answered).await.expect("neither answered nor closed")
}

/// The statuses of a connection's answers. Our own bodies never hold a status line.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer).into_owned();
    text.match_indices("HTTP/1.")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

/// As good as new: nothing is under way, nothing was refused by a 5xx, and a request is answered.
pub async fn is_well(front: &Front, witness: &Witness) {
    front.until(|front| front.booked() == 0).await;
    while front.counter("gateway_in_flight").await > 0.0 {
        tokio::task::yield_now().await;
    }
    let page = front.caller.get("/metrics").await.text;
    for status in ["500", "502", "503", "504"] {
        let line = format!("llmd_gateway_refused_total{{status=\"{status}\"}} 0\n");
        assert!(page.contains(&line), "{page}");
    }
    witness.take();
    let answer = front.caller.complete(&serde_json::json!({"prompt": "a"})).await;
    assert_eq!((answer.status.as_u16(), witness.take().len()), (200, 1));
}

pub async fn front(witness: &Witness) -> Front {
    let mut front = Front::of(&[witness.url()], |config| {
        config.limits.max_connections = 256;
        config.limits.max_head_bytes = 16 << 10;
        config.timeouts.client_head_ms = 100;
        config.timeouts.client_body_ms = 100;
    })
    .await;
    front.caller = Caller::unpooled(front.caller.address);
    front
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nearly_http_1_is_refused_or_passed_on_without_doubt() {
    let witness = Witness::start().await;
    let front = front(&witness).await;
    let address = front.caller.address;
    let mut asked_before = 0;
    for_seconds("http1", async |seed| {
        let mut rng = Rng::new(seed);
        let cases: Vec<(Vec<u8>, usize)> =
            (0..AT_ONCE).map(|_| (case(&mut rng), 1 + rng.below(4_000) as usize)).collect();
        let exchanges = cases.iter().map(|(bytes, piece)| exchange(address, bytes, *piece));
        let answers = futures_util::future::join_all(exchanges).await;
        let mut answered = 0;
        for (answer, (bytes, _)) in answers.iter().zip(&cases) {
            let sent = String::from_utf8_lossy(bytes);
            let statuses = statuses(answer);
            assert!(statuses.iter().all(|it| *it < 500), "{statuses:?} for {sent:?}");
            answered += String::from_utf8_lossy(answer).matches("completion_tokens").count();
        }
        // Each that the engine got is one that the gateway read; what was answered can be lost where
        // a connection is closed with bytes in it that nobody read.
        let asked = front.counter("gateway_requests_total").await as usize;
        let seen = witness.take();
        let heads: Vec<&str> = seen.iter().map(|it| it.head.as_str()).collect();
        let is_right = answered <= seen.len() && seen.len() <= asked - asked_before;
        assert!(is_right, "seed {seed}: {answered} answers of {} requests: {heads:#?}", seen.len());
        asked_before = asked;
    })
    .await;
    assert!(asked_before > 0, "no request was right");
    is_well(&front, &witness).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_no_request_comes_is_closed() {
    let witness = Witness::start().await;
    let front = front(&witness).await;
    // The last speaks HTTP/2 as it should, and asks for nothing.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for said in [&b""[..], b"P", b"PRI * HT", preface] {
        exchange(front.caller.address, said, 100).await;
    }
    assert_eq!(front.counter("gateway_silent_connections_total").await, 4.0);
    is_well(&front, &witness).await;
}
