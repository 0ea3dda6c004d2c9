//! Engines that fail: every request ends in an answer or in one clear error, and none is sent twice
//! after its first byte.

use crate::gateway::{Front, engine, whole};
use crate::hostile::{Conduct, EVENT, Hostile};
use llmd_bodies::engine_server::EngineServer;
use serde_json::json;

fn request(number: u32) -> serde_json::Value {
    json!({"model": "tiny", "prompt": vec![number; 32], "max_tokens": 2})
}

/// A failing engine beside one that is well; with as many requests as make it likely that both are
/// chosen.
async fn beside_a_good_one(conduct: Conduct) -> (Front, Hostile) {
    let good = engine(|_| {}).await;
    let bad = Hostile::start(conduct).await;
    let front = Front::of(&[good.url(), bad.url()], |config| {
        config.timeouts.first_byte_ms = 200;
        // It stays ejected for the length of a test.
        config.health.ejection_ms = 1_000_000;
        config.health.max_ejection_ms = 1_000_000;
    })
    .await;
    for number in 0..40 {
        let answer = front.caller.complete(&request(number)).await;
        match conduct {
            Conduct::Hang => {
                assert!(matches!(answer.status.as_u16(), 200 | 504), "{}", answer.text);
            }
            _ => assert_eq!(answer.status, 200, "{}", answer.text),
        }
    }
    drop(good);
    (front, bad)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_before_its_first_byte_is_sent_elsewhere() {
    for conduct in [Conduct::Hangup, Conduct::Garbage] {
        let (front, bad) = beside_a_good_one(conduct).await;
        // Three failures in a row, after each of which another engine answered.
        assert_eq!(bad.requests(), 3, "{conduct:?}");
        assert_eq!(front.counter("gateway_retries_total").await, 3.0);
        assert_eq!(front.counter("gateway_ejections_total").await, 1.0);
        assert_eq!(front.booked(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_declines_is_asked_again_later_and_not_ejected() {
    let (front, bad) = beside_a_good_one(Conduct::Unavailable).await;
    assert!(bad.requests() > 0);
    assert_eq!(front.counter("gateway_retries_total").await, bad.requests() as f64);
    assert_eq!(front.counter("gateway_ejections_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_never_answers_costs_a_clear_error_and_no_second_request() {
    let (front, bad) = beside_a_good_one(Conduct::Hang).await;
    assert_eq!(bad.requests(), 3);
    assert_eq!(front.counter("gateway_refused_total{status=\"504\"}").await, 3.0);
    assert_eq!(front.counter("gateway_retries_total").await, 0.0);
    assert_eq!(front.booked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_in_one_error_and_is_not_sent_again() {
    for conduct in [Conduct::CutOff, Conduct::Stall] {
        let bad = Hostile::start(conduct).await;
        let front = Front::of(&[bad.url()], |config| config.timeouts.idle_ms = 100).await;
        let answer = front.caller.complete(&request(1)).await;
        let rest = answer.text.strip_prefix(&EVENT.repeat(3)).expect(&answer.text);
        let error = rest.strip_prefix("data: ").and_then(|it| it.strip_suffix("\n\n")).unwrap();
        let error: serde_json::Value = serde_json::from_str(error).unwrap();
        assert_eq!(error["error"]["code"], "engine_failed");
        assert_eq!(bad.requests(), 1);
        front.until(|front| front.booked() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn not_everybody_is_ejected_however_all_fail() {
    let bad = [Hostile::start(Conduct::Hangup).await, Hostile::start(Conduct::Hangup).await];
    let urls = bad.each_ref().map(Hostile::url);
    let front = Front::of(&urls, |config| {
        config.health.ejection_ms = 1_000_000;
        config.health.max_ejection_ms = 1_000_000;
    })
    .await;
    for number in 0..20 {
        let answer = front.caller.complete(&request(number)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "engine_failed"));
    }
    assert_eq!(front.ready(), 1);
    assert_eq!(front.counter("gateway_ejections_total").await, 1.0);
    assert!(front.counter("gateway_ejections_spared_total").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_back_is_used_again() {
    let good = engine(|_| {}).await;
    let once = engine(|_| {}).await;
    let (port, url) = (once.local_addr().port(), once.url());
    let front = Front::of(&[good.url(), url], |config| config.health.interval_ms = 20).await;
    drop(once);
    // Probes find out.
    front.until(|front| front.ready() == 1).await;
    for number in 0..10 {
        assert_eq!(front.caller.complete(&request(number)).await.status, 200);
    }
    let back = engine(|config| config.port = port).await;
    front.until(|front| front.ready() == 2).await;
    drop((good, back));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_up_after_the_gateway_joins() {
    let config = llmd_bodies::gateway::GatewayConfig {
        listen: "127.0.0.1:0".into(),
        hold_ms: 0,
        endpoints: vec![llmd_bodies::gateway::EndpointConfig::new("http://127.0.0.1:9")],
        ..Default::default()
    };
    let start = || llmd_bodies::gateway::GatewayServer::start(config).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let caller = crate::gateway::Caller::new(server.local_addr());
    assert_eq!(caller.get("/health").await.status, 200);
    assert_eq!(caller.get("/ready").await.status, 503);
    let answer = caller.complete(&request(1)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "no_capacity"));
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_slows_its_engine_instead_of_filling_memory() {
    let flood = Hostile::start(Conduct::Flood).await;
    let front = Front::of(&[flood.url()], |_| {}).await;
    let response =
        front.caller.open("POST", "/v1/completions", request(1).to_string(), &[]).await.unwrap();
    // Nobody reads: what the engine could send stops growing at what buffers on the way hold.
    let mut before = usize::MAX;
    loop {
        let sent = flood.sent_bytes.load(std::sync::atomic::Ordering::SeqCst);
        if sent == before && sent > 0 {
            break;
        }
        before = sent;
        // An engine that can send does so in less than this.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Sockets' buffers, twice, and some hundred kilobytes of ours.
    assert!(before < 24 << 20, "{before} bytes");
    drop(response);
    front.until(|front| front.booked() == 0).await;
    assert_eq!(front.counter("gateway_client_left_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_requests_at_once_are_all_answered() {
    let engines = [engine(|_| {}).await, engine(|_| {}).await];
    let urls = engines.each_ref().map(EngineServer::url);
    let front = Front::of(&urls, |_| {}).await;
    let calls: Vec<_> = (0..2_048)
        .map(|number| {
            let caller = front.caller.clone();
            tokio::spawn(async move { caller.complete(&request(number)).await })
        })
        .collect();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(front.booked(), 0);
    assert_eq!(front.counter("gateway_completed_total").await, 2_048.0);
    let answer = front.caller.open("POST", "/v1/completions", request(1).to_string(), &[]).await;
    assert_eq!(whole(answer.unwrap()).await.status, 200);
}
