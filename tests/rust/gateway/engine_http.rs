//! Engines that speak HTTP/1.1 in every way that they may, and in some that they may not.

use crate::gateway::{Answer, Front};
use crate::hostile::{Conduct, Hostile};
use serde_json::json;

/// Answers to two requests, and over how many connections they came.
async fn two_answers(says: &'static str) -> ([Answer; 2], f64) {
    let engine = Hostile::start(Conduct::Says(says)).await;
    let front = Front::of(&[engine.url()], |config| config.retries.max_attempts = 1).await;
    let body = json!({"prompt": "a", "max_tokens": 1});
    let answers = [front.caller.complete(&body).await, front.caller.complete(&body).await];
    let series = format!("engine_connections_total{{engine=\"{}\"}}", engine.url());
    (answers, front.counter(&series).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_end_a_body_is_understood() {
    for (says, connections) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 1.0),
        // What comes before an answer is none.
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            1.0,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\na: b\r\n\r\n",
            1.0,
        ),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nok", 2.0),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 2.0),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 2.0),
        // Its length does not count, and whoever says both is not asked on this connection again.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            2.0,
        ),
        // An answer that nobody asked for is nobody's.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
            2.0,
        ),
    ] {
        let (answers, made) = two_answers(says).await;
        for answer in answers {
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "ok"), "{says}");
        }
        assert_eq!(made, connections, "{says}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_in_two_ways_is_an_engine_s_failure() {
    for says in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: other\r\n\r\n",
    ] {
        let ([first, second], _) = two_answers(says).await;
        for answer in [first, second] {
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "engine_failed"));
        }
    }
}
