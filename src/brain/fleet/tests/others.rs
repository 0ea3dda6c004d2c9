//! Estimates of what others sent, against an engine that knows.

use super::{at, booking, fleet_of};
use crate::fleet::{EndpointSpec, Fleet, FleetConfig, Load, MetricsSample, PeerLoad, PeerTotals};
use crate::{EndpointId, ReservationId, Slot};
use proptest::prelude::*;
use std::collections::VecDeque;

const SLOT: Slot = Slot(0);

/// A request in the engine; of ours, its reservation.
struct Sent {
    ours: Option<ReservationId>,
    tokens: u32,
    cached: u32,
}

/// An engine that admits in the order of arrival, and counts.
#[derive(Default)]
struct Engine {
    waiting: VecDeque<Sent>,
    running: Vec<Sent>,
    queries: f64,
    hits: f64,
    others_tokens: u64,
}

impl Engine {
    fn admit(&mut self) {
        if let Some(it) = self.waiting.pop_front() {
            self.queries += f64::from(it.tokens);
            self.hits += f64::from(it.cached);
            self.others_tokens += if it.ours.is_none() { it.tokens.into() } else { 0 };
            self.running.push(it);
        }
    }

    fn page(&self) -> MetricsSample {
        MetricsSample {
            waiting_requests: Some(self.waiting.len() as f64),
            running_requests: Some(self.running.len() as f64),
            kv_usage: Some(0.5),
            prefix_cache_queries_tokens: Some(self.queries),
            prefix_cache_hits_tokens: Some(self.hits),
            ..MetricsSample::default()
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Ours { tokens: u32, cached: u32 },
    Others { tokens: u32 },
    Admit,
    FirstToken,
    Finish,
    Page,
    Read,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (1..9_000_u32, 0..9_000_u32)
            .prop_map(|(tokens, cached)| Event::Ours { tokens, cached: cached.min(tokens - 1) }),
        2 => (1..9_000_u32).prop_map(|tokens| Event::Others { tokens }),
        4 => Just(Event::Admit),
        2 => Just(Event::FirstToken),
        1 => Just(Event::Finish),
        3 => Just(Event::Page),
        3 => Just(Event::Read),
        2 => (1..200_u64).prop_map(Event::Pass),
    ]
}

fn fleet_of_capacity() -> (Fleet, EndpointId) {
    let mut fleet = Fleet::new(FleetConfig { router: "me".into(), ..FleetConfig::default() });
    let mut spec = EndpointSpec::new("e0", "qwen");
    spec.capacity.kv_blocks = 1_000;
    spec.capacity.block_size = 64;
    let id = fleet.join(at(0), spec).unwrap();
    (fleet, id)
}

fn read(fleet: &mut Fleet, ms: u64, id: EndpointId, page: &MetricsSample, prefill_ms: f64) {
    fleet.observe(at(ms), id, page).unwrap();
    fleet.estimate_others(at(ms), id, |_, _| Some(prefill_ms)).unwrap();
}

proptest! {
    /// Whatever order things happen in and however late a page is read.
    #[test]
    fn where_all_requests_are_ours_there_is_nothing_of_others(
        events in prop::collection::vec(event(), 0..120),
    ) {
        let (mut fleet, id) = fleet_of_capacity();
        let mut engine = Engine::default();
        read(&mut fleet, 0, id, &engine.page(), 100.0);
        let (mut ms, mut ticket) = (0, 0);
        let mut pages = VecDeque::new();
        let mut decoding: VecDeque<Sent> = VecDeque::new();
        for event in events {
            match event {
                Event::Ours { tokens, cached } => {
                    ticket += 1;
                    // What we believe to be cached is not what is.
                    let booked = booking(ticket, tokens, tokens - cached / 2);
                    let ours = fleet.book(at(ms), id, &booked).unwrap();
                    engine.waiting.push_back(Sent { ours: Some(ours), tokens, cached });
                }
                Event::Others { .. } => {}
                Event::Admit => engine.admit(),
                Event::FirstToken => if let Some(it) = engine.running.pop() {
                    fleet.first_token(at(ms), it.ours.unwrap()).unwrap();
                    decoding.push_back(it);
                },
                Event::Finish => if let Some(it) = decoding.pop_front() {
                    fleet.release(at(ms), it.ours.unwrap());
                },
                Event::Page => pages.push_back(engine.page()),
                Event::Read => if let Some(page) = pages.pop_front() {
                    read(&mut fleet, ms, id, &page, 100.0);
                },
                // At most 120 events of 50 ms: no page is read later than 10 s.
                Event::Pass(by) => ms += by / 4,
            }
            fleet.settle_others(at(ms));
            prop_assert_eq!(fleet.columns().load(SLOT), fleet.own_load(SLOT));
        }
    }

    /// A lower bound of what was admitted, and exact where all of ours has been.
    #[test]
    fn prompts_of_others_are_counted_as_the_engine_admits_them(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let (mut fleet, id) = fleet_of_capacity();
        let mut engine = Engine::default();
        read(&mut fleet, 0, id, &engine.page(), 1e9);
        let (mut ms, mut ticket) = (0, 0);
        for event in events {
            match event {
                Event::Ours { tokens, .. } => {
                    ticket += 1;
                    let ours = fleet.book(at(ms), id, &booking(ticket, tokens, tokens)).unwrap();
                    engine.waiting.push_back(Sent { ours: Some(ours), tokens, cached: 0 });
                }
                Event::Others { tokens } => {
                    engine.waiting.push_back(Sent { ours: None, tokens, cached: 0 });
                }
                Event::Admit => engine.admit(),
                Event::Page => {
                    // Those that wait are guesses: without them.
                    let page = MetricsSample { waiting_requests: None, ..engine.page() };
                    read(&mut fleet, ms, id, &page, 1e9);
                    let seen = fleet.columns().load(SLOT).pending_prefill_tokens
                        - fleet.own_load(SLOT).pending_prefill_tokens;
                    prop_assert!(seen <= engine.others_tokens);
                    if engine.waiting.iter().all(|it| it.ours.is_none()) {
                        prop_assert_eq!(seen, engine.others_tokens);
                    }
                }
                Event::FirstToken | Event::Finish | Event::Read => {}
                Event::Pass(by) => ms += by / 4,
            }
        }
    }
}

/// A page of an engine that somebody else keeps busy.
fn page(waiting: f64, running: f64, queries: f64, hits: f64) -> MetricsSample {
    MetricsSample {
        waiting_requests: Some(waiting),
        running_requests: Some(running),
        kv_usage: Some(0.25),
        prefix_cache_queries_tokens: Some(queries),
        prefix_cache_hits_tokens: Some(hits),
        ..MetricsSample::default()
    }
}

#[test]
fn a_prefill_of_others_is_a_load_until_it_must_be_done() {
    let (mut fleet, id) = fleet_of_capacity();
    read(&mut fleet, 1_000, id, &page(0.0, 0.0, 5_000.0, 700.0), 1_000.0);
    assert!(fleet.columns().load(SLOT).is_idle(), "what came before we looked is past");

    let busy = page(1.0, 1.0, 9_000.0, 1_700.0);
    read(&mut fleet, 1_050, id, &busy, 1_000.0);
    let load = fleet.columns().load(SLOT);
    assert_eq!((load.inflight_requests, load.decoding_requests), (2, 0));
    assert_eq!(load.pending_prefill_tokens, 2 * 3_000, "one under way, one as long that waits");
    assert_eq!(fleet.columns().head_tokens, [3_000.0]);
    assert_eq!(fleet.columns().head_since_ms, [1_025.0], "in the middle between two pages");

    read(&mut fleet, 1_500, id, &busy, 1_000.0);
    read(&mut fleet, 1_990, id, &busy, 1_000.0);
    fleet.settle_others(at(2_024));
    assert_eq!(fleet.columns().load(SLOT), load);
    fleet.settle_others(at(2_025));
    let load = fleet.columns().load(SLOT);
    assert_eq!((load.inflight_requests, load.pending_prefill_tokens), (2, 3_000));

    read(&mut fleet, 2_050, id, &page(0.0, 2.0, 13_000.0, 2_700.0), 1_000.0);
    fleet.settle_others(at(3_100));
    let load = fleet.columns().load(SLOT);
    assert_eq!((load.inflight_requests, load.decoding_requests), (2, 2));
    assert_eq!(load.inflight_context_tokens, 16_000, "the KV in use");

    fleet.settle_others(at(4_051));
    assert!(fleet.columns().load(SLOT).is_idle(), "no page for two seconds: unknown");
}

#[test]
fn pages_that_come_less_often_than_prefills_are_not_asked() {
    let (mut fleet, id) = fleet_of_capacity();
    read(&mut fleet, 0, id, &page(0.0, 0.0, 0.0, 0.0), 300.0);
    read(&mut fleet, 150, id, &page(0.0, 1.0, 4_000.0, 0.0), 300.0);
    assert_eq!(fleet.columns().pending_prefill_tokens, [4_000.0]);
    fleet.settle_others(at(1_000));
    read(&mut fleet, 1_151, id, &page(1.0, 1.0, 8_000.0, 0.0), 300.0);
    assert!(fleet.columns().load(SLOT).is_idle());
}

/// A request of ours that has its first token is on no page yet: pages are older than that.
#[test]
fn how_late_pages_are_is_learned_from_our_own_requests() {
    let (mut fleet, id) = fleet_of_capacity();
    read(&mut fleet, 0, id, &page(0.0, 0.0, 0.0, 0.0), 1_000.0);
    let ours = fleet.book(at(10), id, &booking(1, 500, 500)).unwrap();
    fleet.first_token(at(100), ours).unwrap();
    read(&mut fleet, 300, id, &page(0.0, 0.0, 0.0, 0.0), 1_000.0);
    read(&mut fleet, 350, id, &page(0.0, 1.0, 500.0, 0.0), 1_000.0);
    read(&mut fleet, 400, id, &page(0.0, 2.0, 4_500.0, 0.0), 1_000.0);
    assert_eq!(fleet.columns().head_since_ms, [375.0 - 200.0], "they are 200 ms late");
}

#[test]
fn our_later_request_s_first_token_ends_it() {
    let (mut fleet, id) = fleet_of_capacity();
    read(&mut fleet, 0, id, &page(0.0, 0.0, 0.0, 0.0), 9_000.0);
    read(&mut fleet, 50, id, &page(0.0, 1.0, 4_000.0, 0.0), 9_000.0);
    let ours = fleet.book(at(60), id, &booking(1, 500, 500)).unwrap();
    assert_eq!(fleet.columns().pending_prefill_tokens, [4_500.0]);
    fleet.first_token(at(900), ours).unwrap();
    assert_eq!(fleet.columns().pending_prefill_tokens, [0.0]);
}

#[test]
fn an_engine_that_started_again_counts_from_zero() {
    let (mut fleet, id) = fleet_of_capacity();
    read(&mut fleet, 0, id, &page(0.0, 0.0, 8_000.0, 0.0), 500.0);
    read(&mut fleet, 50, id, &page(0.0, 0.0, 100.0, 0.0), 500.0);
    assert!(fleet.columns().load(SLOT).is_idle());
    read(&mut fleet, 100, id, &page(0.0, 1.0, 1_100.0, 0.0), 500.0);
    assert_eq!(fleet.columns().pending_prefill_tokens, [1_000.0]);
}

#[test]
fn peers_that_tell_their_loads_are_believed_instead() {
    let (mut fleet, ids) = fleet_of(1);
    read(&mut fleet, 0, ids[0], &page(0.0, 0.0, 0.0, 0.0), 9_000.0);
    read(&mut fleet, 50, ids[0], &page(0.0, 1.0, 4_000.0, 0.0), 9_000.0);
    assert_eq!(fleet.columns().pending_prefill_tokens, [4_000.0]);
    let load = Load { inflight_requests: 1, pending_prefill_tokens: 7, ..Load::default() };
    let endpoints = vec![PeerLoad { address: "e0".into(), load, ..PeerLoad::default() }];
    let totals = PeerTotals { router: "peer".into(), epoch: 1, sequence: 1, endpoints };
    fleet.apply_peer(at(60), &totals).unwrap();
    assert_eq!(fleet.columns().load(SLOT), load);
}
