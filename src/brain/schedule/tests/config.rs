//! What can be written in a configuration, and what is said of what cannot.

use crate::schedule::{
    Param, PluginConfig, ProfileChoice, ProfileConfig, ScheduleConfig, ScheduleError, Scheduler,
    ScorerConfig, builtin_profile, builtin_profiles,
};
use serde::Deserialize;
use serde_json::json;

fn parse(config: &serde_json::Value) -> Result<ScheduleConfig, String> {
    ScheduleConfig::deserialize(config).map_err(|error| error.to_string())
}

/// The message of a configuration that is refused, when it is read or when it is built.
fn refusal(config: &serde_json::Value) -> String {
    match parse(config) {
        Err(message) => message,
        Ok(config) => match Scheduler::new(&config, 0) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the configuration was accepted"),
        },
    }
}

fn scorers(entries: &serde_json::Value) -> serde_json::Value {
    json!({"profile": {"scorers": entries}})
}

#[test]
fn nothing_written_is_the_default_profile() {
    let config = parse(&json!({})).unwrap();

    assert_eq!(config, ScheduleConfig::default());
    assert_eq!(Scheduler::new(&config, 0).unwrap().profile(), "default");
}

#[test]
fn a_plugin_is_a_name_or_a_table() {
    let config = parse(&json!({
        "profile": "mine",
        "profiles": {"mine": {
            "filters": ["decode-filter", {"name": "prefix-cache-affinity-filter", "threshold": 0.5}],
            "scorers": ["queue-scorer", {"name": "token-load-scorer", "weight": 2, "threshold_tokens": 1000}],
            "picker": {"name": "power-of-two-picker"},
        }},
    }))
    .unwrap();

    let mine = ProfileConfig {
        filters: vec![
            PluginConfig::new("decode-filter"),
            PluginConfig::new("prefix-cache-affinity-filter").with("threshold", 0.5),
        ],
        scorers: vec![
            ScorerConfig::new("queue-scorer", 1.0),
            ScorerConfig::new("token-load-scorer", 2.0).with("threshold_tokens", 1000),
        ],
        picker: PluginConfig::new("power-of-two-picker"),
    };
    assert_eq!(config.profiles["mine"], mine);
    assert_eq!(Scheduler::new(&config, 0).unwrap().profile(), "mine");
}

#[test]
fn a_profile_can_be_written_in_place() {
    let config = parse(&scorers(&json!(["queue-scorer"]))).unwrap();

    assert_eq!(Scheduler::new(&config, 0).unwrap().profile(), "inline");
    assert_eq!(
        config.profile,
        ProfileChoice::Inline(ProfileConfig {
            scorers: vec![ScorerConfig::new("queue-scorer", 1.0)],
            ..ProfileConfig::default()
        })
    );
}

#[test]
fn a_written_configuration_reads_back_the_same() {
    let table: Param = serde_json::from_value(json!({
        "hot": true, "few": [1, 2.5, "x"], "deep": {"er": -3},
    }))
    .unwrap();
    let config = ScheduleConfig {
        profile: ProfileChoice::Inline(ProfileConfig {
            filters: vec![PluginConfig::new("f").with("table", table)],
            scorers: vec![ScorerConfig::new("s", 0.25).with("flag", false).with("text", "t")],
            ..ProfileConfig::default()
        }),
        ..ScheduleConfig::default()
    };

    let text = serde_json::to_string(&config).unwrap();

    assert_eq!(serde_json::from_str::<ScheduleConfig>(&text).unwrap(), config);
}

#[test]
fn every_builtin_profile_compiles_and_a_written_one_replaces_it() {
    for name in builtin_profiles() {
        let config = ScheduleConfig {
            profile: ProfileChoice::Named(name.into()),
            ..ScheduleConfig::default()
        };
        assert_eq!(Scheduler::new(&config, 0).unwrap().profile(), name);
        assert!(builtin_profile(name).is_some());
    }
    let mut shadowed = parse(&json!({"profiles": {"default": {"scorers": ["foreign"]}}})).unwrap();
    assert!(Scheduler::new(&shadowed, 0).is_err(), "foreign without a name");
    shadowed.profiles.clear();
    assert!(Scheduler::new(&shadowed, 0).is_ok());
}

#[test]
fn unknown_names_are_refused_with_those_that_are_known() {
    let message = refusal(&json!({"profile": "fastest", "profiles": {"mine": {}}}));
    assert!(message.contains("profile \"fastest\" is unknown"), "{message}");
    assert!(message.contains("mine, aibrix, default, dualmap"), "{message}");

    let message = refusal(&scorers(&json!(["qeue-scorer"])));
    assert!(message.contains("scorer \"qeue-scorer\" is unknown"), "{message}");
    assert!(message.contains("prefix-cache-scorer, queue-scorer, ray-prefix-scorer"), "{message}");

    let message = refusal(&json!({"profile": {"filters": ["queue-scorer"]}}));
    assert!(message.contains("filter \"queue-scorer\" is unknown"), "{message}");

    let message = refusal(&json!({"profile": {"picker": "best"}}));
    assert!(message.contains("max-score-picker, power-of-two-picker"), "{message}");
}

#[test]
fn unknown_keys_are_refused_with_those_that_are_known() {
    let message = refusal(&json!({"profle": "default"}));
    assert!(message.contains("unknown field `profle`, expected `profile`"), "{message}");

    let message = refusal(&json!({"profile": {"scorer": []}}));
    assert!(message.contains("unknown field `scorer`, expected one of `filters`"), "{message}");

    let message = refusal(&scorers(&json!([{"name": "token-load-scorer", "threshold": 1}])));
    assert_eq!(
        message,
        "profile \"inline\": scorer token-load-scorer: unknown field `threshold`, expected `threshold_tokens`"
    );

    let message = refusal(&scorers(&json!([{"name": "queue-scorer", "max": 1}])));
    assert!(message.contains("unknown field `max`, there are no fields"), "{message}");

    let message =
        refusal(&json!({"profile": {"filters": [{"name": "decode-filter", "weight": 1}]}}));
    assert!(message.contains("only a scorer has a `weight`"), "{message}");
}

#[test]
fn a_profile_that_is_not_in_use_is_checked_too() {
    let message = refusal(&json!({"profiles": {"spare": {"scorers": ["no-such-scorer"]}}}));

    assert!(message.starts_with("profile \"spare\": scorer \"no-such-scorer\""), "{message}");
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    for (entry, expected) in [
        (
            json!({"name": "load-aware-scorer", "threshold": 0}),
            "`threshold` is 0: use a finite number, 1 or more",
        ),
        (
            json!({"name": "active-request-scorer", "max_busy_score": 1.5}),
            "`max_busy_score` is 1.5: use 0 to 1",
        ),
        (
            json!({"name": "prefix-cache-scorer", "tier_weights": {"cpu": -1}}),
            "`tier_weights.cpu` is -1: use 0 to 1",
        ),
        (
            json!({"name": "session-affinity-scorer", "max_sessions": 0}),
            "`max_sessions` is 0: use 1 to 16777216",
        ),
        (
            json!({"name": "latency-scorer", "headroom_selection": "best"}),
            "unknown variant `best`, expected `least` or `most`",
        ),
        (json!({"name": "foreign", "as": ""}), "`as` is empty: give the scorer a name"),
        (json!({"name": "foreign"}), "missing field `as`"),
        (
            json!({"name": "token-load-scorer", "threshold_tokens": "many"}),
            "invalid type: string \"many\", expected f64",
        ),
    ] {
        let message = refusal(&scorers(&json!([entry])));
        assert!(message.ends_with(expected), "{message}");
    }
    let filter = json!({"name": "label-selector-filter", "match_expressions": [{"key": "gpu", "operator": "in"}]});
    let message = refusal(&json!({"profile": {"filters": [filter]}}));
    assert!(message.contains("label \"gpu\": the operator takes at least one value"), "{message}");
}

#[test]
fn weights_are_finite_and_not_negative() {
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        let profile = ProfileConfig {
            scorers: vec![ScorerConfig::new("queue-scorer", weight)],
            ..ProfileConfig::default()
        };
        let config = super::fixture::inline(profile);
        let error = Scheduler::new(&config, 0).err();
        assert!(matches!(error, Some(ScheduleError::Weight { .. })), "{weight}");
    }
}

#[test]
fn two_foreign_scorers_need_two_names() {
    let twice = json!([{"name": "foreign", "as": "mine"}, {"name": "foreign", "as": "mine"}]);
    let message = refusal(&scorers(&twice));

    assert!(message.contains("two foreign scorers are called \"mine\""), "{message}");
}

#[test]
fn a_profile_has_a_limited_number_of_plugins() {
    let message = refusal(&scorers(&json!(vec!["queue-scorer"; 100])));

    assert!(message.contains("has 101 plugins, more than the limit of 64"), "{message}");
}
