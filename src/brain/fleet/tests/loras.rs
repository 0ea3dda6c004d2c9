use super::{at, spec};
use crate::fleet::{Capacity, EndpointSpec, Fleet, FleetConfig, LoraState, MetricsSample};

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(ToString::to_string).collect())
}

#[test]
fn adapters_come_from_the_owner_and_from_the_page() {
    let mut fleet = Fleet::new(FleetConfig::default());
    let id = fleet.join(at(0), EndpointSpec { loras: vec!["sql".into()], ..spec("e") }).unwrap();
    let page = MetricsSample {
        running_loras: names(&["chat"]),
        waiting_loras: names(&["law"]),
        max_loras: Some(2),
        ..MetricsSample::default()
    };

    assert_eq!(fleet.lora_state(at(0), id.slot, "sql"), LoraState::Unknown);
    fleet.observe(at(100), id, &page).unwrap();

    assert_eq!(fleet.loras(id.slot).collect::<Vec<_>>(), ["sql", "chat", "law"]);
    assert!(fleet.serves_lora(id.slot, "law"));
    assert!(!fleet.serves_lora(id.slot, "art"));
    let state = |fleet: &Fleet, name| fleet.lora_state(at(200), id.slot, name);
    assert_eq!(state(&fleet, "chat"), LoraState::Running);
    assert_eq!(state(&fleet, "law"), LoraState::Waiting);
    assert_eq!(state(&fleet, "sql"), LoraState::Room);

    let full = MetricsSample { running_loras: names(&["chat", "law"]), ..page };
    fleet.observe(at(150), id, &full).unwrap();
    assert_eq!(state(&fleet, "sql"), LoraState::Full);
    assert_eq!(fleet.lora_state(at(2_151), id.slot, "chat"), LoraState::Unknown, "stale");
}

#[test]
fn without_a_bound_room_is_unknown() {
    let mut fleet = Fleet::new(FleetConfig::default());
    let capacity = Capacity { max_loras: 0, ..Capacity::default() };
    let id = fleet.join(at(0), EndpointSpec { capacity, ..spec("e") }).unwrap();
    let page = MetricsSample { running_loras: names(&["chat"]), ..MetricsSample::default() };

    fleet.observe(at(0), id, &page).unwrap();

    assert_eq!(fleet.lora_state(at(0), id.slot, "sql"), LoraState::Unknown);
    assert_eq!(fleet.lora_state(at(0), id.slot, "chat"), LoraState::Running);
}
