use super::{Attempt, FlowConfig, Held, Holding, RefusedWhy};
use crate::{Ticket, Time};
use proptest::prelude::*;
use std::time::Duration;

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn holding(limit: usize) -> Holding<u32> {
    Holding::new(&FlowConfig { max_held_requests: limit, ..FlowConfig::default() })
}

fn everybody(_: &Held<u32>) -> Attempt<()> {
    Attempt::Placed(())
}

fn tickets<R>(placed: &[(Held<u32>, R)]) -> Vec<u64> {
    placed.iter().map(|(held, _)| held.ticket.0).collect()
}

#[test]
fn higher_priority_goes_first_and_equals_go_in_order_of_arrival() {
    let mut holding = holding(8);
    for (ticket, priority) in [(1, 0), (2, -1), (3, 7), (4, 0), (5, 7)] {
        holding.push(at(0), Ticket(ticket), priority, 100, 0).unwrap();
    }

    let placed = holding.pop_ready(at(1), everybody);

    assert_eq!(tickets(&placed), [3, 5, 1, 4, 2]);
    assert!(holding.is_empty());
    assert_eq!(holding.next_deadline(), None);
}

#[test]
fn who_cannot_be_placed_keeps_its_turn() {
    let mut holding = holding(8);
    for ticket in 1..=4 {
        holding.push(at(0), Ticket(ticket), 0, 100, ticket as u32).unwrap();
    }

    let odd = |held: &Held<u32>| match held.payload % 2 {
        1 => Attempt::Placed(held.payload * 10),
        _ => Attempt::Keep,
    };
    let placed = holding.pop_ready(at(1), odd);

    assert_eq!(placed.iter().map(|(_, result)| *result).collect::<Vec<_>>(), [10, 30]);
    assert_eq!(tickets(&holding.pop_ready(at(1), everybody)), [2, 4]);
}

#[test]
fn stop_ends_the_pass() {
    let mut holding = holding(8);
    for ticket in 1..=3 {
        holding.push(at(0), Ticket(ticket), 0, 100, 0).unwrap();
    }
    let mut asked = 0;

    let placed = holding.pop_ready(at(1), |_| {
        asked += 1;
        if asked == 1 { Attempt::Placed(()) } else { Attempt::Stop }
    });

    assert_eq!((tickets(&placed), asked, holding.len()), (vec![1], 2, 2));
}

#[test]
fn a_deadline_is_kept_to_the_nanosecond() {
    let mut holding = holding(8);
    let deadline = holding.push(at(5), Ticket(1), 0, 20, 7).unwrap();

    assert_eq!(deadline, at(25));
    assert_eq!(holding.next_deadline(), Some(at(25)));
    assert!(holding.expire(Time::from_nanos(24_999_999)).is_empty());
    assert!(holding.pop_ready(at(25), everybody).is_empty(), "it is too late to place it");
    let expired = holding.expire(at(25));
    assert_eq!((expired[0].ticket, expired[0].payload), (Ticket(1), 7));
    assert!(holding.expire(at(99)).is_empty());
}

#[test]
fn a_full_queue_hands_the_payload_back_and_says_why() {
    let mut holding = holding(1);
    holding.push(at(0), Ticket(1), 0, 10, 1).unwrap();

    let refused = holding.push(at(0), Ticket(2), 9, 10, 42).unwrap_err();

    assert_eq!((refused.payload, refused.why), (42, RefusedWhy::Full(1)));
    let message =
        "request 2 is not held: 1 requests are held already, the limit (max_held_requests)";
    assert_eq!(refused.to_string(), message);
}

#[test]
fn a_ticket_is_held_once() {
    let mut holding = holding(8);
    holding.push(at(0), Ticket(1), 0, 10, 1).unwrap();

    let refused = holding.push(at(0), Ticket(1), 0, 10, 2).unwrap_err();

    assert_eq!(refused.why, RefusedWhy::Duplicate);
    assert_eq!(holding.cancel(Ticket(1)).unwrap().payload, 1);
    assert_eq!(holding.cancel(Ticket(1)), None);
    assert!(holding.push(at(0), Ticket(1), 0, 10, 3).is_ok());
}

#[test]
fn an_endless_hold_does_not_overflow() {
    let mut holding = holding(8);
    assert_eq!(holding.push(at(1), Ticket(1), 0, u64::MAX, 0), Ok(Time::MAX));
    assert!(holding.expire(at(1 << 40)).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Push { ticket: u64, priority: i32, hold_ms: u64 },
    Pop { modulus: u64, at_most: usize },
    Expire,
    Cancel(u64),
    Wait(u64),
    Back,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..24u64, -2..3i32, 0..40u64)
            .prop_map(|(ticket, priority, hold_ms)| Step::Push { ticket, priority, hold_ms }),
        1 => (1..4u64, 0..4usize).prop_map(|(modulus, at_most)| Step::Pop { modulus, at_most }),
        1 => Just(Step::Expire),
        1 => (0..24u64).prop_map(Step::Cancel),
        1 => (0..20u64).prop_map(Step::Wait),
        1 => Just(Step::Back),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The oracle is a list that is searched from end to end.
    #[test]
    fn behaves_like_a_sorted_list(steps in prop::collection::vec(step(), 0..60)) {
        let mut now = at(100);
        let mut holding = holding(10);
        let mut oracle: Vec<Held<u32>> = Vec::new();
        for (sequence, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push { ticket, priority, hold_ms } => {
                    let deadline = now + Duration::from_millis(hold_ms);
                    let ticket = Ticket(ticket);
                    let pushed = holding.push(now, ticket, priority, hold_ms, sequence as u32);
                    if oracle.iter().any(|held| held.ticket == ticket) {
                        prop_assert_eq!(pushed.unwrap_err().why, RefusedWhy::Duplicate);
                    } else if oracle.len() == 10 {
                        prop_assert_eq!(pushed.unwrap_err().why, RefusedWhy::Full(10));
                    } else {
                        prop_assert_eq!(pushed, Ok(deadline));
                        let payload = sequence as u32;
                        let held = Held { ticket, priority, since: now, deadline, payload };
                        let behind = |other: &Held<u32>| other.priority < priority;
                        let place = oracle.iter().position(behind).unwrap_or(oracle.len());
                        oracle.insert(place, held);
                    }
                }
                Step::Pop { modulus, at_most } => {
                    let mut left = at_most;
                    let placed = holding.pop_ready(now, |held| {
                        if left == 0 {
                            Attempt::Stop
                        } else if held.ticket.0.is_multiple_of(modulus) {
                            left -= 1;
                            Attempt::Placed(())
                        } else {
                            Attempt::Keep
                        }
                    });
                    let fits = |held: &&Held<u32>| {
                        held.deadline > now && held.ticket.0.is_multiple_of(modulus)
                    };
                    let expected: Vec<_> =
                        oracle.iter().filter(fits).take(at_most).cloned().collect();
                    oracle.retain(|held| !expected.contains(held));
                    let placed: Vec<_> = placed.into_iter().map(|(held, ())| held).collect();
                    prop_assert_eq!(placed, expected);
                }
                Step::Expire => {
                    let mut expected: Vec<_> =
                        oracle.iter().filter(|held| held.deadline <= now).cloned().collect();
                    expected.sort_by_key(|held| held.deadline);
                    oracle.retain(|held| held.deadline > now);
                    prop_assert_eq!(holding.expire(now), expected);
                }
                Step::Cancel(ticket) => {
                    let place = oracle.iter().position(|held| held.ticket.0 == ticket);
                    let expected = place.map(|place| oracle.remove(place));
                    prop_assert_eq!(holding.cancel(Ticket(ticket)), expected);
                }
                Step::Wait(ms) => now = now + Duration::from_millis(ms),
                Step::Back => now = Time::from_nanos(now.as_nanos() - 1_000_000),
            }
            prop_assert_eq!(holding.len(), oracle.len());
            prop_assert!(holding.iter().eq(oracle.iter()));
            prop_assert_eq!(
                holding.next_deadline(),
                oracle.iter().map(|held| held.deadline).min()
            );
        }
    }
}
