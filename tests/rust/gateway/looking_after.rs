//! Changes while it serves.

use crate::gateway::{Caller, Front, HUNG, engine};
use llmd_bodies::engine_server::EngineServer;
use llmd_bodies::gateway::{
    ConfigSource, EndpointConfig, GatewayConfig, GatewayServer, ReloadError,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

fn base(urls: &[String]) -> GatewayConfig {
    let endpoints = urls.iter().map(EndpointConfig::new).collect();
    GatewayConfig { listen: "127.0.0.1:0".into(), threads: 1, endpoints, ..Default::default() }
}

async fn start(config: GatewayConfig, source: Option<ConfigSource>) -> Front {
    let start = || GatewayServer::start_from(config, source).unwrap();
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let caller = Caller::new(server.local_addr());
    Front { server, caller }
}

fn complete() -> serde_json::Value {
    json!({"prompt": "a", "max_tokens": 1})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_adds_cordons_and_removes_engines() {
    let (first, second) = (engine(|_| {}).await, engine(|_| {}).await);
    let mut config = base(&[first.url()]);
    config.admin.listen = Some("127.0.0.1:0".into());
    // SHA-256 of `alpha`.
    let token = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
    config.admin.token_sha256 = Some(token.into());
    let front = start(config, None).await;
    front.until(|front| front.ready() == 1).await;
    let admin = Caller::new(front.server.admin_addr().unwrap());
    let known = [("authorization", "Bearer alpha")];
    let url = json!({"url": second.url()});
    assert_eq!(admin.post("/endpoints", &url, &[]).await.status, 401);
    assert_eq!(admin.get("/endpoints").await.status, 401);
    assert_eq!(admin.post("/cordon", &url, &known).await.status, 404);
    assert_eq!(admin.post("/endpoints", &url, &known).await.status, 204);
    front.until(|front| front.ready() == 2).await;
    assert_eq!(admin.post("/cordon", &json!({"url": first.url()}), &known).await.status, 204);
    assert_eq!(front.ready(), 1);
    for _ in 0..5 {
        let explain = [("x-llmd-explain", "1")];
        let answer = front.caller.post("/v1/completions", &complete(), &explain).await;
        assert_eq!(answer.headers["x-llmd-endpoint"], second.url());
    }
    assert_eq!(admin.post("/uncordon", &json!({"url": first.url()}), &known).await.status, 204);
    let removed = admin.open("DELETE", "/endpoints", url.to_string(), &known).await.unwrap();
    assert_eq!(removed.status(), 204);
    front.until(|front| front.server.gateway().router().endpoints().len() == 1).await;
    assert_eq!(admin.post("/reload", &json!({}), &known).await.status, 400);
    let wrong = admin.post("/endpoints", &json!({"url": "engine:1"}), &known).await;
    assert!(wrong.status == 400 && wrong.text.contains("http://host:port"), "{}", wrong.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_that_is_shown_is_the_one_in_force() {
    let mut config = base(&[]);
    config.admin.listen = Some("127.0.0.1:0".into());
    let front = start(config.clone(), None).await;
    let admin = Caller::new(front.server.admin_addr().unwrap());
    for policy in ["lmetric", "sglang"] {
        config.router.schedule.profile = serde_json::from_value(json!(policy)).unwrap();
        front.server.gateway().apply(config.clone()).unwrap();
        assert_eq!(admin.get("/config").await.json()["schedule"]["profile"], policy);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_ask_for_a_head_get_that_of_a_get() {
    let front = start(base(&[]), None).await;
    for (path, status) in [("/health", 200), ("/ready", 503), ("/metrics", 200)] {
        let head = front.caller.open("HEAD", path, "", &[]).await.unwrap();
        let same = front.caller.get(path).await;
        assert_eq!((head.status(), head.status().as_u16()), (same.status, status));
        assert_eq!(head.headers()["content-type"], same.headers["content-type"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_elsewhere_operates_nothing_from_a_browser_on_this_host() {
    let mut config = base(&[]);
    config.admin.listen = Some("127.0.0.1:0".into());
    let front = start(config, None).await;
    let admin = Caller::new(front.server.admin_addr().unwrap());
    let own = format!("http://{}", admin.address);
    for (origin, status) in [("http://evil.example", 403), ("null", 403), (own.as_str(), 400)] {
        let answer = admin.post("/reload", &json!({}), &[("origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.text);
    }
    let renamed = admin.open("GET", "/live", "", &[("host", "evil.example")]).await.unwrap();
    assert_eq!(renamed.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_engines_and_policy_change_under_load() {
    let engines = [engine(|_| {}).await, engine(|_| {}).await, engine(|_| {}).await];
    let urls = engines.each_ref().map(EngineServer::url);
    let front = start(base(&urls[..2]), None).await;
    front.until(|front| front.ready() == 2).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..16_u32)
        .map(|client| {
            let (caller, is_over) = (front.caller.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut answered = 0;
                while !is_over.load(SeqCst) {
                    let body = json!({"prompt": [client, answered], "max_tokens": 2});
                    let answer = caller.complete(&body).await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let gateway = front.server.gateway();
    for (number, policy) in
        ["round-robin", "lmetric", "default", "sglang"].into_iter().cycle().take(24).enumerate()
    {
        let mut config = base(&[urls[number % 3].clone(), urls[(number + 1) % 3].clone()]);
        config.router.schedule.profile = serde_json::from_value(json!(policy)).unwrap();
        gateway.apply(config).unwrap();
        front.until(|front| front.ready() >= 2).await;
    }
    is_over.store(true, SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    front.until(|front| front.booked() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_change_nothing() {
    let engine = engine(|_| {}).await;
    let url = engine.url();
    let source: ConfigSource = Box::new(move || {
        let mut config = base(std::slice::from_ref(&url));
        config.router.block_size = 32;
        Ok(config)
    });
    let front = start(base(&[engine.url()]), Some(source)).await;
    front.until(|front| front.ready() == 1).await;
    let gateway = front.server.gateway();
    let error = gateway.reload().unwrap_err();
    assert!(matches!(error, ReloadError::NeedsRestart(what) if what.contains("router")), "{error}");
    let mut config = base(&["engine:1".to_owned()]);
    assert!(matches!(gateway.apply(config.clone()), Err(ReloadError::Fleet(_))));
    config.router.schedule.profile = serde_json::from_value(json!("no such policy")).unwrap();
    let error = gateway.apply(config).unwrap_err();
    assert!(error.to_string().contains("no such policy"), "{error}");
    assert_eq!(front.caller.complete(&complete()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn engines_are_found_in_a_file_and_behind_a_name() {
    let (listed, named) = (engine(|_| {}).await, engine(|_| {}).await);
    let folder = std::env::temp_dir().join(format!("llmd-gateway-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("engines.json");
    let mut config = base(&[]);
    config.discovery.interval_ms = 10;
    config.discovery.file = Some(file.clone());
    config.discovery.dns = vec![format!("127.0.0.1:{}", named.local_addr().port())];
    let front = start(config, None).await;
    // The file is not there yet, which is no reason to do without the other.
    front.until(|front| front.ready() == 1).await;
    let list = json!({"endpoints": [{"url": listed.url(), "labels": {"found": "file"}}]});
    std::fs::write(&file, list.to_string()).unwrap();
    front.until(|front| front.ready() == 2).await;
    // Damaged, it changes nothing; then it lists nobody.
    std::fs::write(&file, "{").unwrap();
    tokio::time::timeout(HUNG, front.caller.complete(&complete())).await.unwrap();
    assert_eq!(front.ready(), 2);
    std::fs::write(&file, json!({"endpoints": []}).to_string()).unwrap();
    front.until(|front| front.ready() == 1).await;
    std::fs::remove_dir_all(folder).unwrap();
}
