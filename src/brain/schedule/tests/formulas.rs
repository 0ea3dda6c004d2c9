//! Every scorer's and filter's numbers, worked out by hand.

use super::fixture::{NOW, World, assert_close, inline, prompt, spec};
use crate::fleet::{EndpointSpec, MetricsSample};
use crate::schedule::{PluginConfig, ProfileConfig, Request, Scheduler, ScorerConfig, Slo};
use crate::{EndpointId, Slot, Time};
use std::time::Duration;

fn scorer(name: &str) -> ScorerConfig {
    ScorerConfig::new(name, 1.0)
}

fn waiting(requests: f64) -> MetricsSample {
    MetricsSample { waiting_requests: Some(requests), ..MetricsSample::default() }
}

/// Whom a filter removes.
fn removed(world: &World, filter: PluginConfig, request: &Request) -> Vec<usize> {
    let profile = ProfileConfig { filters: vec![filter], ..ProfileConfig::default() };
    let mut scheduler = Scheduler::new(&inline(profile), 1).unwrap();
    let choice = world.choose(&mut scheduler, request).unwrap();
    let step = &choice.explanation().filters[0];
    step.removed.iter().map(|id| id.slot.index()).collect()
}

#[test]
fn queue() {
    let mut world = World::alike(4);
    world.observe(0, &waiting(2.0));
    world.observe(1, &waiting(4.0));
    world.observe(2, &waiting(10.0));

    // (10 - x) / (10 - 2); the last never reported.
    assert_close(&world.scores(scorer("queue-scorer"), &prompt(100)), &[1.0, 0.75, 0.0, 0.5]);
}

#[test]
fn queue_tie() {
    let mut world = World::alike(2);
    world.observe(0, &waiting(3.0));
    world.observe(1, &waiting(3.0));

    assert_close(&world.scores(scorer("queue-scorer"), &prompt(100)), &[1.0, 1.0]);
}

#[test]
fn running_requests() {
    let mut world = World::alike(3);
    for (endpoint, running) in [1.0, 3.0, 5.0].into_iter().enumerate() {
        let running_requests = Some(running);
        world.observe(endpoint, &MetricsSample { running_requests, ..MetricsSample::default() });
    }

    let scores = world.scores(scorer("running-requests-size-scorer"), &prompt(100));

    assert_close(&scores, &[1.0, 0.5, 0.0]);
}

#[test]
fn load_aware() {
    let mut world = World::alike(4);
    world.observe(0, &waiting(0.0));
    world.observe(1, &waiting(32.0));
    world.observe(2, &waiting(500.0));

    // 0.5 * (1 - 32/128).
    let scores = world.scores(scorer("load-aware-scorer"), &prompt(100));

    assert_close(&scores, &[0.5, 0.375, 0.0, 0.5]);
}

#[test]
fn kv_cache_and_gpu_utilization() {
    let mut world = World::alike(2);
    let sample = MetricsSample {
        kv_usage: Some(0.7),
        gpu_utilization: Some(0.25),
        ..MetricsSample::default()
    };
    world.observe(0, &sample);

    let kv = world.scores(scorer("kv-cache-utilization-scorer"), &prompt(100));
    let gpu = world.scores(scorer("gpu-utilization-scorer"), &prompt(100));

    assert_close(&kv, &[0.3, 0.5]);
    assert_close(&gpu, &[0.75, 0.5]);
}

#[test]
fn prefix_cache() {
    let mut world = World::alike(3);
    // 1,000 tokens are 62 full blocks and a rest that nobody can hold.
    world.holds(62, &[0, 31, 62]);

    let scores = world.scores(scorer("prefix-cache-scorer"), &prompt(1_000));

    assert_close(&scores, &[0.0, 0.5, 1.0]);
}

#[test]
fn prefix_cache_by_tier() {
    let mut world = World::alike(2);
    world.holds(10, &[10, 10]);
    // Of ten blocks four are in host memory, two on disk and one is remote.
    world.matches.lower_tier_blocks[1] = [4, 2, 1];

    let scores = world.scores(scorer("prefix-cache-scorer"), &prompt(160));

    // (3 * 1.0 + 4 * 0.8 + 2 * 0.6 + 1 * 0.3) / 10
    assert_close(&scores, &[1.0, 0.77]);
}

#[test]
fn token_load() {
    let mut world = World::alike(2);
    world.holds(62, &[0, 31]);
    world.book(0, 3_000);
    let config = scorer("token-load-scorer").with("threshold_tokens", 10_000);

    // 1 - (3,000 + 1,000) / 10,000 and 1 - (1,000 - 31 * 16) / 10,000.
    assert_close(&world.scores(config, &prompt(1_000)), &[0.6, 0.9496]);
    // llm-d's default: 4,194,304 tokens.
    let scores = world.scores(scorer("token-load-scorer"), &prompt(1_000));
    assert_close(&scores[..1], &[1.0 - 4_000.0 / 4_194_304.0]);
}

#[test]
fn active_request() {
    let mut world = World::alike(3);
    for endpoint in [1, 2, 2, 2, 2] {
        world.book(endpoint, 100);
    }

    let scores = world.scores(scorer("active-request-scorer"), &prompt(100));
    let gap = scorer("active-request-scorer").with("idle_threshold", 1).with("max_busy_score", 0.5);

    // Idle is 1, otherwise (4 - n) / 4.
    assert_close(&scores, &[1.0, 0.75, 0.0]);
    assert_close(&world.scores(gap, &prompt(100)), &[1.0, 1.0, 0.0]);
}

#[test]
fn lora_affinity() {
    let declares = EndpointSpec { loras: vec!["sql".into()], ..spec(4) };
    let mut world = World::new((0..4).map(spec).chain([declares, spec(5)]));
    let loras = |running: &[&str], waiting: &[&str]| MetricsSample {
        running_loras: Some(running.iter().map(ToString::to_string).collect()),
        waiting_loras: Some(waiting.iter().map(ToString::to_string).collect()),
        max_loras: Some(2),
        ..MetricsSample::default()
    };
    world.observe(0, &loras(&["sql"], &[]));
    world.observe(1, &loras(&["other"], &[]));
    world.observe(2, &loras(&["a", "b"], &["sql"]));
    world.observe(3, &loras(&["a", "b"], &[]));
    let request = Request { lora: Some("sql".into()), ..prompt(100) };

    let scores = world.scores(scorer("lora-affinity-scorer"), &request);

    assert_close(&scores, &[1.0, 0.8, 0.6, 0.0, 0.8, 0.5]);
    assert_close(&world.scores(scorer("lora-affinity-scorer"), &prompt(100)), &[0.5; 6]);
    assert_eq!(removed(&world, PluginConfig::new("lora-residency-filter"), &request), [1, 3, 5]);
    assert!(removed(&world, PluginConfig::new("lora-residency-filter"), &prompt(100)).is_empty());
}

#[test]
fn no_hit_lru() {
    let world = World::alike(3);
    let mut scheduler =
        Scheduler::new(&super::fixture::scorer(scorer("no-hit-lru-scorer")), 1).unwrap();
    let request = prompt(100);
    let mut step = |world: &World| {
        let choice = world.choose(&mut scheduler, &request).unwrap();
        scheduler.committed(NOW, &request, &choice);
        (choice.endpoint, choice.explanation().totals)
    };

    let (first, scores) = step(&world);
    assert_close(&scores, &[1.0, 1.0, 1.0]);
    let (second, scores) = step(&world);
    assert!((scores[first.slot.index()] - 0.0).abs() < 1e-9, "{scores:?}");
    let (third, scores) = step(&world);
    // The one given a cold prompt longest ago is second, the other last.
    assert_close(&[first, second, third].map(|id| scores[id.slot.index()]), &[0.5, 0.0, 1.0]);
    let (fourth, scores) = step(&world);
    assert_close(&[first, second, third].map(|id| scores[id.slot.index()]), &[1.0, 0.5, 0.0]);
    assert_eq!(fourth, first);

    let mut warm = World::alike(3);
    warm.holds(6, &[0, 1, 0]);
    let (_, scores) = step(&warm);
    assert_close(&scores, &[0.5; 3]);
    let (_, scores) = step(&world);
    let warm_changed_nothing = [second, third, first].map(|id| scores[id.slot.index()]);
    assert_close(&warm_changed_nothing, &[1.0, 0.5, 0.0]);
}

#[test]
fn session_affinity() {
    let world = World::alike(3);
    let config = scorer("session-affinity-scorer").with("max_sessions", 2);
    let mut scheduler = Scheduler::new(&super::fixture::scorer(config), 1).unwrap();
    let session = |name: &str| Request { session_id: Some(name.into()), ..prompt(100) };
    let totals = |scheduler: &mut Scheduler, now: Time, request: &Request| {
        let (fleet, predictor, matches) = (&world.fleet, &world.predictor, &world.matches);
        let choice = scheduler.choose(now, request.into(), fleet, predictor, matches, &[]).unwrap();
        (choice.clone(), choice.explanation().totals)
    };

    let (choice, scores) = totals(&mut scheduler, NOW, &session("a"));
    assert_close(&scores, &[0.5; 3]);
    scheduler.committed(NOW, &session("a"), &choice);

    let mut home = [0.0; 3];
    home[choice.endpoint.slot.index()] = 1.0;
    assert_close(&totals(&mut scheduler, NOW, &session("a")).1, &home);
    assert_close(&totals(&mut scheduler, NOW, &session("b")).1, &[0.5; 3]);
    assert_close(&totals(&mut scheduler, NOW, &prompt(100)).1, &[0.5; 3]);

    let ttl = NOW + Duration::from_secs(300);
    assert_close(&totals(&mut scheduler, ttl, &session("a")).1, &home);
    let later = ttl + Duration::from_nanos(1);
    assert_close(&totals(&mut scheduler, later, &session("a")).1, &[0.5; 3]);

    scheduler.committed(NOW, &session("b"), &choice);
    scheduler.committed(NOW, &session("c"), &choice);
    assert_close(&totals(&mut scheduler, NOW, &session("a")).1, &[0.5; 3]);
}

#[test]
fn session_affinity_does_not_follow_a_slot_to_its_next_tenant() {
    let mut world = World::alike(2);
    let config = super::fixture::scorer(scorer("session-affinity-scorer"));
    let mut scheduler = Scheduler::new(&config, 1).unwrap();
    let request = Request { session_id: Some("a".into()), ..prompt(100) };
    let choice = world.choose(&mut scheduler, &request).unwrap();
    scheduler.committed(NOW, &request, &choice);

    world.fleet.leave(NOW, choice.endpoint).unwrap();
    scheduler.left(choice.endpoint.slot);
    let successor = world.fleet.join(NOW, spec(9)).unwrap();
    assert_eq!(successor.slot, choice.endpoint.slot);

    let choice = world.choose(&mut scheduler, &request).unwrap();
    assert_close(&choice.explanation().totals, &[0.5, 0.5]);
}

#[test]
fn session_hash() {
    let world = World::alike(4);
    let mut homes = [0; 4];
    for number in 0..400 {
        let request = Request { session_id: Some(format!("s{number}")), ..prompt(100) };
        let scores = world.scores(scorer("session-hash-scorer"), &request);
        assert_eq!(scores, world.scores(scorer("session-hash-scorer"), &request));
        let home = (0..4).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
        homes[home] += 1;

        let without_last = World::alike(3);
        let fewer = without_last.scores(scorer("session-hash-scorer"), &request);
        assert_eq!(fewer, scores[..3], "an endpoint that leaves moves its own sessions only");
    }
    assert!(homes.iter().all(|&sessions| sessions > 70), "{homes:?}");
    assert_close(&world.scores(scorer("session-hash-scorer"), &prompt(100)), &[0.5; 4]);
}

#[test]
fn session_hash_by_a_label() {
    let labelled = |port: usize| {
        World::new((0..3).map(|number| {
            let mut spec = EndpointSpec::new(format!("http://10.0.0.1:{}", port + number), "m");
            spec.labels.insert("replica".into(), format!("engine-{number}"));
            spec
        }))
    };
    let (before, after) = (labelled(8_000), labelled(9_000));
    let request = Request { session_id: Some("s".into()), ..prompt(100) };
    let by_label = || scorer("session-hash-scorer").with("label", "replica");

    assert_eq!(before.scores(by_label(), &request), after.scores(by_label(), &request));
    let by_address = || scorer("session-hash-scorer");
    assert_ne!(before.scores(by_address(), &request), after.scores(by_address(), &request));
    assert_ne!(before.scores(by_address(), &request), before.scores(by_label(), &request));
}

#[test]
fn topology_affinity() {
    let at = |number, host: &str, rack: &str, zone: &str, region: &str| {
        let mut spec = spec(number);
        spec.topology.host = host.into();
        spec.topology.rack = rack.into();
        spec.topology.zone = zone.into();
        spec.topology.region = region.into();
        spec
    };
    let world = World::new([
        at(0, "h1", "r1", "z1", "eu"),
        at(1, "h2", "r1", "z1", "eu"),
        at(2, "h3", "r2", "z1", "eu"),
        at(3, "h4", "r3", "z2", "eu"),
        at(4, "h5", "r4", "z3", "us"),
        at(5, "", "", "", ""),
    ]);
    let origin = at(0, "h1", "r1", "z1", "eu").topology;

    let near = Request { origin, ..prompt(100) };
    let scores = world.scores(scorer("topology-affinity-scorer"), &near);

    assert_close(&scores, &[1.0, 0.2, 0.05, 0.02, 0.0, 0.0]);
    assert_close(&world.scores(scorer("topology-affinity-scorer"), &prompt(100)), &[0.0; 6]);
}

#[test]
fn context_length() {
    let ranged = |number, range: &str| {
        let mut spec = spec(number);
        spec.labels.insert("llm-d.ai/context-length-range".into(), range.into());
        spec
    };
    let world = World::new([
        ranged(0, "0-2048"),
        ranged(1, "0-12048"),
        ranged(2, "4096-8192"),
        ranged(3, "1048-1048"),
        ranged(4, "any"),
        spec(5),
    ]);

    let scores = world.scores(scorer("context-length-aware"), &prompt(1_048));
    let gone = removed(&world, PluginConfig::new("context-length-aware"), &prompt(1_048));

    let narrow = 0.3 + 0.7 * (0.7 / 1.2048 + 0.3 * 1_000.0 / 2_048.0);
    let wide = 0.3 + 0.7 * (0.7 / 2.2048 + 0.3 * 11_000.0 / 12_048.0);
    let outside = 0.3 / (1.0 + 3.048);
    assert_close(&scores, &[narrow, wide, outside, 1.0, 0.5, 0.5]);
    assert_eq!(gone, [2]);
}

#[test]
fn latency_prefers_the_tightest_fit_that_meets_the_objectives() {
    let mut world = World::with_prior((0..3).map(spec), "qwen3-32b_h100_tp2");
    world.book(1, 4_000);
    world.book(2, 40_000);
    let request = Request { slo: Slo { ttft_ms: Some(1_000.0), tpot_ms: None }, ..prompt(1_000) };

    let scores = world.scores(scorer("latency-scorer"), &request);
    let most = scorer("latency-scorer").with("headroom_selection", "most");
    let gone = removed(
        &world,
        PluginConfig::new("slo-headroom-tier-filter").with("explore_negative_probability", 0),
        &request,
    );

    // The idle one has the most headroom, the second the least, the third none.
    assert_close(&scores, &[0.01, 1.0, 0.0]);
    assert_close(&world.scores(most, &request), &[1.0, 0.01, 0.0]);
    assert_eq!(gone, [2]);
}

#[test]
fn latency_prefers_the_idle_then_the_least_missed_objective() {
    let mut world = World::with_prior((0..3).map(spec), "qwen3-32b_h100_tp2");
    world.book(1, 4_000);
    world.book(2, 40_000);
    let slow =
        |ttft_ms| Request { slo: Slo { ttft_ms: Some(ttft_ms), tpot_ms: None }, ..prompt(1_000) };

    // Alone in its class there is nothing to scale by: 0.01 + 0.99 * 0.5.
    assert_close(&world.scores(scorer("latency-scorer"), &slow(1.0)), &[0.505, 0.0, 0.0]);

    world.book(0, 8_000);
    assert_close(&world.scores(scorer("latency-scorer"), &slow(1.0))[1..], &[1.0, 0.01]);
    let filter = PluginConfig::new("slo-headroom-tier-filter");
    assert!(removed(&world, filter, &slow(1.0)).is_empty(), "nobody meets it: everybody stays");
}

#[test]
fn latency_without_predictions_blends_kv_queue_and_prefix() {
    let mut world = World::alike(2);
    world.holds(10, &[5, 0]);
    let sample = |waiting, kv_usage| MetricsSample {
        waiting_requests: Some(waiting),
        kv_usage: Some(kv_usage),
        ..MetricsSample::default()
    };
    world.observe(0, &sample(4.0, 0.4));
    world.observe(1, &sample(0.0, 0.1));

    let scores = world.scores(scorer("latency-scorer"), &prompt(160));

    assert_close(&scores, &[(0.0 + 0.6 + 0.5) / 3.0, (1.0 + 0.9 + 0.0) / 3.0]);
}

#[test]
fn prefix_cache_affinity_sticks_until_saturated() {
    let filter = || PluginConfig::new("prefix-cache-affinity-filter");
    let mut world = World::alike(3);
    world.holds(10, &[8, 7, 0]);

    // 8 of 10 blocks is the threshold of 0.80.
    assert_eq!(removed(&world, filter(), &prompt(160)), [1, 2]);

    // 18,000 ms at 15,928 tokens/s are 286,704 tokens; one more breaks the affinity.
    world.book(0, 286_704);
    assert_eq!(removed(&world, filter(), &prompt(160)), [1, 2]);
    world.book(0, 1);
    assert!(removed(&world, filter(), &prompt(160)).is_empty());
    let always = filter().with("max_ttft_penalty_ms", 0);
    assert_eq!(removed(&world, always, &prompt(160)), [1, 2]);

    world.holds(10, &[7, 7, 0]);
    assert!(removed(&world, filter(), &prompt(160)).is_empty(), "nobody holds enough");
}

#[test]
fn label_selector() {
    let labelled = |number, labels: &[(&str, &str)]| {
        let mut spec = spec(number);
        spec.labels.extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        spec
    };
    let world = World::new([
        labelled(0, &[("gpu", "h100"), ("pool", "a")]),
        labelled(1, &[("gpu", "h200"), ("pool", "a")]),
        labelled(2, &[("gpu", "l4")]),
        labelled(3, &[]),
    ]);
    let select = |params: serde_json::Value| -> Vec<usize> {
        let mut entry = params;
        entry["name"] = "label-selector-filter".into();
        removed(&world, serde_json::from_value(entry).unwrap(), &prompt(100))
    };
    let expression = |operator: &str, values: &[&str]| serde_json::json!({"match_expressions": [{"key": "gpu", "operator": operator, "values": values}]});

    assert_eq!(select(serde_json::json!({})), [0; 0]);
    assert_eq!(
        select(serde_json::json!({"match_labels": {"gpu": "h100", "pool": "a"}})),
        [1, 2, 3]
    );
    assert_eq!(select(expression("in", &["h100", "h200"])), [2, 3]);
    assert_eq!(select(expression("not-in", &["h100", "h200"])), [0, 1]);
    assert_eq!(select(expression("exists", &[])), [3]);
    assert_eq!(select(expression("does-not-exist", &[])), [0, 1, 2]);
}

#[test]
fn foreign() {
    let world = World::alike(3);
    let ids: Vec<EndpointId> =
        (0..3).map(|slot| EndpointId { slot: Slot(slot), generation: 1 }).collect();
    let config = ScorerConfig::new("foreign", 1.0).with("as", "mine");
    let mut scheduler = Scheduler::new(&super::fixture::scorer(config), 1).unwrap();
    let given = crate::schedule::ForeignScore {
        name: "mine".into(),
        weight: None,
        candidates: ids,
        values: vec![0.25, -3.0, 7.0],
    };

    let choice = world.choose_with(&mut scheduler, &prompt(100), &[given]).unwrap();

    assert_close(&choice.explanation().totals, &[0.25, 0.0, 1.0]);
    assert_eq!(choice.explanation().scores[0].name, "mine");
    assert_eq!(choice.explanation().fallback, None);
}
