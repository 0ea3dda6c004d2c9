//! What a step does, and how long that takes.

use super::EngineConfig;
use super::sequence::Sequence;
use crate::Time;

/// A step that has begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// When it began.
    pub started: Time,
    /// When it will end.
    pub ends: Time,
    /// How long it takes, milliseconds.
    pub duration_ms: f64,
}

/// What a step's duration depends on.
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

    /// A run of so many such steps from `started` on, each but the first with the tokens that those before
    /// it decoded, and nothing else new. `ends` gets their ends; they are numbered from `first` on.
    pub(super) fn plan(
        &self,
        config: &EngineConfig,
        started: Time,
        first: u64,
        steps: u32,
        ends: &mut Vec<Time>,
    ) -> Planned {
        let (profile, decodes) = (&config.profile, u64::from(self.decode_requests));
        let prefill_tokens = u64::from(self.prefill_tokens);
        let but_context_ms =
            profile.step_but_context_ms(prefill_tokens, self.prefill_pairs, decodes);
        let host_ms = config.host_ms_per_token * f64::from(self.host_tokens);
        let (mut context_tokens, mut end, mut total_ms) =
            (self.context_tokens, started.as_nanos(), 0.0);
        ends.clear();
        for number in (first..).take(steps as usize) {
            let step_ms = but_context_ms + profile.context_ms(context_tokens);
            let duration_ms = config.jitter(number) * (step_ms + host_ms);
            total_ms += duration_ms;
            end = end.saturating_add((duration_ms * 1e6) as u64);
            context_tokens += decodes;
            ends.push(Time::from_nanos(end));
        }
        Planned { started, ends: Time::from_nanos(end), duration_ms: total_ms }
    }
}
