//! What block keys promise: prefixes, sensitivity to every part of what they stand for, and
//! agreement between requests and events.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it calls as well")]

use llmd_brain::BlockKey;
use llmd_brain::prompt::{
    BlockExtra, Chain, Extras, MultimodalItem, PromptError, Scope, text, token_keys,
};
use proptest::prelude::*;
use std::collections::HashSet;

/// A prompt, how it is cut, and what it is bound to.
#[derive(Debug, Clone)]
struct Case {
    tokens: Vec<u32>,
    block_size: u32,
    scope: Scope,
}

impl Case {
    fn chain(&self) -> Chain {
        Chain::new(&self.scope.model, self.scope.lora.as_deref(), self.block_size).unwrap()
    }

    fn keys(&self) -> Vec<BlockKey> {
        let mut keys = Vec::new();
        token_keys(&self.tokens, self.block_size, &self.scope, &mut keys).unwrap();
        keys
    }
}

fn block_sizes() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 1..=512u32, 2 => prop::sample::select(vec![1, 2, 16, 32, 64, 512])]
}

/// Few distinct ids, so that equal blocks at different positions are common, or any id at all.
fn prompts() -> impl Strategy<Value = Vec<u32>> {
    prop_oneof![prop::collection::vec(0..3u32, 1..900), prop::collection::vec(any::<u32>(), 1..900)]
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "tenant-1", "ü"]).prop_map(str::to_owned)
}

/// Items one after another, as gaps before and lengths of each.
fn items_in_a_row(tokens: usize) -> impl Strategy<Value = Vec<MultimodalItem>> {
    prop::collection::vec((0..60u32, 1..120u32, names()), 0..6).prop_map(move |parts| {
        let mut items = Vec::new();
        let mut offset_tokens = 0;
        for (gap, length_tokens, identifier) in parts {
            offset_tokens += gap;
            let item = MultimodalItem { identifier, offset_tokens, length_tokens };
            if item.end_tokens() > tokens as u64 {
                break;
            }
            offset_tokens += length_tokens;
            items.push(item);
        }
        items
    })
}

/// Items anywhere, also within each other, sorted by offset.
fn items_anywhere(tokens: usize) -> impl Strategy<Value = Vec<MultimodalItem>> {
    let tokens = tokens as u32;
    prop::collection::vec((0..tokens, 0..200u32, names()), 0..6).prop_map(move |mut parts| {
        parts.sort_by_key(|&(offset_tokens, ..)| offset_tokens);
        let place = |(offset_tokens, length, identifier)| {
            let length_tokens = u32::min(length, tokens - offset_tokens);
            MultimodalItem { identifier, offset_tokens, length_tokens }
        };
        parts.into_iter().map(place).collect()
    })
}

fn cases_with<I>(items: fn(usize) -> I) -> impl Strategy<Value = Case>
where
    I: Strategy<Value = Vec<MultimodalItem>>,
{
    (prompts(), block_sizes())
        .prop_flat_map(move |(tokens, block_size)| {
            let scope = (names(), prop::option::of(names()), prop::option::of(names()));
            (Just(tokens.clone()), Just(block_size), scope, items(tokens.len()))
        })
        .prop_map(|(tokens, block_size, (model, lora, cache_salt), multimodal)| Case {
            tokens,
            block_size,
            scope: Scope { model, lora, cache_salt, multimodal },
        })
}

/// One entry of an event's list of extra keys.
#[derive(Debug, Clone, PartialEq)]
enum EventKey {
    Text(String),
    Multimodal(String, i64),
}

/// The extra keys that vLLM would publish for block `block`, by its rule and without its cursor: a
/// block past the end of the last item has no items; otherwise those that reach into it, in order,
/// up to the first that reaches beyond it.
fn published_keys(case: &Case, block: usize) -> Vec<EventKey> {
    let start = block as i64 * i64::from(case.block_size);
    let end = start + i64::from(case.block_size);
    let end_of = |item: &MultimodalItem| item.end_tokens() as i64;
    let items = &case.scope.multimodal;

    let mut keys: Vec<_> = case.scope.lora.iter().cloned().map(EventKey::Text).collect();
    if items.last().is_some_and(|last| end_of(last) > start) {
        for item in items.iter().filter(|item| end_of(item) > start) {
            let offset = i64::from(item.offset_tokens);
            if offset >= end {
                break;
            }
            keys.push(EventKey::Multimodal(item.identifier.clone(), offset - start));
            if end_of(item) > end {
                break;
            }
        }
    }
    if block == 0 {
        keys.extend(case.scope.cache_salt.iter().cloned().map(EventKey::Text));
    }
    keys
}

/// Keys as the index computes them from an engine's event.
fn keys_of_events(case: &Case) -> Vec<BlockKey> {
    let chain = case.chain();
    let mut parent = chain.root();
    let blocks = case.tokens.chunks_exact(case.block_size as usize).enumerate();
    let mut keys = Vec::new();
    for (number, tokens) in blocks {
        let published = published_keys(case, number);
        let of_lora = usize::from(case.scope.lora.is_some());
        let texts = published[of_lora..].iter().filter_map(|key| match key {
            EventKey::Text(text) => Some(text.as_str()),
            EventKey::Multimodal(..) => None,
        });
        let multimodal = published.iter().filter_map(|key| match key {
            EventKey::Multimodal(identifier, offset) => Some((identifier.as_str(), *offset)),
            EventKey::Text(_) => None,
        });
        parent = chain.next(parent, tokens, BlockExtra::new(texts, multimodal));
        keys.push(parent);
    }
    keys
}

/// Asserts that two lists of keys agree in exactly the first `equal` places.
fn assert_part_at(a: &[BlockKey], b: &[BlockKey], equal: usize) {
    assert_eq!(a[..equal], b[..equal], "keys before the change");
    for (position, (a, b)) in a.iter().zip(b).enumerate().skip(equal) {
        assert_ne!(a, b, "key {position}, after a change in block {equal}");
    }
}

proptest! {
    #[test]
    fn each_full_block_has_a_key_and_no_two_blocks_share_one(case in cases_with(items_in_a_row)) {
        let keys = case.keys();
        prop_assert_eq!(keys.len(), case.tokens.len() / case.block_size as usize);
        prop_assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    #[test]
    fn keys_of_a_prefix_are_a_prefix_of_the_keys(
        case in cases_with(items_anywhere),
        cut in any::<prop::sample::Index>(),
    ) {
        let prefix = &case.tokens[..cut.index(case.tokens.len())];
        let mut keys = Vec::new();
        case.chain().block_keys(prefix, case.scope.extras(), &mut keys);
        prop_assert_eq!(&keys[..], &case.keys()[..prefix.len() / case.block_size as usize]);
    }

    #[test]
    fn a_changed_token_changes_its_block_and_all_later_ones(
        case in cases_with(items_in_a_row),
        at in any::<prop::sample::Index>(),
        flip in 1..=u32::MAX,
    ) {
        let at = at.index(case.tokens.len());
        let mut changed = case.clone();
        changed.tokens[at] ^= flip;
        let equal = (at / case.block_size as usize).min(case.keys().len());
        assert_part_at(&case.keys(), &changed.keys(), equal);
    }

    #[test]
    fn two_swapped_blocks_change_all_keys_from_the_first(
        case in cases_with(|_| Just(Vec::new())),
    ) {
        let block = case.block_size as usize;
        prop_assume!(case.tokens.len() >= 2 * block);
        prop_assume!(case.tokens[..block] != case.tokens[block..2 * block]);
        let mut swapped = case.clone();
        swapped.tokens[..2 * block].rotate_left(block);
        assert_part_at(&case.keys(), &swapped.keys(), 0);
    }

    #[test]
    fn a_changed_model_lora_or_salt_changes_all_keys(case in cases_with(items_in_a_row)) {
        let mut others = vec![case.clone(); 3];
        others[0].scope.model.push('x');
        others[1].scope.lora = Some(case.scope.lora.clone().unwrap_or_default() + "x");
        others[2].scope.cache_salt = Some(case.scope.cache_salt.clone().unwrap_or_default() + "x");
        for other in others {
            assert_part_at(&case.keys(), &other.keys(), 0);
        }
    }

    #[test]
    fn a_changed_item_changes_the_keys_from_the_first_block_that_it_covers(
        case in cases_with(items_in_a_row),
        which in any::<prop::sample::Index>(),
    ) {
        prop_assume!(!case.scope.multimodal.is_empty());
        let which = which.index(case.scope.multimodal.len());
        let mut changed = case.clone();
        changed.scope.multimodal[which].identifier.push('x');
        let first = case.scope.multimodal[which].offset_tokens / case.block_size;
        assert_part_at(&case.keys(), &changed.keys(), (first as usize).min(case.keys().len()));
    }

    #[test]
    fn a_moved_item_changes_the_keys_even_where_the_tokens_are_the_same(
        length_tokens in 1..100u32,
        offset_tokens in 0..100u32,
        block_size in block_sizes(),
    ) {
        let tokens = vec![7; 1024];
        let place = |offset_tokens| {
            let item = MultimodalItem { identifier: "image".into(), offset_tokens, length_tokens };
            let scope = Scope { multimodal: vec![item], ..Scope::default() };
            Case { tokens: tokens.clone(), block_size, scope }.keys()
        };
        let equal = offset_tokens / block_size;
        assert_part_at(&place(offset_tokens), &place(offset_tokens + 1), equal as usize);
    }

    #[test]
    fn a_request_and_the_events_of_its_blocks_have_the_same_keys(
        case in prop_oneof![cases_with(items_in_a_row).boxed(), cases_with(items_anywhere).boxed()],
    ) {
        prop_assert_eq!(case.keys(), keys_of_events(&case));
    }

    #[test]
    fn extending_turn_by_turn_gives_the_keys_of_the_whole(
        case in cases_with(items_anywhere),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
    ) {
        let chain = case.chain();
        let mut keys = Vec::new();
        let lengths = turns.iter().map(|turn| turn.index(case.tokens.len()));
        for length in lengths.chain([case.tokens.len()]) {
            chain.extend(&mut keys, &case.tokens[..length], case.scope.extras());
            prop_assert_eq!(keys.len(), length / case.block_size as usize);
        }
        prop_assert_eq!(keys, case.keys());
    }

    #[test]
    fn keys_of_text_behave_as_keys_of_tokens_do_and_never_meet_them(
        tokens in prop::collection::vec(0x2020_2020..0x2020_207Fu32, 1..300),
        cut in any::<prop::sample::Index>(),
        block_size in block_sizes(),
        cache_salt in prop::option::of(names()),
    ) {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let text = String::from_utf8(bytes).unwrap();
        let scope = Scope { model: "m".into(), cache_salt, ..Scope::default() };
        let (mut of_text, mut of_tokens, mut of_prefix) = (Vec::new(), Vec::new(), Vec::new());
        text::text_keys(&text, block_size, &scope, &mut of_text).unwrap();
        token_keys(&tokens, block_size, &scope, &mut of_tokens).unwrap();
        prop_assert_eq!(of_text.len(), of_tokens.len());
        prop_assert!(of_text.iter().all(|key| !of_tokens.contains(key)));

        let prefix = &text[..=cut.index(text.len())];
        text::text_keys(prefix, block_size, &scope, &mut of_prefix).unwrap();
        prop_assert_eq!(&of_prefix[..], &of_text[..prefix.len() / (4 * block_size as usize)]);
    }
}

#[test]
fn the_same_name_in_different_roles_gives_different_keys() {
    let tokens = [1, 2, 3, 4];
    let keys_in = |scope: Scope| Case { tokens: tokens.to_vec(), block_size: 4, scope }.keys()[0];
    let x = || Some("x".to_owned());
    let item = |identifier: &str| MultimodalItem {
        identifier: identifier.into(),
        offset_tokens: 0,
        length_tokens: 1,
    };
    let keys = [
        keys_in(Scope::default()),
        keys_in(Scope { model: "x".into(), ..Scope::default() }),
        keys_in(Scope { lora: x(), ..Scope::default() }),
        keys_in(Scope { lora: Some(String::new()), ..Scope::default() }),
        keys_in(Scope { cache_salt: x(), ..Scope::default() }),
        keys_in(Scope { multimodal: vec![item("x")], ..Scope::default() }),
        keys_in(Scope { multimodal: vec![item("")], ..Scope::default() }),
        keys_in(Scope { model: "x".into(), lora: x(), ..Scope::default() }),
        keys_in(Scope { model: "xx".into(), ..Scope::default() }),
    ];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

#[test]
fn the_order_of_extra_keys_counts() {
    let of = |texts: &[&str], items: &[(&str, i64)]| {
        BlockExtra::new(texts.iter().copied(), items.iter().copied())
    };
    assert_eq!(of(&[], &[]), None);
    assert_ne!(of(&["a", "b"], &[]), of(&["b", "a"], &[]));
    assert_ne!(of(&[], &[("a", 1), ("b", 2)]), of(&[], &[("b", 2), ("a", 1)]));
    assert_ne!(of(&["a"], &[]), of(&["a", "a"], &[]));
    assert_ne!(of(&[], &[("a", 1)]), of(&[], &[("a", -1)]));
}

#[test]
fn an_empty_salt_is_none() {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let salted = Scope { cache_salt: Some(String::new()), ..Scope::default() };
    token_keys(&[1, 2], 1, &salted, &mut with).unwrap();
    token_keys(&[1, 2], 1, &Scope::default(), &mut without).unwrap();
    assert_eq!(with, without);
}

#[test]
fn keys_are_the_same_on_every_machine_and_in_every_version() {
    // Routers exchange keys: whoever changes these values changes a protocol.
    let scope = Scope {
        model: "qwen3-32b".into(),
        lora: Some("sql".into()),
        cache_salt: Some("tenant-a".into()),
        multimodal: vec![MultimodalItem {
            identifier: "0123abcd".into(),
            offset_tokens: 6,
            length_tokens: 4,
        }],
    };
    let tokens: Vec<u32> = (0..12).map(|i| i * 10_000).collect();
    let mut keys = Vec::new();
    token_keys(&tokens, 4, &scope, &mut keys).unwrap();
    assert_eq!(keys, KEYS_OF_TOKENS.map(BlockKey));
    text::text_keys("The quick brown fox jumps over the lazy dog.", 4, &scope, &mut keys).unwrap();
    assert_eq!(keys, KEYS_OF_TEXT.map(BlockKey));
}

/// Computed by a few lines of Python over the `xxhash` package, not by this code.
const KEYS_OF_TOKENS: [u64; 3] =
    [0x0BAF_9D76_2134_D274, 0x00EB_3F1F_A768_D9C3, 0xFBDA_A51B_5B4F_08C2];
const KEYS_OF_TEXT: [u64; 2] = [0xFE8C_A9E5_4B50_58DF, 0x3FB1_8523_9A5B_1CD1];

#[test]
fn bad_prompts_are_refused_with_what_was_wrong() {
    let refused = |tokens: &[u32], block_size, multimodal: Vec<MultimodalItem>| {
        let mut keys = vec![BlockKey(1)];
        let scope = Scope { multimodal, ..Scope::default() };
        let refusal = token_keys(tokens, block_size, &scope, &mut keys).unwrap_err();
        assert!(keys.is_empty(), "no keys of an earlier prompt are left behind");
        refusal
    };
    let item = |offset_tokens, length_tokens| MultimodalItem {
        identifier: "i".into(),
        offset_tokens,
        length_tokens,
    };

    assert_eq!(refused(&[1], 0, vec![]), PromptError::BlockSize(0));
    assert_eq!(refused(&[1], 65_537, vec![]), PromptError::BlockSize(65_537));
    assert_eq!(refused(&[], 16, vec![]), PromptError::Empty);
    assert_eq!(
        refused(&[1; 9], 4, vec![item(5, 1), item(4, 1)]),
        PromptError::MultimodalOrder { item: 1, offset_tokens: 4 }
    );
    assert_eq!(
        refused(&[1; 9], 4, vec![item(0, 1), item(u32::MAX, u32::MAX)]),
        PromptError::MultimodalPastEnd { item: 1, end_tokens: 8_589_934_590, prompt_tokens: 9 }
    );

    let of_text = |text, block_size| {
        text::text_keys(text, block_size, &Scope::default(), &mut Vec::new()).unwrap_err()
    };
    assert_eq!(of_text("", 16), PromptError::Empty);
    assert_eq!(of_text("a", 0), PromptError::BlockSize(0));
}

#[test]
fn text_is_estimated_at_four_bytes_a_token() {
    assert_eq!(text::estimated_tokens(""), 0);
    assert_eq!(text::estimated_tokens("a"), 1);
    assert_eq!(text::estimated_tokens("abcd"), 1);
    assert_eq!(text::estimated_tokens("abcde"), 2);
    assert_eq!(text::estimated_tokens("租户"), 2);
}

#[test]
fn text_is_cut_by_bytes_even_within_a_character() {
    let mut keys = Vec::new();
    text::text_keys("租户租户租户", 1, &Scope::default(), &mut keys).unwrap();
    assert_eq!(keys.len(), 4); // 18 bytes
}

#[test]
fn items_that_overlap_each_other_hide_those_after_the_one_that_goes_on() {
    let item = |identifier: &str, offset_tokens, length_tokens| MultimodalItem {
        identifier: identifier.into(),
        offset_tokens,
        length_tokens,
    };
    let chain = Chain::new("m", None, 4).unwrap();
    let keys = |multimodal: &[MultimodalItem]| {
        let mut keys = Vec::new();
        let extras = Extras { multimodal, ..Extras::default() };
        chain.block_keys(&[0; 12], extras, &mut keys);
        keys
    };
    let video = item("video", 0, 10);
    let both = keys(&[video.clone(), item("audio", 2, 9)]);
    let video_alone = keys(&[video]);
    assert_eq!(both[..2], video_alone[..2]);
    assert_ne!(both[2], video_alone[2]);
}
