//! The contract by example. The shared suite holds it in general.

use super::*;
use crate::prompt::{Chain, MultimodalItem, Scope, token_keys};
use crate::{BlockKey, EndpointId, EngineHash, Slot, Tier, Time};

const BLOCK: u32 = 4;
const MODEL: &str = "model";

fn endpoint(slot: u32) -> EndpointId {
    EndpointId { slot: Slot(slot), generation: 1 }
}

fn at_ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn index_with(config: IndexConfig) -> Residency {
    let index = Residency::new(config, BLOCK).unwrap();
    index.join(endpoint(0), MODEL, Source::Events);
    index
}

fn index() -> Residency {
    index_with(IndexConfig::default())
}

/// Tokens `0..4 * blocks`, and what a request with them is looked up by.
fn prompt(blocks: u32) -> (Vec<u32>, Vec<BlockKey>) {
    let tokens: Vec<u32> = (0..blocks * BLOCK).collect();
    let scope = Scope { model: MODEL.to_owned(), ..Scope::default() };
    let mut keys = Vec::new();
    token_keys(&tokens, BLOCK, &scope, &mut keys).unwrap();
    (tokens, keys)
}

/// Blocks `names` of the engine, which hold the tokens of [`prompt`] from block `names.start` on.
fn stored(names: std::ops::Range<u64>) -> BlockStored {
    let first = names.start as u32 * BLOCK;
    BlockStored {
        parent: names.start.checked_sub(1).map(EngineHash),
        token_ids: (first..names.end as u32 * BLOCK).collect(),
        block_hashes: names.map(EngineHash).collect(),
        block_size: BLOCK,
        tier: Tier::Gpu,
        lora: None,
        extra_keys: vec![],
        group: None,
    }
}

/// As [`stored`], of other tokens.
fn stored_names(names: std::ops::Range<u64>) -> BlockStored {
    BlockStored { block_hashes: names.map(EngineHash).collect(), ..stored(0..1) }
}

fn removed(name: u64, tier: Tier) -> KvEvent {
    KvEvent::Removed(BlockRemoved { block_hashes: vec![EngineHash(name)], tier, group: None })
}

fn group(index: u32, kind: SpecKind) -> Option<GroupSpec> {
    Some(GroupSpec { index, kind, sliding_window_tokens: None })
}

fn apply(index: &Residency, events: impl IntoIterator<Item = KvEvent>) -> ApplyOutcome {
    apply_at(index, Time::ZERO, events)
}

fn apply_at(
    index: &Residency,
    now: Time,
    events: impl IntoIterator<Item = KvEvent>,
) -> ApplyOutcome {
    let events = events.into_iter().collect();
    index.apply(now, endpoint(0), &KvEventBatch { timestamp_s: 0.0, dp_rank: None, events })
}

fn matched_at(index: &Residency, now: Time, keys: &[BlockKey]) -> (u32, MatchSource) {
    let mut out = Matches::new();
    index.matches(now, keys, &mut out);
    (out.depth_blocks[0], out.source[0])
}

fn matched(index: &Residency, keys: &[BlockKey]) -> (u32, MatchSource) {
    matched_at(index, Time::ZERO, keys)
}

#[test]
fn a_stored_run_matches_to_its_end() {
    let (index, (_, keys)) = (index(), prompt(5));
    let outcome = apply(&index, [KvEvent::Stored(stored(0..3))]);

    assert_eq!(outcome, ApplyOutcome { stored_blocks: 3, ..ApplyOutcome::default() });
    assert_eq!(matched(&index, &keys), (3, MatchSource::Exact));
    assert_eq!(matched(&index, &keys[..2]), (2, MatchSource::Exact));
    assert_eq!(matched(&index, &[]), (0, MatchSource::None));
    assert_eq!(index.blocks(endpoint(0)).unwrap().exact, [3, 0, 0, 0]);
}

#[test]
fn a_booking_outlives_the_removal_of_half_a_block_whose_other_half_is_not_there() {
    let (index, (tokens, keys)) = (index(), prompt(2));
    let half = |names: std::ops::Range<u64>| BlockStored {
        parent: names.start.checked_sub(1).map(EngineHash),
        token_ids: tokens[names.start as usize * 2..names.end as usize * 2].to_vec(),
        block_hashes: names.map(EngineHash).collect(),
        block_size: BLOCK / 2,
        ..stored(0..1)
    };
    // Of four halves the first two go, and the first comes back.
    apply(&index, [KvEvent::Stored(half(0..4)), removed(0, Tier::Gpu), removed(1, Tier::Gpu)]);
    apply(&index, [KvEvent::Stored(half(0..1))]);
    index.book(Time::ZERO, endpoint(0), &keys[..1]);
    apply(&index, [removed(0, Tier::Gpu)]);
    assert_eq!(matched(&index, &keys), (2, MatchSource::Speculative));
}

#[test]
fn removal_in_the_middle_opens_a_hole_and_keeps_what_is_behind_it() {
    let (index, (_, keys)) = (index(), prompt(5));
    apply(&index, [KvEvent::Stored(stored(0..5)), removed(2, Tier::Gpu)]);

    assert_eq!(matched(&index, &keys), (2, MatchSource::Exact));
    assert_eq!(index.holds(endpoint(0), &keys[..=3]), Some(Held::Exact(Tier::Gpu)));

    apply(&index, [KvEvent::Stored(stored(2..3))]);
    assert_eq!(matched(&index, &keys), (5, MatchSource::Exact));
}

#[test]
fn copies_are_counted() {
    let (index, (_, keys)) = (index(), prompt(1));
    let copy = || KvEvent::Stored(stored(0..1));
    apply(&index, [copy(), copy(), removed(0, Tier::Gpu)]);
    assert_eq!(matched(&index, &keys), (1, MatchSource::Exact));

    let outcome = apply(&index, [removed(0, Tier::Gpu), removed(0, Tier::Gpu)]);
    assert_eq!(matched(&index, &keys), (0, MatchSource::None));
    assert_eq!((outcome.removed_blocks, outcome.unknown_removed_blocks), (1, 1));
}

#[test]
fn a_block_that_moves_to_the_host_stays_and_says_so() {
    let (index, (_, keys)) = (index(), prompt(3));
    let offloaded = BlockStored { tier: Tier::Cpu, ..stored(1..2) };
    apply(&index, [KvEvent::Stored(stored(0..3)), KvEvent::Stored(offloaded)]);
    let mut out = Matches::new();
    index.matches(Time::ZERO, &keys, &mut out);
    assert_eq!((out.depth_blocks[0], out.lower_tier_blocks[0]), (3, [0, 0, 0]));

    apply(&index, [removed(1, Tier::Gpu)]);
    index.matches(Time::ZERO, &keys, &mut out);
    assert_eq!((out.depth_blocks[0], out.lower_tier_blocks[0]), (3, [1, 0, 0]));
    assert_eq!(index.blocks(endpoint(0)).unwrap().exact, [2, 1, 0, 0]);
}

#[test]
fn an_offload_tier_may_name_blocks_without_their_tokens() {
    let (index, (_, keys)) = (index(), prompt(2));
    let named_only = |names| BlockStored {
        tier: Tier::Storage,
        parent: None,
        token_ids: vec![],
        block_size: 0,
        group: group(0, SpecKind::Unstated),
        ..stored(names)
    };
    apply(&index, [KvEvent::Stored(stored(0..2))]);
    let outcome = apply(&index, [KvEvent::Stored(named_only(1..3)), removed(1, Tier::Gpu)]);

    assert_eq!((outcome.stored_blocks, outcome.orphan_blocks), (1, 1));
    assert_eq!(index.holds(endpoint(0), &keys[..=1]), Some(Held::Exact(Tier::Storage)));
}

#[test]
fn what_has_no_known_parent_is_counted_and_left_out() {
    let (index, (_, keys)) = (index(), prompt(4));
    let outcome = apply(&index, [KvEvent::Stored(stored(2..4))]);

    assert_eq!(outcome, ApplyOutcome { orphan_blocks: 2, ..ApplyOutcome::default() });
    assert_eq!(index.holds(endpoint(0), &keys[..=2]), None);
    assert_eq!(index.stats().keys, 0);
}

#[test]
fn an_event_that_contradicts_itself_is_counted_and_left_out() {
    let index = index();
    let short = BlockStored { token_ids: vec![1, 2, 3], ..stored(0..1) };
    let huge = BlockStored { block_size: u32::MAX, ..stored(0..1) };
    let zero = BlockStored { block_size: 0, ..stored(0..1) };
    let extras = BlockStored { extra_keys: vec![vec![], vec![]], ..stored(0..1) };
    let outcome = apply(&index, [short, huge, zero, extras].map(KvEvent::Stored));

    assert_eq!(outcome, ApplyOutcome { malformed_events: 4, ..ApplyOutcome::default() });
}

#[test]
fn engine_blocks_of_any_fitting_size_meet_the_requests_keys() {
    let tokens: Vec<u32> = (0..24).collect();
    let image = |offset_tokens, length_tokens| MultimodalItem {
        identifier: "image".to_owned(),
        offset_tokens,
        length_tokens,
    };
    let plain = Scope { model: MODEL.to_owned(), ..Scope::default() };
    let salted = Scope { cache_salt: Some("salt".to_owned()), ..plain.clone() };
    let adapted = Scope { lora: Some("adapter".to_owned()), ..salted.clone() };
    let seen = Scope { multimodal: vec![image(3, 7), image(10, 1)], ..adapted.clone() };
    for (scope, sizes) in [
        (plain, &[1, 2, 4, 8, 12, 24][..]),
        (salted, &[1, 2, 4, 8]),
        (adapted, &[1, 2, 4, 8]),
        (seen, &[1, 2, 4]),
    ] {
        let mut keys = Vec::new();
        token_keys(&tokens, BLOCK, &scope, &mut keys).unwrap();
        for &size in sizes {
            let index = index();
            let count = 24 / size;
            let event = BlockStored {
                block_hashes: (0..u64::from(count)).map(EngineHash).collect(),
                parent: None,
                token_ids: tokens.clone(),
                block_size: size,
                tier: Tier::Gpu,
                lora: scope.lora.clone(),
                extra_keys: (0..count).map(|block| extra_keys(&scope, block, size)).collect(),
                group: None,
            };
            apply(&index, [KvEvent::Stored(event)]);
            assert_eq!(matched(&index, &keys), (6, MatchSource::Exact), "{size} {scope:?}");
        }
    }
}

/// vLLM's `generate_block_hash_extra_keys`, as it lists them in events.
fn extra_keys(scope: &Scope, block: u32, size: u32) -> Vec<ExtraKey> {
    let (start, end) = (i64::from(block * size), i64::from((block + 1) * size));
    let mut keys: Vec<_> = scope.lora.iter().cloned().map(ExtraKey::Text).collect();
    for item in &scope.multimodal {
        let first = i64::from(item.offset_tokens);
        if first < end && start < first + i64::from(item.length_tokens) {
            let identifier = item.identifier.clone();
            keys.push(ExtraKey::Multimodal { identifier, offset: first - start });
        }
    }
    keys.extend(scope.cache_salt.iter().filter(|_| block == 0).cloned().map(ExtraKey::Text));
    keys
}

#[test]
fn a_router_block_of_two_engine_blocks_needs_both() {
    let (index, (tokens, keys)) = (index(), prompt(2));
    let halves = BlockStored { block_size: 2, token_ids: tokens, ..stored(0..4) };
    apply(&index, [KvEvent::Stored(halves.clone())]);
    assert_eq!(matched(&index, &keys), (2, MatchSource::Exact));

    apply(&index, [removed(2, Tier::Gpu)]);
    assert_eq!(matched(&index, &keys), (1, MatchSource::Exact));

    let again = BlockStored {
        block_hashes: vec![EngineHash(2)],
        parent: Some(EngineHash(1)),
        token_ids: vec![4, 5],
        ..halves
    };
    apply(&index, [KvEvent::Stored(again)]);
    assert_eq!(matched(&index, &keys), (2, MatchSource::Exact));
}

#[test]
fn small_engine_blocks_are_forgotten_in_whatever_order_they_go() {
    for first_gone in 0..4u64 {
        let index = index();
        let halves = BlockStored { block_size: 1, token_ids: vec![0, 1, 2, 3], ..stored(0..4) };
        apply(&index, [KvEvent::Stored(halves)]);
        for name in first_gone..first_gone + 4 {
            apply(&index, [removed(name % 4, Tier::Gpu)]);
        }
        let orphan = BlockStored { token_ids: vec![9], block_size: 1, ..stored(3..4) };
        assert_eq!(apply(&index, [KvEvent::Stored(orphan)]).orphan_blocks, 1);
        assert_eq!(index.view_entries(endpoint(0)), 0, "after {first_gone} went first");
    }
}

#[test]
fn block_sizes_that_do_not_fit_are_counted_never_silent() {
    let (index, (_, keys)) = (index(), prompt(3));
    let odd = BlockStored { block_size: 3, token_ids: (0..12).collect(), ..stored(0..4) };
    apply(&index, [KvEvent::Stored(odd)]);

    assert_eq!(matched(&index, &keys), (0, MatchSource::None));
    assert_eq!(index.stats().endpoints[0].applied.block_size_mismatch_blocks, 4);
}

#[test]
fn a_hybrid_model_matches_what_all_its_full_attention_groups_hold() {
    let (index, (_, keys)) = (index(), prompt(4));
    let in_group =
        |g, names| BlockStored { group: group(g, SpecKind::FullAttention), ..stored(names) };
    apply(&index, [in_group(0, 0..4), in_group(1, 0..2)].map(KvEvent::Stored));
    assert_eq!(matched(&index, &keys), (2, MatchSource::Exact));

    let gone = BlockRemoved { block_hashes: vec![EngineHash(1)], tier: Tier::Gpu, group: Some(0) };
    apply(&index, [KvEvent::Removed(gone)]);
    assert_eq!(matched(&index, &keys), (1, MatchSource::Exact));
}

#[test]
fn a_group_that_is_not_indexed_makes_the_match_an_upper_bound() {
    let (index, (_, keys)) = (index(), prompt(6));
    // As gemma3 on vLLM: the window group names only the blocks that it still holds.
    let window = BlockStored {
        block_hashes: vec![EngineHash(4), EngineHash(5)],
        group: group(0, SpecKind::SlidingWindow),
        ..stored(0..6)
    };
    let full = BlockStored { group: group(5, SpecKind::FullAttention), ..stored(0..6) };
    let gone = BlockRemoved { block_hashes: vec![EngineHash(4)], tier: Tier::Gpu, group: Some(0) };
    let outcome =
        apply(&index, [KvEvent::Stored(window), KvEvent::Stored(full), KvEvent::Removed(gone)]);

    assert_eq!((outcome.stored_blocks, outcome.unindexed_group_blocks), (6, 3));
    assert_eq!(matched(&index, &keys), (6, MatchSource::UpperBound));
}

#[test]
fn cleared_forgets_all_and_leaves_nothing_behind() {
    let (index, (_, keys)) = (index(), prompt(5));
    index.book(Time::ZERO, endpoint(0), &keys);
    let outcome = apply(&index, [KvEvent::Stored(stored(0..3)), KvEvent::Cleared]);

    assert_eq!(outcome.cleared, 1);
    assert_eq!(matched(&index, &keys), (0, MatchSource::None));
    assert_eq!((index.stats().keys, index.view_entries(endpoint(0))), (0, 0));
}

#[test]
fn whoever_makes_the_index_too_large_gives_up_the_ends_it_stored_the_longest_ago() {
    let index = index_with(IndexConfig { max_bytes: 8 << 20, ..IndexConfig::default() });
    index.join(endpoint(1), MODEL, Source::Events);
    let scope = Scope { model: MODEL.to_owned(), ..Scope::default() };
    let (mut evicted, mut last, mut out) = (0, vec![], Matches::new());
    let mut keys_of = |prompt: u32| {
        let tokens: Vec<u32> = (0..4_000).map(|i| prompt << 16 | i).collect();
        token_keys(&tokens, BLOCK, &scope, &mut last).unwrap();
        (tokens, last.clone())
    };
    let event = |prompt: u32, tokens: Vec<u32>| {
        let names = u64::from(prompt) << 32..u64::from(prompt) << 32 | 1_000;
        BlockStored { parent: None, token_ids: tokens, ..stored_names(names) }
    };
    let (tokens, others) = keys_of(1_000);
    let batch = |event| KvEventBatch {
        timestamp_s: 0.0,
        dp_rank: None,
        events: vec![KvEvent::Stored(event)],
    };
    index.apply(Time::ZERO, endpoint(1), &batch(event(1_000, tokens)));
    for prompt in 1..500 {
        let (tokens, keys) = keys_of(prompt);
        let outcome = index.apply(
            at_ms(u64::from(prompt) * 1_000),
            endpoint(0),
            &batch(event(prompt, tokens)),
        );
        evicted += outcome.evicted_blocks;
        index.matches(at_ms(u64::from(prompt) * 1_000), &keys, &mut out);
        assert_eq!(out.depth_blocks, [1_000, 0], "what came last stays");
    }
    let held = index.blocks(endpoint(0)).unwrap().exact[0];
    assert_eq!(held + evicted, 499_000);
    assert!((200_000..289_000).contains(&held), "{held} blocks");
    assert!(index.memory_bytes() < 10 << 20, "{} bytes", index.memory_bytes());
    index.matches(at_ms(500_000), &others, &mut out);
    assert_eq!(out.depth_blocks, [0, 1_000], "nobody else pays");
    index.matches(at_ms(500_000), &keys_of(1).1, &mut out);
    assert_eq!(out.depth_blocks[0], 0, "the oldest are gone");
}

#[test]
fn a_booking_counts_until_events_confirm_it_or_its_time_is_over() {
    let (index, (_, keys)) = (index(), prompt(4));
    apply(&index, [KvEvent::Stored(stored(0..1))]);
    index.book(at_ms(10), endpoint(0), &keys[..3]);
    assert_eq!(matched_at(&index, at_ms(10), &keys), (3, MatchSource::Speculative));
    assert_eq!(matched_at(&index, at_ms(10), &keys[..1]), (1, MatchSource::Exact));
    assert_eq!(index.next_expiry(), Some(at_ms(2_010)));

    apply_at(&index, at_ms(20), [KvEvent::Stored(stored(1..2))]);
    assert_eq!(index.holds(endpoint(0), &keys[..=1]), Some(Held::Exact(Tier::Gpu)));
    assert_eq!(matched_at(&index, at_ms(2_009), &keys), (3, MatchSource::Speculative));
    assert_eq!(matched_at(&index, at_ms(2_010), &keys), (2, MatchSource::Exact));
    assert_eq!(index.next_expiry(), None);
}

#[test]
fn an_endpoint_without_events_holds_what_it_was_last_sent() {
    let (index, (_, keys)) = (index(), prompt(4));
    let source = Source::Approximate { capacity_blocks: 3 };
    index.join(endpoint(1), MODEL, source);
    index.book(Time::ZERO, endpoint(1), &keys);

    // Of one prompt the last block goes first, as engines evict.
    let mut out = Matches::new();
    index.matches(at_ms(599_999), &keys, &mut out);
    assert_eq!((out.depth_blocks[1], out.source[1]), (3, MatchSource::Approximate));
    index.set_capacity(endpoint(1), 2);
    index.matches(at_ms(599_999), &keys, &mut out);
    assert_eq!(out.depth_blocks[1], 2);
    index.matches(at_ms(600_000), &keys, &mut out);
    assert_eq!(out.depth_blocks[1], 0);
}

#[test]
fn text_is_approximate_even_where_there_are_events() {
    let (index, (_, keys)) = (index(), prompt(2));
    let mut text = Vec::new();
    let scope = Scope { model: MODEL.to_owned(), ..Scope::default() };
    crate::prompt::text::text_keys(&"word".repeat(12), BLOCK, &scope, &mut text).unwrap();
    apply(&index, [KvEvent::Stored(stored(0..2))]);
    index.book_text(Time::ZERO, endpoint(0), &text);

    assert_eq!(matched_at(&index, at_ms(599_999), &text), (3, MatchSource::Approximate));
    assert_eq!(matched_at(&index, at_ms(599_999), &keys), (2, MatchSource::Exact));
    apply(&index, [removed(0, Tier::Gpu)]);
    assert_eq!(matched_at(&index, at_ms(599_999), &text), (3, MatchSource::Approximate));
    assert_eq!(matched_at(&index, at_ms(600_000), &text), (0, MatchSource::None));
}

#[test]
fn the_first_event_makes_an_approximate_endpoint_an_exact_one() {
    let index = Residency::new(IndexConfig::default(), BLOCK).unwrap();
    let (_, keys) = prompt(4);
    index.join(endpoint(0), MODEL, Source::Approximate { capacity_blocks: 0 });
    index.book(Time::ZERO, endpoint(0), &keys);
    apply_at(&index, at_ms(100), [KvEvent::Stored(stored(0..2))]);

    assert_eq!(index.stats().endpoints[0].source, Source::Events);
    assert_eq!(matched_at(&index, at_ms(2_099), &keys), (4, MatchSource::Speculative));
    assert_eq!(matched_at(&index, at_ms(2_100), &keys), (2, MatchSource::Exact));
}

#[test]
fn a_late_id_changes_nothing_and_is_counted() {
    let (index, (_, keys)) = (index(), prompt(2));
    let successor = EndpointId { generation: 2, ..endpoint(0) };
    apply(&index, [KvEvent::Stored(stored(0..2))]);
    index.join(successor, MODEL, Source::Events);
    index.join(endpoint(0), MODEL, Source::Events);
    index.book(Time::ZERO, endpoint(0), &keys);
    index.leave(endpoint(0));
    let outcome = apply(&index, [KvEvent::Stored(stored(0..2)), KvEvent::Cleared]);

    assert_eq!(outcome, ApplyOutcome { stale_events: 2, ..ApplyOutcome::default() });
    let stats = index.stats();
    assert_eq!((stats.keys, stats.endpoints[0].endpoint), (0, successor));
    assert_eq!((stats.applied.stored_blocks, stats.applied.stale_events), (2, 2));
    assert_eq!(index.blocks(endpoint(0)), None);

    let mut out = Matches::new();
    index.matches(Time::ZERO, &keys, &mut out);
    assert_eq!((out.generation[0], out.depth_of(Slot(0), 1)), (2, 0));
}

#[test]
fn fleets_wider_than_one_pass_of_a_match_are_matched_whole() {
    let (index, (tokens, keys)) = (index(), prompt(3));
    for slot in [63, 64, 1_023, 1_024, 2_500] {
        index.join(endpoint(slot), MODEL, Source::Events);
        let depth = u64::from(slot % 3 + 1);
        let event = BlockStored {
            token_ids: tokens[..depth as usize * BLOCK as usize].to_vec(),
            ..stored(0..depth)
        };
        let events = vec![KvEvent::Stored(event)];
        let batch = KvEventBatch { timestamp_s: 0.0, dp_rank: None, events };
        index.apply(Time::ZERO, endpoint(slot), &batch);
    }
    let mut out = Matches::new();
    index.matches(Time::ZERO, &keys, &mut out);

    assert_eq!(out.depth_blocks.len(), 2_501);
    let held: Vec<_> =
        out.depth_blocks.iter().enumerate().filter(|&(_, &depth)| depth > 0).collect();
    assert_eq!(held, [(63, &1), (64, &2), (1_023, &1), (1_024, &2), (2_500, &2)]);
}

#[test]
fn memory_is_given_back_when_endpoints_leave() {
    let index = Residency::new(IndexConfig::default(), BLOCK).unwrap();
    let empty = index.memory_bytes();
    for churn in 0..10 {
        let (tokens, keys) = prompt(200);
        for slot in [0, 900] {
            index.join(endpoint(slot), MODEL, Source::Events);
            let moved = BlockStored { tier: Tier::Remote, ..stored(0..200) };
            let halves = BlockStored { block_size: 2, token_ids: tokens.clone(), ..stored(0..400) };
            let events = if churn % 2 == 0 { vec![stored(0..200), moved] } else { vec![halves] };
            let events = events.into_iter().map(KvEvent::Stored).collect();
            let batch = KvEventBatch { timestamp_s: 0.0, dp_rank: None, events };
            index.book(at_ms(churn), endpoint(slot), &keys);
            index.apply(at_ms(churn), endpoint(slot), &batch);
            index.book_text(at_ms(churn), endpoint(slot), &keys);
        }
        assert!(index.memory_bytes() > empty);
        index.leave(endpoint(0));
        index.leave(endpoint(900));
        assert_eq!((index.stats().keys, index.memory_bytes()), (0, empty));
    }
}

#[test]
fn a_config_that_remembers_nothing_is_refused_with_the_remedy() {
    let config = IndexConfig { approximate_blocks: 0, ..IndexConfig::default() };
    assert_eq!(
        Residency::new(config, BLOCK).unwrap_err().to_string(),
        "index.approximate_blocks is 0: use 1 to 1073741824 blocks, best what the engine's KV \
         cache holds"
    );
    let error = Residency::new(IndexConfig::default(), 0).unwrap_err();
    assert_eq!(error, IndexError::BlockSize(Chain::new(MODEL, None, 0).unwrap_err()));
}
