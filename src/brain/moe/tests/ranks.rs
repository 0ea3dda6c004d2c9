use crate::moe::sim::*;
use crate::moe::*;

fn chat(prompt_tokens: f64) -> RankRequest {
    RankRequest { prompt_tokens, is_prefilled: false }
}

#[test]
fn steps_are_shorter_than_under_any_rule_of_one_term() {
    let world = RankWorld { ranks: 64, steps: 300, warmup_steps: 1_000, ..RankWorld::default() };
    let us = |rule| play_ranks(&world, rule).unwrap().step_us;
    let best = [RankRule::Requests, RankRule::KvArgmin, RankRule::KvPowerOfTwo]
        .map(us)
        .into_iter()
        .fold(f64::INFINITY, f64::min);
    assert!(us(RankRule::Scored) <= 0.97 * best);
}

#[test]
fn what_was_sent_since_the_report_counts_until_a_report_has_it() {
    let mut scorer = RankScorer::new(2, RankCosts::default()).unwrap();
    let first = scorer.choose(5, chat(1_000.0), |_| 0.0);
    let sent = RankLoad { kv_tokens: 1_000.0, prefill_tokens: 1_000.0, sequences: 1.0 };
    assert_eq!(scorer.load(first), sent);
    scorer.report(first, 4, RankLoad::default()).unwrap();
    assert_eq!(scorer.load(first), sent);
    scorer.report(first, 5, RankLoad { kv_tokens: 7.0, ..RankLoad::default() }).unwrap();
    assert_eq!(scorer.load(first), RankLoad { kv_tokens: 7.0, ..RankLoad::default() });
    assert!(scorer.report(2, 0, RankLoad::default()).is_err());
}

#[test]
fn a_cached_prefix_draws_to_its_rank_only_while_that_is_not_too_full() {
    let report = |scorer: &mut RankScorer, kv: [f64; 4]| {
        for (rank, kv_tokens) in kv.into_iter().enumerate() {
            let load = RankLoad { kv_tokens, sequences: 8.0, prefill_tokens: 0.0 };
            scorer.report(rank, 1, load).unwrap();
        }
    };
    let has = |holder: usize| move |rank: usize| if rank == holder { 800.0 } else { 0.0 };
    let mut scorer = RankScorer::new(4, RankCosts::default()).unwrap();
    report(&mut scorer, [99_000.0, 100_000.0, 99_500.0, 102_000.0]);
    assert_eq!(scorer.choose(2, chat(1_000.0), has(0)), 0);
    report(&mut scorer, [140_000.0, 100_000.0, 99_500.0, 99_000.0]);
    assert_ne!(scorer.choose(2, chat(1_000.0), has(0)), 0);
}
