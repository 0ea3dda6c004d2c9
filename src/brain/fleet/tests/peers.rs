use super::{at, booking, fleet_of, spec};
use crate::fleet::{Fleet, FleetConfig, FleetError, Load, PeerLoad, PeerOutcome, PeerTotals};

fn load(requests: u32) -> Load {
    Load {
        inflight_requests: requests,
        pending_prefill_tokens: 100 * u64::from(requests),
        inflight_context_tokens: 200 * u64::from(requests),
        ..Load::default()
    }
}

fn totals(router: &str, epoch: u64, sequence: u64, loads: &[(&str, u32)]) -> PeerTotals {
    let endpoint = |&(address, requests): &(&str, u32)| PeerLoad {
        address: address.into(),
        dp_rank: 0,
        load: load(requests),
    };
    let endpoints = loads.iter().map(endpoint).collect();
    PeerTotals { router: router.into(), epoch, sequence, endpoints }
}

fn requests(fleet: &Fleet) -> Vec<f64> {
    fleet.columns().inflight_requests.clone()
}

const APPLIED: Result<PeerOutcome, FleetError> = Ok(PeerOutcome::Applied { unknown_endpoints: 0 });
const LATE: Result<PeerOutcome, FleetError> = Ok(PeerOutcome::Late);

#[test]
fn a_message_replaces_all_that_its_router_said_before() {
    let (mut fleet, ids) = fleet_of(2);
    fleet.book(at(0), ids[0], &booking(1, 50, 40)).unwrap();

    assert_eq!(fleet.apply_peer(at(0), &totals("b", 1, 1, &[("e0", 2), ("e1", 3)])), APPLIED);
    assert_eq!(requests(&fleet), [3.0, 3.0]);
    assert_eq!(fleet.columns().pending_prefill_tokens, [240.0, 300.0]);
    assert_eq!(fleet.apply_peer(at(0), &totals("c", 1, 1, &[("e1", 10)])), APPLIED);
    assert_eq!(requests(&fleet), [3.0, 13.0]);
    assert_eq!(fleet.apply_peer(at(0), &totals("b", 1, 2, &[("e0", 5)])), APPLIED);
    assert_eq!(requests(&fleet), [6.0, 10.0], "e1 is not named any more");

    assert_eq!(fleet.own_load(ids[0].slot).inflight_requests, 1);
    assert_eq!(fleet.peer_load(ids[0].slot), load(5));
}

#[test]
fn late_and_repeated_messages_change_nothing() {
    let (mut fleet, _) = fleet_of(1);
    fleet.apply_peer(at(0), &totals("b", 5, 7, &[("e0", 2)])).unwrap();

    assert_eq!(fleet.apply_peer(at(1), &totals("b", 5, 7, &[("e0", 9)])), LATE);
    assert_eq!(fleet.apply_peer(at(1), &totals("b", 5, 6, &[("e0", 9)])), LATE);
    assert_eq!(fleet.apply_peer(at(1), &totals("b", 4, 99, &[("e0", 9)])), LATE);
    assert_eq!(requests(&fleet), [2.0]);
    assert_eq!(fleet.apply_peer(at(1), &totals("b", 6, 0, &[])), APPLIED);
    assert_eq!(requests(&fleet), [0.0], "a new incarnation has nothing in flight");
}

#[test]
fn silence_zeroes_only_the_silent() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.book(at(0), ids[0], &booking(1, 50, 50)).unwrap();
    fleet.apply_peer(at(0), &totals("b", 1, 1, &[("e0", 2)])).unwrap();
    fleet.apply_peer(at(1_000), &totals("c", 1, 1, &[("e0", 4)])).unwrap();
    assert_eq!(fleet.next_expiry(), Some(at(3_000)));

    fleet.expire(at(2_999));
    assert_eq!(requests(&fleet), [7.0]);
    fleet.expire(at(3_000));
    assert_eq!(requests(&fleet), [5.0], "b is silent; c and our own count");
    assert_eq!(fleet.next_expiry(), Some(at(4_000)));
    fleet.expire(at(4_000));
    assert_eq!(requests(&fleet), [1.0]);

    assert_eq!(fleet.apply_peer(at(5_000), &totals("b", 1, 1, &[("e0", 2)])), LATE);
    assert_eq!(requests(&fleet), [1.0], "a late message raises nobody from the dead");
    assert_eq!(fleet.apply_peer(at(5_000), &totals("b", 1, 2, &[("e0", 2)])), APPLIED);
    assert_eq!(requests(&fleet), [3.0]);
}

#[test]
fn our_own_totals_that_come_back_are_an_echo() {
    let (mut fleet, ids) = fleet_of(2);
    fleet.book(at(0), ids[1], &booking(1, 50, 50)).unwrap();
    fleet.apply_peer(at(0), &totals("b", 1, 1, &[("e0", 2)])).unwrap();

    let endpoints = fleet.own_totals();

    let load = fleet.own_load(ids[1].slot);
    let expected = PeerLoad { address: "e1".into(), dp_rank: 0, load };
    assert_eq!(endpoints, [expected], "peers are told our own load only");
    let echo = PeerTotals { router: "me".into(), epoch: 1, sequence: 1, endpoints };
    assert_eq!(fleet.apply_peer(at(0), &echo), Ok(PeerOutcome::Echo));
    assert_eq!(requests(&fleet), [2.0, 1.0]);
}

#[test]
fn unknown_endpoints_are_counted_and_the_last_mention_counts() {
    let (mut fleet, _) = fleet_of(1);

    let message = totals("b", 1, 1, &[("e0", 2), ("nowhere", 5), ("e0", 3)]);

    let applied = Ok(PeerOutcome::Applied { unknown_endpoints: 1 });
    assert_eq!(fleet.apply_peer(at(0), &message), applied);
    assert_eq!(requests(&fleet), [3.0]);
}

#[test]
fn absurd_values_are_cut_and_never_overflow() {
    let (mut fleet, _) = fleet_of(1);
    let huge = Load {
        inflight_requests: u32::MAX,
        decoding_requests: u32::MAX,
        pending_prefill_tokens: u64::MAX,
        pending_prefill_pairs: u64::MAX,
        active_decode_tokens: u64::MAX,
        inflight_context_tokens: u64::MAX,
    };
    for router in 0..64 {
        let endpoints = vec![PeerLoad { address: "e0".into(), dp_rank: 0, load: huge }];
        let message = PeerTotals { router: format!("r{router}"), epoch: 1, sequence: 1, endpoints };
        assert_eq!(fleet.apply_peer(at(0), &message), APPLIED);
    }
    assert_eq!(requests(&fleet), [f64::from(64 << 20)]);
    fleet.expire(at(10_000));
    assert_eq!(fleet.columns().load(crate::Slot(0)), Load::default());
}

#[test]
fn the_peer_table_is_bounded_and_forgets_the_longest_silent() {
    let config = FleetConfig { max_peers: 2, ..FleetConfig::default() };
    let mut fleet = Fleet::new(config);
    fleet.join(at(0), spec("e0")).unwrap();
    fleet.apply_peer(at(0), &totals("a", 1, 1, &[("e0", 1)])).unwrap();
    fleet.apply_peer(at(1), &totals("b", 1, 1, &[("e0", 2)])).unwrap();

    let refused = fleet.apply_peer(at(2_000), &totals("c", 1, 1, &[("e0", 4)]));
    assert_eq!(refused, Err(FleetError::TooManyPeers(2)));
    assert_eq!(requests(&fleet), [3.0]);

    assert_eq!(fleet.apply_peer(at(3_000), &totals("c", 1, 1, &[("e0", 4)])), APPLIED);
    assert_eq!(requests(&fleet), [6.0], "a made room, b stays");
}

#[test]
fn a_router_needs_a_name() {
    let (mut fleet, _) = fleet_of(1);
    let message = fleet.apply_peer(at(0), &totals("", 1, 1, &[])).unwrap_err().to_string();
    assert_eq!(message, "peer totals name a router of 0 bytes: give it a name of 1 to 256");
    assert!(fleet.apply_peer(at(0), &totals(&"x".repeat(257), 1, 1, &[])).is_err());
}

#[test]
fn what_peers_had_on_an_endpoint_leaves_with_it() {
    let (mut fleet, ids) = fleet_of(2);
    fleet.apply_peer(at(0), &totals("b", 1, 1, &[("e0", 2), ("e1", 3)])).unwrap();

    fleet.leave(at(1), ids[0]).unwrap();
    fleet.join(at(1), spec("next")).unwrap();
    assert_eq!(requests(&fleet), [0.0, 3.0]);
    fleet.expire(at(9_000));
    assert_eq!(requests(&fleet), [0.0, 0.0]);
}
