use super::{at, booking, fleet_of, spec};
use crate::fleet::{EndpointSpec, Fleet, FleetConfig, FleetError, Role};
use crate::{EndpointId, Slot};
use proptest::prelude::*;

fn id(slot: u32, generation: u32) -> EndpointId {
    EndpointId { slot: Slot(slot), generation }
}

#[test]
fn slots_are_dense_and_the_lowest_vacant_one_is_reused_with_the_next_generation() {
    let (mut fleet, ids) = fleet_of(3);
    assert_eq!(ids, [id(0, 1), id(1, 1), id(2, 1)]);
    fleet.leave(at(1), ids[2]).unwrap();
    fleet.leave(at(1), ids[0]).unwrap();

    let next = fleet.join(at(2), spec("x")).unwrap();
    let after = fleet.join(at(2), spec("y")).unwrap();

    assert_eq!((next, after), (id(0, 2), id(2, 2)));
    assert_eq!(fleet.ids().collect::<Vec<_>>(), [next, ids[1], after]);
    assert_eq!(fleet.columns().slots(), 3);
}

#[test]
fn a_removed_id_is_refused_everywhere() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.leave(at(1), ids[0]).unwrap();
    fleet.join(at(2), spec("successor")).unwrap();
    let gone = FleetError::Unknown(ids[0]);

    assert!(!fleet.contains(ids[0]));
    assert_eq!(fleet.spec(ids[0]), None);
    assert_eq!(fleet.capacity(ids[0]), None);
    assert_eq!(fleet.last_sample(ids[0]), None);
    assert_eq!(fleet.leave(at(3), ids[0]), Err(gone.clone()));
    assert_eq!(fleet.book(at(3), ids[0], &booking(1, 10, 10)), Err(gone.clone()));
    assert_eq!(fleet.observe(at(3), ids[0], &Default::default()), Err(gone.clone()));
    let cordon = crate::fleet::EndpointChange::Cordon;
    assert_eq!(fleet.change(at(3), ids[0], cordon), Err(gone));
    let message = fleet.leave(at(3), ids[0]).unwrap_err().to_string();
    assert!(message.contains("endpoint 0.1 is not (or no longer) in the fleet"), "{message}");
}

#[test]
fn two_endpoints_may_share_an_address_but_not_a_rank() {
    let (mut fleet, ids) = fleet_of(1);
    let rank = |dp_rank| EndpointSpec { dp_rank, ..spec("e0") };

    let second = fleet.join(at(0), rank(1)).unwrap();
    let refused = fleet.join(at(0), rank(0)).unwrap_err();

    assert_eq!(fleet.find("e0", 1), Some(second));
    assert_eq!(
        refused,
        FleetError::Duplicate { address: "e0".into(), dp_rank: 0, existing: ids[0] }
    );
    assert_eq!(fleet.len(), 2);
    fleet.leave(at(1), ids[0]).unwrap();
    assert_eq!(fleet.find("e0", 0), None);
    assert!(fleet.join(at(1), rank(0)).is_ok());
}

#[test]
fn a_full_fleet_says_so_and_changes_nothing() {
    let config = FleetConfig { max_endpoints: 1, ..FleetConfig::default() };
    let mut fleet = Fleet::new(config);
    let first = fleet.join(at(0), spec("a")).unwrap();

    assert_eq!(fleet.join(at(0), spec("b")), Err(FleetError::Full(1)));
    assert_eq!(fleet.find("b", 0), None);
    fleet.leave(at(0), first).unwrap();
    assert!(fleet.join(at(0), spec("b")).is_ok());
}

#[test]
fn columns_hold_the_spec_of_the_present_tenant() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.leave(at(0), ids[0]).unwrap();
    let mut other = EndpointSpec::new("b", "llama");
    other.role = Role::Decode;
    other.capacity.kv_blocks = 100;
    other.capacity.block_size = 16;
    other.capacity.max_running_requests = 256;

    fleet.join(at(0), other).unwrap();

    let columns = fleet.columns();
    assert_eq!(columns.role[0], Role::Decode);
    assert_eq!(columns.kv_capacity_tokens, [1_600.0]);
    assert_eq!(columns.max_running_requests[0], 256);
    assert_eq!(fleet.model_index("llama"), Some(columns.model[0]));
    assert_eq!(fleet.model_index("qwen"), None);
    assert_eq!(fleet.models().collect::<Vec<_>>(), [(0, "llama")]);
}

#[test]
fn models_are_numbered_once_while_somebody_serves_them() {
    let mut fleet = Fleet::new(FleetConfig::default());
    let a = fleet.join(at(0), EndpointSpec::new("1", "a")).unwrap();
    let b = fleet.join(at(0), EndpointSpec::new("2", "b")).unwrap();
    fleet.join(at(0), EndpointSpec::new("3", "b")).unwrap();

    fleet.leave(at(0), b).unwrap();
    assert_eq!(fleet.model_index("b"), Some(1));
    fleet.leave(at(0), a).unwrap();
    assert_eq!(fleet.model_index("a"), None);
    fleet.join(at(0), EndpointSpec::new("4", "c")).unwrap();

    assert_eq!(fleet.models().collect::<Vec<_>>(), [(0, "c"), (1, "b")]);
}

#[test]
fn an_error_names_the_field_the_value_and_the_remedy() {
    let mut fleet = Fleet::new(FleetConfig::default());
    let refused = |fleet: &mut Fleet, change: &dyn Fn(&mut EndpointSpec)| {
        let mut bad = spec("http://a:8000");
        change(&mut bad);
        fleet.join(at(0), bad).unwrap_err().to_string()
    };

    let message = refused(&mut fleet, &|spec| spec.address = " ".into());
    assert_eq!(
        message,
        "endpoint \" \": address is  : give a base URL or another name, at most 2048 bytes, no \
         control characters"
    );
    let message = refused(&mut fleet, &|spec| spec.capacity.block_size = 2 << 20);
    assert_eq!(
        message,
        "endpoint \"http://a:8000\": capacity.block_size is 2097152: give the engine's tokens a \
         block, at most 1048576, or 0 to learn it"
    );
    let message = refused(&mut fleet, &|spec| spec.model = "m".repeat(600));
    assert!(message.len() < 250 && message.contains("model is mmm"), "{message}");
    let changes: [&dyn Fn(&mut EndpointSpec); 5] = [
        &|spec| spec.capacity.kv_blocks = 1 << 50,
        &|spec| spec.loras = vec![String::new()],
        &|spec| spec.loras = vec!["l".into(); 5_000],
        &|spec| spec.topology.zone = "a\nb".into(),
        &|spec| spec.labels.extend([("k".to_owned(), "v".repeat(1_000))]),
    ];
    for change in changes {
        refused(&mut fleet, change);
    }
    assert!(fleet.is_empty());
}

#[test]
fn a_configuration_that_cannot_work_is_named() {
    assert_eq!(FleetConfig::default().validate(), Ok(()));
    let config = FleetConfig { lease_ms: 0, ..FleetConfig::default() };

    let message = config.validate().unwrap_err().to_string();

    assert_eq!(message, "fleet: lease_ms is 0: give it 1 to 86400000");
}

#[test]
fn leaving_hands_back_what_was_in_flight() {
    let (mut fleet, ids) = fleet_of(2);
    let first = fleet.book(at(1), ids[0], &booking(1, 100, 100)).unwrap();
    fleet.book(at(2), ids[0], &booking(2, 100, 100)).unwrap();
    let elsewhere = fleet.book(at(2), ids[1], &booking(3, 100, 100)).unwrap();
    fleet.first_token(at(3), first).unwrap();

    let ended = fleet.leave(at(4), ids[0]).unwrap();

    assert_eq!(ended.iter().map(|r| r.ticket.0).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(fleet.reserved(), 1);
    assert!(!fleet.release(at(5), first), "released once already");
    assert!(fleet.release(at(5), elsewhere));
    let successor = fleet.join(at(6), spec("x")).unwrap();
    assert!(fleet.columns().load(successor.slot).is_idle());
}

proptest! {
    /// Random joins and leaves against a plain list.
    #[test]
    fn membership_agrees_with_a_list(steps in prop::collection::vec((0..8usize, any::<bool>()), 0..80)) {
        let mut fleet = Fleet::new(FleetConfig { max_endpoints: 5, ..FleetConfig::default() });
        let mut oracle: Vec<(usize, EndpointId)> = Vec::new();
        let mut past: Vec<EndpointId> = Vec::new();
        for (name, joins) in steps {
            let present = oracle.iter().position(|&(other, _)| other == name);
            if joins {
                let joined = fleet.join(at(0), spec(&name.to_string()));
                if let Some(place) = present {
                    let duplicate = FleetError::Duplicate {
                        address: name.to_string(), dp_rank: 0, existing: oracle[place].1,
                    };
                    prop_assert_eq!(joined, Err(duplicate));
                } else if oracle.len() == 5 {
                    prop_assert_eq!(joined, Err(FleetError::Full(5)));
                } else {
                    let id = joined.unwrap();
                    let taken = |slot| oracle.iter().any(|&(_, id)| id.slot == Slot(slot));
                    let lowest = (0..).find(|&slot| !taken(slot)).unwrap();
                    prop_assert_eq!(id.slot, Slot(lowest));
                    prop_assert!(!past.contains(&id), "an id is never given twice");
                    past.push(id);
                    oracle.push((name, id));
                }
            } else if let Some(place) = present {
                let (_, id) = oracle.remove(place);
                prop_assert_eq!(fleet.leave(at(0), id), Ok(vec![]));
            }
            let mut expected: Vec<_> = oracle.iter().map(|&(_, id)| id).collect();
            expected.sort();
            prop_assert_eq!(fleet.ids().collect::<Vec<_>>(), expected);
            prop_assert_eq!(fleet.len(), oracle.len());
            for name in 0..8 {
                let known = oracle.iter().find(|&&(other, _)| other == name).map(|&(_, id)| id);
                prop_assert_eq!(fleet.find(&name.to_string(), 0), known);
            }
        }
    }
}
