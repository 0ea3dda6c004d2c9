use super::kv_cache::BlockIndex;
use super::{EngineRequest, RequestId};

/// A request inside the engine.
#[derive(Debug, Clone)]
pub(super) struct Sequence<K> {
    pub(super) id: RequestId,
    pub(super) prompt_tokens: u32,
    /// Tokens that it will have at its end.
    pub(super) final_tokens: u32,
    /// Prompt tokens and those generated so far.
    pub(super) tokens: u32,
    /// Tokens whose KV is in the cache; what a preemption throws away.
    pub(super) computed: u32,
    /// Tokens that the step in flight computes.
    pub(super) scheduled: u32,
    /// Leading blocks whose identity is settled: shared, or published after they were computed.
    pub(super) published: u32,
    /// Leading blocks that may be cached.
    pub(super) cacheable_blocks: u32,
    pub(super) keys: Vec<K>,
    pub(super) blocks: Vec<BlockIndex>,
    /// Was preempted at least once.
    pub(super) resumed: bool,
    /// Leaves at the end of the step in flight.
    pub(super) aborted: bool,
}

impl<K> Sequence<K> {
    pub(super) fn new(request: EngineRequest<K>, block_size: u32, cache_output: bool) -> Self {
        let EngineRequest { id, prompt_tokens, output_tokens, keys } = request;
        let limit = if cache_output { u32::MAX } else { prompt_tokens / block_size };
        Self {
            id,
            prompt_tokens,
            final_tokens: prompt_tokens.saturating_add(output_tokens),
            tokens: prompt_tokens,
            computed: 0,
            scheduled: 0,
            published: 0,
            cacheable_blocks: u32::try_from(keys.len()).unwrap_or(u32::MAX).min(limit),
            keys,
            blocks: Vec::new(),
            resumed: false,
            aborted: false,
        }
    }

    /// Whether it has generated nothing yet.
    pub(super) fn is_first_token(&self) -> bool {
        self.tokens == self.prompt_tokens
    }

    /// Tokens that have to be computed before the next one is generated; 1 for a request that
    /// decodes.
    pub(super) fn uncomputed_tokens(&self) -> u32 {
        self.tokens - self.computed
    }
}
