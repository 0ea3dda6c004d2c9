use crate::fleet::prefill_pairs;
use crate::predict::{EngineProfile, PROFILES};

const QWEN: &EngineProfile = &PROFILES[1];

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn every_profile_is_found_by_its_name() {
    let expected = [
        "llama-3.1-8b_h100_tp1",
        "qwen3-32b_h100_tp2",
        "qwen3-32b_h200_tp1",
        "llama-70b_h100_tp4",
        "llama-70b_h200_tp2",
    ];
    assert!(EngineProfile::names().eq(expected));
    for name in expected {
        assert_eq!(EngineProfile::named(name).unwrap().name, name);
    }
    assert_eq!(EngineProfile::named("QWEN3"), None);
}

#[test]
fn prefill_grows_with_what_is_cached() {
    assert!(close(QWEN.prefill_ms(1_000, 0), 3.52 + 50.25 + 1.6e-6 * 1_000.0 * 500.0));
    assert!(close(QWEN.prefill_ms(1_000, 9_000), 3.52 + 50.25 + 1.6e-6 * 1_000.0 * 9_500.0));
}

#[test]
fn a_step_without_prefill_is_a_decode() {
    assert!(close(QWEN.step_ms(0, 0.0, 32, 64_000), QWEN.decode_ms(32, 64_000)));
    assert!(close(QWEN.decode_ms(32, 64_000), 15.28 + 0.0259 * 32.0 + 4.26e-5 * 64_000.0));
}

#[test]
fn a_step_never_beats_the_decode_base() {
    assert!(close(QWEN.step_ms(10, 50.0, 0, 0), 15.28 + 1.6e-6 * 50.0));
    let pairs = prefill_pairs(8_192, 0) as f64;
    assert!(close(QWEN.step_ms(8_192, pairs, 0, 0), QWEN.prefill_ms(8_192, 0)));
    let beside = QWEN.step_ms(8_192, pairs, 10, 5_000);
    let decodes = 0.05025 * 10.0 + 0.0259 * 10.0 + 4.26e-5 * 5_000.0;
    assert!(close(beside - QWEN.prefill_ms(8_192, 0), decodes));
}
