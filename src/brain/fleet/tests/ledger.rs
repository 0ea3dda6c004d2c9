use super::{at, booking, fleet_of};
use crate::fleet::{
    DecodeWindow, Fleet, FleetConfig, FleetError, Load, PrefillHead, prefill_pairs,
};
use crate::{ReservationId, Slot};

const SLOT: Slot = Slot(0);

#[test]
fn uncached_tokens_are_pending_until_the_first_token_then_the_context_decodes() {
    let (mut fleet, ids) = fleet_of(1);
    let request = fleet.book(at(0), ids[0], &booking(1, 1_000, 300)).unwrap();
    let booked = Load {
        inflight_requests: 1,
        pending_prefill_tokens: 300,
        pending_prefill_pairs: 300 * 700 + 300 * 300 / 2,
        inflight_context_tokens: 1_000,
        ..Load::default()
    };
    assert_eq!(fleet.columns().load(SLOT), booked);

    assert_eq!(fleet.first_token(at(5), request), Ok(true));
    let decoding = Load {
        inflight_requests: 1,
        decoding_requests: 1,
        active_decode_tokens: 1_001,
        inflight_context_tokens: 1_001,
        ..Load::default()
    };
    assert_eq!(fleet.columns().load(SLOT), decoding);

    assert_eq!(fleet.progress(at(9), request, 40), Ok(false));
    assert_eq!(fleet.columns().active_decode_tokens, [1_040.0]);
    fleet.progress(at(9), request, 7).unwrap();
    assert_eq!(fleet.columns().active_decode_tokens, [1_040.0], "output never shrinks");

    assert!(fleet.release(at(10), request));
    assert_eq!(fleet.columns().load(SLOT), Load::default());
}

#[test]
fn progress_without_a_first_token_is_one() {
    let (mut fleet, ids) = fleet_of(1);
    let request = fleet.book(at(0), ids[0], &booking(1, 100, 100)).unwrap();

    assert_eq!(fleet.progress(at(5), request, 12), Ok(true));

    assert_eq!(fleet.reservation(request).unwrap().first_token_at, Some(at(5)));
    assert_eq!(fleet.first_token(at(6), request), Ok(false));
    assert_eq!(fleet.columns().load(SLOT).active_decode_tokens, 112);
}

#[test]
fn release_is_idempotent_and_never_hits_the_next_tenant_of_the_row() {
    let (mut fleet, ids) = fleet_of(1);
    let first = fleet.book(at(0), ids[0], &booking(1, 100, 100)).unwrap();
    assert!(fleet.release(at(1), first));
    let second = fleet.book(at(2), ids[0], &booking(2, 50, 50)).unwrap();

    assert_ne!(first, second);
    assert!(!fleet.release(at(3), first));
    assert_eq!(fleet.progress(at(3), first, 9), Err(FleetError::UnknownReservation(first)));
    assert_eq!(fleet.reservation(first), None);
    assert_eq!(fleet.reserved(), 1);
    assert_eq!(fleet.reservation(second).unwrap().ticket.0, 2);
}

#[test]
fn ids_from_nowhere_are_refused() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.book(at(0), ids[0], &booking(1, 100, 100)).unwrap();
    for foreign in [0, 1, u64::MAX, 7 << 32] {
        assert!(!fleet.release(at(1), ReservationId(foreign)));
        assert_eq!(fleet.decode_window(at(1), ReservationId(foreign)), None);
    }
}

#[test]
fn any_token_renews_the_lease() {
    let (mut fleet, ids) = fleet_of(1);
    let long = fleet.book(at(0), ids[0], &booking(1, 100, 100)).unwrap();
    let lost = fleet.book(at(1), ids[0], &booking(2, 100, 100)).unwrap();
    for minute in 1..=60 {
        fleet.progress(at(minute * 60_000), long, minute as u32).unwrap();
        let ended = fleet.expire(at(minute * 60_000));
        match minute {
            11 => assert_eq!(ended[0].id, lost, "silent for ten minutes and a bit"),
            _ => assert!(ended.is_empty(), "minute {minute}"),
        }
    }
    assert_eq!(fleet.next_expiry(), Some(at(70 * 60_000)));
    assert_eq!(fleet.expire(at(70 * 60_000))[0].id, long);
    assert_eq!(fleet.columns().load(SLOT), Load::default());
    assert_eq!(fleet.next_expiry(), None);
}

#[test]
fn a_clock_that_goes_back_neither_expires_nor_lengthens_a_lease() {
    let (mut fleet, ids) = fleet_of(1);
    let request = fleet.book(at(1_000), ids[0], &booking(1, 100, 100)).unwrap();

    fleet.progress(at(0), request, 1).unwrap();

    assert_eq!(fleet.reservation(request).unwrap().renewed_at, at(1_000));
    assert!(fleet.expire(at(0)).is_empty());
    assert_eq!(fleet.next_expiry(), Some(at(601_000)));
}

#[test]
fn a_full_ledger_says_so_and_books_nothing() {
    let mut fleet = Fleet::new(FleetConfig { max_reservations: 1, ..FleetConfig::default() });
    let id = fleet.join(at(0), super::spec("a")).unwrap();
    let request = fleet.book(at(0), id, &booking(1, 100, 100)).unwrap();

    let refused = fleet.book(at(0), id, &booking(2, 100, 100));

    assert_eq!(refused, Err(FleetError::TooManyReservations(1)));
    assert_eq!(fleet.columns().inflight_requests, [1.0]);
    fleet.release(at(0), request);
    assert!(fleet.book(at(0), id, &booking(2, 100, 100)).is_ok());
}

#[test]
fn the_oldest_request_without_a_token_is_being_prefilled() {
    let (mut fleet, ids) = fleet_of(1);
    let head = |since, uncached_tokens| {
        let pairs = prefill_pairs(uncached_tokens, 0);
        Some(PrefillHead { since: at(since), uncached_tokens, pairs })
    };
    let a = fleet.book(at(10), ids[0], &booking(1, 100, 100)).unwrap();
    let b = fleet.book(at(20), ids[0], &booking(2, 200, 200)).unwrap();
    let c = fleet.book(at(30), ids[0], &booking(3, 300, 300)).unwrap();
    assert_eq!(fleet.columns().prefill_head[0], head(10, 100));
    let ahead = fleet.reservation(c).unwrap().ahead;
    assert_eq!((ahead.load.pending_prefill_tokens, ahead.head), (300, head(10, 100)));

    fleet.first_token(at(40), b).unwrap();
    assert_eq!(fleet.columns().prefill_head[0], head(10, 100), "overtaken, not finished");
    fleet.first_token(at(50), a).unwrap();
    assert_eq!(fleet.columns().prefill_head[0], head(50, 300));
    fleet.release(at(60), c);
    assert_eq!(fleet.columns().prefill_head[0], None);
}

#[test]
fn more_uncached_tokens_than_the_prompt_count_as_the_prompt() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.book(at(0), ids[0], &booking(1, 100, 500)).unwrap();
    assert_eq!(fleet.columns().pending_prefill_tokens, [100.0]);
}

#[test]
fn the_largest_prompts_overflow_nothing() {
    let (mut fleet, ids) = fleet_of(1);
    let mut requests = Vec::new();
    for ticket in 0..1_000 {
        let request = fleet.book(at(0), ids[0], &booking(ticket, u32::MAX, u32::MAX)).unwrap();
        fleet.progress(at(1), request, if ticket % 2 == 0 { u32::MAX } else { 1 }).unwrap();
        requests.push(request);
    }
    for request in requests {
        assert!(fleet.release(at(2), request));
    }
    assert_eq!(fleet.columns().load(SLOT), Load::default());
}

#[test]
fn a_decode_window_tells_the_mean_batch_and_what_was_prefilled_beside() {
    let (mut fleet, ids) = fleet_of(1);
    let a = fleet.book(at(0), ids[0], &booking(1, 100, 100)).unwrap();
    let b = fleet.book(at(0), ids[0], &booking(2, 300, 40)).unwrap();
    fleet.first_token(at(10), a).unwrap();
    assert_eq!(fleet.decode_window(at(20), a), None, "one token makes no step");
    fleet.first_token(at(20), b).unwrap();
    fleet.progress(at(30), a, 11).unwrap();

    let window = fleet.decode_window(at(40), a).unwrap();

    let expected = DecodeWindow {
        duration_ms: 30.0,
        steps: 10,
        mean_batch_requests: (10.0 + 2.0 * 20.0) / 30.0,
        // 101 alone for 10 ms, 101 + 301 for 10 ms, 111 + 301 for 10 ms.
        mean_context_tokens: (101.0 + 402.0 + 412.0) / 3.0,
        prefill_tokens: 40.0,
        prefill_pairs: 40.0 * 260.0 + 800.0,
        prefill_steps: 1.0,
    };
    assert_eq!(window, expected);
}
