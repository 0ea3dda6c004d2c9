use super::{Conversations, Gaps, GenerateError, Lognormal, MOST_TOKENS, PrefixModel, within};
use crate::rng::Rng;
use crate::sim::Workload;

/// Conversations of many people, as an open loop: a turn comes whether or not the one before has been
/// answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chats {
    /// Requests in all.
    pub requests: u32,
    /// When they come.
    pub gaps: Gaps,
    /// What a turn adds to what was said, tokens.
    pub turn_tokens: Lognormal,
    /// Its answer, tokens.
    pub output_tokens: Lognormal,
    /// A conversation that would pass this is given up for a new one, tokens.
    pub most_tokens: u32,
    /// How prompts share their beginnings.
    pub prefixes: PrefixModel,
    /// Tokens a block.
    pub block_size: u32,
}

impl Default for Chats {
    /// 6,000 requests, one a second, Poisson; turns of about 400 tokens, answers of about 200, up to
    /// 32,000 tokens.
    fn default() -> Self {
        Self {
            requests: 6_000,
            gaps: Gaps { requests_per_s: 1.0, variation: 1.0 },
            turn_tokens: Lognormal::new(400.0, 1.2),
            output_tokens: Lognormal::new(200.0, 0.9),
            most_tokens: 32_000,
            prefixes: PrefixModel::default(),
            block_size: 16,
        }
    }
}

impl Chats {
    /// The workload.
    ///
    /// # Errors
    /// [`GenerateError`] names the setting that cannot be.
    ///
    /// ```
    /// use llmd_brain::sim::Chats;
    ///
    /// let chats = Chats { requests: 500, ..Chats::default() };
    /// let workload = chats.generate(1)?;
    /// assert_eq!(workload.prompts().len(), 500);
    /// assert!(workload.infinite_cache_hit_ratio() > 0.3);
    /// assert_eq!(chats.generate(1)?, workload);
    /// # Ok::<(), llmd_brain::sim::GenerateError>(())
    /// ```
    pub fn generate(&self, seed: u64) -> Result<Workload, GenerateError> {
        super::valid_requests("requests", self.requests)?;
        self.gaps.validate()?;
        self.turn_tokens.validate("turn_tokens")?;
        self.output_tokens.validate("output_tokens")?;
        let most = f64::from(MOST_TOKENS);
        within("most_tokens", self.most_tokens.into(), 2.0..=most, "2 to 10 million")?;
        let mut rng = Rng::new(seed);
        let mut conversations = Conversations::new(self.prefixes, self.block_size, &mut rng)?;
        let mut workload = Workload::new(self.block_size);
        let mut at_ms = 0.0;
        for _ in 0..self.requests {
            let said = self.turn_tokens.tokens(&mut rng).min(self.most_tokens / 2);
            let output_tokens = self.output_tokens.tokens(&mut rng).min(self.most_tokens);
            let room = self.most_tokens - said;
            let continued = conversations.continued(&mut rng, room);
            let conversation = continued.unwrap_or_else(|| conversations.begin(&mut rng, room));
            let tokens = conversation.tokens + said;
            workload.begin_session();
            let keys = conversation.keys(tokens / self.block_size);
            workload.push(at_ms, tokens, output_tokens, keys);
            conversations.keep(conversation, tokens + output_tokens);
            at_ms += self.gaps.draw_ms(&mut rng);
        }
        Ok(workload)
    }
}
