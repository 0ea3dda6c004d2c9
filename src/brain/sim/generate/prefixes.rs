//! Which prompts begin alike: system prompts chosen by Zipf's law, and conversations that go on.

use super::{GenerateError, Lognormal, within};
use crate::BlockKey;
use crate::rng::Rng;
use crate::sim::trace::key;
use std::collections::VecDeque;

/// How prompts share their beginnings, where nothing says so.
///
/// Each conversation begins with one of `system_prompts` texts, number k of them with a probability
/// proportional to `k^-zipf`. With the chance `multi_turn` a request continues one of the
/// `open_conversations` that were active last, drawn uniformly, and repeats all of it, answer
/// included; else it begins a new one. Where prompts have lengths already, only conversations that
/// fit into the prompt can be continued, and a system prompt is cut to half of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefixModel {
    /// How many system prompts there are.
    pub system_prompts: u32,
    /// Exponent of their popularity: 0 is uniform.
    pub zipf: f64,
    /// Their lengths, tokens.
    pub system_tokens: Lognormal,
    /// Chance that a request continues a conversation, 0 to 1.
    pub multi_turn: f64,
    /// Conversations that may be continued.
    pub open_conversations: u32,
}

impl Default for PrefixModel {
    /// 64 system prompts of about 500 tokens, popularity as 1/k; six requests of ten continue one of
    /// 256 conversations.
    fn default() -> Self {
        Self {
            system_prompts: 64,
            zipf: 1.0,
            system_tokens: Lognormal::new(500.0, 0.7),
            multi_turn: 0.6,
            open_conversations: 256,
        }
    }
}

/// Most system prompts.
const MOST_PROMPTS: f64 = 1e6;
/// Scopes of the keys of system prompts and of conversations.
const SYSTEM: u64 = 1 << 62;
const CONVERSATION: u64 = 1 << 63;

/// A conversation so far.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Conversation {
    number: u64,
    system: u64,
    system_blocks: u32,
    /// All that was said, answers included.
    pub(in crate::sim) tokens: u32,
}

impl Conversation {
    /// The keys of its first blocks.
    pub(in crate::sim) fn keys(self, blocks: u32) -> impl Iterator<Item = BlockKey> {
        (0..blocks).map(move |at| match at < self.system_blocks {
            true => key(SYSTEM + self.system, at.into()),
            false => key(CONVERSATION + self.number, at.into()),
        })
    }
}

/// The conversations of a workload while it is made.
#[derive(Debug)]
pub(in crate::sim) struct Conversations {
    model: PrefixModel,
    block_size: u32,
    /// Cumulative popularity of the system prompts, and their lengths.
    popularity: Vec<f64>,
    system_tokens: Vec<u32>,
    /// Those that may be continued, the longest inactive first.
    open: VecDeque<Conversation>,
    begun: u64,
}

impl Conversations {
    pub(in crate::sim) fn new(
        model: PrefixModel,
        block_size: u32,
        rng: &mut Rng,
    ) -> Result<Self, GenerateError> {
        super::valid_block_size(block_size)?;
        let prompts = f64::from(model.system_prompts);
        within("system_prompts", prompts, 1.0..=MOST_PROMPTS, "1 to 1 million")?;
        within("zipf", model.zipf, 0.0..=10.0, "0 to 10")?;
        within("multi_turn", model.multi_turn, 0.0..=1.0, "a chance of 0 to 1")?;
        model.system_tokens.validate("system_tokens")?;
        let mut sum = 0.0;
        let popularity = (1..=model.system_prompts)
            .map(|rank| {
                sum += libm::pow(f64::from(rank), -model.zipf);
                sum
            })
            .collect();
        let system_tokens =
            (0..model.system_prompts).map(|_| model.system_tokens.tokens(rng)).collect();
        let open = VecDeque::new();
        Ok(Self { model, block_size, popularity, system_tokens, open, begun: 0 })
    }

    /// A new conversation whose system prompt takes at most `most_tokens`.
    pub(in crate::sim) fn begin(&mut self, rng: &mut Rng, most_tokens: u32) -> Conversation {
        let at = rng.next_f64() * self.popularity.last().copied().unwrap_or_default();
        let system = self.popularity.partition_point(|sum| *sum <= at);
        let tokens = self.system_tokens.get(system).copied().unwrap_or_default().min(most_tokens);
        self.begun += 1;
        Conversation {
            number: self.begun,
            system: system as u64,
            system_blocks: tokens / self.block_size,
            tokens,
        }
    }

    /// One that is continued, of those with at most `most_tokens`; `None` where a new one begins.
    pub(in crate::sim) fn continued(
        &mut self,
        rng: &mut Rng,
        most_tokens: u32,
    ) -> Option<Conversation> {
        if rng.next_f64() >= self.model.multi_turn {
            return None;
        }
        let fits = |it: &Conversation| it.tokens <= most_tokens;
        let count = self.open.iter().filter(|it| fits(it)).count() as u64;
        let chosen = rng.below(count) as usize;
        let places = self.open.iter().enumerate().filter(|(_, it)| fits(it));
        let place = places.map(|(place, _)| place).nth(chosen)?;
        self.open.remove(place)
    }

    /// A conversation may be continued, now that it has `tokens`.
    pub(in crate::sim) fn keep(&mut self, mut conversation: Conversation, tokens: u32) {
        conversation.tokens = tokens;
        self.open.push_back(conversation);
        while self.open.len() > self.model.open_conversations as usize {
            self.open.pop_front();
        }
    }
}
