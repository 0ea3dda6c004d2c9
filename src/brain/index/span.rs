//! Cutting engine blocks to the router's block size.
//!
//! An engine block of `k` router blocks completes `k` keys. A router block of `k` engine blocks is
//! completed by the last of them; the ones before it keep what they have gathered so far, because
//! several continuations may branch off each. Where neither size divides the other, or a boundary
//! falls inside of a block, there are no keys.

use super::ExtraKey;
use super::blocks::{BlockId, Keys};
use crate::BlockKey;
use crate::prompt::{BlockExtra, Chain};
use std::collections::BTreeSet;

/// Where a run of blocks goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// Key of the last whole router block; the chain's root where there is none.
    pub(super) base: BlockKey,
    /// The engine block that ends inside of the router block after it.
    pub(super) tail: Option<BlockId>,
    /// The engine block that ends there; none at the start of a prompt.
    pub(super) last: Option<BlockId>,
}

/// An engine block to be cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) extra_keys: &'a [ExtraKey],
    pub(super) lora: Option<&'a str>,
}

/// What a block depends on besides its tokens, while it is gathered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Gathered {
    texts: Vec<String>,
    multimodal: Vec<(String, i64)>,
}

impl Gathered {
    /// Adds what an engine block depends on that starts `start_tokens` into the router block. vLLM
    /// lists the LoRA name first, which the chain's root knows already.
    fn add(&mut self, keys: &[ExtraKey], lora: Option<&str>, start_tokens: i64) {
        for (position, key) in keys.iter().enumerate() {
            match key {
                ExtraKey::Text(text) if position == 0 && lora == Some(text) => {}
                ExtraKey::Text(text) => self.texts.push(text.clone()),
                ExtraKey::Multimodal { identifier, offset } => {
                    // An item that goes on from the engine block before is there already.
                    let item = (identifier.clone(), offset.saturating_add(start_tokens));
                    if !self.multimodal.contains(&item) {
                        self.multimodal.push(item);
                    }
                }
            }
        }
    }

    fn hash(&self) -> Option<BlockExtra> {
        BlockExtra::new(
            self.texts.iter().map(String::as_str),
            self.multimodal.iter().map(|(identifier, offset)| (identifier.as_str(), *offset)),
        )
    }
}

/// Place of an engine block within a router block that takes several.
#[derive(Debug)]
pub(super) struct Span {
    /// The engine block before it in the same router block.
    pub(super) previous: Option<BlockId>,
    /// The engine blocks after it in the same router block, one for each branch.
    pub(super) next: BTreeSet<BlockId>,
    /// Key of the router block before.
    base: BlockKey,
    /// The router block's ids so far; empty once it is complete.
    tokens: Vec<u32>,
    extras: Gathered,
}

impl Span {
    /// The cursor behind the block `id` whose span this is.
    pub(super) fn end(&self, id: BlockId) -> Cursor {
        Cursor { base: self.base, tail: Some(id), last: Some(id) }
    }

    /// Bytes allocated, without what changes after it was made.
    pub(super) fn memory_bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.tokens.capacity() * std::mem::size_of::<u32>()
    }
}

/// The keys that `piece` completes behind `cursor`, whose tail has the span `tail`; `None` where
/// the sizes do not fit.
pub(super) fn cut(
    chain: &Chain,
    cursor: Cursor,
    tail: Option<&Span>,
    piece: &Piece<'_>,
) -> Option<(Keys, Option<Box<Span>>)> {
    let (engine, router) = (piece.tokens.len(), chain.block_size() as usize);
    if tail.is_none() && engine.is_multiple_of(router) {
        cut_whole(chain, cursor.base, piece).map(|keys| (keys, None))
    } else {
        gather(chain, cursor, tail, piece)
    }
}

/// The key of one whole router block.
pub(super) fn whole_block(
    chain: &Chain,
    base: BlockKey,
    tokens: &[u32],
    extra_keys: &[ExtraKey],
    lora: Option<&str>,
) -> BlockKey {
    if extra_keys.is_empty() {
        return chain.next(base, tokens, None);
    }
    let mut extras = Gathered::default();
    extras.add(extra_keys, lora, 0);
    chain.next(base, tokens, extras.hash())
}

/// One or more whole router blocks.
fn cut_whole(chain: &Chain, base: BlockKey, piece: &Piece<'_>) -> Option<Keys> {
    let router = chain.block_size() as usize;
    let mut extras = Gathered::default();
    extras.add(piece.extra_keys, piece.lora, 0);
    let extra = extras.hash();
    if piece.tokens.len() == router {
        return Some(Keys::One([chain.next(base, piece.tokens, extra)]));
    }
    // Events tell where a multimodal item starts but not where it ends, so which of the router
    // blocks it covers cannot be known.
    if !extras.multimodal.is_empty() {
        return None;
    }
    let mut parent = base;
    let keys = piece.tokens.chunks_exact(router).enumerate().map(|(i, tokens)| {
        // A salt belongs to the first block; the chain carries it on.
        parent = chain.next(parent, tokens, if i == 0 { extra } else { None });
        parent
    });
    Some(Keys::Many(keys.collect()))
}

/// Part of a router block.
fn gather(
    chain: &Chain,
    cursor: Cursor,
    tail: Option<&Span>,
    piece: &Piece<'_>,
) -> Option<(Keys, Option<Box<Span>>)> {
    let (engine, router) = (piece.tokens.len(), chain.block_size() as usize);
    let start = tail.map_or(0, |tail| tail.tokens.len());
    if engine == 0 || !router.is_multiple_of(engine) || start + engine > router {
        return None;
    }
    let mut extras = tail.map(|tail| tail.extras.clone()).unwrap_or_default();
    extras.add(piece.extra_keys, piece.lora, start as i64);
    let mut tokens = Vec::with_capacity(start + engine);
    tokens.extend_from_slice(tail.map_or(&[], |tail| &tail.tokens));
    tokens.extend_from_slice(piece.tokens);

    let keys = if tokens.len() == router {
        let key = chain.next(cursor.base, &tokens, extras.hash());
        (tokens, extras) = Default::default();
        Keys::One([key])
    } else {
        Keys::none()
    };
    let (previous, base, next) = (cursor.tail, cursor.base, BTreeSet::new());
    Some((keys, Some(Box::new(Span { previous, next, base, tokens, extras }))))
}
