//! Random histories of the whole fleet's load against bookkeeping that recomputes everything.

use super::{at, booking, spec};
use crate::fleet::{
    DecodeWindow, Fleet, FleetConfig, FleetError, Load, PeerLoad, PeerOutcome, PeerTotals,
    Reservation, prefill_pairs,
};
use crate::{EndpointId, ReservationId, Slot, Time};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const LEASE: Duration = Duration::from_millis(50);
const PEER_TTL: Duration = Duration::from_millis(30);
const MAX_RESERVATIONS: usize = 12;
const ADDRESSES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Leave(usize),
    Book { endpoint: usize, prompt: u32, uncached: u32 },
    FirstToken(usize),
    Progress(usize, u32),
    Release(usize),
    Expire,
    Wait(u64),
    Back(u64),
    Peer { router: u8, epoch: u64, sequence: u64, loads: Vec<(usize, u32)> },
}

fn step() -> impl Strategy<Value = Step> {
    let peer = (0..3u8, 0..3u64, 0..4u64, prop::collection::vec((0..ADDRESSES + 1, 0..9u32), 0..4));
    prop_oneof![
        3 => (0..ADDRESSES).prop_map(Step::Join),
        1 => (0..20usize).prop_map(Step::Leave),
        8 => (0..20usize, 0..2_000u32, 0..2_500u32)
            .prop_map(|(endpoint, prompt, uncached)| Step::Book { endpoint, prompt, uncached }),
        4 => (0..40usize).prop_map(Step::FirstToken),
        4 => (0..40usize, 0..300u32).prop_map(|(which, tokens)| Step::Progress(which, tokens)),
        3 => (0..40usize).prop_map(Step::Release),
        2 => Just(Step::Expire),
        4 => (0..30u64).prop_map(Step::Wait),
        1 => (0..30u64).prop_map(Step::Back),
        2 => peer.prop_map(|(router, epoch, sequence, loads)| {
            Step::Peer { router, epoch, sequence, loads }
        }),
    ]
}

/// A request, as plainly as it can be written down.
#[derive(Debug, Clone)]
struct Request {
    id: ReservationId,
    endpoint: EndpointId,
    prompt: u32,
    uncached: u32,
    output: u32,
    first_token_at: Option<Time>,
    renewed_at: Time,
}

impl Request {
    fn load(&self) -> Load {
        let context = u64::from(self.prompt + self.output);
        let decodes = self.first_token_at.is_some();
        Load {
            inflight_requests: 1,
            decoding_requests: decodes.into(),
            pending_prefill_tokens: if decodes { 0 } else { self.uncached.into() },
            pending_prefill_pairs: if decodes { 0 } else { self.pairs() },
            active_decode_tokens: if decodes { context } else { 0 },
            inflight_context_tokens: context,
        }
    }

    fn pairs(&self) -> u64 {
        prefill_pairs(self.uncached, self.prompt - self.uncached)
    }
}

#[derive(Debug)]
struct Peer {
    newest: (u64, u64),
    heard_at: Time,
    loads: BTreeMap<EndpointId, Load>,
}

/// Something that happened on an endpoint: its load from a time on, or a prefill that ended.
#[derive(Debug)]
enum Past {
    Load(Time, EndpointId, Load),
    Prefilled(Time, EndpointId, u64, u64, ReservationId),
}

#[derive(Default)]
struct Oracle {
    latest: Time,
    endpoints: BTreeMap<usize, EndpointId>,
    /// In order of renewal.
    live: Vec<Request>,
    /// Requests without a token in order of booking, with the time at which they became the head.
    queues: BTreeMap<EndpointId, Vec<(ReservationId, Time)>>,
    peers: BTreeMap<u8, Peer>,
    past: Vec<Past>,
}

impl Oracle {
    fn own(&self, endpoint: EndpointId) -> Load {
        let here = self.live.iter().filter(|request| request.endpoint == endpoint);
        here.fold(Load::default(), |sum, request| sum + request.load())
    }

    fn peers(&self, endpoint: EndpointId) -> Load {
        let loads = self.peers.values().filter_map(|peer| peer.loads.get(&endpoint));
        loads.fold(Load::default(), |sum, &load| sum + load)
    }

    fn dequeue(&mut self, request: &Request) {
        let Some(queue) = self.queues.get_mut(&request.endpoint) else { return };
        let was_head = queue.first().is_some_and(|&(id, _)| id == request.id);
        queue.retain(|&(id, _)| id != request.id);
        if let Some(head) = queue.first_mut().filter(|_| was_head) {
            head.1 = self.latest;
        }
    }

    fn end(&mut self, id: ReservationId) -> Option<Request> {
        let place = self.live.iter().position(|request| request.id == id)?;
        let ended = self.live.remove(place);
        self.dequeue(&ended);
        Some(ended)
    }

    /// Renews; the outcome says whether it was the first token.
    fn token(&mut self, id: ReservationId, output: u32) -> Option<bool> {
        let place = self.live.iter().position(|request| request.id == id)?;
        let mut request = self.live.remove(place);
        let is_first = request.first_token_at.is_none();
        if is_first {
            request.first_token_at = Some(self.latest);
            self.dequeue(&request);
            let (tokens, pairs) = (u64::from(request.uncached), request.pairs());
            self.past.push(Past::Prefilled(self.latest, request.endpoint, tokens, pairs, id));
        }
        request.output = request.output.max(output).max(1);
        request.renewed_at = self.latest;
        self.live.push(request);
        Some(is_first)
    }

    fn expire(&mut self) -> Vec<ReservationId> {
        let latest = self.latest;
        let due = |request: &&Request| request.renewed_at + LEASE <= latest;
        let due: Vec<_> = self.live.iter().filter(due).map(|request| request.id).collect();
        for &id in &due {
            self.end(id);
        }
        for peer in self.peers.values_mut() {
            if peer.heard_at + PEER_TTL <= latest {
                peer.loads.clear();
            }
        }
        due
    }

    fn next_expiry(&self) -> Option<Time> {
        let leases = self.live.iter().map(|request| request.renewed_at + LEASE);
        let loaded = self.peers.values().filter(|peer| !peer.loads.is_empty());
        leases.chain(loaded.map(|peer| peer.heard_at + PEER_TTL)).min()
    }

    fn record(&mut self) {
        for &endpoint in self.endpoints.values() {
            let load = self.own(endpoint) + self.peers(endpoint);
            self.past.push(Past::Load(self.latest, endpoint, load));
        }
    }

    /// Integrates the recorded past from the request's first token until now.
    fn decode_window(&self, request: &Request) -> Option<DecodeWindow> {
        let start = request.first_token_at?;
        let nanos = self.latest.since(start).as_nanos();
        if request.output < 2 || nanos == 0 {
            return None;
        }
        let begins = |past: &Past| matches!(past, Past::Prefilled(.., id) if *id == request.id);
        let from = self.past.iter().position(begins)?;
        let (mut at, mut load) = (start, Load::default());
        let (mut requests, mut tokens, mut prefilled, mut pairs) = (0u128, 0u128, 0u64, 0u64);
        for past in &self.past[from + 1..] {
            match *past {
                Past::Load(time, endpoint, new) if endpoint == request.endpoint => {
                    let span = time.since(at).as_nanos();
                    requests += u128::from(load.decoding_requests) * span;
                    tokens += u128::from(load.active_decode_tokens) * span;
                    (at, load) = (time, new);
                }
                Past::Prefilled(_, endpoint, new_tokens, new_pairs, _)
                    if endpoint == request.endpoint =>
                {
                    prefilled += new_tokens;
                    pairs += new_pairs;
                }
                _ => {}
            }
        }
        // First tokens within 2 ms of the one before came from its step.
        let ends = |past: &Past| match *past {
            Past::Prefilled(at, endpoint, ..) if endpoint == request.endpoint => Some(at),
            _ => None,
        };
        let mut steps = 0.0;
        let mut last = self.past[..=from].iter().filter_map(ends).next_back();
        for end in self.past[from + 1..].iter().filter_map(ends) {
            let shared = last.is_some_and(|last| end.since(last) <= Duration::from_millis(2));
            steps += if shared { 0.0 } else { 1.0 };
            last = Some(end);
        }
        let span = self.latest.since(at).as_nanos();
        requests += u128::from(load.decoding_requests) * span;
        tokens += u128::from(load.active_decode_tokens) * span;
        Some(DecodeWindow {
            duration_ms: nanos as f64 / 1e6,
            steps: request.output - 1,
            mean_batch_requests: requests as f64 / nanos as f64,
            mean_context_tokens: tokens as f64 / nanos as f64,
            prefill_tokens: prefilled as f64,
            prefill_pairs: pairs as f64,
            prefill_steps: steps,
        })
    }
}

fn ids(reservations: &[Reservation]) -> Vec<ReservationId> {
    reservations.iter().map(|reservation| reservation.id).collect()
}

fn check(fleet: &Fleet, oracle: &Oracle) -> Result<(), TestCaseError> {
    prop_assert_eq!(fleet.reserved(), oracle.live.len());
    let order: Vec<_> = fleet.reservations().map(|reservation| reservation.id).collect();
    let expected: Vec<_> = oracle.live.iter().map(|request| request.id).collect();
    prop_assert_eq!(order, expected);
    prop_assert_eq!(fleet.next_expiry(), oracle.next_expiry());
    for &endpoint in oracle.endpoints.values() {
        let (own, peers) = (oracle.own(endpoint), oracle.peers(endpoint));
        prop_assert_eq!(fleet.own_load(endpoint.slot), own);
        prop_assert_eq!(fleet.peer_load(endpoint.slot), peers);
        prop_assert_eq!(fleet.columns().load(endpoint.slot), own + peers);
        let queue = oracle.queues.get(&endpoint);
        let head = queue.and_then(|queue| queue.first()).map(|&(id, since)| {
            let request = oracle.live.iter().find(|request| request.id == id).unwrap();
            (since, request.uncached, request.pairs())
        });
        let actual = fleet.columns().ahead(endpoint.slot).head;
        prop_assert_eq!(actual.map(|head| (head.since, head.uncached_tokens, head.pairs)), head);
    }
    for request in &oracle.live {
        let window = fleet.decode_window(oracle.latest, request.id);
        prop_assert_eq!(window, oracle.decode_window(request));
    }
    Ok(())
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut fleet = Fleet::new(FleetConfig {
        max_reservations: MAX_RESERVATIONS,
        lease_ms: LEASE.as_millis() as u64,
        peer_ttl_ms: PEER_TTL.as_millis() as u64,
        ..FleetConfig::default()
    });
    let mut oracle = Oracle::default();
    // Everything that ever was, so that stale names are used all the time.
    let mut endpoints: Vec<EndpointId> = Vec::new();
    let mut requests: Vec<ReservationId> = Vec::new();
    let mut now = at(100);
    for (ticket, step) in steps.into_iter().enumerate() {
        if !matches!(step, Step::Wait(_) | Step::Back(_)) {
            oracle.latest = oracle.latest.max(now);
        }
        let nobody = EndpointId { slot: Slot(9), generation: 9 };
        let endpoint =
            |which: usize| endpoints.get(which % endpoints.len().max(1)).copied().unwrap_or(nobody);
        let nothing = ReservationId(u64::MAX);
        let request =
            |which: usize| requests.get(which % requests.len().max(1)).copied().unwrap_or(nothing);
        match step {
            Step::Join(address) => {
                let joined = fleet.join(now, spec(&address.to_string()));
                prop_assert_eq!(joined.is_ok(), !oracle.endpoints.contains_key(&address));
                if let Ok(id) = joined {
                    endpoints.push(id);
                    oracle.endpoints.insert(address, id);
                }
            }
            Step::Leave(which) => {
                let id = endpoint(which);
                let place = oracle.endpoints.iter().find(|&(_, &other)| other == id);
                let Some(address) = place.map(|(&address, _)| address) else {
                    prop_assert_eq!(fleet.leave(now, id), Err(FleetError::Unknown(id)));
                    continue;
                };
                let mut ended = ids(&fleet.leave(now, id).unwrap());
                let queue = oracle.queues.remove(&id).unwrap_or_default();
                let waiting: Vec<_> = queue.iter().map(|&(id, _)| id).collect();
                prop_assert_eq!(&ended[..waiting.len()], &waiting, "in order of booking");
                let here = oracle.live.iter().filter(|request| request.endpoint == id);
                let mut expected: Vec<_> = here.map(|request| request.id).collect();
                ended.sort();
                expected.sort();
                prop_assert_eq!(ended, expected);
                oracle.live.retain(|request| request.endpoint != id);
                oracle.endpoints.remove(&address);
                oracle.peers.values_mut().for_each(|peer| {
                    peer.loads.remove(&id);
                });
            }
            Step::Book { endpoint: which, prompt, uncached } => {
                let id = endpoint(which);
                let booked = fleet.book(now, id, &booking(ticket as u64, prompt, uncached));
                if !oracle.endpoints.values().any(|&other| other == id) {
                    prop_assert_eq!(booked, Err(FleetError::Unknown(id)));
                } else if oracle.live.len() == MAX_RESERVATIONS {
                    let full = FleetError::TooManyReservations(MAX_RESERVATIONS);
                    prop_assert_eq!(booked, Err(full));
                } else {
                    let reservation = booked.unwrap();
                    prop_assert!(!requests.contains(&reservation), "an id is never given twice");
                    requests.push(reservation);
                    oracle.queues.entry(id).or_default().push((reservation, oracle.latest));
                    oracle.live.push(Request {
                        id: reservation,
                        endpoint: id,
                        prompt,
                        uncached: uncached.min(prompt),
                        output: 0,
                        first_token_at: None,
                        renewed_at: oracle.latest,
                    });
                }
            }
            Step::FirstToken(which) => {
                let id = request(which);
                let expected = oracle.token(id, 1).ok_or(FleetError::UnknownReservation(id));
                prop_assert_eq!(fleet.first_token(now, id), expected);
            }
            Step::Progress(which, tokens) => {
                let id = request(which);
                let expected = oracle.token(id, tokens).ok_or(FleetError::UnknownReservation(id));
                prop_assert_eq!(fleet.progress(now, id, tokens), expected);
            }
            Step::Release(which) => {
                let id = request(which);
                prop_assert_eq!(fleet.release(now, id), oracle.end(id).is_some());
            }
            Step::Expire => prop_assert_eq!(ids(&fleet.expire(now)), oracle.expire()),
            Step::Wait(ms) => now = now + Duration::from_millis(ms),
            Step::Back(ms) => {
                now = Time::from_nanos(now.as_nanos().saturating_sub(ms * 1_000_000));
            }
            Step::Peer { router, epoch, sequence, loads } => {
                let load = |requests: u32| Load {
                    inflight_requests: requests,
                    decoding_requests: requests / 2,
                    active_decode_tokens: 100 * u64::from(requests / 2),
                    inflight_context_tokens: 100 * u64::from(requests),
                    ..Load::default()
                };
                let endpoint = |&(address, requests): &(usize, u32)| PeerLoad {
                    address: address.to_string(),
                    load: load(requests),
                    ..PeerLoad::default()
                };
                let endpoints = loads.iter().map(endpoint).collect();
                let name = format!("peer-{router}");
                let message = PeerTotals { router: name, epoch, sequence, endpoints };
                let outcome = fleet.apply_peer(now, &message).unwrap();
                let newest = oracle.peers.get(&router).map(|peer| peer.newest);
                if newest.is_some_and(|newest| (epoch, sequence) <= newest) {
                    prop_assert_eq!(outcome, PeerOutcome::Late);
                } else {
                    let known = |&(address, requests): &(usize, u32)| {
                        Some((*oracle.endpoints.get(&address)?, load(requests)))
                    };
                    let known: Vec<_> = loads.iter().filter_map(known).collect();
                    let unknown_endpoints = loads.len() - known.len();
                    prop_assert_eq!(outcome, PeerOutcome::Applied { unknown_endpoints });
                    let mut loads: BTreeMap<_, _> = known.into_iter().collect();
                    loads.retain(|_, load| *load != Load::default());
                    let newest = (epoch, sequence);
                    oracle.peers.insert(router, Peer { newest, heard_at: oracle.latest, loads });
                }
            }
        }
        oracle.record();
        check(&fleet, &oracle)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn totals_always_equal_the_sum_over_live_reservations(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        run(steps)?;
    }
}
