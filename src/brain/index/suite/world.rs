//! Prompts, the blocks that an engine makes of them, and random events about those.

use crate::index::{
    BlockRemoved, BlockStored, ExtraKey, GroupSpec, IndexConfig, KvEvent, KvEventBatch, SpecKind,
};
use crate::prompt::{MultimodalItem, Scope, text, token_keys};
use crate::{BlockKey, EngineHash, Tier};
use proptest::prelude::*;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

/// Tokens of a router block.
pub(super) const BLOCK: u32 = 4;
/// The only model.
pub(super) const MODEL: &str = "model";
/// Prompt tokens: six router blocks.
const TOKENS: u32 = 24;

/// A prompt within a scope: what a request asks for, and what an engine caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Prompt {
    /// Where it leaves the trunk that all prompts share.
    branch: u8,
    kind: ScopeKind,
    /// Under another name at the engine though the router sees no difference.
    alias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ScopeKind {
    Plain,
    Salted,
    Lora,
    Image,
}

impl Prompt {
    /// Tokens shared with the trunk: prompts part at, before and after block boundaries.
    const BRANCHES: [u32; 5] = [TOKENS, 16, 10, 7, 2];

    /// Every prompt that differs to the router.
    pub(super) fn all() -> impl Iterator<Item = Self> + Clone {
        use ScopeKind::{Image, Lora, Plain, Salted};
        (0..Self::BRANCHES.len() as u8).flat_map(|branch| {
            [Plain, Salted, Lora, Image].map(|kind| Self { branch, kind, alias: false })
        })
    }

    pub(super) fn any() -> impl Strategy<Value = Self> {
        use ScopeKind::{Image, Lora, Plain, Salted};
        let kind =
            prop_oneof![6 => Just(Plain), 1 => Just(Salted), 1 => Just(Lora), 1 => Just(Image)];
        let alias = proptest::bool::weighted(0.1);
        (0..Self::BRANCHES.len() as u8, kind, alias).prop_map(|(branch, kind, alias)| Self {
            branch,
            kind,
            alias,
        })
    }

    fn tokens(self) -> Vec<u32> {
        let shared = Self::BRANCHES[usize::from(self.branch)];
        (0..TOKENS).map(|i| if i < shared { i } else { i + 100 * u32::from(self.branch) }).collect()
    }

    fn scope(self) -> Scope {
        let mut scope = Scope { model: MODEL.to_owned(), ..Scope::default() };
        match self.kind {
            ScopeKind::Plain => {}
            ScopeKind::Salted => scope.cache_salt = Some("salt".to_owned()),
            ScopeKind::Lora => scope.lora = Some("adapter".to_owned()),
            ScopeKind::Image => scope.multimodal.push(MultimodalItem {
                identifier: "image".to_owned(),
                offset_tokens: 6,
                length_tokens: 7,
            }),
        }
        scope
    }

    /// What a request with this prompt is looked up by.
    pub(super) fn keys(self) -> &'static [BlockKey] {
        &KEYS[&Self { alias: false, ..self }].of_tokens
    }

    /// What it is looked up by if it comes as text, a letter for each token.
    pub(super) fn text_keys(self) -> &'static [BlockKey] {
        &KEYS[&Self { alias: false, ..self }].of_text
    }

    /// The engine's name of block `index` of `size` tokens: like a chained hash, it names the
    /// whole prefix.
    fn name(self, index: u32, size: u32) -> EngineHash {
        let end = ((index + 1) * size) as usize;
        let mut hasher = DefaultHasher::new();
        (&self.tokens()[..end], self.kind, self.alias, size).hash(&mut hasher);
        EngineHash(hasher.finish())
    }

    /// The whole prompt is stored.
    pub(super) fn stored_whole(self, size: u32) -> KvEvent {
        let (tier, group, shape) = (Tier::Gpu, Group::Unnamed, Shape::Plain);
        let len = TOKENS / BLOCK;
        Happening::Store { prompt: self, from: 0, len, tier, group, shape }.event(size)
    }

    /// What vLLM lists for a block besides its tokens.
    fn extra_keys(self, index: u32, size: u32) -> Vec<ExtraKey> {
        let (start, end) = (i64::from(index * size), i64::from((index + 1) * size));
        let scope = self.scope();
        let mut keys: Vec<_> = scope.lora.into_iter().map(ExtraKey::Text).collect();
        for item in scope.multimodal {
            let first = i64::from(item.offset_tokens);
            if first < end && start < first + i64::from(item.length_tokens) {
                let (identifier, offset) = (item.identifier, first - start);
                keys.push(ExtraKey::Multimodal { identifier, offset });
            }
        }
        keys.extend(scope.cache_salt.filter(|_| index == 0).map(ExtraKey::Text));
        keys
    }
}

struct PromptKeys {
    of_tokens: Vec<BlockKey>,
    of_text: Vec<BlockKey>,
}

/// Keys of every prompt.
static KEYS: LazyLock<HashMap<Prompt, PromptKeys>> = LazyLock::new(|| {
    let keys_of = |prompt: Prompt| {
        let (tokens, scope) = (prompt.tokens(), prompt.scope());
        let letter = |token: &u32| char::from(b'a' + (token % 26) as u8);
        let letters = |token| std::iter::repeat_n(letter(token), text::BYTES_PER_TOKEN);
        let (mut of_tokens, mut of_text) = (Vec::new(), Vec::new());
        token_keys(&tokens, BLOCK, &scope, &mut of_tokens).unwrap();
        let text: String = tokens.iter().flat_map(letters).collect();
        text::text_keys(&text, BLOCK, &scope, &mut of_text).unwrap();
        (prompt, PromptKeys { of_tokens, of_text })
    };
    Prompt::all().map(keys_of).collect()
});

/// How an event is wrong, or special.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Neither.
    Plain,
    /// Names only, as offload tiers announce blocks.
    NamesOnly,
    /// One token too few.
    TokensShort,
    /// Extra keys for one block too many.
    ExtrasLong,
}

/// A KV cache group that an event names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Unnamed,
    Full(u32),
    Window(u32),
    Unstated(u32),
}

impl Group {
    fn any(hybrid: bool) -> BoxedStrategy<Self> {
        if !hybrid {
            return prop_oneof![4 => Just(Self::Unnamed), 1 => Just(Self::Full(0))].boxed();
        }
        prop_oneof![
            4 => Just(Self::Full(0)),
            4 => Just(Self::Full(3)),
            1 => Just(Self::Window(1)),
            1 => (0..4u32).prop_map(Self::Unstated),
            1 => Just(Self::Unnamed),
        ]
        .boxed()
    }

    fn spec(self) -> Option<GroupSpec> {
        let spec = |index, kind| GroupSpec { index, kind, sliding_window_tokens: None };
        match self {
            Self::Unnamed => None,
            Self::Full(index) => Some(spec(index, SpecKind::FullAttention)),
            Self::Window(index) => Some(spec(index, SpecKind::SlidingWindow)),
            Self::Unstated(index) => Some(spec(index, SpecKind::Unstated)),
        }
    }
}

/// An event about blocks `from..from + len` of a prompt.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    Store { prompt: Prompt, from: u32, len: u32, tier: Tier, group: Group, shape: Shape },
    Remove { prompt: Prompt, from: u32, len: u32, tier: Tier, group: Group },
    Clear,
}

impl Happening {
    /// Mostly stores from the start of a prompt, and removals from its middle and end.
    pub(super) fn any(hybrid: bool) -> impl Strategy<Value = Self> {
        let tier = || {
            prop_oneof![
                6 => Just(Tier::Gpu),
                2 => Just(Tier::Cpu),
                1 => Just(Tier::Storage),
                1 => Just(Tier::Remote),
            ]
        };
        let shape = prop_oneof![
            20 => Just(Shape::Plain),
            2 => Just(Shape::NamesOnly),
            1 => Just(Shape::TokensShort),
            1 => Just(Shape::ExtrasLong),
        ];
        let from = prop_oneof![3 => Just(0u32), 2 => 0..6u32];
        let store = (Prompt::any(), from, 0..7u32, tier(), Group::any(hybrid), shape).prop_map(
            |(prompt, from, len, tier, group, shape)| Self::Store {
                prompt,
                from,
                len,
                tier,
                group,
                shape,
            },
        );
        let remove = (Prompt::any(), 0..6u32, 1..4u32, tier(), Group::any(hybrid)).prop_map(
            |(prompt, from, len, tier, group)| Self::Remove { prompt, from, len, tier, group },
        );
        prop_oneof![20 => store, 16 => remove, 1 => Just(Self::Clear)]
    }

    /// The event, from an engine whose blocks have `size` tokens.
    pub(super) fn event(self, size: u32) -> KvEvent {
        match self {
            Self::Clear => KvEvent::Cleared,
            Self::Remove { prompt, from, len, tier, group } => {
                let blocks = blocks(from, len, size);
                KvEvent::Removed(BlockRemoved {
                    block_hashes: blocks.map(|i| prompt.name(i, size)).collect(),
                    tier,
                    group: group.spec().map(|spec| spec.index),
                })
            }
            Self::Store { prompt, from, len, tier, group, shape } => {
                let blocks = blocks(from, len, size);
                let mut token_ids = prompt.tokens()
                    [(blocks.start * size) as usize..(blocks.end * size) as usize]
                    .to_vec();
                let mut extra_keys: Vec<_> =
                    blocks.clone().map(|i| prompt.extra_keys(i, size)).collect();
                match shape {
                    Shape::Plain => {}
                    Shape::NamesOnly => {
                        token_ids.clear();
                        extra_keys.clear();
                    }
                    Shape::TokensShort => token_ids.truncate(token_ids.len().saturating_sub(1)),
                    Shape::ExtrasLong => extra_keys.push(vec![]),
                }
                KvEvent::Stored(BlockStored {
                    block_hashes: blocks.clone().map(|i| prompt.name(i, size)).collect(),
                    parent: blocks.start.checked_sub(1).map(|i| prompt.name(i, size)),
                    token_ids,
                    block_size: size,
                    tier,
                    lora: prompt.scope().lora,
                    extra_keys,
                    group: group.spec(),
                })
            }
        }
    }
}

/// Engine blocks that cover router blocks `from..from + len`, as far as the prompt goes.
fn blocks(from: u32, len: u32, size: u32) -> std::ops::Range<u32> {
    let last = TOKENS / size;
    let start = (from * BLOCK).div_ceil(size).min(last);
    start..((from + len) * BLOCK).div_ceil(size).clamp(start, last)
}

/// Engine block sizes: mostly the router's, then multiples and divisors, and one that is neither.
pub(super) fn engine_block_size() -> impl Strategy<Value = u32> {
    prop_oneof![6 => Just(4), 2 => Just(8), 1 => Just(12), 3 => Just(2), 2 => Just(1), 1 => Just(3)]
}

/// Bounds small enough to be met, but for the memory of all: what goes first there is not told to
/// the block.
pub(super) fn config() -> impl Strategy<Value = IndexConfig> {
    (1..12usize).prop_map(|approximate_blocks| IndexConfig {
        speculative_ttl_ms: 20,
        approximate_ttl_ms: 100,
        approximate_blocks,
        ..IndexConfig::default()
    })
}

pub(super) fn batch(events: Vec<KvEvent>) -> KvEventBatch {
    KvEventBatch { timestamp_s: 0.0, dp_rank: None, events }
}
