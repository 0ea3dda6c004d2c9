//! The keys of a prompt that grows: each turn of a conversation hashes only what is new.

use super::{Chain, MAX_PROMPT_TOKENS, MultimodalItem, PromptError, Scope};
use crate::BlockKey;

/// A prompt that is only ever appended to (or cut), so that the keys it has stay right without its
/// tokens being kept or compared.
///
/// ```
/// use llmd_brain::prompt::{GrowingPrompt, Scope, token_keys};
///
/// let tokens: Vec<u32> = (0..100).collect();
/// let mut prompt = GrowingPrompt::new(16, Scope::default())?;
/// prompt.extend(&tokens[..40], &[])?;
/// prompt.extend(&tokens[40..], &[])?;
///
/// let mut whole = Vec::new();
/// token_keys(&tokens, 16, &Scope::default(), &mut whole)?;
/// assert_eq!(prompt.keys(), whole);
/// # Ok::<(), llmd_brain::prompt::PromptError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrowingPrompt {
    chain: Chain,
    scope: Scope,
    keys: Vec<BlockKey>,
    /// Tokens after the last full block: less than a block.
    rest: Vec<u32>,
}

impl GrowingPrompt {
    /// An empty prompt; `scope` names no multimodal items yet.
    ///
    /// # Errors
    /// [`PromptError::BlockSize`]; [`PromptError::MultimodalPastEnd`] for an item.
    pub fn new(block_size: u32, scope: Scope) -> Result<Self, PromptError> {
        let chain = Chain::new(&scope.model, scope.lora.as_deref(), block_size)?;
        scope.check(0)?;
        Ok(Self { chain, scope, keys: Vec::new(), rest: Vec::new() })
    }

    /// What its keys are bound to.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Tokens a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.chain.block_size()
    }

    /// The keys of its full blocks.
    #[must_use]
    pub fn keys(&self) -> &[BlockKey] {
        &self.keys
    }

    /// Length, tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len() * self.block_size() as usize + self.rest.len()
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.rest.is_empty()
    }

    /// Appends tokens, and the multimodal items that lie in them; their offsets count from the
    /// start of the prompt.
    ///
    /// # Errors
    /// [`PromptError::TooLong`]; for an item [`PromptError::MultimodalOrder`] where it begins
    /// before the new tokens or the item before it, [`PromptError::MultimodalPastEnd`]. Nothing is
    /// appended then.
    pub fn extend(&mut self, tokens: &[u32], items: &[MultimodalItem]) -> Result<(), PromptError> {
        let before = self.len();
        let after = before + tokens.len();
        if after > MAX_PROMPT_TOKENS {
            return Err(PromptError::TooLong(after));
        }
        let known = self.scope.multimodal.len();
        if let Some(at) = items.iter().position(|item| (item.offset_tokens as usize) < before) {
            let offset_tokens = items[at].offset_tokens;
            return Err(PromptError::MultimodalOrder { item: known + at, offset_tokens });
        }
        self.scope.multimodal.extend_from_slice(items);
        if let Err(error) = self.scope.check(after) {
            self.scope.multimodal.truncate(known);
            return Err(error);
        }
        let block = self.block_size() as usize;
        // The block that was begun before, then those that lie in the new tokens.
        let missing = (block - self.rest.len()) % block;
        let (first, tokens) = tokens.split_at(missing.min(tokens.len()));
        self.rest.extend_from_slice(first);
        if self.rest.len() == block {
            self.chain.append(&mut self.keys, &self.rest, self.scope.extras());
            self.rest.clear();
        }
        let (full, rest) = tokens.split_at(tokens.len() / block * block);
        self.chain.append(&mut self.keys, full, self.scope.extras());
        self.rest.extend_from_slice(rest);
        Ok(())
    }

    /// Cuts the prompt to whole blocks of at most `length` tokens, and before a multimodal item
    /// that would be cut in two; returns how long it is now.
    pub fn truncate(&mut self, length: usize) -> usize {
        let mut length = length;
        while length < self.len() {
            self.keys.truncate(length / self.block_size() as usize);
            self.rest.clear();
            let items = &mut self.scope.multimodal;
            let left = (self.keys.len() * self.chain.block_size() as usize) as u64;
            if let Some(at) = items.iter().position(|item| item.end_tokens() > left) {
                length = items[at].offset_tokens as usize;
                items.truncate(at);
            }
        }
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::token_keys;
    use proptest::prelude::*;

    /// Lengths of turns, and before each perhaps a cut to a share of what there is.
    fn turns() -> impl Strategy<Value = Vec<(usize, Option<f64>)>> {
        prop::collection::vec((0_usize..40, prop::option::of(0.0_f64..1.2)), 1..8)
    }

    proptest! {
        #[test]
        fn keys_are_those_of_the_whole_prompt(
            block_size in 1_u32..9,
            turns in turns(),
            item_tokens in 0_u32..6,
            salt in prop::option::of("[a-z]{1,3}"),
        ) {
            let scope = Scope { model: "m".into(), cache_salt: salt, ..Scope::default() };
            let mut prompt = GrowingPrompt::new(block_size, scope.clone()).unwrap();
            let mut tokens: Vec<u32> = Vec::new();
            let mut items: Vec<MultimodalItem> = Vec::new();
            for (turn, (length, cut)) in turns.into_iter().enumerate() {
                if let Some(share) = cut {
                    let left = prompt.truncate((share * tokens.len() as f64) as usize);
                    prop_assert!(left <= tokens.len());
                    tokens.truncate(left);
                    items.retain(|item| item.end_tokens() <= left as u64);
                }
                let begin = tokens.len() as u32;
                tokens.extend((0..length as u32).map(|i| i * 7 + turn as u32));
                let item = MultimodalItem {
                    identifier: format!("image {turn}"),
                    offset_tokens: begin,
                    length_tokens: item_tokens.min(length as u32),
                };
                let new = if item.length_tokens > 0 { vec![item] } else { Vec::new() };
                prompt.extend(&tokens[begin as usize..], &new).unwrap();
                items.extend(new);

                prop_assert_eq!(prompt.len(), tokens.len());
                let whole = Scope { multimodal: items.clone(), ..scope.clone() };
                let mut keys = Vec::new();
                if !tokens.is_empty() {
                    token_keys(&tokens, block_size, &whole, &mut keys).unwrap();
                }
                prop_assert_eq!(prompt.keys(), &keys);
            }
        }
    }

    #[test]
    fn an_item_in_the_tokens_that_are_there_is_refused_and_nothing_is_appended() {
        let mut prompt = GrowingPrompt::new(4, Scope::default()).unwrap();
        prompt.extend(&[1, 2, 3, 4, 5], &[]).unwrap();
        let before = prompt.clone();
        let item = |offset_tokens, length_tokens| {
            let identifier = "image".into();
            [MultimodalItem { identifier, offset_tokens, length_tokens }]
        };

        let early = prompt.extend(&[6, 7], &item(4, 2)).unwrap_err();
        let late = prompt.extend(&[6, 7], &item(5, 9)).unwrap_err();

        assert_eq!(early, PromptError::MultimodalOrder { item: 0, offset_tokens: 4 });
        let past_end = PromptError::MultimodalPastEnd { item: 0, end_tokens: 14, prompt_tokens: 7 };
        assert_eq!(late, past_end);
        assert_eq!(prompt, before);
    }
}
