//! What a step does, and what its duration depends on.

use super::EngineConfig;
use super::sequence::Sequence;

/// The work of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    pub(super) prefill_tokens: u32,
    pub(super) prefill_pairs: f64,
    pub(super) decode_requests: u32,
    pub(super) context_tokens: u64,
    pub(super) host_tokens: u32,
}

impl Work {
    /// A request that generates a token a step is a decode; one that still has a prefix to compute
    /// is a prefill, and so is a prompt's last token.
    pub(super) fn add<K>(&mut self, sequence: &Sequence<K>) {
        if sequence.scheduled == 0 {
            return;
        }
        if sequence.computed >= sequence.prompt_tokens && sequence.uncomputed_tokens() == 1 {
            self.decode_requests += 1;
            self.context_tokens += u64::from(sequence.tokens);
        } else {
            let (chunk, past) = (f64::from(sequence.scheduled), f64::from(sequence.computed));
            self.prefill_tokens += sequence.scheduled;
            self.prefill_pairs += chunk * (past + chunk / 2.0);
        }
    }

    /// Milliseconds that it takes, but for what visiting the context of those that decode adds.
    pub(super) fn without_context_ms(&self, config: &EngineConfig) -> f64 {
        let (prefilled, decodes) = (self.prefill_tokens.into(), self.decode_requests.into());
        config.profile.step_ms(prefilled, self.prefill_pairs, decodes, 0)
            + config.host_ms_per_token * f64::from(self.host_tokens)
    }
}
