use super::super::{LiveRouter, Placement, Prompt, RouterConfig, Scratch};
use super::tell::Task;
use super::{MAX_MESSAGE_BYTES, MessageError, PeersError, RouterError, decode, encode};
use crate::router::Observed;
use llmd_brain::fleet::{EndpointSpec, Load, PeerHead, PeerLoad, PeerTotals, PrefillTotals};
use llmd_brain::prompt::Scope;
use llmd_brain::schedule::{Decision, Request};
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

const ENGINE: &str = "http://10.0.0.1:8000";

fn router(name: &str) -> Arc<LiveRouter> {
    let config = RouterConfig::from_value(json!({"fleet": {"router": name}})).unwrap();
    let router = LiveRouter::new(config).unwrap();
    router.add_endpoint(EndpointSpec::new(ENGINE, ""), Observed::default()).unwrap();
    router
}

fn route(router: &Arc<LiveRouter>) -> Box<Decision> {
    let (mut request, mut scratch) = (Request::default(), Scratch::default());
    let prompt = Prompt::Tokens(&[1, 2, 3]);
    router.prepare(prompt, &Scope::default(), &mut request, &mut scratch).unwrap();
    match router.place(&request, &[], &mut scratch).unwrap() {
        Placement::Placed(placed) => placed.decision,
        Placement::Held(_) => panic!("held"),
    }
}

fn inflight(router: &LiveRouter) -> u32 {
    router.documents()[0].load.inflight_requests
}

/// Waits for another thread; the harness's time limit bounds it.
fn until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}

#[test]
fn routers_hear_what_each_other_has_in_flight_until_one_is_followed_no_more() {
    let (a, b) = (router("a"), router("b"));
    let listen = |it: &Arc<LiveRouter>| it.tell_peers("tcp://127.0.0.1:0", 1.0).unwrap();
    let addresses = [listen(&a), listen(&b)];
    for it in [&a, &b] {
        it.hear_peers(&addresses).unwrap();
        until(|| it.peers.totals().connected == 1);
    }
    until(|| a.peers.totals().followers == 1 && b.peers.totals().followers == 1);

    let first = route(&a);
    until(|| inflight(&b) == 1);
    let second = route(&b);
    until(|| inflight(&a) == 2 && inflight(&b) == 2);
    a.finish(first.reservation, 1);
    until(|| inflight(&b) == 1);
    b.finish(second.reservation, 1);
    until(|| inflight(&a) == 0 && inflight(&b) == 0);

    let seen = b.peers.totals();
    assert_eq!((seen.followed, seen.refused, seen.last_error), (1, 0, None));
    b.hear_peers(&addresses[1..]).unwrap();
    assert_eq!(b.peers.totals().followed, 0);
    until(|| a.peers.totals().followers == 0);
}

#[test]
fn a_late_joiner_is_told_what_is_in_flight_already() {
    let (a, b) = (router("a"), router("b"));
    let address = a.tell_peers("tcp://127.0.0.1:0", 1.0).unwrap();
    route(&a);
    b.hear_peers(&[address]).unwrap();
    until(|| inflight(&b) == 1);
    a.close();
    // And comes back under another address, with nothing in flight.
    let again = router("a");
    b.hear_peers(&[again.tell_peers("tcp://127.0.0.1:0", 1.0).unwrap()]).unwrap();
    until(|| again.peers.totals().followers == 1);
    let other = route(&again);
    again.finish(other.reservation, 1);
    until(|| inflight(&b) == 0);
}

#[test]
fn a_router_speaks_when_something_changed_or_a_peer_is_at_work() {
    let (a, b) = (router("a"), router("b"));
    let mut task = Task::unhurried(&a);

    assert_eq!(task.look(), Some(true));
    assert_eq!(task.published(), 0, "nothing was ever in flight");
    let decision = route(&a);
    assert_eq!((task.look(), task.look()), (Some(false), Some(false)));
    assert_eq!(task.published(), 1, "once for one change");
    a.first_token(decision.reservation);
    assert_eq!(task.look(), Some(false));
    assert_eq!(task.published(), 2);
    a.finish(decision.reservation, 1);
    assert_eq!((task.look(), task.look()), (Some(true), Some(true)));
    assert_eq!(task.published(), 3, "the end, and then no more");

    task.sleep();
    a.peer_totals(&b.own_totals().unwrap()).unwrap();
    assert_eq!(task.look(), Some(true));
    assert_eq!(task.published(), 3, "that peer idles too");
    route(&b);
    a.peer_totals(&b.own_totals().unwrap()).unwrap();
    assert_eq!(task.look(), Some(true));
    assert_eq!(task.published(), 3, "told of lately");
    task.be_due();
    a.peer_totals(&b.own_totals().unwrap()).unwrap();
    assert_eq!((task.look(), task.look()), (Some(true), Some(true)));
    assert_eq!(task.published(), 4, "once that it is there");
}

#[test]
fn what_cannot_be_told_or_heard_is_refused_by_name() {
    let refused = |it: Result<String, RouterError>| it.unwrap_err().to_string();
    let a = router("a");
    assert!(refused(router("").tell_peers("tcp://127.0.0.1:0", 10.0)).contains("fleet.router"));
    for interval_ms in [0.0, 1_001.0, f64::NAN] {
        let why = refused(a.tell_peers("tcp://127.0.0.1:0", interval_ms));
        assert!(why.contains("1 to 1000 ms"), "{why}");
    }
    assert!(refused(a.tell_peers("udp://127.0.0.1:0", 10.0)).contains("udp://127.0.0.1:0"));
    let peers = ["tcp://127.0.0.1:1".to_owned(), "nowhere".to_owned()];
    assert!(a.hear_peers(&peers).unwrap_err().to_string().contains("nowhere"));
    assert_eq!(a.peers.totals().followed, 0);

    let why = a.peer_totals(&[2, 0x90]).unwrap_err();
    let version = MessageError::Version(2);
    assert!(matches!(why, RouterError::Peers(PeersError::Message(it)) if it == version));
    assert_eq!(a.peers.totals().refused, 1);
    assert!(a.peers.totals().last_error.unwrap().contains("version 2"));
    a.close();
    assert!(matches!(a.hear_peers(&[]), Err(RouterError::Closed)));
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let totals = PeerTotals { router: "a".into(), epoch: 1, sequence: 1, endpoints: Vec::new() };
    let bytes = encode(&totals);
    assert_eq!(decode(&[]), Err(MessageError::Empty));
    assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(MessageError::Trailing(1)));
    let long = vec![1; MAX_MESSAGE_BYTES + 1];
    assert_eq!(decode(&long), Err(MessageError::TooLong(long.len())));
    for cut in 1..bytes.len() {
        assert!(matches!(decode(&bytes[..cut]), Err(MessageError::Body(_))), "{cut}");
    }
}

fn peer_load() -> impl Strategy<Value = PeerLoad> {
    let head = (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(
        |(booked_us_ago, since_us_ago, uncached_tokens, pairs)| PeerHead {
            booked_us_ago,
            since_us_ago,
            uncached_tokens,
            pairs,
        },
    );
    (
        ".{0,40}",
        any::<u32>(),
        any::<[u32; 2]>(),
        any::<[u64; 4]>(),
        proptest::option::of(head),
        any::<Option<u64>>(),
        any::<[u64; 6]>(),
    )
        .prop_map(|(address, dp_rank, requests, tokens, head, head_done_us_ago, sent)| {
            PeerLoad {
                address,
                dp_rank,
                load: Load {
                    inflight_requests: requests[0],
                    decoding_requests: requests[1],
                    pending_prefill_tokens: tokens[0],
                    pending_prefill_pairs: tokens[1],
                    active_decode_tokens: tokens[2],
                    inflight_context_tokens: tokens[3],
                },
                head,
                head_done_us_ago,
                prefills: PrefillTotals {
                    booked_requests: sent[0],
                    booked_tokens: sent[1],
                    booked_pairs: sent[2],
                    done_tokens: sent[3],
                    done_pairs: sent[4],
                    done_steps: sent[5],
                },
            }
        })
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(
        router in ".{0,40}",
        (epoch, sequence) in any::<(u64, u64)>(),
        endpoints in proptest::collection::vec(peer_load(), 0..8),
    ) {
        let totals = PeerTotals { router, epoch, sequence, endpoints };
        prop_assert_eq!(decode(&encode(&totals)), Ok(totals));
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(totals) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&totals)), Ok(totals));
        }
    }
}
