//! A second engine for a stream that does not begin.

use crate::clients::running;
use crate::gateway::{Front, HUNG, engine};
use crate::hostile::{Conduct, Hostile};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_begin_is_answered_by_another_engine() {
    // A step takes it a second.
    let slow = engine(|config| config.speed = 0.01).await;
    let quick = engine(|_| {}).await;
    let front =
        Front::of(&[slow.url(), quick.url()], |config| config.hedge.after_ms = Some(20)).await;
    let mut number = 0;
    while front.counter("gateway_hedges_won_total").await == 0.0 {
        number += 1;
        let body = json!({"prompt": [number], "max_tokens": 4, "stream": true});
        let answer = front.caller.complete(&body).await;
        let events = answer.text.matches("data: {").count();
        assert!(answer.status == 200 && events >= 4, "{}", answer.text);
        assert!(number < 100, "the slow one is never asked");
        assert!(answer.text.starts_with("data: ") && answer.text.ends_with("data: [DONE]\n\n"));
    }
    // Who was slower is told to stop, and its load is gone.
    let stopping = async {
        while running(&slow).await > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HUNG, stopping).await.expect("it goes on");
    front.until(|front| front.booked() == 0).await;
    assert_eq!(front.counter("gateway_retries_total").await, 0.0);
    assert_eq!(front.counter("gateway_client_left_total").await, 0.0);
    let asked = front.counter("gateway_requests_total").await;
    assert_eq!((asked, front.counter("gateway_completed_total").await), (number.into(), asked));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_are_booked_and_a_failure_of_one_leaves_the_other() {
    let hanging = [Hostile::start(Conduct::Hang).await, Hostile::start(Conduct::Hang).await];
    let urls: Vec<String> = hanging.iter().map(Hostile::url).collect();
    let front = Front::of(&urls, |config| config.hedge.after_ms = Some(20)).await;
    let caller = front.caller.clone();
    let stream = json!({"prompt": "a", "stream": true});
    let asking = tokio::spawn({
        let stream = stream.clone();
        async move { caller.complete(&stream).await }
    });
    front.until(|front| front.booked() == 2).await;
    assert!(hanging.iter().all(|engine| engine.requests() <= 1));
    asking.abort();
    front.until(|front| front.booked() == 0).await;
    assert_eq!(front.counter("gateway_hedges_total").await, 1.0);
    // The second fails at once: what the first comes to counts.
    let (well, bad) = (Hostile::start(Conduct::Hang).await, Hostile::start(Conduct::Hangup).await);
    let front = Front::of(&[well.url(), bad.url()], |config| {
        config.hedge.after_ms = Some(20);
        config.timeouts.first_byte_ms = 400;
    })
    .await;
    while well.requests() == 0 || bad.requests() == 0 {
        let answer = front.caller.complete(&stream).await;
        assert_eq!(answer.code(), "engine_timeout", "{}", answer.text);
    }
    front.until(|front| front.booked() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_second_does_not_win_over_a_first_that_is_at_work() {
    // A token takes it some tenths of a second.
    let (slow, broken) =
        (engine(|config| config.speed = 0.05).await, Hostile::start(Conduct::Broken).await);
    let front =
        Front::of(&[slow.url(), broken.url()], |config| config.hedge.after_ms = Some(20)).await;
    let mut statuses = Vec::new();
    while front.counter("gateway_hedges_total").await == 0.0 && statuses.len() < 100 {
        let body = json!({"prompt": [statuses.len()], "max_tokens": 1, "stream": true});
        statuses.push(front.caller.complete(&body).await.status.as_u16());
    }
    // Those before met the broken one first, which is theirs.
    assert_eq!(statuses.pop(), Some(200));
    assert!(statuses.iter().all(|status| *status == 500), "{statuses:?}");
    assert_eq!(front.counter("gateway_hedges_won_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_streams_without_a_byte_are_hedged_and_only_within_the_budget() {
    let hanging = [Hostile::start(Conduct::Hang).await, Hostile::start(Conduct::Hang).await];
    let urls: Vec<String> = hanging.iter().map(Hostile::url).collect();
    let front = Front::of(&urls, |config| {
        config.hedge.after_ms = Some(5);
        config.hedge.budget_burst = 1;
        config.hedge.budget_percent = 0;
        config.timeouts.first_byte_ms = 100;
    })
    .await;
    let whole = json!({"prompt": "a"});
    assert_eq!(front.caller.complete(&whole).await.code(), "engine_timeout");
    assert_eq!(front.counter("gateway_hedges_total").await, 0.0);
    let stream = json!({"prompt": "a", "stream": true});
    for _ in 0..3 {
        assert_eq!(front.caller.complete(&stream).await.code(), "engine_timeout");
    }
    assert_eq!(front.counter("gateway_hedges_total").await, 1.0);
    assert_eq!(hanging.iter().map(Hostile::requests).sum::<usize>(), 1 + 2 + 1 + 1);
    // One that has begun is not sent again, however long it then takes.
    let stalling = [Hostile::start(Conduct::Stall).await, Hostile::start(Conduct::Stall).await];
    let urls: Vec<String> = stalling.iter().map(Hostile::url).collect();
    let front = Front::of(&urls, |config| {
        config.hedge.after_ms = Some(100);
        config.timeouts.idle_ms = 300;
    })
    .await;
    let answer = front.caller.complete(&stream).await;
    assert!(answer.text.contains("engine_failed"), "{}", answer.text);
    assert_eq!(stalling.iter().map(Hostile::requests).sum::<usize>(), 1);
}
