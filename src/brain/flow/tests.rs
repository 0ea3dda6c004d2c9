use super::{FlowConfig, Held, HeldBands, Holding, Pushed, RefusedWhy};
use crate::{Ticket, Time};
use proptest::prelude::*;
use std::time::Duration;

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn holding(limit: usize) -> Holding<u32> {
    Holding::new(&FlowConfig { max_held_requests: limit, ..FlowConfig::default() })
}

fn tickets(holding: &Holding<u32>) -> Vec<u64> {
    holding.iter().map(|held| held.ticket.0).collect()
}

#[test]
fn higher_priority_stands_first_and_equals_in_order_of_arrival() {
    let mut holding = holding(8);
    for (ticket, priority) in [(1, 0), (2, -1), (3, 7), (4, 0), (5, 7)] {
        holding.push(at(0), Ticket(ticket), priority, 100, 0).unwrap();
    }
    assert_eq!(tickets(&holding), [3, 5, 1, 4, 2]);
    assert_eq!(holding.get(Ticket(5)).unwrap().priority, 7);
    assert_eq!(holding.take(Ticket(5)).unwrap().ticket, Ticket(5));
    assert_eq!(tickets(&holding), [3, 1, 4, 2]);
}

#[test]
fn the_least_important_that_may_be_shed_makes_room_and_of_equals_the_last() {
    let mut holding = holding(4);
    for (ticket, priority) in [(1, -5), (2, -5), (3, -1), (4, 0)] {
        holding.push(at(0), Ticket(ticket), priority, 100, 0).unwrap();
    }
    let shed = |holding: &mut Holding<u32>, ticket, priority| {
        let pushed = holding.push(at(1), Ticket(ticket), priority, 100, 0);
        pushed.map(|pushed| pushed.shed.unwrap().ticket.0).ok()
    };
    assert_eq!(shed(&mut holding, 5, -5), None, "not for an equal");
    assert_eq!(shed(&mut holding, 5, -4), Some(2));
    assert_eq!(shed(&mut holding, 6, 0), Some(1));
    assert_eq!(shed(&mut holding, 7, 9), Some(5));
    assert_eq!(shed(&mut holding, 8, 9), Some(3));
    assert_eq!(shed(&mut holding, 9, 99), None, "of what is left nobody may be shed");
    assert_eq!(tickets(&holding), [7, 8, 4, 6]);
}

#[test]
fn a_deadline_is_kept_to_the_nanosecond() {
    let mut holding = holding(8);
    let deadline = holding.push(at(5), Ticket(1), 0, 20, 7).unwrap().deadline;

    assert_eq!(deadline, at(25));
    assert_eq!(holding.next_deadline(), Some(at(25)));
    assert!(holding.expire(Time::from_nanos(24_999_999)).is_empty());
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
    assert_eq!(holding.take(Ticket(1)).unwrap().payload, 1);
    assert_eq!(holding.take(Ticket(1)), None);
    assert!(holding.push(at(0), Ticket(1), 0, 10, 3).is_ok());
}

#[test]
fn an_endless_hold_does_not_overflow() {
    let mut holding = holding(8);
    assert_eq!(holding.push(at(1), Ticket(1), 0, u64::MAX, 0).unwrap().deadline, Time::MAX);
    assert!(holding.expire(at(1 << 40)).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Push { ticket: u64, priority: i32, hold_ms: u64 },
    Expire,
    Cancel(u64),
    Wait(u64),
    Back,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..24u64, -3..3i32, 0..40u64)
            .prop_map(|(ticket, priority, hold_ms)| Step::Push { ticket, priority, hold_ms }),
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
                    } else if oracle.len() == 10
                        && oracle.last().is_none_or(|it| it.priority >= priority.min(0))
                    {
                        prop_assert_eq!(pushed.unwrap_err().why, RefusedWhy::Full(10));
                    } else {
                        let shed = if oracle.len() == 10 { oracle.pop() } else { None };
                        prop_assert_eq!(pushed, Ok(Pushed { deadline, shed }));
                        let payload = sequence as u32;
                        let held = Held { ticket, priority, since: now, deadline, payload };
                        let behind = |other: &Held<u32>| other.priority < priority;
                        let place = oracle.iter().position(behind).unwrap_or(oracle.len());
                        oracle.insert(place, held);
                    }
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
                    prop_assert_eq!(holding.take(Ticket(ticket)), expected);
                }
                Step::Wait(ms) => now = now + Duration::from_millis(ms),
                Step::Back => now = Time::from_nanos(now.as_nanos() - 1_000_000),
            }
            prop_assert_eq!(holding.len(), oracle.len());
            prop_assert!(holding.iter().eq(oracle.iter()));
            let of = |is: fn(i32) -> bool| oracle.iter().filter(|it| is(it.priority)).count() as u64;
            let bands = HeldBands {
                above_normal: of(|it| it > 0),
                normal: of(|it| it == 0),
                below_normal: of(|it| it < 0),
            };
            prop_assert_eq!(holding.bands(), bands);
            prop_assert_eq!(
                holding.next_deadline(),
                oracle.iter().map(|held| held.deadline).min()
            );
        }
    }
}
