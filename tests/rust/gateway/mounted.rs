//! A gateway without a port: requests that are handed in, and answers that are taken.

use crate::gateway::{HUNG, engine};
use crate::hostile::{Conduct, Hostile, WELL};
use bytes::Bytes;
use llmd_bodies::gateway::{
    End, EndpointConfig, Exchange, GatewayConfig, GatewayError, Head, MountedGateway,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tokio::sync::Notify;

/// A gateway in front of engines, all of which have joined.
async fn mounted(urls: &[String]) -> MountedGateway {
    let endpoints = urls.iter().map(EndpointConfig::new).collect();
    let mut config = GatewayConfig { endpoints, ..Default::default() };
    config.health.interval_ms = 0;
    let started = tokio::task::spawn_blocking(|| MountedGateway::start(config, None));
    let mounted = started.await.unwrap().unwrap();
    let joined = async {
        while mounted.gateway().router().endpoints().len() < urls.len() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HUNG, joined).await.expect("they never joined");
    mounted
}

async fn gone(mounted: MountedGateway) {
    tokio::task::spawn_blocking(|| drop(mounted)).await.unwrap();
}

fn ask(mounted: &MountedGateway, stream: bool) -> (Exchange, Arc<Notify>) {
    let woken = Arc::new(Notify::new());
    let wake = Arc::clone(&woken);
    let head = Head {
        method: "POST",
        target: "/v1/completions",
        headers: [(&b"Content-Type"[..], &b"application/json"[..])].into_iter(),
    };
    let exchange = mounted.ask(head, move || wake.notify_one());
    let body = json!({"prompt": "a", "max_tokens": 4, "stream": stream}).to_string();
    assert!(!exchange.feed(Bytes::from(body), true), "that was all");
    (exchange, woken)
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    end: End,
    wakes: usize,
}

async fn whole((exchange, woken): &(Exchange, Arc<Notify>)) -> Answer {
    let taking = async {
        let (mut status, mut body, mut wakes) = (None, Vec::new(), 0);
        loop {
            let Some(news) = exchange.take() else {
                woken.notified().await;
                wakes += 1;
                continue;
            };
            status = status.or(news.head.map(|(status, _)| status.as_u16()));
            body.extend(news.pieces.concat());
            if let Some(end) = news.end {
                return Answer { status: status.unwrap_or_default(), body, end, wakes };
            }
        }
    };
    tokio::time::timeout(HUNG, taking).await.expect("it never ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_taken_as_they_came_and_one_that_is_there_is_one_wake() {
    let well = Hostile::start(Conduct::Well).await;
    let gateway = mounted(&[well.url()]).await;
    let answer = whole(&ask(&gateway, true)).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole));
    assert_eq!(answer.body, WELL.concat().as_bytes());
    gone(gateway).await;

    let embedded = engine(|_| {}).await;
    let gateway = mounted(&[embedded.url()]).await;
    let exchange = ask(&gateway, false);
    // Nothing was there yet, or all of it is.
    let answer = whole(&exchange).await;
    assert_eq!((answer.status, answer.end), (200, End::Whole));
    assert!(answer.wakes <= 1, "{} wakes", answer.wakes);
    assert!(exchange.0.take().is_none(), "what is over says no more");
    gone(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_slows_the_engine_and_who_gives_up_aborts_it() {
    let flood = Hostile::start(Conduct::Flood).await;
    let gateway = mounted(&[flood.url()]).await;
    let (exchange, woken) = ask(&gateway, true);
    tokio::time::timeout(HUNG, async {
        while exchange.take().is_none() {
            woken.notified().await;
        }
        // What is taken now fills buffers of the kernel and of the gateway, and then nothing is.
        let mut before = usize::MAX;
        while before != flood.sent_bytes.load(SeqCst) {
            before = flood.sent_bytes.load(SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await
    .expect("it never stood still");
    let waiting: usize = exchange.take().map_or(0, |it| it.pieces.iter().map(Bytes::len).sum());
    assert!((1..=128 << 10).contains(&waiting), "{waiting} bytes waited");
    drop(exchange);
    let booked = || -> u32 {
        let endpoints = gateway.gateway().router().endpoints();
        endpoints.iter().map(|it| it.inflight_requests).sum()
    };
    tokio::time::timeout(HUNG, async {
        while booked() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it was never given up");
    gone(gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_one_has_answered_and_a_closed_one_has_broken_off() {
    let stalls = Hostile::start(Conduct::Stall).await;
    let gateway = mounted(&[stalls.url()]).await;
    let exchange = ask(&gateway, true);
    gone(gateway).await;
    assert!(matches!(whole(&exchange).await.end, End::CutOff(_)));

    let embedded = engine(|config| config.speed = 20.0).await;
    let gateway = mounted(&[embedded.url()]).await;
    let exchange = ask(&gateway, true);
    tokio::task::spawn_blocking(|| gateway.drain()).await.unwrap();
    let answer = whole(&exchange).await;
    assert!(
        (answer.status, answer.end) == (200, End::Whole) && answer.body.ends_with(b"[DONE]\n\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_lets_through_and_cannot_be_is_refused() {
    let gateway = mounted(&[]).await;
    for (method, target, name) in
        [("NO METHOD", "/health", "a"), ("GET", "no path", "a"), ("GET", "/health", "a b")]
    {
        let headers = [(name.as_bytes(), &b"x"[..])].into_iter();
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let exchange = gateway.ask(Head { method, target, headers }, move || wake.notify_one());
        let answer = whole(&(exchange, woken)).await;
        assert_eq!(answer.status, 400, "{method} {target} {name}");
    }
    gone(gateway).await;
    let tls = serde_json::from_value(json!({"cert_file": "a", "key_file": "b"})).unwrap();
    let config = GatewayConfig { tls: Some(tls), ..Default::default() };
    let refused = MountedGateway::start(config, None).err();
    assert!(matches!(refused, Some(GatewayError::MountedTls)));
}
