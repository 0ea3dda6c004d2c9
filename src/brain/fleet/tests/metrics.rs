use super::{at, fleet_of, spec};
use crate::Slot;
use crate::fleet::{
    Capacity, CapacityConflict, EndpointSpec, Fleet, FleetConfig, MetricsSample, Observed,
};
use proptest::prelude::*;
use std::time::Duration;

const SLOT: Slot = Slot(0);

fn page() -> MetricsSample {
    MetricsSample {
        waiting_requests: Some(3.0),
        running_requests: Some(8.0),
        kv_usage: Some(0.25),
        process_start_time_s: Some(1_700_000_000.5),
        ..MetricsSample::default()
    }
}

#[test]
fn each_signal_has_its_own_age() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.observe(at(1_000), ids[0], &page()).unwrap();
    let only_waiting = MetricsSample { waiting_requests: Some(5.0), ..MetricsSample::default() };
    fleet.observe(at(2_500), ids[0], &only_waiting).unwrap();
    let max_age = fleet.metrics_max_age();
    let columns = fleet.columns();

    assert_eq!(max_age, Duration::from_secs(2));
    assert_eq!(columns.waiting_requests.get(SLOT).fresh(at(3_001), max_age), Some(5.0));
    assert_eq!(columns.running_requests.get(SLOT).fresh(at(3_000), max_age), Some(8.0));
    assert_eq!(columns.running_requests.get(SLOT).fresh(at(3_001), max_age), None, "stale");
    assert_eq!(columns.running_requests.get(SLOT).last(), Some(8.0));
    assert_eq!(columns.gpu_utilization.get(SLOT).last(), None, "never reported");
}

#[test]
fn values_that_cannot_be_are_ignored_and_counted() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.observe(at(0), ids[0], &page()).unwrap();
    let bad = MetricsSample {
        waiting_requests: Some(f64::NAN),
        running_requests: Some(-1.0),
        kv_usage: Some(87.0),
        gpu_utilization: Some(f64::INFINITY),
        block_size: Some(0),
        kv_blocks: Some(u64::MAX),
        running_loras: Some(vec![String::new(), "x".repeat(4_096), "fine".into()]),
        other: [("a".to_owned(), f64::NAN), ("b".to_owned(), 1.0)].into(),
        ..MetricsSample::default()
    };

    let observed = fleet.observe(at(1), ids[0], &bad).unwrap();

    assert_eq!(observed, Observed { ignored_values: 9, ..Observed::default() });
    assert_eq!(fleet.ignored_values(ids[0]), Some(9));
    assert_eq!(
        fleet.columns().waiting_requests.get(SLOT).last(),
        Some(3.0),
        "as if the page were silent"
    );
    assert_eq!(fleet.columns().kv_usage.get(SLOT).last(), Some(0.25));
    let (read_at, kept) = fleet.last_sample(ids[0]).unwrap();
    assert_eq!(read_at, at(1));
    assert_eq!(kept.running_loras.as_deref(), Some(&["fine".to_owned()][..]));
    assert_eq!(kept.other.len(), 1);
}

#[test]
fn a_share_just_above_one_is_one() {
    let (mut fleet, ids) = fleet_of(1);
    let full = MetricsSample { kv_usage: Some(1.0 + 1e-9), ..MetricsSample::default() };

    assert_eq!(fleet.observe(at(0), ids[0], &full).unwrap().ignored_values, 0);
    assert_eq!(fleet.columns().kv_usage.get(SLOT).last(), Some(1.0));
}

#[test]
fn capacity_is_learned_where_the_owner_left_it_open() {
    let (mut fleet, ids) = fleet_of(1);
    let page = MetricsSample {
        kv_blocks: Some(1_000),
        block_size: Some(16),
        max_loras: Some(4),
        ..page()
    };

    let observed = fleet.observe(at(0), ids[0], &page).unwrap();

    let learned =
        Capacity { kv_blocks: 1_000, block_size: 16, max_loras: 4, ..Capacity::default() };
    assert_eq!(observed.capacity_learned, Some(learned.clone()));
    assert_eq!(fleet.capacity(ids[0]), Some(&learned));
    assert_eq!(fleet.columns().kv_capacity_tokens, [16_000.0]);
    assert_eq!(fleet.columns().max_loras[0], 4);
    assert_eq!(fleet.observe(at(1), ids[0], &page).unwrap(), Observed::default(), "nothing new");
    assert_eq!(fleet.spec(ids[0]).unwrap().capacity, Capacity::default(), "the owner said nothing");
}

#[test]
fn the_owners_figure_stands_and_the_conflict_is_told() {
    let mut fleet = Fleet::new(FleetConfig::default());
    let capacity = Capacity { block_size: 32, ..Capacity::default() };
    let id = fleet.join(at(0), EndpointSpec { capacity, ..spec("e") }).unwrap();
    let page = MetricsSample { kv_blocks: Some(10), block_size: Some(16), ..page() };

    let observed = fleet.observe(at(0), id, &page).unwrap();

    let conflict = CapacityConflict { field: "block_size", declared: 32, reported: 16 };
    assert_eq!(observed.capacity_conflict, Some(conflict));
    assert_eq!(fleet.capacity(id).unwrap().block_size, 32);
    assert_eq!(fleet.columns().kv_capacity_tokens, [320.0]);
}

#[test]
fn another_process_start_time_is_a_restart() {
    let (mut fleet, ids) = fleet_of(1);
    let with = |start, kv_blocks| MetricsSample {
        process_start_time_s: start,
        kv_blocks,
        ..MetricsSample::default()
    };
    let mut observe = |start, blocks| fleet.observe(at(0), ids[0], &with(start, blocks)).unwrap();

    assert!(!observe(Some(100.0), Some(7)).restarted, "the first page has nothing to differ from");
    assert!(!observe(Some(100.4), Some(7)).restarted, "exporters round");
    assert!(!observe(None, None).restarted, "silence is no restart");
    let again = observe(Some(250.0), None);
    assert!(again.restarted);
    assert_eq!(again.capacity_learned, Some(Capacity::default()), "what was learned is void");
    assert!(!observe(Some(250.0), Some(9)).restarted);
    assert!(observe(Some(90.0), Some(9)).restarted, "a machine whose clock was set back");
}

#[test]
fn a_restart_voids_old_signals() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.observe(at(0), ids[0], &page()).unwrap();
    let next = MetricsSample {
        process_start_time_s: Some(1_800_000_000.0),
        running_requests: Some(0.0),
        ..MetricsSample::default()
    };

    assert!(fleet.observe(at(1), ids[0], &next).unwrap().restarted);

    assert_eq!(fleet.columns().running_requests.get(SLOT).last(), Some(0.0));
    assert_eq!(fleet.columns().kv_usage.get(SLOT).last(), None);
}

#[test]
fn a_new_tenant_starts_without_signals() {
    let (mut fleet, ids) = fleet_of(1);
    fleet.observe(at(0), ids[0], &page()).unwrap();
    fleet.leave(at(1), ids[0]).unwrap();

    let next = fleet.join(at(1), spec("next")).unwrap();

    assert_eq!(fleet.columns().kv_usage.get(SLOT).last(), None);
    assert_eq!(fleet.last_sample(next), None);
    let page = MetricsSample { process_start_time_s: Some(1.0), ..MetricsSample::default() };
    assert!(!fleet.observe(at(1), next, &page).unwrap().restarted);
}

proptest! {
    /// Whatever a page says, every column holds a number in its range or nothing.
    #[test]
    fn no_page_breaks_a_column(
        numbers in prop::collection::vec(prop::option::of(any::<f64>()), 6),
        blocks in any::<Option<u64>>(),
        size in any::<Option<u32>>(),
    ) {
        let (mut fleet, ids) = fleet_of(1);
        let page = MetricsSample {
            waiting_requests: numbers[0],
            running_requests: numbers[1],
            kv_usage: numbers[2],
            gpu_utilization: numbers[3],
            gpu_memory_used_bytes: numbers[4],
            process_start_time_s: numbers[5],
            kv_blocks: blocks,
            block_size: size,
            ..MetricsSample::default()
        };

        fleet.observe(at(0), ids[0], &page).unwrap();

        let columns = fleet.columns();
        let good = |signal: crate::fleet::Signal, most: f64| {
            signal.last().is_none_or(|value| (0.0..=most).contains(&value))
        };
        prop_assert!(good(columns.waiting_requests.get(SLOT), 1e18));
        prop_assert!(good(columns.running_requests.get(SLOT), 1e18));
        prop_assert!(good(columns.kv_usage.get(SLOT), 1.0));
        prop_assert!(good(columns.gpu_utilization.get(SLOT), 1.0));
        prop_assert!(good(columns.gpu_memory_used_bytes.get(SLOT), 1e18));
        let capacity = columns.kv_capacity_tokens[0];
        prop_assert!(capacity.is_nan() || capacity <= (1_u64 << 60) as f64);
    }
}
