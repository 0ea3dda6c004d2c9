//! Clients with keys.

use crate::gateway::{Front, engine};
use llmd_bodies::gateway::KeyConfig;
use serde_json::{Value, json};

/// SHA-256 of `alpha` and of `beta`.
const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
const BETA: &str = "f44e64e75f3948e9f73f8dfa94721c4ce8cbb4f265c4790c702b2d41cfbf2753";

fn key(name: &str, sha256: &str) -> KeyConfig {
    KeyConfig {
        name: name.to_owned(),
        sha256: sha256.to_owned(),
        tenant: Some(name.to_owned()),
        ..KeyConfig::default()
    }
}

fn body(prompt: &str) -> Value {
    json!({"model": "tiny", "prompt": prompt.repeat(100), "max_tokens": 1})
}

async fn call(front: &Front, key: &str, body: &Value) -> crate::gateway::Answer {
    let said = format!("Bearer {key}");
    front.caller.post("/v1/completions", body, &[("authorization", &said)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_with_a_key_are_answered_and_only_as_much_as_it_allows() {
    let engine = engine(|config| config.loras = vec!["tuned".into()]).await;
    let front = Front::of(&[engine.url()], |config| {
        let alpha = KeyConfig { requests_per_minute: Some(2), ..key("alpha", ALPHA) };
        let beta = KeyConfig { models: vec!["tiny".into()], ..key("beta", BETA) };
        config.auth.keys = vec![alpha, beta];
    })
    .await;
    assert_eq!(front.caller.complete(&body("a")).await.code(), "invalid_api_key");
    assert_eq!(call(&front, "gamma", &body("a")).await.status, 401);
    let mut tuned = body("a");
    tuned["model"] = "tuned".into();
    assert_eq!(call(&front, "beta", &tuned).await.code(), "model_not_allowed");
    // The last of a name counts, however it is written, and what is no JSON has no model.
    for (tricky, status) in [
        (r#"{"model": "tiny", "mod\u0065l": "tuned", "prompt": "a"}"#, 403),
        (r#"{"model": "tiny", "prompt": "a", NaN, "model": "tuned"}"#, 400),
    ] {
        let said = [("authorization", "Bearer beta")];
        let response = front.caller.open("POST", "/v1/completions", tricky, &said).await.unwrap();
        assert_eq!(response.status(), status, "{tricky}");
    }
    assert_eq!(front.counter("gateway_completed_total").await, 0.0);
    assert_eq!(call(&front, "alpha", &body("a")).await.status, 200);
    assert_eq!(call(&front, "alpha", &body("a")).await.status, 200);
    let limited = call(&front, "alpha", &body("a")).await;
    assert_eq!((limited.status.as_u16(), limited.code().as_str()), (429, "rate_limit_exceeded"));
    let after_s: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&after_s));
}

fn cached(answer: &crate::gateway::Answer) -> u64 {
    answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_cannot_tell_what_another_has_asked() {
    let engine = engine(|_| {}).await;
    let front = Front::of(&[engine.url()], |config| {
        // Whose tenant is not said is one of its own, whatever a header says.
        let beta = KeyConfig { tenant: None, ..key("beta", BETA) };
        config.auth.keys = vec![key("alpha", ALPHA), beta];
        config.auth.salt_secret = Some("secret".into());
    })
    .await;
    let asked = body("a secret of alpha's ");
    call(&front, "alpha", &asked).await;
    assert!(cached(&call(&front, "alpha", &asked).await) > 0);
    let posing = [("authorization", "Bearer beta"), ("x-tenant", "alpha")];
    let answer = front.caller.post("/v1/completions", &asked, &posing).await;
    assert_eq!(cached(&answer), 0);
    // A salt of one's own divides further and opens nothing.
    let mut salted = asked.clone();
    salted["cache_salt"] = "alpha".into();
    assert_eq!(cached(&call(&front, "beta", &salted).await), 0);
    assert!(cached(&call(&front, "beta", &salted).await) > 0);
}
