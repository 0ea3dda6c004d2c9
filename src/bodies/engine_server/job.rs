//! A sequence on its way through a rank: one choice of one HTTP request.

use super::kv_events::{HashForm, WireHash, WireStored};
use llmd_brain::engine::{EngineRequest, RequestId};
use llmd_brain::prompt::vllm::{BlockHasher, FullHash, LoraAdapter, RequestExtras};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// What decides about a request's blocks besides its tokens, and what their events say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(super) lora: Option<Lora>,
    pub(super) cache_salt: Option<String>,
    pub(super) session_id: Option<String>,
}

/// An adapter that the engine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lora {
    pub(super) name: String,
    /// From 1.
    pub(super) id: u32,
}

impl Origin {
    /// Names the full blocks of `tokens` as vLLM does.
    pub(super) fn block_hashes(
        &self,
        hasher: &mut BlockHasher,
        root: &FullHash,
        tokens: &[u32],
        block_size: u32,
    ) -> Vec<FullHash> {
        let lora = self.lora.as_ref().map(|lora| LoraAdapter { name: &lora.name, path: "" });
        let cache_salt = self.cache_salt.as_deref();
        let extras = RequestExtras { lora, cache_salt, ..RequestExtras::default() };
        let mut hashes = Vec::new();
        hasher.extend(&mut hashes, root, tokens, block_size, &extras);
        hashes
    }

    fn extra_keys(&self, block: u32) -> Option<Vec<&str>> {
        let lora = self.lora.as_ref().map(|lora| lora.name.as_str());
        let salt = self.cache_salt.as_deref().filter(|salt| block == 0 && !salt.is_empty());
        let keys: Vec<&str> = lora.into_iter().chain(salt).collect();
        (!keys.is_empty()).then_some(keys)
    }

    /// The event of a run of blocks.
    pub(super) fn stored<'a>(
        &'a self,
        medium: &'static str,
        run: &StoredRun<'a>,
        block_size: u32,
        form: HashForm,
    ) -> WireStored<'a> {
        let blocks = run.first_block..run.first_block + run.hashes.len() as u32;
        WireStored {
            block_hashes: run.hashes.iter().map(|&hash| WireHash(hash, form)).collect(),
            parent_block_hash: run.parent.map(|hash| WireHash(hash, form)),
            token_ids: run.tokens,
            block_size,
            lora_id: self.lora.as_ref().map(|lora| lora.id),
            medium,
            lora_name: self.lora.as_ref().map(|lora| lora.name.as_str()),
            extra_keys: blocks.map(|block| self.extra_keys(block)).collect(),
            group_idx: 0,
            kv_cache_spec_kind: super::kv_events::FULL_ATTENTION,
            session_id: self.session_id.as_deref(),
        }
    }
}

/// Blocks that follow each other in a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredRun<'a> {
    pub(super) first_block: u32,
    pub(super) parent: Option<FullHash>,
    pub(super) hashes: &'a [FullHash],
    pub(super) tokens: &'a [u32],
}

/// Everything that one choice will be, known from the start because its output is.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Prompt, then output.
    pub(super) tokens: Arc<[u32]>,
    pub(super) prompt_tokens: usize,
    /// How many of the output's bytes are shown: all, or those before a stop string.
    pub(super) text_bytes: usize,
    pub(super) finish: Finish,
    /// What the client allowed, for the metrics.
    pub(super) max_tokens: u32,
    /// How many choices the request asked for.
    pub(super) choices: u32,
    pub(super) origin: Arc<Origin>,
}

impl Plan {
    pub(super) fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_tokens]
    }

    pub(super) fn output(&self) -> &[u32] {
        &self.tokens[self.prompt_tokens..]
    }
}

/// Why a sequence ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finish {
    /// `max_tokens` or the context are used up.
    Length,
    /// The model ended its turn, or generated a stop token (its id) or a stop string.
    Stop(Option<StopReason>),
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub(crate) enum StopReason {
    Token(u32),
    Text(String),
}

impl Finish {
    /// The field `finish_reason`.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Stop(_) => "stop",
        }
    }

    /// What it stopped at, where it is not the end of a turn.
    pub(crate) fn stop_reason(&self) -> Option<&StopReason> {
        match self {
            Self::Length => None,
            Self::Stop(reason) => reason.as_ref(),
        }
    }
}

/// How far a sequence is. Only the latest is kept: a slow reader gets several tokens at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) generated: usize,
    /// Prompt tokens that were not computed, at its admission.
    pub(super) cached_tokens: u32,
}

/// A sequence in a rank.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) times: Times,
    /// Prompt tokens found in the KV cache and on the host, at its first admission.
    pub(super) device_hit_tokens: u32,
    pub(super) host_hit_tokens: u32,
    pub(super) preemptions: u32,
    /// Its client is gone.
    pub(super) aborted: bool,
}

/// When what happened to a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) arrived: Instant,
    pub(super) admitted: Option<Instant>,
    pub(super) first_token: Option<Instant>,
    pub(super) last_token: Instant,
}

impl Job {
    pub(super) fn new(plan: Plan) -> (Self, watch::Receiver<Progress>) {
        let (progress, receiver) = watch::channel(Progress::default());
        let arrived = Instant::now();
        let times = Times { arrived, admitted: None, first_token: None, last_token: arrived };
        let job = Self {
            plan,
            progress,
            times,
            device_hit_tokens: 0,
            host_hit_tokens: 0,
            preemptions: 0,
            aborted: false,
        };
        (job, receiver)
    }

    pub(super) fn engine_request(
        &self,
        id: RequestId,
        keys: Vec<FullHash>,
    ) -> EngineRequest<FullHash> {
        EngineRequest {
            id,
            prompt_tokens: self.plan.prompt_tokens as u32,
            output_tokens: self.plan.output().len() as u32,
            keys,
        }
    }

    /// The tokens of some of its blocks.
    pub(super) fn block_tokens(&self, blocks: Range<u32>, block_size: u32) -> &[u32] {
        let range = (blocks.start * block_size) as usize..(blocks.end * block_size) as usize;
        self.plan.tokens.get(range).unwrap_or_default()
    }
}
