//! What a scheduler does with its plugins, whatever they are.

use super::fixture::{NOW, World, inline, named, prompt, scorer, spec};
use crate::Time;
use crate::fleet::{EndpointChange, EndpointSpec, MetricsSample, Role};
use crate::index::MatchSource;
use crate::schedule::{
    Exclusions, Feature, ForeignScore, NoCandidate, PluginConfig, ProfileConfig, Request,
    Scheduler, ScorerConfig, builtin_profiles,
};

fn scheduler(profile: &str) -> Scheduler {
    Scheduler::new(&named(profile), 1).unwrap()
}

fn excluded(error: NoCandidate) -> Exclusions {
    match error {
        NoCandidate::Excluded(exclusions) => exclusions,
        NoCandidate::EmptyFleet => panic!("the fleet is not empty"),
    }
}

/// Requests in a row, each booked where it went.
fn place(world: &mut World, scheduler: &mut Scheduler, requests: usize, tokens: u32) -> Vec<usize> {
    (0..requests)
        .map(|_| {
            let choice = world.choose(scheduler, &prompt(tokens)).unwrap();
            scheduler.committed(NOW, &prompt(tokens), &choice);
            let endpoint = choice.endpoint.slot.index();
            world.book(endpoint, choice.uncached_tokens);
            endpoint
        })
        .collect()
}

#[test]
fn an_empty_fleet_has_no_candidate() {
    let error = World::alike(0).choose(&mut scheduler("default"), &prompt(10)).unwrap_err();

    assert_eq!(error, NoCandidate::EmptyFleet);
    assert_eq!(error.to_string(), "no endpoint in the fleet: add one first");
}

#[test]
fn every_hard_condition_says_how_many_it_removed() {
    let mut labelled = spec(4);
    labelled.labels.insert("gpu".into(), "l4".into());
    let specs = [
        spec(0),
        EndpointSpec::new("http://other", "other-model"),
        spec(2),
        EndpointSpec { role: Role::Decode, ..spec(3) },
        labelled,
    ];
    let mut world = World::new(specs);
    world.fleet.change(NOW, world.ids[0], EndpointChange::Cordon).unwrap();
    let mut request = Request { model: "model".into(), ..prompt(10) };
    request.allowed = Some([0, 1, 3, 4].map(|row| world.ids[row]).to_vec());
    request.required_labels.insert("gpu".into(), "h100".into());

    let error = world.choose(&mut scheduler("default"), &request).unwrap_err();

    assert_eq!(
        error.to_string(),
        "none of 5 endpoints can take the request: \
         1 not ready (cordoned, draining or unreachable), 1 serving another model, \
         1 not among the endpoints it allows, 2 without a label it requires"
    );
    let exclusions = excluded(error);
    assert_eq!((exclusions.endpoints, exclusions.not_ready, exclusions.without_label), (5, 1, 2));
}

#[test]
fn only_endpoints_that_prefill_and_decode_are_eligible_unless_a_filter_selects_roles() {
    let role = |number, role| EndpointSpec { role, ..spec(number) };
    let world = World::new([
        role(0, Role::Both),
        role(1, Role::Prefill),
        role(2, Role::Decode),
        role(3, Role::Encode),
    ]);
    let eligible = |filter: &str| {
        let filters = vec![PluginConfig::new(filter)];
        let profile = ProfileConfig { filters, ..ProfileConfig::default() };
        let mut scheduler = Scheduler::new(&inline(profile), 1).unwrap();
        let choice = world.choose(&mut scheduler, &prompt(10)).unwrap();
        choice.explanation().candidates.iter().map(|id| id.slot.index()).collect::<Vec<_>>()
    };

    let unfiltered = world.choose(&mut scheduler("random"), &prompt(10)).unwrap();
    assert_eq!(unfiltered.explanation().candidates, [world.ids[0]]);
    assert_eq!(eligible("prefill-filter"), [0, 1]);
    assert_eq!(eligible("decode-filter"), [0, 2]);
    assert_eq!(eligible("encode-filter"), [3]);
}

#[test]
fn a_hard_filter_that_removes_everybody_is_named() {
    let world = World::alike(2);
    let profile = ProfileConfig {
        filters: vec![PluginConfig::new("encode-filter")],
        ..ProfileConfig::default()
    };
    let mut scheduler = Scheduler::new(&inline(profile), 1).unwrap();

    let error = world.choose(&mut scheduler, &prompt(10)).unwrap_err();

    assert_eq!(
        error.to_string(),
        "none of 2 endpoints can take the request: 2 removed by encode-filter"
    );
}

#[test]
fn a_soft_filter_that_removes_everybody_is_skipped_and_says_so() {
    let world = World::alike(2);
    let request = Request { lora: Some("nobody-has-it".into()), ..prompt(10) };
    let mut scheduler = scheduler("default");

    let choice = world.choose(&mut scheduler, &request).unwrap();

    let step = &choice.explanation().filters[0];
    assert_eq!(step.name, "lora-residency-filter");
    assert!(step.skipped && step.removed.is_empty());
    assert_eq!(choice.explanation().candidates, world.ids);
    assert_eq!(scheduler.counters().filters_skipped, 1);
}

#[test]
fn a_model_matches_itself_any_and_unnamed() {
    let world = World::new([
        EndpointSpec::new("http://a", "llama"),
        EndpointSpec::new("http://b", "qwen"),
        EndpointSpec::new("http://c", ""),
    ]);
    let mut scheduler = scheduler("random");
    let mut candidates = |model: &str| {
        let request = Request { model: model.into(), ..prompt(10) };
        scheduler.candidates(&request, &world.fleet)
    };

    assert_eq!(candidates("llama").unwrap(), [world.ids[0], world.ids[2]]);
    assert_eq!(candidates("").unwrap(), world.ids);
    assert_eq!(candidates("mistral").unwrap(), [world.ids[2]]);
}

#[test]
fn an_allowed_id_of_a_former_tenant_allows_nobody() {
    let mut world = World::alike(2);
    let former = world.ids[0];
    world.fleet.leave(NOW, former).unwrap();
    let successor = world.fleet.join(NOW, spec(9)).unwrap();
    assert_eq!(successor.slot, former.slot);
    let request = Request { allowed: Some(vec![former]), ..prompt(10) };

    let error = world.choose(&mut scheduler("default"), &request).unwrap_err();

    assert_eq!(excluded(error).not_allowed, 2);
}

#[test]
fn who_is_excluded_is_left_out_and_its_successor_is_not() {
    let mut world = World::alike(2);
    let [first, second] = [world.ids[0], world.ids[1]];
    let mut scheduler = scheduler("random");
    let request = Request { excluded: vec![first], ..prompt(10) };
    assert_eq!(scheduler.candidates(&request, &world.fleet).unwrap(), [second]);

    world.fleet.leave(NOW, first).unwrap();
    let successor = world.fleet.join(NOW, spec(9)).unwrap();
    assert_eq!(successor.slot, first.slot);
    assert_eq!(scheduler.candidates(&request, &world.fleet).unwrap(), [successor, second]);

    let request = Request { excluded: vec![successor, second], ..prompt(10) };
    let error = scheduler.candidates(&request, &world.fleet).unwrap_err();
    assert_eq!(excluded(error).not_allowed, 2);
}

#[test]
fn another_profile_is_followed_and_one_that_cannot_be_changes_nothing() {
    let world = World::alike(3);
    let mut scheduler = scheduler("default");
    world.choose(&mut scheduler, &prompt(10)).unwrap();

    scheduler.switch(&named("round-robin")).unwrap();
    assert_eq!(scheduler.profile(), "round-robin");
    world.choose(&mut scheduler, &prompt(10)).unwrap();

    let error = scheduler.switch(&named("no such profile")).unwrap_err();
    assert!(error.to_string().contains("no such profile"), "{error}");
    assert_eq!(scheduler.profile(), "round-robin");
    assert_eq!(scheduler.counters().choices, 2);
}

#[test]
fn an_explanation_accounts_for_the_choice() {
    let mut world = World::alike(3);
    world.holds(10, &[9, 8, 0]);
    world.book(0, 500);
    let profile = ProfileConfig {
        filters: vec![PluginConfig::new("prefix-cache-affinity-filter")],
        scorers: vec![
            ScorerConfig::new("prefix-cache-scorer", 1.0),
            ScorerConfig::new("active-request-scorer", 3.0),
        ],
        ..ProfileConfig::default()
    };
    let mut scheduler = Scheduler::new(&inline(profile), 1).unwrap();

    let choice = world.choose(&mut scheduler, &prompt(160)).unwrap();

    let explanation = &choice.explanation();
    assert_eq!(choice.endpoint, world.ids[1]);
    assert_eq!((choice.matched_tokens, choice.uncached_tokens), (128, 32));
    assert_eq!(choice.match_source, MatchSource::Exact);
    assert_eq!(explanation.profile, "inline");
    assert_eq!(explanation.filters[0].removed, [world.ids[2]]);
    assert_eq!(explanation.candidates, world.ids[..2]);
    assert_eq!(explanation.matched_tokens, [144, 128]);
    assert_eq!(explanation.scores[0].values, [0.9, 0.8]);
    assert_eq!(explanation.scores[1].values, [0.0, 1.0]);
    assert_eq!(explanation.totals, [0.9, 0.8 + 3.0]);
    assert_eq!(explanation.picker, "max-score-picker");
    assert_eq!(explanation.fallback, None);
}

#[test]
fn a_prompt_that_is_held_entirely_still_has_a_token_to_compute() {
    let mut world = World::alike(1);
    world.holds(10, &[10]);

    let choice = world.choose(&mut scheduler("default"), &prompt(160)).unwrap();

    assert_eq!((choice.matched_tokens, choice.uncached_tokens), (160, 1));
}

#[test]
fn a_match_of_a_former_tenant_counts_for_nothing() {
    let mut world = World::alike(1);
    world.holds(10, &[10]);
    world.matches.generation[0] += 1;

    let choice = world.choose(&mut scheduler("default"), &prompt(160)).unwrap();

    assert_eq!((choice.matched_tokens, choice.match_source), (0, MatchSource::None));
}

#[test]
fn predictions_come_with_the_choice_even_where_no_plugin_reads_them() {
    let world = World::with_prior([spec(0)], "qwen3-32b_h100_tp2");

    let choice = world.choose(&mut scheduler("round-robin"), &prompt(1_000)).unwrap();

    assert!(choice.predicted.ttft_ms.is_some_and(|ms| (ms - 54.6).abs() < 1.0));
    assert!(choice.predicted.tpot_ms.is_some());
    let unknown = World::alike(1).choose(&mut scheduler("default"), &prompt(1_000)).unwrap();
    assert_eq!(unknown.predicted.ttft_ms, None);
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::alike(4);
    for name in builtin_profiles() {
        let (mut plain, mut explained) = (scheduler(name), scheduler(name));
        for number in 0..20 {
            let request = Request { session_id: Some(format!("s{}", number % 5)), ..prompt(100) };
            let (fleet, predictor, matches) = (&world.fleet, &world.predictor, &world.matches);
            let dry =
                explained.explain(NOW, (&request).into(), fleet, predictor, matches, &[]).unwrap();
            let again =
                explained.explain(NOW, (&request).into(), fleet, predictor, matches, &[]).unwrap();
            let real = world.choose(&mut explained, &request).unwrap();
            let expected = world.choose(&mut plain, &request).unwrap();
            assert_eq!((&dry, &again, &real), (&expected, &expected, &expected), "{name}");
            plain.committed(NOW, &request, &expected);
            explained.committed(NOW, &request, &real);
            assert_eq!(plain.counters(), explained.counters());
        }
    }
}

#[test]
fn a_seed_gives_the_same_choices_and_another_one_others() {
    let world = World::alike(8);
    let choices = |seed| {
        let mut scheduler = Scheduler::new(&named("random"), seed).unwrap();
        let endpoints =
            (0..32).map(|_| world.choose(&mut scheduler, &prompt(10)).unwrap().endpoint);
        endpoints.collect::<Vec<_>>()
    };

    assert_eq!(choices(1), choices(1));
    assert_ne!(choices(1), choices(2));
}

#[test]
fn ties_are_shared_out() {
    let world = World::alike(4);
    let mut scheduler = scheduler("llm-d");
    let mut picked = [0; 4];
    for _ in 0..400 {
        let choice = world.choose(&mut scheduler, &prompt(100)).unwrap();
        picked[choice.endpoint.slot.index()] += 1;
    }

    assert!(picked.iter().all(|&picks| picks > 60), "{picked:?}");
}

#[test]
fn round_robin_goes_round_whoever_leaves() {
    let mut world = World::alike(3);
    let mut scheduler = scheduler("round-robin");

    assert_eq!(place(&mut world, &mut scheduler, 5, 10), [0, 1, 2, 0, 1]);
    world.fleet.change(NOW, world.ids[2], EndpointChange::Cordon).unwrap();
    assert_eq!(place(&mut world, &mut scheduler, 3, 10), [0, 1, 0]);
}

#[test]
fn least_request_fills_evenly() {
    let mut world = World::alike(3);
    let mut counts = [0; 3];
    for endpoint in place(&mut world, &mut scheduler("least-request"), 9, 10) {
        counts[endpoint] += 1;
    }

    assert_eq!(counts, [3, 3, 3]);
}

#[test]
fn weighted_random_follows_the_totals_and_power_of_two_avoids_the_worst() {
    let mut world = World::alike(3);
    world.holds(10, &[0, 2, 8]);
    let count = |picker: &str| {
        let profile = ProfileConfig {
            scorers: vec![ScorerConfig::new("prefix-cache-scorer", 1.0)],
            picker: PluginConfig::new(picker),
            ..ProfileConfig::default()
        };
        let mut scheduler = Scheduler::new(&inline(profile), 3).unwrap();
        let mut picked = [0_u32; 3];
        for _ in 0..1_000 {
            picked[world.choose(&mut scheduler, &prompt(160)).unwrap().endpoint.slot.index()] += 1;
        }
        picked
    };

    let [none, fifth, most] = count("weighted-random-picker");
    assert_eq!(none, 0);
    assert!((150..250).contains(&fifth) && most == 1_000 - fifth, "{fifth} {most}");
    // The best of two wins whenever it is drawn: two times in three; the worst never.
    let [worst, middle, best] = count("power-of-two-picker");
    assert_eq!(worst, 0);
    assert!((600..730).contains(&best) && middle == 1_000 - best, "{middle} {best}");
}

fn given(world: &World, rows: &[usize], values: &[f64]) -> ForeignScore {
    ForeignScore {
        name: "mine".into(),
        weight: None,
        candidates: rows.iter().map(|&row| world.ids[row]).collect(),
        values: values.to_vec(),
    }
}

fn foreign() -> Scheduler {
    Scheduler::new(&scorer(ScorerConfig::new("foreign", 1.0).with("as", "mine")), 1).unwrap()
}

#[test]
fn foreign_scores_of_more_than_the_candidates_are_used() {
    let mut world = World::alike(3);
    let scores = given(&world, &[0, 1, 2], &[0.1, 0.9, 0.2]);
    world.fleet.change(NOW, world.ids[1], EndpointChange::Drain).unwrap();

    let choice = world.choose_with(&mut foreign(), &prompt(10), &[scores]).unwrap();

    assert_eq!(choice.explanation().totals, [0.1, 0.2]);
    assert_eq!(choice.explanation().fallback, None);
}

#[test]
fn foreign_scores_that_are_missing_or_stale_are_neutral_counted_and_said() {
    let world = World::alike(3);
    let mut scheduler = foreign();
    assert_eq!(scheduler.foreign_scorers().collect::<Vec<_>>(), ["mine"]);
    let mut fallback = |foreign: &[ForeignScore]| {
        let choice = world.choose_with(&mut scheduler, &prompt(10), foreign).unwrap();
        assert_eq!(choice.explanation().totals, [0.5; 3]);
        choice.explanation().fallback.unwrap()
    };

    assert_eq!(fallback(&[]), "foreign scorer \"mine\" gave no scores");
    assert_eq!(
        fallback(&[given(&world, &[0, 2], &[0.1, 0.9])]),
        "foreign scorer \"mine\" gave no score for 1.1: the candidates changed"
    );
    assert_eq!(
        fallback(&[given(&world, &[0, 1, 2], &[0.1])]),
        "foreign scorer \"mine\" gave 1 scores for 3 candidates"
    );
    assert_eq!(scheduler.counters().degraded_scorers, 3);
}

#[test]
fn foreign_scores_that_the_profile_does_not_list_bring_their_weight() {
    let world = World::alike(2);
    let mut scheduler = scheduler("least-request");
    let mut totals = |weight| {
        let scores = ForeignScore { weight, ..given(&world, &[0, 1], &[0.25, 0.75]) };
        let choice = world.choose_with(&mut scheduler, &prompt(10), &[scores]).unwrap();
        (choice.explanation().totals, choice.explanation().fallback)
    };

    assert_eq!(totals(None), (vec![1.0, 1.0], None));
    assert_eq!(totals(Some(2.0)), (vec![1.5, 2.5], None));
    let (without, fallback) = totals(Some(-1.0));
    assert_eq!(without, [1.0, 1.0]);
    assert_eq!(fallback.unwrap(), "foreign scorer \"mine\" has weight -1: use 0 or more");
    assert_eq!(totals(Some(f64::NAN)).0, [1.0, 1.0]);
}

#[test]
fn scores_that_are_not_numbers_count_as_nothing_and_are_counted() {
    let world = World::alike(3);
    let mut scheduler = foreign();
    let scores = given(&world, &[0, 1, 2], &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);

    let choice = world.choose_with(&mut scheduler, &prompt(10), &[scores]).unwrap();

    assert_eq!(choice.explanation().totals, [0.0, 1.0, 0.0]);
    assert_eq!(choice.endpoint, world.ids[1]);
    assert_eq!(scheduler.counters().nan_scores, 1);
}

#[test]
fn features_name_what_is_known_and_what_is_not() {
    let mut world = World::with_prior((0..2).map(spec), "qwen3-32b_h100_tp2");
    world.holds(10, &[4, 0]);
    world.matches.lower_tier_blocks[0] = [1, 0, 0];
    world.book(1, 700);
    world.observe(0, &MetricsSample { waiting_requests: Some(3.0), ..MetricsSample::default() });
    let mut scheduler = scheduler("default");
    let (fleet, predictor, matches) = (&world.fleet, &world.predictor, &world.matches);

    let features =
        scheduler.features(NOW, (&prompt(165)).into(), fleet, predictor, matches).unwrap();

    assert_eq!(features.ids(), world.ids);
    assert_eq!(features.values().len(), Feature::COUNT * 2);
    assert_eq!(features.column(Feature::PromptTokens), [165.0, 165.0]);
    assert_eq!(features.column(Feature::MatchedTokens), [64.0, 0.0]);
    assert_eq!(features.column(Feature::CpuMatchedTokens), [16.0, 0.0]);
    assert_eq!(features.column(Feature::UncachedTokens), [101.0, 165.0]);
    assert_eq!(features.column(Feature::PendingPrefillTokens), [0.0, 700.0]);
    assert_eq!(features.column(Feature::WaitingRequests)[0].to_bits(), 3.0_f64.to_bits());
    assert!(features.column(Feature::WaitingRequests)[1].is_nan());
    assert!(features.column(Feature::KvCapacityTokens)[0].is_nan());
    assert!(features.column(Feature::PredictedTtftMs).iter().all(|ms| *ms > 0.0));
    for (column, feature) in Feature::ALL.into_iter().enumerate() {
        assert_eq!(feature as usize, column, "{}", feature.name());
    }
}

/// A GPU that another process keeps busy under an engine that is idle.
fn shared_gpu() -> World {
    let mut world = World::alike(4);
    let gpu = |share| MetricsSample {
        waiting_requests: Some(0.0),
        running_requests: Some(0.0),
        kv_usage: Some(0.0),
        gpu_utilization: Some(share),
        ..MetricsSample::default()
    };
    for row in 0..4 {
        world.observe(row, &gpu(if row == 2 { 0.97 } else { 0.03 }));
    }
    world
}

#[test]
fn a_gpu_that_a_foreign_process_keeps_busy_loses_traffic() {
    let mut world = shared_gpu();
    let profile = ProfileConfig {
        scorers: vec![
            ScorerConfig::new("queue-scorer", 1.0),
            ScorerConfig::new("gpu-utilization-scorer", 1.0),
        ],
        ..ProfileConfig::default()
    };
    let mut scheduler = Scheduler::new(&inline(profile), 1).unwrap();
    assert!(!place(&mut world, &mut scheduler, 40, 100).contains(&2));

    let mut without = Scheduler::new(&scorer(ScorerConfig::new("queue-scorer", 1.0)), 1).unwrap();
    assert!(place(&mut shared_gpu(), &mut without, 40, 100).contains(&2));
}

#[test]
fn the_default_profile_gives_a_shared_gpu_the_last_of_equal_requests() {
    let mut world = shared_gpu();

    let placed = place(&mut world, &mut scheduler("default"), 4, 500);

    assert_eq!(placed.iter().position(|&endpoint| endpoint == 2), Some(3), "{placed:?}");
}

#[test]
fn booked_load_steers_a_burst_before_any_metric_moves() {
    let mut world = World::alike(4);
    let mut counts = [0; 4];
    for endpoint in place(&mut world, &mut scheduler("default"), 40, 1_000) {
        counts[endpoint] += 1;
    }

    assert_eq!(counts, [10; 4]);
}

#[test]
fn a_session_stays_until_its_queue_costs_more_than_its_cache() {
    let mut world = World::alike(2);
    world.holds(100, &[90, 0]);
    let mut scheduler = scheduler("default");
    world.book(0, 1_000);
    assert_eq!(world.choose(&mut scheduler, &prompt(1_600)).unwrap().endpoint, world.ids[0]);

    world.book(0, 4_000);
    assert_eq!(world.choose(&mut scheduler, &prompt(1_600)).unwrap().endpoint, world.ids[1]);
}

#[test]
fn time_before_the_first_sample_is_no_trouble() {
    let world = shared_gpu();
    let mut scheduler = scheduler("default");
    let (fleet, predictor, matches) = (&world.fleet, &world.predictor, &world.matches);

    let choice =
        scheduler.choose(Time::ZERO, (&prompt(10)).into(), fleet, predictor, matches, &[]).unwrap();

    assert_ne!(choice.endpoint, world.ids[2]);
}
