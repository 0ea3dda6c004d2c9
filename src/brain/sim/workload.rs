//! Who asks for what.

use crate::BlockKey;
use std::ops::Range;

/// One request of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prompt {
    /// Milliseconds: from the trace's beginning where it is an open loop; else the pause between the
    /// end of the session's request before and this one.
    pub at_ms: f64,
    /// Length of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Tokens that will be generated, at least 1.
    pub output_tokens: u32,
    /// Its full blocks in the workload's arena.
    first_key: u32,
    keys: u32,
}

/// Requests in sessions, and the keys of their blocks.
///
/// In an open loop every session is one request. In a closed loop a session's requests follow each
/// other: the next is sent when the one before has been answered and its pause is over.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workload {
    block_size: u32,
    keys: Vec<BlockKey>,
    prompts: Vec<Prompt>,
    sessions: Vec<Range<u32>>,
    /// Whose each session is.
    tenants: Vec<u32>,
}

impl Workload {
    /// One without requests.
    #[must_use]
    pub fn new(block_size: u32) -> Self {
        Self { block_size, ..Self::default() }
    }

    /// Begins a session; the prompts pushed from now on are its own.
    pub fn begin_session(&mut self) {
        self.begin_session_of(0);
    }

    /// The same for a tenant; 0 is nobody's.
    pub fn begin_session_of(&mut self, tenant: u32) {
        let at = self.prompts.len() as u32;
        self.sessions.push(at..at);
        self.tenants.push(tenant);
    }

    /// One more request of the last session. Keys past the prompt's full blocks are dropped, and an
    /// empty prompt or answer counts as one token.
    pub fn push(
        &mut self,
        at_ms: f64,
        prompt_tokens: u32,
        output_tokens: u32,
        keys: impl IntoIterator<Item = BlockKey>,
    ) {
        if self.sessions.is_empty() {
            self.begin_session();
        }
        let first_key = self.keys.len() as u32;
        let full = prompt_tokens / self.block_size.max(1);
        self.keys.extend(keys.into_iter().take(full as usize));
        self.prompts.push(Prompt {
            at_ms,
            prompt_tokens: prompt_tokens.max(1),
            output_tokens: output_tokens.max(1),
            first_key,
            keys: self.keys.len() as u32 - first_key,
        });
        if let Some(session) = self.sessions.last_mut() {
            session.end += 1;
        }
    }

    /// Tokens a key stands for.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// All requests, session after session.
    #[must_use]
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// The tenant of a session; 0 is nobody's.
    #[must_use]
    pub fn tenant(&self, session: u32) -> u32 {
        self.tenants.get(session as usize).copied().unwrap_or_default()
    }

    /// The requests of each session.
    #[must_use]
    pub fn sessions(&self) -> &[Range<u32>] {
        &self.sessions
    }

    /// The keys of a request's full blocks.
    #[must_use]
    pub fn keys(&self, prompt: &Prompt) -> &[BlockKey] {
        &self.keys[prompt.first_key as usize..][..prompt.keys as usize]
    }

    /// Gives every request another time.
    pub(super) fn retime(&mut self, time: impl Fn(f64) -> f64) {
        self.prompts.iter_mut().for_each(|it| it.at_ms = time(it.at_ms));
    }

    /// Share of all prompt tokens that a cache without bounds, shared by all, would have.
    #[must_use]
    pub fn infinite_cache_hit_ratio(&self) -> f64 {
        let mut seen = std::collections::HashSet::new();
        let (mut hits, mut tokens) = (0_u64, 0_u64);
        for prompt in &self.prompts {
            let keys = self.keys(prompt);
            let held = keys.iter().take_while(|key| seen.contains(*key)).count() as u64;
            hits += (held * u64::from(self.block_size)).min(u64::from(prompt.prompt_tokens) - 1);
            tokens += u64::from(prompt.prompt_tokens);
            seen.extend(keys.iter().copied());
        }
        hits as f64 / tokens.max(1) as f64
    }
}
