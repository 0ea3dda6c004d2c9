//! An engine that answers at once, or event by event: as real ones do, in steps, each of which has an
//! event for every stream.

use crate::wire::Wire;
use memchr::memmem;
use std::io::{self, Write};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const ANSWER: &str = r#"{"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m","choices":[{"index":0,"text":" a b","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":20,"total_tokens":22,"completion_tokens":2}}"#;
const EVENT: &str = r#"data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"m","choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null}]}"#;
const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"vllm","root":"m","parent":null,"max_model_len":131072}]}"#;

/// `EVENTS INTERVAL_US`: prints the port, then serves for ever.
pub async fn serve(args: &[String]) -> io::Result<()> {
    let number = |at: usize| args.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    let (events, interval) = (number(0), Duration::from_micros(number(1)));
    let began = Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move { drop(answer(stream, events, interval, began).await) });
    }
}

async fn answer(
    stream: TcpStream,
    events: u64,
    interval: Duration,
    began: Instant,
) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    while let Some(head) = wire.head().await? {
        let mut is_stream = false;
        wire.body(head.framing, |piece| {
            is_stream |= memmem::rfind(piece, b"\"stream\":true").is_some();
        })
        .await?;
        if is_stream {
            stream_events(&mut wire, events, interval, began).await?;
            continue;
        }
        let body = match head.first_line.split(' ').nth(1) {
            Some("/v1/models") => MODELS,
            Some(path) if path.contains("completions") => ANSWER,
            Some("/metrics") => "",
            _ => "{}",
        };
        let kind = "application/json";
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ndate: Fri, 27 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: {length}\r\ncontent-type: {kind}\r\n\r\n{body}"
        );
        wire.write(answer.as_bytes()).await?;
    }
    Ok(())
}

async fn stream_events(
    wire: &mut Wire,
    events: u64,
    interval: Duration,
    began: Instant,
) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ndate: Fri, 27 Nov 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    wire.write(head.as_bytes()).await?;
    let event = format!("{:x}\r\n{EVENT}\n\n\r\n", EVENT.len() + 2);
    for _ in 0..events {
        if !interval.is_zero() {
            let steps = began.elapsed().as_nanos() / interval.as_nanos() + 1;
            tokio::time::sleep_until(began + interval * steps as u32).await;
        }
        wire.write(event.as_bytes()).await?;
    }
    wire.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n").await
}
