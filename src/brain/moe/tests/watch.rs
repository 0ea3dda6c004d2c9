use crate::moe::*;

#[test]
fn balancing_that_stopped_is_seen() {
    let mut watch = Watch::new(WatchConfig::default()).unwrap();
    assert_eq!(watch.health(0), Health::Unknown);
    watch.planned(0, 1.01);
    (1..100).for_each(|step| watch.read(step, 1.07, 1.065));
    assert_eq!(watch.health(100), Health::Good);
    assert_eq!(watch.health(7_000), Health::Stale { steps: 7_000 });
    watch.planned(7_000, 1.01);
    assert_eq!(watch.health(7_000), Health::Unknown);
}

#[test]
fn gpus_less_even_than_planned_are_seen_and_chance_is_not_taken_for_it() {
    let mut watch = Watch::new(WatchConfig::default()).unwrap();
    watch.planned(0, 1.01);
    (1..2_000).for_each(|step| watch.read(step, 1.25, 1.065));
    let Health::Uneven { planned, achieved } = watch.health(2_000) else { panic!("not seen") };
    assert!((planned - 1.01).abs() < 1e-12 && (achieved - 1.185).abs() < 1e-9);
}

#[test]
fn chance_is_what_sampling_shows() {
    // Perfect placement, 128 tokens of 8 experts, 20,000 draws each.
    for (gpus, drawn) in [(32, 1.065), (144, 1.086), (320, 1.091)] {
        let shape = Shape::new(gpus, gpus, gpus, 1).unwrap();
        assert!((noise_floor(&shape, 128.0, 8) - drawn).abs() < 0.005);
    }
}
