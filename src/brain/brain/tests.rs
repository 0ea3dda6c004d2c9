//! The contract of the whole brain: every arrival ends once, load follows requests, equal turns
//! give equal bits.

use super::*;
use crate::fleet::{EndpointSpec, Health, KvSource, MetricsSample};
use crate::index::{BlockStored, KvEvent, KvEventBatch, Matches};
use crate::prompt::{Scope, token_keys};
use crate::schedule::{Decision, Request};
use crate::{BlockKey, EndpointId, EngineHash, ReservationId, Ticket, Tier};
use parking_lot::Mutex;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const BLOCK: u32 = 16;

fn brain() -> Brain {
    Brain::new(BrainConfig::default()).unwrap()
}

fn at_ms(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

fn spec(address: &str, kv_source: KvSource) -> EndpointSpec {
    EndpointSpec { kv_source, ..EndpointSpec::new(address, "m") }
}

fn join(brain: &Brain, now: Time, address: &str, kv_source: KvSource) -> EndpointId {
    let actions = brain.step(now, Input::Join(spec(address, kv_source))).unwrap();
    match actions[0] {
        Action::Joined(id) => id,
        ref other => panic!("expected Joined, got {other:?}"),
    }
}

fn prompt(seed: u32, blocks: u32) -> Vec<u32> {
    (0..blocks * BLOCK).map(|i| seed.wrapping_mul(1000).wrapping_add(i)).collect()
}

fn keys_of(tokens: &[u32]) -> Vec<BlockKey> {
    let scope = Scope { model: "m".into(), ..Scope::default() };
    let mut keys = Vec::new();
    token_keys(tokens, BLOCK, &scope, &mut keys).unwrap();
    keys
}

fn request(tokens: &[u32]) -> Request {
    Request {
        model: "m".into(),
        prompt_tokens: tokens.len() as u32,
        block_tokens: BLOCK,
        ..Request::default()
    }
}

fn arrive(tokens: &[u32]) -> Input {
    Input::Arrive { request: request(tokens), keys: keys_of(tokens), foreign: Vec::new() }
}

fn route(brain: &Brain, now: Time, tokens: &[u32]) -> Decision {
    let actions = brain.step(now, arrive(tokens)).unwrap();
    actions[0].decision().cloned().unwrap_or_else(|| panic!("not routed: {actions:?}"))
}

/// The event that an engine sends when it has computed `tokens`.
fn stored(tokens: &[u32]) -> KvEventBatch {
    let block_hashes =
        (1..=tokens.len() as u64 / u64::from(BLOCK)).map(|i| EngineHash(i << 32 | 7)).collect();
    KvEventBatch {
        timestamp_s: 0.0,
        dp_rank: None,
        events: vec![KvEvent::Stored(BlockStored {
            block_hashes,
            parent: None,
            token_ids: tokens.to_vec(),
            block_size: BLOCK,
            tier: Tier::Gpu,
            lora: None,
            extra_keys: Vec::new(),
            group: None,
        })],
    }
}

#[test]
fn a_prompt_goes_where_events_say_its_blocks_are() {
    let brain = brain();
    let endpoints: Vec<_> =
        ["a", "b", "c"].map(|name| join(&brain, at_ms(0), name, KvSource::Events)).into();
    let tokens = prompt(1, 64);
    brain.step(at_ms(1), Input::KvEvents(endpoints[2], stored(&tokens))).unwrap();

    let decision = route(&brain, at_ms(2), &tokens);

    assert_eq!(decision.endpoint, endpoints[2]);
    assert_eq!(decision.matched_tokens, 64 * BLOCK);
    assert_eq!(decision.match_source, crate::index::MatchSource::Exact);
    assert_eq!(decision.explanation().candidates, endpoints);
}

#[test]
fn lost_events_are_forgotten_and_never_credited() {
    let brain = brain();
    let only = join(&brain, at_ms(0), "a", KvSource::Events);
    let tokens = prompt(1, 8);
    brain.step(at_ms(1), Input::KvEvents(only, stored(&tokens))).unwrap();
    brain.step(at_ms(2), Input::KvLost(only)).unwrap();
    assert_eq!(route(&brain, at_ms(3), &tokens).matched_tokens, 0);
}

#[test]
fn a_second_request_finds_the_prefix_before_its_events_come() {
    let brain = brain();
    join(&brain, at_ms(0), "a", KvSource::Events);
    join(&brain, at_ms(0), "b", KvSource::Events);
    let tokens = prompt(1, 64);
    let first = route(&brain, at_ms(1), &tokens);
    brain.first_token(at_ms(50), first.reservation);
    let second = route(&brain, at_ms(51), &tokens);
    assert_eq!(second.endpoint, first.endpoint);
    assert_eq!(second.matched_tokens, 64 * BLOCK);
    assert_eq!(second.match_source, crate::index::MatchSource::Speculative);
}

#[test]
fn text_is_remembered_longer_than_the_events_of_tokens_take() {
    let brain = brain();
    join(&brain, at_ms(0), "a", KvSource::Events);
    let tokens = prompt(1, 8);
    let text = || Request { is_text: true, ..request(&tokens) };
    let arrive = || Input::Arrive { request: text(), keys: keys_of(&tokens), foreign: Vec::new() };
    brain.step(at_ms(0), arrive()).unwrap();

    let later = brain.step(at_ms(60_000), arrive()).unwrap();

    let decision = later[0].decision().unwrap();
    assert_eq!(decision.matched_tokens, 8 * BLOCK);
    assert_eq!(decision.match_source, crate::index::MatchSource::Approximate);
}

#[test]
fn load_is_booked_at_the_decision_and_gone_after_the_end() {
    let brain = brain();
    let only = join(&brain, at_ms(0), "a", KvSource::Approximate);
    let decision = route(&brain, at_ms(1), &prompt(1, 4));
    let view = brain.endpoint(at_ms(1), only).unwrap();
    assert_eq!((view.inflight_requests, view.pending_prefill_tokens), (1, 64));

    brain.first_token(at_ms(2), decision.reservation);
    brain.progress(at_ms(3), decision.reservation, 5);
    let view = brain.endpoint(at_ms(3), only).unwrap();
    assert_eq!((view.pending_prefill_tokens, view.active_decode_tokens), (0, 64 + 5));

    brain.finished(at_ms(4), decision.reservation, 9);
    brain.finished(at_ms(5), decision.reservation, 9);
    let view = brain.endpoint(at_ms(5), only).unwrap();
    assert_eq!((view.inflight_requests, view.active_decode_tokens), (0, 0));
    let stats = brain.stats();
    assert_eq!((stats.finished, stats.late_news), (1, 1));
}

#[test]
fn an_empty_fleet_rejects_and_says_what_to_do() {
    let actions = brain().step(at_ms(0), arrive(&prompt(1, 1))).unwrap();
    let why = RejectReason::EmptyFleet;
    assert_eq!(actions, vec![Action::Reject { ticket: Ticket(0), why, retry_after_ms: None }]);
}

#[test]
fn a_held_request_gets_its_place_when_somebody_joins() {
    let brain = brain();
    let tokens = prompt(1, 2);
    let held = Input::Arrive {
        request: Request { hold_ms: 1000, ..request(&tokens) },
        keys: keys_of(&tokens),
        foreign: Vec::new(),
    };
    assert_eq!(brain.step(at_ms(0), held).unwrap(), vec![Action::Hold(Ticket(0))]);
    assert_eq!(brain.next_wakeup(), Some(at_ms(1000)));

    let actions = brain.step(at_ms(10), Input::Join(spec("a", KvSource::Events))).unwrap();

    let released = actions[1].decision().unwrap();
    assert!(matches!(actions[1], Action::Release(_)), "{actions:?}");
    assert_eq!(released.ticket, Ticket(0));
    assert_eq!(brain.stats().holding_now, 0);
}

#[test]
fn a_held_request_is_turned_away_at_its_deadline() {
    let brain = brain();
    let tokens = prompt(1, 2);
    let request = Request { hold_ms: 1000, ..request(&tokens) };
    let held = Input::Arrive { request, keys: keys_of(&tokens), foreign: Vec::new() };
    brain.step(at_ms(0), held).unwrap();
    assert_eq!(brain.tick(at_ms(999)), vec![]);
    let why = RejectReason::HoldExpired(1000);
    let reject = Action::Reject { ticket: Ticket(0), why, retry_after_ms: None };
    assert_eq!(brain.tick(at_ms(1000)), vec![reject]);
    assert_eq!(brain.tick(at_ms(2000)), vec![]);
}

#[test]
fn a_drained_endpoint_leaves_with_its_last_request() {
    let brain = brain();
    let only = join(&brain, at_ms(0), "a", KvSource::Approximate);
    let decision = route(&brain, at_ms(1), &prompt(1, 2));
    assert_eq!(brain.step(at_ms(2), Input::Change(only, EndpointChange::Drain)).unwrap(), vec![]);
    assert_eq!(brain.endpoint(at_ms(2), only).unwrap().health, Health::Draining);
    assert_eq!(brain.finished(at_ms(3), decision.reservation, 1), vec![Action::Left(only)]);
    assert_eq!(brain.endpoint(at_ms(3), only), None);
}

#[test]
fn a_removed_id_is_never_confused_with_its_successor() {
    let brain = brain();
    let first = join(&brain, at_ms(0), "a", KvSource::Events);
    let tokens = prompt(1, 8);
    brain.step(at_ms(1), Input::KvEvents(first, stored(&tokens))).unwrap();
    brain.step(at_ms(2), Input::Leave(first)).unwrap();
    let second = join(&brain, at_ms(3), "b", KvSource::Events);
    assert_eq!(second.slot, first.slot);

    brain.step(at_ms(4), Input::KvEvents(first, stored(&tokens))).unwrap();

    assert_eq!(route(&brain, at_ms(5), &tokens).matched_tokens, 0);
    assert!(brain.step(at_ms(6), Input::Leave(first)).is_err());
    assert!(brain.endpoint(at_ms(6), second).is_some());
}

#[test]
fn a_match_made_before_a_slot_changed_hands_is_void() {
    let brain = brain();
    let first = join(&brain, at_ms(0), "a", KvSource::Events);
    let tokens = prompt(1, 8);
    brain.step(at_ms(1), Input::KvEvents(first, stored(&tokens))).unwrap();
    let keys = keys_of(&tokens);
    let mut matches = Matches::new();
    brain.matches(at_ms(2), &keys, &mut matches);
    brain.step(at_ms(3), Input::Leave(first)).unwrap();
    join(&brain, at_ms(4), "b", KvSource::Events);

    let action = brain.decide(at_ms(5), &request(&tokens), &keys, &matches, &[]);

    assert_eq!(action.decision().unwrap().matched_tokens, 0);
}

#[test]
fn a_clock_that_goes_back_is_clamped_and_counted() {
    let brain = brain();
    join(&brain, at_ms(5_000), "a", KvSource::Approximate);
    let decision = route(&brain, at_ms(3_999), &prompt(1, 2));
    brain.finished(at_ms(10), decision.reservation, 1);
    assert_eq!(brain.stats().clock_went_back, 2);
}

#[test]
fn threads_that_race_for_the_lock_do_not_turn_the_clock_back() {
    let brain = brain();
    join(&brain, at_ms(5_000), "a", KvSource::Approximate);
    let decision = route(&brain, at_ms(4_999), &prompt(1, 2));
    brain.finished(at_ms(4_990), decision.reservation, 1);
    assert_eq!(brain.stats().clock_went_back, 0);
}

#[test]
fn a_lost_request_gives_its_load_back_when_its_lease_ends() {
    let mut config = BrainConfig::default();
    config.fleet.lease_ms = 1_000;
    let brain = Brain::new(config).unwrap();
    let only = join(&brain, at_ms(0), "a", KvSource::Approximate);
    let decision = route(&brain, at_ms(0), &prompt(1, 2));
    brain.progress(at_ms(900), decision.reservation, 1);
    brain.tick(at_ms(1_500));
    assert_eq!(brain.endpoint(at_ms(1_500), only).unwrap().inflight_requests, 1);
    brain.tick(at_ms(1_900));
    assert_eq!(brain.endpoint(at_ms(1_900), only).unwrap().inflight_requests, 0);
    assert_eq!(brain.stats().expired_leases, 1);
}

#[test]
fn a_restart_seen_in_the_metrics_asks_for_the_events_again() {
    let brain = brain();
    let only = join(&brain, at_ms(0), "a", KvSource::Events);
    let started = |at| MetricsSample { process_start_time_s: Some(at), ..Default::default() };
    assert_eq!(brain.step(at_ms(1), Input::Metrics(only, started(1e9))).unwrap(), vec![]);
    let actions = brain.step(at_ms(2), Input::Metrics(only, started(2e9))).unwrap();
    assert_eq!(actions, vec![Action::Resync(only)]);
}

#[test]
fn scores_for_another_fleet_are_refused_once() {
    let brain = brain();
    join(&brain, at_ms(0), "a", KvSource::Approximate);
    let tokens = prompt(1, 2);
    let (keys, request) = (keys_of(&tokens), request(&tokens));
    let mut matches = Matches::new();
    brain.matches(at_ms(1), &keys, &mut matches);
    let (version, _) = brain.features(at_ms(1), &request, &[], &matches).unwrap();
    join(&brain, at_ms(2), "b", KvSource::Approximate);

    let refused = brain.commit(at_ms(3), &request, &keys, &matches, &[], version);

    assert!(matches!(refused, Err(BrainError::StaleFeatures { .. })), "{refused:?}");
    let (version, _) = brain.features(at_ms(4), &request, &[], &matches).unwrap();
    assert!(brain.commit(at_ms(4), &request, &keys, &matches, &[], version).is_ok());
}

/// A turn of a random day.
#[derive(Debug, Clone)]
enum Event {
    Arrive { prompt: u32, blocks: u32, hold_ms: u64 },
    First(usize),
    Progress(usize, u32),
    Finish(usize),
    Cancel(usize),
    Join(u8),
    Leave(usize),
    Change(usize, EndpointChange),
    Stored(usize, u32),
    Lost(usize),
    Metrics(usize, f64),
    Tick,
}

fn event() -> impl Strategy<Value = Event> {
    use EndpointChange::{Cordon, Drain, Reachable, Uncordon, Unreachable};
    let change = prop::sample::select(vec![Cordon, Uncordon, Drain, Unreachable, Reachable]);
    prop_oneof![
        8 => (0..6u32, 1..20u32, prop_oneof![Just(0), Just(500)])
            .prop_map(|(prompt, blocks, hold_ms)| Event::Arrive { prompt, blocks, hold_ms }),
        4 => (0..64usize).prop_map(Event::First),
        4 => (0..64usize, 1..50u32).prop_map(|(who, tokens)| Event::Progress(who, tokens)),
        4 => (0..64usize).prop_map(Event::Finish),
        1 => (0..64usize).prop_map(Event::Cancel),
        3 => (0..8u8).prop_map(Event::Join),
        1 => (0..8usize).prop_map(Event::Leave),
        2 => (0..8usize, change).prop_map(|(who, what)| Event::Change(who, what)),
        3 => (0..8usize, 0..6u32).prop_map(|(who, prompt)| Event::Stored(who, prompt)),
        1 => (0..8usize).prop_map(Event::Lost),
        3 => (0..8usize, 0.0..1.0f64).prop_map(|(who, usage)| Event::Metrics(who, usage)),
        2 => Just(Event::Tick),
    ]
}

/// Plays a random day on a recorded brain; returns its log.
fn play(brain: &Brain, events: &[(u64, Event)]) -> Vec<LogEntry> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&log);
    brain.record(Some(Box::new(move |entry| sink.lock().push(entry))));
    let mut open: Vec<(Ticket, ReservationId)> = Vec::new();
    let mut now_ms = 0;
    for (pause_ms, event) in events {
        now_ms += pause_ms;
        let now = at_ms(now_ms);
        let ids: Vec<EndpointId> = brain.endpoints(now).iter().map(|view| view.id).collect();
        let who = |at: usize| ids.get(at % ids.len().max(1)).copied();
        let flight = |at: usize| open.get(at % open.len().max(1)).copied();
        let input = match event {
            Event::Arrive { prompt: seed, blocks, hold_ms } => {
                let tokens = prompt(*seed, *blocks);
                let request = Request { hold_ms: *hold_ms, ..request(&tokens) };
                Some(Input::Arrive { request, keys: keys_of(&tokens), foreign: Vec::new() })
            }
            Event::First(at) => flight(*at).map(|(_, id)| Input::FirstToken(id)),
            Event::Progress(at, n) => flight(*at).map(|(_, id)| Input::Progress(id, *n)),
            Event::Finish(at) => flight(*at).map(|(_, id)| Input::Finished(id, 3)),
            Event::Cancel(at) => flight(*at).map(|(ticket, _)| Input::Cancelled(ticket)),
            Event::Join(name) => {
                let source = if name % 2 == 0 { KvSource::Events } else { KvSource::Approximate };
                Some(Input::Join(spec(&format!("http://{name}"), source)))
            }
            Event::Leave(at) => who(*at).map(Input::Leave),
            Event::Change(at, what) => who(*at).map(|id| Input::Change(id, *what)),
            Event::Stored(at, seed) => {
                who(*at).map(|id| Input::KvEvents(id, stored(&prompt(*seed, 12))))
            }
            Event::Lost(at) => who(*at).map(Input::KvLost),
            Event::Metrics(at, usage) => who(*at).map(|id| {
                Input::Metrics(
                    id,
                    MetricsSample {
                        kv_usage: Some(*usage),
                        waiting_requests: Some(usage * 10.0),
                        ..Default::default()
                    },
                )
            }),
            Event::Tick => Some(Input::Tick),
        };
        let Some(input) = input else { continue };
        for action in brain.step(now, input).unwrap_or_default() {
            if let Some(decision) = action.decision() {
                open.push((decision.ticket, decision.reservation));
            }
        }
    }
    brain.record(None);
    Arc::try_unwrap(log).unwrap_or_else(|_| panic!("the sink is gone")).into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_day_replays_bit_for_bit(events in prop::collection::vec((0..300u64, event()), 1..150)) {
        let brain = brain();
        let log = play(&brain, &events);
        let mut replay = Replay::new(brain.config().clone()).unwrap();
        for entry in &log {
            replay.turn(entry);
        }
        prop_assert_eq!(replay.report().entries, log.len() as u64);
        prop_assert!(replay.report().is_identical(), "{:?}", replay.report());
    }

    #[test]
    fn every_arrival_ends_once(events in prop::collection::vec((0..300u64, event()), 1..150)) {
        let brain = brain();
        let log = play(&brain, &events);
        let mut ends = std::collections::BTreeMap::<Ticket, u32>::new();
        let mut cancelled = std::collections::BTreeSet::new();
        let mut arrivals = 0u64;
        for entry in &log {
            arrivals += u64::from(matches!(entry.input, Input::Arrive { .. }));
            if let Input::Cancelled(ticket) = entry.input {
                cancelled.insert(ticket);
            }
            for action in &entry.actions {
                let ticket = match action {
                    Action::Route(decision) | Action::Release(decision) => decision.ticket,
                    Action::Reject { ticket, .. } => *ticket,
                    _ => continue,
                };
                *ends.entry(ticket).or_default() += 1;
            }
        }
        prop_assert!(ends.values().all(|&count| count == 1));
        let open = brain.stats().holding_now;
        prop_assert_eq!(ends.len() as u64 + open, arrivals);
    }
}

#[test]
fn a_replay_notices_another_decision() {
    let recorded = brain();
    let events: Vec<_> = (0..3u8)
        .map(|name| (1, Event::Join(name)))
        .chain((0..9).map(|n| (1, Event::Arrive { prompt: n, blocks: 4, hold_ms: 0 })))
        .collect();
    let mut log = play(&recorded, &events);
    let Some(Action::Route(decision)) = log[5].actions.first_mut() else {
        panic!("the sixth turn routes")
    };
    decision.matched_tokens += 1;
    let mut replay = Replay::new(recorded.config().clone()).unwrap();
    for entry in &log {
        replay.turn(entry);
    }
    assert_eq!(replay.report().different_decisions, 1);
    assert_eq!(replay.report().first_difference, Some(5));
}
