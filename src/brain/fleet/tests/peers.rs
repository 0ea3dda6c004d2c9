use super::{at, booking, fleet_of, spec};
use crate::fleet::{
    Fleet, FleetConfig, FleetError, Load, PeerHead, PeerLoad, PeerOutcome, PeerTotals,
    PrefillTotals, prefill_pairs,
};

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
        load: load(requests),
        ..PeerLoad::default()
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

    let endpoints = fleet.own_totals(at(2));

    let load = fleet.own_load(ids[1].slot);
    let head = PeerHead {
        booked_us_ago: 2_000,
        since_us_ago: 2_000,
        uncached_tokens: 50,
        pairs: prefill_pairs(50, 0),
    };
    let prefills = PrefillTotals {
        booked_requests: 1,
        booked_tokens: 50,
        booked_pairs: head.pairs,
        ..PrefillTotals::default()
    };
    let head = Some(head);
    let address = "e1".into();
    let expected = PeerLoad { address, load, head, prefills, ..PeerLoad::default() };
    assert_eq!(endpoints, [expected], "peers are told our own load only");
    let echo = PeerTotals { router: "me".into(), epoch: 1, sequence: 1, endpoints };
    assert_eq!(fleet.apply_peer(at(2), &echo), Ok(PeerOutcome::Echo));
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
        let endpoints = vec![PeerLoad { address: "e0".into(), load: huge, ..PeerLoad::default() }];
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

/// What a router of the name of `b` says.
fn told_by(teller: &Fleet, now_ms: u64, epoch: u64, sequence: u64) -> PeerTotals {
    let endpoints = teller.own_totals(at(now_ms));
    PeerTotals { router: "b".into(), epoch, sequence, endpoints }
}

#[test]
fn the_prefill_in_progress_is_the_oldest_of_all_routers_and_begins_behind_the_one_before() {
    let ((mut ours, ids), (mut theirs, their_ids)) = (fleet_of(1), fleet_of(1));
    let theirs_first = theirs.book(at(0), their_ids[0], &booking(1, 400, 300)).unwrap();
    ours.book(at(5), ids[0], &booking(1, 90, 80)).unwrap();
    theirs.book(at(7), their_ids[0], &booking(2, 70, 60)).unwrap();
    let head = |fleet: &Fleet| {
        let head = fleet.columns().ahead(crate::Slot(0)).head.unwrap();
        (head.since, head.uncached_tokens)
    };

    ours.apply_peer(at(10), &told_by(&theirs, 10, 1, 1)).unwrap();
    assert_eq!(head(&ours), (at(0), 300));

    theirs.first_token(at(40), theirs_first).unwrap();
    ours.apply_peer(at(50), &told_by(&theirs, 50, 1, 2)).unwrap();
    assert_eq!(head(&ours), (at(40), 80), "ours was booked before their second");

    ours.expire(at(10_000));
    assert_eq!(head(&ours), (at(5), 80), "nobody tells any more");
}

#[test]
fn prefills_of_peers_interrupt_our_decodes() {
    let ((mut ours, ids), (mut theirs, their_ids)) = (fleet_of(1), fleet_of(1));
    let known = theirs.book(at(0), their_ids[0], &booking(1, 400, 300)).unwrap();
    ours.apply_peer(at(1), &told_by(&theirs, 1, 1, 1)).unwrap();
    let decoding = ours.book(at(1), ids[0], &booking(1, 90, 80)).unwrap();
    ours.first_token(at(2), decoding).unwrap();

    theirs.first_token(at(20), known).unwrap();
    ours.apply_peer(at(30), &told_by(&theirs, 30, 1, 2)).unwrap();

    let it = ours.in_flight_one(decoding).unwrap();
    let counted = (it.prefill_tokens as u64, it.prefill_pairs as u64);
    assert_eq!(counted, (300, prefill_pairs(300, 100)));
}

#[test]
fn of_peers_prefills_the_rise_counts_whatever_was_lost_and_nothing_from_before() {
    let ((mut ours, _), (mut theirs, their_ids)) = (fleet_of(1), fleet_of(1));
    let book = |theirs: &mut Fleet, now_ms| {
        theirs.book(at(now_ms), their_ids[0], &booking(now_ms, 400, 300)).unwrap();
    };
    let mut hear = |theirs: &Fleet, now_ms, epoch, sequence| {
        ours.apply_peer(at(now_ms), &told_by(theirs, now_ms, epoch, sequence)).unwrap();
        ours.placed_by_peers().iter().map(|(_, it)| it.booked_tokens).sum::<u64>()
    };
    book(&mut theirs, 0);
    assert_eq!(hear(&theirs, 1, 1, 1), 0, "from before it was known");
    book(&mut theirs, 2);
    book(&mut theirs, 3);
    assert_eq!(hear(&theirs, 4, 1, 9), 600, "a message in between was lost");
    assert_eq!(hear(&theirs, 5, 1, 9), 0, "repeated");
    assert_eq!(hear(&theirs, 6, 1, 10), 0);
    book(&mut theirs, 7);
    assert_eq!(hear(&theirs, 8, 2, 0), 0, "another incarnation");
    book(&mut theirs, 9);
    assert_eq!(hear(&theirs, 9_000, 2, 1), 0, "it was silent");
    let (fresh, _) = fleet_of(1);
    assert_eq!(hear(&fresh, 9_001, 2, 2), 0);
    book(&mut theirs, 9_002);
    assert_eq!(hear(&theirs, 9_003, 2, 3), 0, "it had left the endpoint");
}
