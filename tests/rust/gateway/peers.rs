//! Several gateways in front of the same engines.

use crate::gateway::{Front, engine, whole};
use llmd_bodies::engine_server::EngineServer;
use llmd_bodies::gateway::{GatewayConfig, GatewayError, GatewayServer};
use serde_json::json;
use std::net::TcpListener;

const ENGINES: usize = 4;
const REQUESTS: usize = 24;

/// How many requests each engine has, by what a gateway knows.
fn counts(front: &Front) -> Vec<u32> {
    let endpoints = front.server.gateway().router().endpoints();
    endpoints.iter().map(|view| view.inflight_requests).collect()
}

async fn slow_engines() -> (Vec<EngineServer>, Vec<String>) {
    let mut engines = Vec::new();
    for _ in 0..ENGINES {
        engines.push(engine(|config| config.speed = 1e-3).await);
    }
    let urls = engines.iter().map(EngineServer::url).collect();
    (engines, urls)
}

/// An address that nobody listens at.
fn address() -> String {
    format!("tcp://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_comes_by_two_gateways_does_not_herd() {
    let (_engines, urls) = slow_engines().await;
    let addresses = [address(), address()];
    let told = |at: usize| {
        let addresses = addresses.clone();
        move |config: &mut GatewayConfig| {
            config.peers.listen = Some(addresses[at].clone());
            config.peers.interval_ms = 1;
            // By its address, and by a name. Its own is among them and does no harm.
            match at {
                0 => config.peers.addresses = addresses.to_vec(),
                _ => config.peers.dns = vec![addresses[0].trim_start_matches("tcp://").to_owned()],
            }
            config.discovery.interval_ms = 10;
        }
    };
    let (first, second) = (Front::of(&urls, told(0)).await, Front::of(&urls, told(1)).await);
    for front in [&first, &second] {
        front.until(|it| it.server.gateway().router().stats().peers.connected >= 1).await;
    }
    // Requests that are not answered while the test lasts, in turns by the one and the other. Who
    // knew of his own alone would stack some of his on the other's, sooner or later.
    let mut calls = Vec::new();
    for number in 0..REQUESTS {
        let caller = [&first, &second][number % 2].caller.clone();
        calls.push(tokio::spawn(async move {
            let body = json!({"prompt": vec![number; 64], "max_tokens": 100}).to_string();
            drop(whole(caller.open("POST", "/v1/completions", body, &[]).await.unwrap()));
        }));
        for front in [&first, &second] {
            front.until(|it| it.booked() == number as u32 + 1).await;
            let counts = counts(front);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?}");
        }
    }
    assert!(first.counter("peers_heard_total").await >= 1.0);
    assert_eq!(first.counter("peers_refused_total").await, 0.0);
    for call in calls {
        call.abort();
    }
    // One that is gone counts for nothing when it has been silent for too long.
    drop(second);
    first.until(|it| it.booked() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_peers_that_cannot_be_are_named() {
    let wrong = json!({"peers": {"addresses": ["gateway-2"]}});
    let error = GatewayConfig::from_value(wrong).unwrap_err().to_string();
    assert!(error.contains("peers.addresses") && error.contains("gateway-2"), "{error}");
    let mut config = GatewayConfig { listen: "127.0.0.1:0".into(), ..Default::default() };
    config.peers.listen = Some("tcp://127.0.0.1:0".into());
    config.peers.interval_ms = u64::MAX;
    let started = tokio::task::spawn_blocking(|| GatewayServer::start(config)).await.unwrap();
    let Err(error) = started else { panic!("it started") };
    assert!(matches!(error, GatewayError::Router(_)), "{error}");
}
