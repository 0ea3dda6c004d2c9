//! An engine that does what a test tells it to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with a request for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// Streams [`WELL`], a chunk each.
    Well,
    /// Answers with these bytes; closes the connection where they say so.
    Says(&'static str),
    /// Closes the connection without a word.
    Hangup,
    /// Never answers.
    Hang,
    /// Answers with what is no HTTP.
    Garbage,
    /// Sends some events and closes the connection.
    CutOff,
    /// Sends some events and nothing more.
    Stall,
    /// Says that it cannot now.
    Unavailable,
    /// Says that it is broken.
    Broken,
    /// Sends events without end, as fast as they are taken.
    Flood,
}

pub struct Hostile {
    pub address: SocketAddr,
    /// Requests for completions that came.
    pub requests: Arc<AtomicUsize>,
    /// Bytes that were taken of a flood.
    pub sent_bytes: Arc<AtomicUsize>,
    /// Ids of the requests whose answers began.
    pub begun: Arc<Mutex<Vec<String>>>,
    listening: JoinHandle<()>,
}

/// Events as the network may cut them: in the middle of one, several at once.
pub const WELL: [&str; 4] = [
    "data: {\"choices\":[{\"te",
    "xt\":\" a\"}]}\n\ndata: {\"choices\":[{\"text\":\" \u{e9}\"}]}\n\n",
    ": a comment\n\ndata: {\"choices\":[],\"usage\":{\"completion_tokens\":7}}\n\n",
    "data: [DONE]\n\n",
];
pub const EVENT: &str = "data: {\"choices\":[{\"text\":\" a\"}]}\n\n";

impl Hostile {
    pub async fn start(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, sent_bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let begun = Arc::new(Mutex::new(Vec::new()));
        let seen = (Arc::clone(&requests), Arc::clone(&sent_bytes), Arc::clone(&begun));
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, conduct, seen.clone()));
            }
        });
        Self { address, requests, sent_bytes, begun, listening }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    conduct: Conduct,
    (requests, sent, begun): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Mutex<Vec<String>>>),
) {
    let mut buffer = Vec::new();
    loop {
        let Some(head) = head(&mut stream, &mut buffer).await else { return };
        if !head.contains("/v1/completions") {
            let body = match head.contains("/v1/models") {
                true => r#"{"object":"list","data":[{"id":"tiny","max_model_len":131072}]}"#,
                false => "",
            };
            let status =
                if head.contains("/health") || !body.is_empty() { "200 OK" } else { "404 No" };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        requests.fetch_add(1, SeqCst);
        let begin = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let event = format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
        let some_events = format!("{begin}{}", event.repeat(3));
        let said = match conduct {
            Conduct::Well => {
                let chunk = |text: &&str| format!("{:x};an=extension\r\n{text}\r\n", text.len());
                format!("{begin}{}0\r\n\r\n", WELL.iter().map(chunk).collect::<String>())
            }
            Conduct::Says(bytes) => bytes.to_owned(),
            Conduct::Hangup => return,
            Conduct::Hang => std::future::pending().await,
            Conduct::Garbage => "\x00\x01 not HTTP at all\r\n\r\n".to_owned(),
            Conduct::CutOff | Conduct::Stall => some_events,
            Conduct::Unavailable => {
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            Conduct::Broken => "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Conduct::Flood => begin.to_owned(),
        };
        if matches!(conduct, Conduct::Well | Conduct::CutOff | Conduct::Stall) {
            let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
            begun.lock().unwrap().extend(id.map(str::to_owned));
        }
        if stream.write_all(said.as_bytes()).await.is_err() {
            return;
        }
        match conduct {
            Conduct::CutOff | Conduct::Garbage => return,
            Conduct::Says(bytes) if bytes.contains("connection: close") => return,
            Conduct::Stall => std::future::pending().await,
            Conduct::Flood => loop {
                if stream.write_all(event.as_bytes()).await.is_err() {
                    return;
                }
                sent.fetch_add(event.len(), SeqCst);
            },
            _ => {}
        }
    }
}

/// The head of the next request, whose body is read and dropped.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        let end = buffer.windows(4).position(|it| it == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            let length = length.unwrap_or(0);
            while buffer.len() < end + 4 + length {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            buffer.drain(..end + 4 + length);
            return Some(head);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
