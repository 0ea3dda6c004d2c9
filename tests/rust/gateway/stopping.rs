//! Told to stop, a gateway answers what came.

use crate::gateway::{Front, engine};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_when_it_stops_under_load() {
    let engine = engine(|config| config.speed = 50.0).await;
    let Front { server, caller } = Front::of(&[engine.url()], |_| {}).await;
    let (answered, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..32_u32)
        .map(|client| {
            let caller = caller.clone();
            let (answered, refused) = (Arc::clone(&answered), Arc::clone(&refused));
            tokio::spawn(async move {
                for number in 0.. {
                    let body =
                        json!({"prompt": [client, number], "max_tokens": 20, "stream": true});
                    let sent = caller.open("POST", "/v1/completions", body.to_string(), &[]).await;
                    match sent {
                        Ok(response) => {
                            let answer = crate::gateway::whole(response).await;
                            assert_eq!(answer.status, 200, "{}", answer.text);
                            assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
                            answered.fetch_add(1, SeqCst);
                        }
                        // Nobody listens any more: another gateway would be asked.
                        Err(error) if error.is_connect() => {
                            refused.fetch_add(1, SeqCst);
                            return;
                        }
                        Err(error) => panic!("lost: {error:?}"),
                    }
                }
            })
        })
        .collect();
    while answered.load(SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::task::spawn_blocking(move || server.drain());
    for client in clients {
        client.await.unwrap();
    }
    stopping.await.unwrap();
    assert_eq!(refused.load(SeqCst), 32);
}
