//! What a block's key depends on besides its tokens, from either side: a request, or an event.

use super::mix::{self, Role};
use super::{Extras, MultimodalItem};

/// Salt and multimodal items of one block, hashed.
///
/// vLLM orders a block's extra keys LoRA, multimodal items by offset, salt, prompt embeddings, and
/// so does this: items first, then texts. The LoRA adapter is not in it but in the chain's root.
///
/// [`Chain::block_keys`](super::Chain::block_keys) makes one for each block of a request that has
/// any; for a block of an engine's event it is made from the extra keys that the event lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockExtra(pub(super) u64);

impl BlockExtra {
    /// The extra of a block that depends on `texts` (cache salt, digest of prompt embeddings) and
    /// on `multimodal` items, each an identifier and the offset of the item's first placeholder
    /// from the block's first token: negative where the item began in an earlier block. `None`
    /// where there is neither. Order matters.
    ///
    /// Events list texts untagged, and the adapter's name first if the event has an adapter: leave
    /// that one out, and what is left gives the key that a request with the same salt and items
    /// has.
    ///
    /// ```
    /// use llmd_brain::prompt::{BlockExtra, Chain, Extras};
    ///
    /// let chain = Chain::new("qwen3-32b", None, 4)?;
    /// let mut of_request = Vec::new();
    /// let extras = Extras { cache_salt: Some("tenant-a"), ..Extras::default() };
    /// chain.block_keys(&[1, 2, 3, 4], extras, &mut of_request);
    ///
    /// let extra = BlockExtra::new(["tenant-a"].into_iter(), std::iter::empty());
    /// assert_eq!(chain.next(chain.root(), &[1, 2, 3, 4], extra), of_request[0]);
    /// # Ok::<(), llmd_brain::prompt::PromptError>(())
    /// ```
    pub fn new<'a>(
        texts: impl Iterator<Item = &'a str>,
        multimodal: impl Iterator<Item = (&'a str, i64)>,
    ) -> Option<Self> {
        let mut hash = ExtraHash::default();
        for (identifier, offset) in multimodal {
            hash.multimodal(identifier, offset);
        }
        for text in texts {
            hash.text(text);
        }
        hash.finish()
    }
}

/// Builds a [`BlockExtra`] part by part.
#[derive(Default)]
struct ExtraHash(Option<u64>);

impl ExtraHash {
    fn multimodal(&mut self, identifier: &str, offset: i64) {
        self.push(mix::name(Role::Multimodal, identifier.as_bytes()));
        self.push(Role::Offset as u64 ^ offset.cast_unsigned());
    }

    fn text(&mut self, text: &str) {
        self.push(mix::name(Role::Salt, text.as_bytes()));
    }

    fn push(&mut self, part: u64) {
        self.0 = Some(mix::link(self.0.unwrap_or(Role::Extra as u64), part));
    }

    fn finish(self) -> Option<BlockExtra> {
        self.0.map(BlockExtra)
    }
}

/// Walks a request's extras block by block.
pub(super) struct BlockExtras<'a> {
    salt: Option<&'a str>,
    items: Items<'a>,
    block_tokens: u64,
    start: u64,
}

impl<'a> BlockExtras<'a> {
    /// From block number `first_block` of `block_tokens` tokens on.
    pub fn new(extras: Extras<'a>, block_tokens: u32, first_block: usize) -> Self {
        let block_tokens = u64::from(block_tokens);
        Self {
            salt: extras.cache_salt.filter(|salt| first_block == 0 && !salt.is_empty()),
            items: Items::new(extras.multimodal),
            block_tokens,
            start: first_block as u64 * block_tokens,
        }
    }

    /// Whether no block from here on has an extra.
    pub fn is_over(&self) -> bool {
        self.salt.is_none() && self.items.are_before(self.start)
    }

    /// The extra of the next block.
    pub fn next_block(&mut self) -> Option<BlockExtra> {
        let mut hash = ExtraHash::default();
        let start = self.start;
        self.start += self.block_tokens;
        self.items.overlapping(start, self.start, |identifier, offset| {
            hash.multimodal(identifier, offset);
        });
        if let Some(salt) = self.salt.take() {
            hash.text(salt);
        }
        hash.finish()
    }
}

/// Which multimodal items a block depends on, for blocks asked about in ascending order.
///
/// The rule is that of vLLM's `_gen_mm_extra_hash_keys`, also where items overlap each other (audio
/// in video): an item that goes on past the block's end hides those after it, and nothing counts
/// past the end of the last item.
pub(super) struct Items<'a> {
    all: &'a [MultimodalItem],
    current: usize,
}

impl<'a> Items<'a> {
    pub fn new(all: &'a [MultimodalItem]) -> Self {
        Self { all, current: 0 }
    }

    /// Whether all items end at or before token `start`.
    pub fn are_before(&self, start: u64) -> bool {
        self.all.last().is_none_or(|last| last.end_tokens() <= start)
    }

    /// Calls `each` with identifier and relative offset of what the block `start..end` depends on.
    pub fn overlapping(&mut self, start: u64, end: u64, mut each: impl FnMut(&'a str, i64)) {
        if self.are_before(start) {
            return;
        }
        while let Some(item) = self.all.get(self.current) {
            let offset = u64::from(item.offset_tokens);
            if offset >= end {
                return;
            }
            if item.end_tokens() > start {
                each(&item.identifier, offset.cast_signed() - start.cast_signed());
                if item.end_tokens() > end {
                    return;
                }
            }
            self.current += 1;
        }
    }
}
