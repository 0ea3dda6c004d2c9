//! Clients that keep a number of connections busy.

use crate::wire::Wire;
use memchr::memmem;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

struct Plan {
    address: String,
    bytes: usize,
    prefixes: usize,
    is_stream: bool,
}

#[derive(Default)]
struct Seen {
    left: usize,
    answers: usize,
    errors: usize,
    events: usize,
    /// To the first byte of a body, milliseconds.
    first_ms: Vec<f64>,
    number: usize,
}

/// `ADDRESS CONNECTIONS REQUESTS BYTES PREFIXES stream|whole`: prints what was seen.
pub async fn run(args: &[String]) -> io::Result<()> {
    let wrong = || io::Error::other("six arguments are needed");
    let number = |at: usize| args.get(at).and_then(|it| it.parse::<usize>().ok()).ok_or_else(wrong);
    let plan = Rc::new(Plan {
        address: args.first().ok_or_else(wrong)?.clone(),
        bytes: number(3)?,
        prefixes: number(4)?.max(1),
        is_stream: args.get(5).is_some_and(|it| it == "stream"),
    });
    let seen = Rc::new(RefCell::new(Seen { left: number(2)?, ..Seen::default() }));
    let connections = number(1)?;
    let local = LocalSet::new();
    local
        .run_until(async {
            let clients: Vec<_> = (0..connections)
                .map(|_| tokio::task::spawn_local(client(Rc::clone(&plan), Rc::clone(&seen))))
                .collect();
            for client in clients {
                if !matches!(client.await, Ok(Ok(()))) {
                    seen.borrow_mut().errors += 1;
                }
            }
        })
        .await;
    let mut seen = seen.borrow_mut();
    seen.first_ms.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let rank = (seen.first_ms.len() as f64 * share) as usize;
        seen.first_ms.get(rank).copied().unwrap_or(f64::NAN)
    };
    println!(
        "{{\"answers\": {}, \"errors\": {}, \"events\": {}, \"first_p50_ms\": {:.4}, \"first_p99_ms\": {:.4}}}",
        seen.answers,
        seen.errors,
        seen.events,
        at(0.5),
        at(0.99)
    );
    Ok(())
}

async fn client(plan: Rc<Plan>, seen: Rc<RefCell<Seen>>) -> io::Result<()> {
    let mut wire = Wire::new(TcpStream::connect(&plan.address).await?)?;
    loop {
        let number = {
            let mut seen = seen.borrow_mut();
            if seen.left == 0 {
                return Ok(());
            }
            seen.left -= 1;
            seen.number += 1;
            seen.number
        };
        let request = request(&plan, number);
        let sent = Instant::now();
        wire.write(request.as_bytes()).await?;
        let Some(head) = wire.head().await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let (mut events, mut first) = (0, None);
        wire.body(head.framing, |piece| {
            first.get_or_insert_with(|| sent.elapsed());
            events += memmem::find_iter(piece, b"data: {").count();
        })
        .await?;
        let closes = head.closes;
        seen.borrow_mut().take(&head.first_line, events, first);
        if closes {
            wire = Wire::new(TcpStream::connect(&plan.address).await?)?;
        }
    }
}

impl Seen {
    fn take(&mut self, status: &str, events: usize, first: Option<Duration>) {
        if status.starts_with("HTTP/1.1 200") {
            self.answers += 1;
        } else {
            self.errors += 1;
        }
        self.events += events;
        self.first_ms.extend(first.map(|it| it.as_secs_f64() * 1e3));
    }
}

/// A request of so many bytes of body, of which all but the last fifty are one of a few prefixes.
fn request(plan: &Plan, number: usize) -> String {
    let (begin, end) = ("{\"model\":\"m\",\"max_tokens\":16,\"prompt\":\"", "\"}");
    let stream = if plan.is_stream { "\",\"stream\":true}" } else { end };
    let room = plan.bytes.saturating_sub(begin.len() + stream.len());
    let prefix = number % plan.prefixes;
    let mut prompt = String::with_capacity(room + 32);
    while prompt.len() + 50 < room {
        prompt.push_str("prefix ");
        prompt.push_str(&(prefix * 7_919 + prompt.len()).to_string());
        prompt.push(' ');
    }
    prompt.push_str(&number.to_string());
    while prompt.len() < room {
        prompt.push('x');
    }
    prompt.truncate(room);
    let body = format!("{begin}{prompt}{stream}");
    format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        plan.address,
        body.len()
    )
}
