use super::{at, booking, fleet_of};
use crate::EndpointId;
use crate::fleet::EndpointChange::{Cordon, Drain, Reachable, Uncordon, Unreachable};
use crate::fleet::{EndpointChange, Fleet, Health};

fn after(changes: &[EndpointChange]) -> Health {
    let (mut fleet, ids) = fleet_of(1);
    for &change in changes {
        fleet.change(at(0), ids[0], change).unwrap();
    }
    fleet.columns().health[0]
}

#[test]
fn orders_and_findings_are_remembered_apart() {
    let table: &[(&[EndpointChange], Health)] = &[
        (&[], Health::Ready),
        (&[Cordon], Health::Cordoned),
        (&[Cordon, Uncordon], Health::Ready),
        (&[Drain], Health::Draining),
        (&[Drain, Uncordon], Health::Ready),
        (&[Drain, Cordon], Health::Cordoned),
        (&[Unreachable], Health::Unreachable),
        (&[Unreachable, Reachable], Health::Ready),
        (&[Cordon, Unreachable], Health::Unreachable),
        (&[Cordon, Unreachable, Reachable], Health::Cordoned),
        (&[Unreachable, Cordon, Reachable], Health::Cordoned),
        (&[Cordon, Unreachable, Uncordon], Health::Unreachable),
        (&[Cordon, Unreachable, Uncordon, Reachable], Health::Ready),
        (&[Drain, Unreachable, Reachable], Health::Draining),
        (&[Unreachable, Uncordon], Health::Unreachable),
        (&[Reachable], Health::Ready),
    ];
    for (changes, health) in table {
        assert_eq!(after(changes), *health, "after {changes:?}");
    }
}

#[test]
fn a_change_tells_whether_the_endpoint_became_available() {
    let (mut fleet, ids) = fleet_of(1);
    let mut change = |change| fleet.change(at(0), ids[0], change).unwrap();

    assert!(!change(Reachable), "it was");
    assert!(!change(Cordon));
    assert!(!change(Unreachable));
    assert!(!change(Uncordon), "still unreachable");
    assert!(change(Reachable));
    assert!(!change(Uncordon), "twice is once");
}

fn drained(fleet: &Fleet) -> Vec<EndpointId> {
    fleet.drained().collect()
}

#[test]
fn a_draining_endpoint_can_leave_once_it_is_idle() {
    let (mut fleet, ids) = fleet_of(3);
    let request = fleet.book(at(0), ids[1], &booking(1, 10, 10)).unwrap();
    fleet.change(at(1), ids[1], Drain).unwrap();
    fleet.change(at(1), ids[2], Drain).unwrap();

    assert_eq!(drained(&fleet), [ids[2]]);
    fleet.first_token(at(2), request).unwrap();
    assert_eq!(drained(&fleet), [ids[2]]);
    fleet.release(at(3), request);
    assert_eq!(drained(&fleet), [ids[1], ids[2]]);
    fleet.change(at(4), ids[1], Unreachable).unwrap();
    assert_eq!(drained(&fleet), [ids[1], ids[2]], "it may leave unreachable, too");
    fleet.change(at(4), ids[2], Uncordon).unwrap();
    assert_eq!(drained(&fleet), [ids[1]]);
    fleet.leave(at(5), ids[1]).unwrap();
    assert!(drained(&fleet).is_empty());
}

#[test]
fn a_new_tenant_does_not_inherit_orders() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.change(at(0), ids[0], Drain).unwrap();
    fleet.leave(at(0), ids[0]).unwrap();

    fleet.join(at(0), super::spec("next")).unwrap();

    assert_eq!(fleet.columns().health[0], Health::Ready);
    assert!(drained(&fleet).is_empty());
}
