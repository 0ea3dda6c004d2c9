use super::{Conversations, GenerateError, Lognormal, MOST_TOKENS, PrefixModel, within};
use crate::rng::Rng;
use crate::sim::Workload;

/// Agents in their loops, as sessions of a closed loop: each turn repeats all before and adds what a
/// tool returned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agents {
    /// Sessions in all.
    pub sessions: u32,
    /// Mean number of turns; each is the last with the same chance.
    pub mean_turns: f64,
    /// The task, behind the system prompt, tokens.
    pub task_tokens: Lognormal,
    /// What a turn adds, tokens.
    pub tool_tokens: Lognormal,
    /// Answers, tokens.
    pub output_tokens: Lognormal,
    /// Time that a tool takes, milliseconds.
    pub tool_ms: Lognormal,
    /// A session ends before it passes this, tokens.
    pub most_tokens: u32,
    /// System prompts; agents continue none but their own session.
    pub prefixes: PrefixModel,
    /// Tokens a block.
    pub block_size: u32,
}

impl Default for Agents {
    /// 200 sessions of 20 turns on average: system prompts of about 8,000 tokens, tools that return
    /// about 800 within about 2 s, answers of about 250, up to 128,000 tokens.
    fn default() -> Self {
        Self {
            sessions: 200,
            mean_turns: 20.0,
            task_tokens: Lognormal::new(1_000.0, 1.0),
            tool_tokens: Lognormal::new(800.0, 1.2),
            output_tokens: Lognormal::new(250.0, 0.8),
            tool_ms: Lognormal::new(2_000.0, 1.0),
            most_tokens: 128_000,
            prefixes: PrefixModel {
                system_prompts: 16,
                system_tokens: Lognormal::new(8_000.0, 0.5),
                ..PrefixModel::default()
            },
            block_size: 16,
        }
    }
}

impl Agents {
    /// The workload.
    ///
    /// # Errors
    /// [`GenerateError`] names the setting that cannot be.
    ///
    /// ```
    /// use llmd_brain::sim::Agents;
    ///
    /// let workload = Agents { sessions: 40, ..Agents::default() }.generate(1)?;
    /// assert_eq!(workload.sessions().len(), 40);
    /// assert!(workload.infinite_cache_hit_ratio() > 0.8);
    /// # Ok::<(), llmd_brain::sim::GenerateError>(())
    /// ```
    pub fn generate(&self, seed: u64) -> Result<Workload, GenerateError> {
        super::valid_requests("sessions", self.sessions)?;
        within("mean_turns", self.mean_turns, 1.0..=1e4, "1 to 10000")?;
        self.task_tokens.validate("task_tokens")?;
        self.tool_tokens.validate("tool_tokens")?;
        self.output_tokens.validate("output_tokens")?;
        self.tool_ms.validate("tool_ms")?;
        let most = f64::from(MOST_TOKENS);
        within("most_tokens", self.most_tokens.into(), 2.0..=most, "2 to 10 million")?;
        let mut rng = Rng::new(seed);
        let mut conversations = Conversations::new(self.prefixes, self.block_size, &mut rng)?;
        let mut workload = Workload::new(self.block_size);
        for _ in 0..self.sessions {
            workload.begin_session();
            let session = conversations.begin(&mut rng, self.most_tokens / 2);
            let task = self.task_tokens.tokens(&mut rng).min(self.most_tokens / 2);
            let (mut tokens, mut pause_ms) = (session.tokens + task, 0.0);
            while tokens <= self.most_tokens {
                let output_tokens = self.output_tokens.tokens(&mut rng).min(self.most_tokens);
                let keys = session.keys(tokens / self.block_size);
                workload.push(pause_ms, tokens, output_tokens, keys);
                if rng.next_f64() * self.mean_turns < 1.0 {
                    break;
                }
                let added = output_tokens.saturating_add(self.tool_tokens.tokens(&mut rng));
                tokens = tokens.saturating_add(added);
                pause_ms = self.tool_ms.draw(&mut rng);
            }
        }
        Ok(workload)
    }
}
