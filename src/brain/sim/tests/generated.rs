//! Generated workloads and made-up prefixes.

use super::*;
use proptest::prelude::*;

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:15:50.9951690,396,109\r\n";

fn azure_of(text: &str) -> Result<Workload, TraceError> {
    azure(text, &PrefixModel::default(), 16, 1)
}

#[test]
fn azure_keeps_arrivals_and_lengths() {
    let workload = azure_of(AZURE).unwrap();
    let [first, second] = workload.prompts() else { panic!("two rows") };
    assert_eq!((first.prompt_tokens, first.output_tokens, first.at_ms), (374, 44, 0.0));
    assert!((second.at_ms - 4_314.579).abs() < 1e-6, "{}", second.at_ms);
    assert_eq!(workload.keys(second).len(), 396 / 16);
}

#[test]
fn azure_that_is_none_says_where() {
    let message = |text: &str| azure_of(text).unwrap_err().to_string();
    assert!(message("").contains("no request"));
    assert!(message("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2").contains("line 2"));
    let negative = message("2023-11-16 18:15:46,-3,2");
    assert!(negative.contains("ContextTokens is \"-3\"") && negative.contains("Azure"));
    assert!(message("2023-11-16 18:15:46,3").contains("2 fields"));
    let model = PrefixModel { multi_turn: 1.5, ..PrefixModel::default() };
    let refused = azure(AZURE, &model, 16, 1).unwrap_err().to_string();
    assert!(refused.contains("multi_turn = 1.5"), "{refused}");
    assert!(azure(AZURE, &PrefixModel::default(), 0, 1).is_err());
}

#[test]
fn more_turns_and_fewer_system_prompts_share_more() {
    let hits = |multi_turn, system_prompts| {
        let prefixes = PrefixModel { multi_turn, system_prompts, ..PrefixModel::default() };
        let chats = Chats { requests: 2_000, prefixes, ..Chats::default() };
        chats.generate(1).unwrap().infinite_cache_hit_ratio()
    };
    assert!(hits(0.8, 64) > hits(0.3, 64) + 0.1, "{} {}", hits(0.8, 64), hits(0.3, 64));
    assert!(hits(0.0, 4) > hits(0.0, 4_000) + 0.04, "{} {}", hits(0.0, 4), hits(0.0, 4_000));
}

#[test]
fn popularity_follows_zipf() {
    let prefixes = PrefixModel {
        system_prompts: 100,
        zipf: 1.0,
        system_tokens: Lognormal::new(160.0, 0.0),
        multi_turn: 0.0,
        ..PrefixModel::default()
    };
    let turn_tokens = Lognormal::new(64.0, 0.0);
    let chats = Chats { requests: 20_000, prefixes, turn_tokens, ..Chats::default() };
    let workload = chats.generate(3).unwrap();
    let mut counts = std::collections::HashMap::<BlockKey, u32>::new();
    for prompt in workload.prompts() {
        *counts.entry(workload.keys(prompt)[0]).or_default() += 1;
    }
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable_by(|one, other| other.cmp(one));
    // The harmonic number of 100 is 5.187.
    let first = f64::from(counts[0]) / 20_000.0;
    assert!((first - 1.0 / 5.187).abs() < 0.01, "{first}");
    let ratio = f64::from(counts[0]) / f64::from(counts[9]);
    assert!((7.0..14.0).contains(&ratio), "{ratio}");
}

#[test]
fn agents_repeat_all_that_came_before() {
    let agents = Agents { sessions: 20, ..Agents::default() };
    let workload = agents.generate(5).unwrap();
    assert_eq!(agents.generate(5).unwrap(), workload);
    assert_ne!(agents.generate(6).unwrap(), workload);
    for session in workload.sessions() {
        let turns = &workload.prompts()[session.start as usize..session.end as usize];
        assert!(!turns.is_empty());
        for pair in turns.windows(2) {
            let (before, after) = (workload.keys(&pair[0]), workload.keys(&pair[1]));
            assert_eq!(&after[..before.len()], before);
            assert!(pair[1].prompt_tokens > pair[0].prompt_tokens + pair[0].output_tokens);
            assert!(pair[1].prompt_tokens <= agents.most_tokens);
        }
    }
}

#[test]
fn settings_that_cannot_be_are_named() {
    let message = |chats: Chats| chats.generate(1).unwrap_err().to_string();
    assert!(message(Chats { requests: 0, ..Chats::default() }).contains("requests = 0"));
    let gaps = Gaps { requests_per_s: f64::NAN, variation: 1.0 };
    assert!(message(Chats { gaps, ..Chats::default() }).contains("requests_per_s = NaN"));
    let agents = Agents { mean_turns: 0.5, ..Agents::default() };
    assert!(agents.generate(1).unwrap_err().to_string().contains("mean_turns = 0.5"));
}

proptest! {
    #[test]
    fn arbitrary_text_is_read_or_refused(text in "(?s).{0,200}") {
        let _ = azure_of(&text);
        let _ = mooncake(&text);
        let _ = agent_sessions(&text);
        let _ = prompt_sessions(&text);
    }

    #[test]
    fn lines_that_look_like_azure_are_read_or_refused(
        rows in prop::collection::vec("[0-9]{1,5}-[0-9]{1,2}-[0-9]{1,2}[ T][0-9:.]{0,12},[0-9]{0,8},[0-9]{0,5}\n?", 0..8),
    ) {
        let _ = azure_of(&rows.concat());
    }

    #[test]
    fn chats_are_as_asked_whatever_is_asked(
        requests in 1_u32..300,
        zipf in 0.0..3.0_f64,
        multi_turn in 0.0..=1.0_f64,
        system_prompts in 1_u32..50,
        open_conversations in 0_u32..50,
        most_tokens in 2_u32..5_000,
        block_size in 1_u32..600,
    ) {
        let prefixes = PrefixModel {
            system_prompts, zipf, multi_turn, open_conversations, ..PrefixModel::default()
        };
        let chats = Chats { requests, most_tokens, prefixes, block_size, ..Chats::default() };
        let workload = chats.generate(9).unwrap();
        prop_assert_eq!(workload.prompts().len(), requests as usize);
        for prompt in workload.prompts() {
            prop_assert!(prompt.prompt_tokens <= most_tokens);
            prop_assert_eq!(workload.keys(prompt).len() as u32, prompt.prompt_tokens / block_size);
        }
        let times: Vec<f64> = workload.prompts().iter().map(|it| it.at_ms).collect();
        prop_assert!(times.is_sorted());
    }
}
