//! The default profile against the policies that one would use without it, on simulated chats:
//! most prefix hits and the lowest time to first token at once.

use super::fixture::named;
use super::sim::chat::{CHAT, Chat};
use super::sim::{Noise, Outcome, Scenario, run};
use crate::predict::{EngineProfile, PROFILES};

const RIVALS: [&str; 3] = ["round-robin", "least-request", "session-hash"];

const TIGHT: Scenario = Scenario {
    chat: CHAT,
    endpoints: 4,
    kv_share: 0.7,
    engine: &PROFILES[1],
    noise: Noise::NONE,
    predicts: true,
    samples: true,
};

/// A small model on a CPU core that others use too.
static SMALL_ON_CPU: EngineProfile = EngineProfile {
    name: "small_cpu",
    prefill_base_ms: 60.0,
    prefill_ms_per_token: 7.0,
    prefill_ms_per_pair: 3e-4,
    decode_base_ms: 120.0,
    decode_ms_per_request: 20.0,
    decode_ms_per_context_token: 1e-2,
    kv_tokens: 5_344,
    kv_bytes_per_token: 8_192,
};

/// Two engines whose caches hold five sessions each, slower than the users, and by changing factors.
const SHARED_CORES: Scenario = Scenario {
    chat: Chat {
        sessions: 24,
        turns: 4,
        system_prompts: 4,
        system_tokens: 512,
        user_tokens: 120,
        output_tokens: 16,
        think_ms: 500.0,
        start_ms: 1_000.0,
    },
    endpoints: 2,
    kv_share: 0.71,
    engine: &SMALL_ON_CPU,
    noise: Noise { sigma: 0.4, persistence: 0.9 },
    ..TIGHT
};

fn outcomes(scenario: &Scenario, profile: &str) -> Vec<Outcome> {
    (1..=2).map(|seed| run(scenario, &named(profile), seed)).collect()
}

fn hit_tokens(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(|outcome| outcome.hit_tokens).sum()
}

fn ttft_p50_ms(outcomes: &[Outcome]) -> f64 {
    outcomes.iter().map(|outcome| outcome.ttft_percentile_ms(50)).sum::<f64>()
        / outcomes.len() as f64
}

fn assert_default_is_best(scenario: &Scenario) {
    let ours = outcomes(scenario, "default");
    for rival in RIVALS {
        let theirs = outcomes(scenario, rival);
        let (hits, others) = (hit_tokens(&ours), hit_tokens(&theirs));
        assert!(hits as f64 >= 0.98 * others as f64, "{rival}: {hits} against {others} hit tokens");
        let (p50, other) = (ttft_p50_ms(&ours), ttft_p50_ms(&theirs));
        assert!(p50 < other, "{rival}: TTFT p50 {p50} against {other} ms");
    }
}

#[test]
fn tight_kv() {
    assert_default_is_best(&TIGHT);
}

#[test]
fn tight_kv_without_latency_models() {
    assert_default_is_best(&Scenario { predicts: false, ..TIGHT });
}

#[test]
fn tight_kv_without_metrics() {
    assert_default_is_best(&Scenario { samples: false, predicts: false, ..TIGHT });
}

#[test]
fn no_pause_between_turns() {
    assert_default_is_best(&Scenario { chat: Chat { think_ms: 0.0, ..CHAT }, ..TIGHT });
}

#[test]
fn long_answers() {
    let chat = Chat { user_tokens: 256, output_tokens: 256, ..CHAT };
    assert_default_is_best(&Scenario { chat, ..TIGHT });
}

#[test]
fn short_system_prompts() {
    let chat = Chat { system_tokens: 512, ..CHAT };
    assert_default_is_best(&Scenario { chat, ..TIGHT });
}

#[test]
fn ample_kv() {
    assert_default_is_best(&Scenario { kv_share: 2.0, ..TIGHT });
}

#[test]
fn few_slow_engines_of_noisy_latency() {
    assert_default_is_best(&SHARED_CORES);
}

#[test]
fn few_slow_engines_of_noisy_latency_and_longer_sessions() {
    let chat = Chat { sessions: 16, turns: 6, system_tokens: 256, ..SHARED_CORES.chat };
    assert_default_is_best(&Scenario { chat, kv_share: 0.76, ..SHARED_CORES });
}

#[test]
fn one_prompt_that_everybody_shares_does_not_herd() {
    let chat = Chat { sessions: 200, turns: 1, system_prompts: 1, start_ms: 4_000.0, ..CHAT };
    let outcome = run(&Scenario { chat, kv_share: 4.0, ..TIGHT }, &named("default"), 1);

    assert!(outcome.requests.iter().all(|&requests| requests >= 35), "{:?}", outcome.requests);
}

#[test]
fn prompts_that_nobody_shares_are_spread_evenly() {
    let chat = Chat { sessions: 200, turns: 1, system_prompts: 1_000, ..CHAT };
    let outcome = run(&Scenario { chat, kv_share: 0.2, ..TIGHT }, &named("default"), 1);

    assert!(outcome.requests.iter().all(|&requests| requests >= 45), "{:?}", outcome.requests);
}

#[test]
fn a_run_repeats_bit_for_bit() {
    let run = || run(&TIGHT, &named("default"), 7);

    assert_eq!(run(), run());
}
