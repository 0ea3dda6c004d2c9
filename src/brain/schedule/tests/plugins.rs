//! The suite that every filter, scorer and picker passes, by walking the registries: a plugin that
//! is added is tested with no line here.

use super::fixture::{NOW, World, inline, prompt, spec};
use crate::fleet::{EndpointSpec, LoraState, MetricsSample};
use crate::schedule::filter::FILTERS;
use crate::schedule::picker::PICKERS;
use crate::schedule::scorer::SCORERS;
use crate::schedule::{Choice, PluginConfig, ProfileConfig, Request, Scheduler, ScorerConfig, Slo};
use proptest::prelude::*;
use std::time::Duration;

const RANGE_LABEL: &str = "llm-d.ai/context-length-range";

/// One endpoint as the generator draws it.
#[derive(Debug, Clone)]
struct Drawn {
    spec: EndpointSpec,
    sample: Option<MetricsSample>,
    depth_blocks: u32,
    cpu_blocks: u32,
    bookings: Vec<u32>,
}

/// Endpoints with the numbers that their addresses carry.
type Numbered = Vec<(usize, Drawn)>;

fn drawn() -> impl Strategy<Value = Drawn> {
    let signal = || prop::option::of(0.0_f64..20.0);
    let share = || prop::option::of(0.0_f64..=1.0);
    let lora = || prop::collection::vec(prop::sample::select(vec!["sql", "chat", "law"]), 0..3);
    let metrics = (signal(), signal(), share(), share(), prop::option::of(lora()));
    let shape = (
        prop::option::of(metrics),
        0_u32..=100,
        0_u32..=100,
        prop::collection::vec(1_u32..5_000, 0..5),
        prop::option::of(0_u32..4_000),
        prop::sample::select(vec![0_u64, 100, 10_000]),
        prop::sample::select(vec!["", "h1", "h2"]),
    );
    shape.prop_map(|(metrics, depth_blocks, cpu_blocks, bookings, range, kv_blocks, host)| {
        let mut spec = spec(0);
        spec.capacity.kv_blocks = kv_blocks;
        spec.capacity.block_size = 16;
        spec.topology.host = host.into();
        if let Some(min) = range {
            spec.labels.insert(RANGE_LABEL.into(), format!("{min}-{}", min + 1_000));
        }
        let sample = metrics.map(|(waiting, running, kv, gpu, loras)| MetricsSample {
            waiting_requests: waiting,
            running_requests: running,
            kv_usage: kv,
            gpu_utilization: gpu,
            running_loras: loras.map(|names| names.into_iter().map(str::to_owned).collect()),
            max_loras: Some(2),
            ..MetricsSample::default()
        });
        Drawn { spec, sample, depth_blocks, cpu_blocks: cpu_blocks.min(depth_blocks), bookings }
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let slo = (prop::option::of(1.0_f64..5_000.0), prop::option::of(1.0_f64..100.0));
    let session = prop::option::of(prop::sample::select(vec!["a", "b", "c"]));
    let lora = prop::option::of(prop::sample::select(vec!["sql", "none"]));
    (0_u32..4_000, slo, session, lora).prop_map(|(tokens, (ttft_ms, tpot_ms), session, lora)| {
        let mut request = prompt(tokens);
        request.slo = Slo { ttft_ms, tpot_ms };
        request.session_id = session.map(str::to_owned);
        request.lora = lora.map(str::to_owned);
        request.origin.host = "h1".into();
        request
    })
}

/// A world of these endpoints in this order; an endpoint keeps its address wherever it stands.
fn world(endpoints: &[(usize, Drawn)], prior: &str) -> World {
    let specs = endpoints.iter().map(|(number, drawn)| EndpointSpec {
        address: format!("http://endpoint-{number}:8000"),
        ..drawn.spec.clone()
    });
    let mut world = World::with_prior(specs, prior);
    let depths: Vec<u32> = endpoints.iter().map(|(_, drawn)| drawn.depth_blocks).collect();
    world.holds(100, &depths);
    for (row, (_, drawn)) in endpoints.iter().enumerate() {
        world.matches.lower_tier_blocks[row] = [drawn.cpu_blocks, 0, 0];
        if let Some(sample) = &drawn.sample {
            world.observe(row, sample);
        }
        for &tokens in &drawn.bookings {
            world.book(row, tokens);
        }
    }
    world
}

/// A plugin's configuration with the parameters that it cannot do without.
fn with_required(name: &str) -> ScorerConfig {
    let config = ScorerConfig::new(name, 1.0);
    if name == "foreign" { config.with("as", "mine") } else { config }
}

/// Schedules the history, then the request; each choice with the address it fell on.
fn play(world: &World, profile: &ProfileConfig, history: &[Request], last: &Request) -> Choice {
    let mut scheduler = Scheduler::new(&inline(profile.clone()), 7).unwrap();
    for request in history {
        if let Ok(mut choice) = world.choose(&mut scheduler, request) {
            // The same endpoint whatever the order of slots, so that memories can be compared.
            let address = |row: &usize| &world.fleet.spec(world.ids[*row]).unwrap().address;
            let first = (0..world.ids.len()).min_by_key(address).unwrap();
            choice.endpoint = world.ids[first];
            (choice.matched_tokens, choice.prefill_ms) = (0, 0.0);
            scheduler.committed(NOW, request, &choice);
        }
    }
    world.choose(&mut scheduler, last).unwrap()
}

fn scored_by(scorer: &str) -> ProfileConfig {
    ProfileConfig { scorers: vec![with_required(scorer)], ..ProfileConfig::default() }
}

fn filtered_by(filter: &str) -> ProfileConfig {
    ProfileConfig { filters: vec![PluginConfig::new(filter)], ..ProfileConfig::default() }
}

fn picked_by(picker: &str) -> ProfileConfig {
    ProfileConfig {
        scorers: vec![ScorerConfig::new("prefix-cache-scorer", 1.0)],
        picker: PluginConfig::new(picker),
        ..ProfileConfig::default()
    }
}

fn priors() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "qwen3-32b_h100_tp2"])
}

/// Endpoints with their numbers, and the same in another order.
fn shuffled() -> impl Strategy<Value = (Numbered, Numbered)> {
    prop::collection::vec(drawn(), 1..8).prop_flat_map(|drawn| {
        let endpoints: Vec<_> = drawn.into_iter().enumerate().collect();
        (Just(endpoints.clone()), Just(endpoints).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scorers_stay_in_range_and_repeat(
        (endpoints, _) in shuffled(),
        history in prop::collection::vec(requests(), 0..4),
        request in requests(),
        prior in priors(),
    ) {
        let world = world(&endpoints, prior);
        for plugin in SCORERS {
            let choice = play(&world, &scored_by(plugin.name), &history, &request);
            let scores = &choice.explanation().scores[0].values;
            prop_assert_eq!(scores.len(), world.ids.len());
            for &score in scores {
                prop_assert!((0.0..=1.0).contains(&score), "{}: {:?}", plugin.name, scores);
            }
            let again = play(&world, &scored_by(plugin.name), &history, &request);
            prop_assert_eq!(choice, again, "{}", plugin.name);
        }
    }

    #[test]
    fn scorers_do_not_care_about_slots(
        (endpoints, others) in shuffled(),
        history in prop::collection::vec(requests(), 0..4),
        request in requests(),
        prior in priors(),
    ) {
        let (world, other) = (world(&endpoints, prior), world(&others, prior));
        for plugin in SCORERS {
            let here = play(&world, &scored_by(plugin.name), &history, &request);
            let there = play(&other, &scored_by(plugin.name), &history, &request);
            for (row, (number, _)) in others.iter().enumerate() {
                let a = here.explanation().totals[*number];
                let b = there.explanation().totals[row];
                prop_assert!((a - b).abs() < 1e-9, "{}: {} against {}", plugin.name, a, b);
            }
        }
    }

    #[test]
    fn filters_do_not_care_about_slots_and_leave_somebody(
        (endpoints, others) in shuffled(),
        request in requests(),
        prior in priors(),
    ) {
        let (world, other) = (world(&endpoints, prior), world(&others, prior));
        let kept = |choice: &Choice, of: &[(usize, Drawn)]| {
            let rows = choice.reasons.candidates().iter().map(|id| of[id.slot.index()].0);
            let mut numbers: Vec<usize> = rows.collect();
            numbers.sort_unstable();
            numbers
        };
        for plugin in FILTERS.iter().filter(|plugin| plugin.name != "encode-filter") {
            let here = play(&world, &filtered_by(plugin.name), &[], &request);
            let there = play(&other, &filtered_by(plugin.name), &[], &request);
            prop_assert!(!here.explanation().candidates.is_empty());
            prop_assert_eq!(kept(&here, &endpoints), kept(&there, &others), "{}", plugin.name);
            let step = &here.explanation().filters[0];
            let all = step.removed.len() + here.explanation().candidates.len();
            prop_assert_eq!(all, world.ids.len());
            prop_assert!(!step.skipped || step.removed.is_empty());
        }
    }

    #[test]
    fn pickers_pick_a_candidate_and_repeat(
        (endpoints, _) in shuffled(),
        history in prop::collection::vec(requests(), 0..4),
        request in requests(),
    ) {
        let world = world(&endpoints, "");
        for plugin in PICKERS {
            let choice = play(&world, &picked_by(plugin.name), &history, &request);
            prop_assert!(world.ids.contains(&choice.endpoint));
            let again = play(&world, &picked_by(plugin.name), &history, &request);
            prop_assert_eq!(choice, again, "{}", plugin.name);
        }
    }
}

/// Endpoints alike in all but what they report, too long ago to count.
fn stale_world() -> World {
    let mut world = World::alike(3);
    world.holds(100, &[50, 50, 50]);
    for (row, load) in [0.0, 5.0, 50.0].into_iter().enumerate() {
        world.observe(
            row,
            &MetricsSample {
                waiting_requests: Some(load),
                running_requests: Some(load),
                kv_usage: Some(load / 50.0),
                gpu_utilization: Some(load / 50.0),
                running_loras: Some(vec![format!("lora-{row}")]),
                max_loras: Some(1),
                ..MetricsSample::default()
            },
        );
    }
    world
}

#[test]
fn stale_signals_make_scores_neutral() {
    let world = stale_world();
    let later = NOW + world.fleet.metrics_max_age() + Duration::from_nanos(1);
    let request = Request { lora: Some("lora-0".into()), ..prompt(1_600) };
    assert_eq!(world.fleet.lora_state(later, world.ids[1].slot, "lora-0"), LoraState::Unknown);
    // These read addresses, or which adapters were ever there, and nothing that ages.
    let ageless = ["session-hash-scorer", "lora-affinity-scorer"];
    for plugin in SCORERS.iter().filter(|plugin| !ageless.contains(&plugin.name)) {
        let config = inline(scored_by(plugin.name));
        let mut scheduler = Scheduler::new(&config, 7).unwrap();
        let (fleet, predictor, matches) = (&world.fleet, &world.predictor, &world.matches);
        let choice =
            scheduler.choose(later, (&request).into(), fleet, predictor, matches, &[]).unwrap();
        let scores = &choice.explanation().scores[0].values;
        assert_eq!(scores[0].to_bits(), scores[1].to_bits(), "{}", plugin.name);
        assert_eq!(scores[0].to_bits(), scores[2].to_bits(), "{}", plugin.name);
    }
}

#[test]
fn stale_signals_remove_nobody() {
    let world = stale_world();
    let later = NOW + world.fleet.metrics_max_age() + Duration::from_nanos(1);
    for plugin in FILTERS.iter().filter(|plugin| plugin.name != "encode-filter") {
        let mut scheduler = Scheduler::new(&inline(filtered_by(plugin.name)), 7).unwrap();
        let (fleet, predictor, matches) = (&world.fleet, &world.predictor, &world.matches);
        let choice = scheduler
            .choose(later, (&prompt(1_600)).into(), fleet, predictor, matches, &[])
            .unwrap();
        assert_eq!(choice.explanation().candidates, world.ids, "{}", plugin.name);
    }
}

#[test]
fn names_are_listed_once() {
    fn assert_distinct(names: &[&str]) {
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len(), "{names:?}");
    }
    assert_distinct(&SCORERS.iter().map(|plugin| plugin.name).collect::<Vec<_>>());
    assert_distinct(&FILTERS.iter().map(|plugin| plugin.name).collect::<Vec<_>>());
    assert_distinct(&PICKERS.iter().map(|plugin| plugin.name).collect::<Vec<_>>());
}
