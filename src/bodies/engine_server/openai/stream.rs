//! Answers in chunks: server-sent events, one a step and choice.

use super::answer::{Envelope, FINGERPRINT, Kind, Tokens};
use crate::engine_server::job::{Finish, StopReason};
use bytes::Bytes;
use serde::Serialize;

/// Ends every stream.
pub(crate) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// What one choice gained in one step.
#[derive(Debug)]
pub(crate) struct Delta<'a> {
    pub(crate) index: usize,
    pub(crate) text: &'a str,
    pub(crate) token_ids: &'a [u32],
    /// The prompt, where these are the choice's first tokens.
    pub(crate) begins_after: Option<&'a [u32]>,
    /// Why it ends, where these are its last.
    pub(crate) ends: Option<&'a Finish>,
    /// Tokens so far, where each chunk is to say so.
    pub(crate) usage: Option<Tokens>,
}

/// Writes the chunks of one request, in vLLM's shapes.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    pub(crate) kind: Kind,
    pub(crate) envelope: Envelope,
    pub(crate) return_token_ids: bool,
}

impl ChunkWriter {
    /// One choice, one step. A chat opens with a chunk that only says who speaks.
    pub(crate) fn delta(&self, delta: &Delta<'_>) -> Bytes {
        let token_ids = self.return_token_ids.then_some(delta.token_ids);
        let prompt_token_ids = delta.begins_after.filter(|_| self.return_token_ids);
        let finish_reason = delta.ends.map(Finish::name);
        let stop_reason = delta.ends.and_then(Finish::stop_reason);
        let usage = delta.usage.map(ChunkUsage::of);
        if self.kind == Kind::Completion {
            let choice = CompletionDelta {
                index: delta.index,
                text: delta.text,
                logprobs: (),
                finish_reason,
                stop_reason,
                prompt_token_ids,
                token_ids,
            };
            return event(&self.chunk([choice], None, usage));
        }
        let mut out = Vec::new();
        if delta.begins_after.is_some() {
            let opening = ChatDelta {
                index: delta.index,
                delta: DeltaMessage { role: Some("assistant"), content: "" },
                logprobs: (),
                finish_reason: None,
                stop_reason: None,
                token_ids: None,
            };
            let prompt = Prompt { prompt_token_ids, prompt_text: () };
            out.extend_from_slice(&event(&self.chunk([opening], Some(prompt), usage)));
        }
        let choice = ChatDelta {
            index: delta.index,
            delta: DeltaMessage { role: None, content: delta.text },
            logprobs: (),
            finish_reason,
            stop_reason: delta.ends.map(Finish::stop_reason),
            token_ids: Some(token_ids),
        };
        out.extend_from_slice(&event(&self.chunk([choice], None, usage)));
        out.into()
    }

    /// The last chunk where usage was asked for.
    pub(crate) fn usage(&self, tokens: Tokens) -> Bytes {
        let choices: [CompletionDelta<'_>; 0] = [];
        let chunk = self.chunk(choices, None, Some(ChunkUsage::of(tokens)));
        event(&Chunk { system_fingerprint: Some(FINGERPRINT), ..chunk })
    }

    fn chunk<'a, C>(
        &'a self,
        choices: C,
        prompt: Option<Prompt<'a>>,
        usage: Option<ChunkUsage>,
    ) -> Chunk<'a, C> {
        Chunk {
            id: &self.envelope.id,
            object: match self.kind {
                Kind::Completion => "text_completion",
                Kind::Chat => "chat.completion.chunk",
            },
            created: self.envelope.created,
            model: &self.envelope.model,
            choices,
            prompt,
            usage,
            system_fingerprint: None,
        }
    }
}

fn event(chunk: &impl Serialize) -> Bytes {
    let mut out = b"data: ".to_vec();
    // Plain structs into memory: nothing that can fail.
    let _ = serde_json::to_writer(&mut out, chunk);
    out.extend_from_slice(b"\n\n");
    out.into()
}

#[derive(Serialize)]
struct Chunk<'a, C> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: C,
    #[serde(flatten)]
    prompt: Option<Prompt<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<ChunkUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_fingerprint: Option<&'static str>,
}

/// What the opening chunk of a chat says of the prompt.
#[derive(Serialize)]
struct Prompt<'a> {
    prompt_token_ids: Option<&'a [u32]>,
    prompt_text: (),
}

#[derive(Serialize)]
struct CompletionDelta<'a> {
    index: usize,
    text: &'a str,
    logprobs: (),
    finish_reason: Option<&'static str>,
    stop_reason: Option<&'a StopReason>,
    prompt_token_ids: Option<&'a [u32]>,
    token_ids: Option<&'a [u32]>,
}

#[derive(Serialize)]
struct ChatDelta<'a> {
    index: usize,
    delta: DeltaMessage<'a>,
    logprobs: (),
    finish_reason: Option<&'static str>,
    /// Only in the last chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_reason: Option<Option<&'a StopReason>>,
    /// In all but the opening chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Option<&'a [u32]>>,
}

#[derive(Serialize)]
struct DeltaMessage<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    content: &'a str,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct ChunkUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: CachedTokens,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct CachedTokens {
    cached_tokens: u32,
}

impl ChunkUsage {
    fn of(tokens: Tokens) -> Self {
        Self {
            prompt_tokens: tokens.prompt,
            total_tokens: tokens.prompt + tokens.completion,
            completion_tokens: tokens.completion,
            prompt_tokens_details: CachedTokens { cached_tokens: tokens.cached },
        }
    }
}
