//! Chat sessions over shared system prompts, closed loop.

use super::engine::BLOCK_TOKENS;
use crate::rng::Rng;
use std::rc::Rc;

#[derive(Debug, Clone, Copy)]
pub struct Chat {
    pub sessions: usize,
    pub turns: usize,
    pub system_prompts: usize,
    pub system_tokens: usize,
    /// Tokens of a user's message, from a half to one and a half of it.
    pub user_tokens: usize,
    /// Tokens of an answer, from a half to one and a half of it.
    pub output_tokens: usize,
    /// Mean pause between an answer and the next message, milliseconds.
    pub think_ms: f64,
    /// The sessions start within this time.
    pub start_ms: f64,
}

/// What people do with a chat assistant behind a long system prompt.
pub const CHAT: Chat = Chat {
    sessions: 64,
    turns: 6,
    system_prompts: 8,
    system_tokens: 2_048,
    user_tokens: 480,
    output_tokens: 48,
    think_ms: 1_500.0,
    start_ms: 3_000.0,
};

pub struct Turn {
    pub prompt_tokens: usize,
    pub output_tokens: usize,
    /// From the answer before, or from the start.
    pub pause_ms: f64,
}

pub struct Session {
    pub name: String,
    pub contents: Rc<[u64]>,
    pub turns: Vec<Turn>,
}

impl Chat {
    pub fn sessions(&self, seed: u64) -> Vec<Session> {
        let mut rng = Rng::new(seed);
        (0..self.sessions).map(|number| self.session(number, &mut rng)).collect()
    }

    fn session(&self, number: usize, rng: &mut Rng) -> Session {
        let mut around = |mean: usize| mean / 2 + rng.below(mean as u64 + 1) as usize;
        let lengths: Vec<(usize, usize)> = (0..self.turns)
            .map(|_| (around(self.user_tokens), around(self.output_tokens).max(1)))
            .collect();
        let mut context = self.system_tokens;
        let mut turns = Vec::new();
        for (turn, (user, output_tokens)) in lengths.into_iter().enumerate() {
            context += user;
            let pause_ms = if turn == 0 {
                rng.next_f64() * self.start_ms
            } else {
                -self.think_ms * libm::log(1.0 - rng.next_f64())
            };
            turns.push(Turn { prompt_tokens: context, output_tokens, pause_ms });
            context += output_tokens;
        }
        let system = rng.below(self.system_prompts as u64) as usize;
        let system_blocks = self.system_tokens / BLOCK_TOKENS;
        let blocks = context / BLOCK_TOKENS + 1;
        let contents = (0..blocks).map(|block| {
            let (owner, tag) = if block < system_blocks { (system, 0) } else { (number, 1) };
            (tag << 62 | owner << 32 | block) as u64
        });
        Session { name: format!("session-{number}"), contents: contents.collect(), turns }
    }
}

/// Blocks of KV that hold every conversation at its end, shared ones once.
pub fn working_set_blocks(sessions: &[Session]) -> usize {
    let mut all: Vec<u64> =
        sessions.iter().flat_map(|session| session.contents.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all.len()
}
