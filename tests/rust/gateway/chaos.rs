//! Everything goes wrong at once, and every request still ends.

use crate::gateway::{Answer, Caller, Front, HUNG, engine, whole};
use crate::hostile::{Conduct, Hostile};
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const CLIENTS: usize = 256;
/// Complete answers that each client goes on asking for.
const ANSWERS_EACH: usize = 4;
/// How often it asks for one of them before it says that the service is down.
const TRIES: usize = 100;
/// How long a client waits before it asks again.
const BACKOFF: Duration = Duration::from_millis(100);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// Some of the answer, and then one error.
    CutOff,
    /// One error, and nothing else.
    Refused,
}

fn end_of(answer: &Answer) -> End {
    let text = &answer.text;
    if answer.status != 200 {
        assert!(matches!(answer.status.as_u16(), 429 | 502..=504), "{}: {text}", answer.status);
        assert!(!answer.code().is_empty());
        return End::Refused;
    }
    let errors = text.matches("data: {\"error\":").count();
    let is_complete = text.ends_with("data: [DONE]\n\n");
    match (errors, is_complete) {
        (0, true) => End::Complete,
        (1, false) => End::CutOff,
        _ => panic!("{errors} errors in {text}"),
    }
}

async fn ask(caller: &Caller, client: usize, number: usize, again: usize) -> End {
    let body = json!({"prompt": vec![client; 64], "max_tokens": 20, "stream": true}).to_string();
    let id = format!("{client}-{number}-{again}");
    let asking = async {
        whole(caller.open("POST", "/v1/completions", body, &[("x-request-id", &id)]).await.unwrap())
            .await
    };
    end_of(&tokio::time::timeout(HUNG, asking).await.expect("it was never answered"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_ends_once_and_is_answered_in_the_end_whatever_engines_do() {
    let mut hostile = Vec::new();
    for conduct in [
        Conduct::Well,
        Conduct::Hangup,
        Conduct::Hang,
        Conduct::Garbage,
        Conduct::CutOff,
        Conduct::Stall,
        Conduct::Unavailable,
    ] {
        hostile.push(Hostile::start(conduct).await);
    }
    let slow = engine(|config| config.speed = 20.0).await;
    let killed = engine(|config| config.speed = 20.0).await;
    let port = killed.local_addr().port();
    let mut urls: Vec<String> = hostile.iter().map(Hostile::url).collect();
    urls.extend([slow.url(), killed.url()]);
    let front = Front::of(&urls, |config| {
        config.timeouts.first_byte_ms = 2_000;
        config.timeouts.idle_ms = 1_000;
        config.health.max_ejected_percent = 90;
    })
    .await;
    let ended = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (caller, ended) = (front.caller.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                for number in 0..ANSWERS_EACH {
                    let mut again = 0;
                    while ask(&caller, client, number, again).await != End::Complete {
                        ended.fetch_add(1, SeqCst);
                        again += 1;
                        assert!(again < TRIES, "{client} has no answer after {again} requests");
                        tokio::time::sleep(BACKOFF).await;
                    }
                    ended.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    // One engine dies in the middle, with streams under way, and comes back.
    front.until(|_| ended.load(SeqCst) > CLIENTS).await;
    drop(killed);
    front.until(|_| ended.load(SeqCst) > 2 * CLIENTS).await;
    let back = engine(|config| config.port = port).await;
    for client in clients {
        client.await.unwrap();
    }
    // No answer began twice.
    let mut begun = HashSet::new();
    for id in hostile.iter().flat_map(|it| it.begun.lock().unwrap().clone()) {
        assert!(begun.insert(id.clone()), "{id} was sent twice after its first byte");
    }
    assert!(!begun.is_empty());
    front.until(|front| front.booked() == 0).await;
    drop((slow, back));
}
