//! An engine that reads as strictly as HTTP allows, and keeps what it was sent: what a gateway passes
//! on that it should not is seen here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What came at an engine's own paths.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
}

#[derive(Default)]
struct Kept {
    seen: Vec<Seen>,
    faults: Vec<String>,
}

pub struct Witness {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    listening: JoinHandle<()>,
}

impl Witness {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let shared = Arc::clone(&kept);
        let listening = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { address, kept, listening }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came, which is forgotten. Anything that no HTTP client may send fails the test.
    pub fn take(&self) -> Vec<Seen> {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        assert!(kept.faults.is_empty(), "{:?}", kept.faults);
        kept.seen
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(mut stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut buffer = Vec::new();
    while let Some(seen) = next(&mut stream, &mut buffer).await {
        let (status, body) = match seen {
            Ok(seen) if seen.head.starts_with("GET /v1/models ") => {
                ("200 OK", r#"{"object":"list","data":[{"id":"tiny"}]}"#)
            }
            Ok(seen) if seen.head.starts_with("GET ") => ("404 Not Found", ""),
            Ok(seen) => {
                kept.lock().unwrap().seen.push(seen);
                ("200 OK", r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#)
            }
            Err(fault) => return kept.lock().unwrap().faults.push(fault),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next request; `None` where there is no more, also in the middle of one.
async fn next(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Result<Seen, String>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    // Bytes that are no text are text all the same, each by itself.
    let head: String = buffer[..end].iter().map(|&byte| char::from(byte)).collect();
    let length = match length_of(&head) {
        Ok(length) => length,
        Err(fault) => return Some(Err(format!("{fault}: {head:?}"))),
    };
    while buffer.len() < end + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    buffer.drain(..end + 4 + length);
    Some(Ok(Seen { head }))
}

/// The length of the body of a request whose head is beyond doubt.
fn length_of(head: &str) -> Result<usize, &'static str> {
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, path, "HTTP/1.1"] = first[..] else { return Err("no request line") };
    let engines = ["/v1/", "/score", "/rerank", "/pooling", "/tokenize", "/detokenize"];
    let ours = ["/health", "/metrics", "/kv_event_sources"];
    let is_known = match method {
        "POST" => engines.iter().any(|it| path.starts_with(it)),
        "GET" => path == "/v1/models" || ours.contains(&path),
        _ => false,
    };
    if !is_known {
        return Err("a path that clients have no business at");
    }
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err("a header's name");
        }
        if value.chars().any(|it| matches!(it, '\0' | '\r' | '\n')) {
            return Err("a header's value");
        }
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" | "connection" | "upgrade" | "te" | "trailer" => {
                return Err("a header of one hop");
            }
            "content-length" if length.is_some() => return Err("two lengths"),
            "content-length" => length = Some(value.trim().parse().map_err(|_| "a length")?),
            _ => {}
        }
    }
    Ok(length.unwrap_or(0))
}
