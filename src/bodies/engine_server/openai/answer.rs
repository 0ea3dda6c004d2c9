//! Answers in one piece.

use crate::engine_server::job::{Plan, StopReason};
use crate::engine_server::tokenizer;
use serde::Serialize;

/// Which endpoint is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Completion,
    Chat,
}

impl Kind {
    /// What ids begin with.
    pub(crate) fn id_prefix(self) -> &'static str {
        match self {
            Self::Completion => "cmpl-",
            Self::Chat => "chatcmpl-",
        }
    }
}

/// What every answer and every chunk begins with.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    /// Seconds since the Unix epoch.
    pub(crate) created: u64,
    pub(crate) model: String,
}

/// Names the implementation, as vLLM names its version.
pub(super) const FINGERPRINT: &str = concat!("llmd-sched-", env!("CARGO_PKG_VERSION"));

/// Tokens of a request, over all its choices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) prompt: usize,
    pub(crate) completion: usize,
    pub(crate) cached: u32,
}

/// A finished choice.
#[derive(Debug)]
pub(crate) struct ChoiceResult<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) cached_tokens: u32,
}

/// The body of a whole answer. Fields are in vLLM's order; those that it leaves `null` for a model
/// like this one are `()`.
pub(crate) fn full_answer(
    kind: Kind,
    envelope: &Envelope,
    choices: &[ChoiceResult<'_>],
    tokens: Tokens,
    return_token_ids: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    match kind {
        Kind::Completion => serde_json::to_vec(&Completion {
            id: &envelope.id,
            object: "text_completion",
            created: envelope.created,
            model: &envelope.model,
            choices: choices
                .iter()
                .enumerate()
                .map(|c| completion_choice(c, return_token_ids))
                .collect(),
            service_tier: (),
            system_fingerprint: FINGERPRINT,
            usage: Usage::of(tokens),
            kv_transfer_params: (),
            ec_transfer_params: (),
            metrics: (),
        }),
        Kind::Chat => serde_json::to_vec(&Chat {
            id: &envelope.id,
            object: "chat.completion",
            created: envelope.created,
            model: &envelope.model,
            choices: choices.iter().enumerate().map(|c| chat_choice(c, return_token_ids)).collect(),
            service_tier: (),
            system_fingerprint: FINGERPRINT,
            usage: Usage::of(tokens),
            prompt_logprobs: (),
            prompt_token_ids: choices.first().filter(|_| return_token_ids).map(|c| c.plan.prompt()),
            prompt_text: (),
            kv_transfer_params: (),
            ec_transfer_params: (),
            metrics: (),
        }),
    }
}

fn text_of(plan: &Plan) -> String {
    let mut text = tokenizer::decode_lossy(plan.output());
    text.truncate(plan.text_bytes);
    text
}

fn completion_choice<'a>(
    (index, result): (usize, &ChoiceResult<'a>),
    return_token_ids: bool,
) -> CompletionChoice<'a> {
    let plan = result.plan;
    CompletionChoice {
        index,
        text: text_of(plan),
        logprobs: (),
        finish_reason: plan.finish.name(),
        stop_reason: plan.finish.stop_reason(),
        token_ids: return_token_ids.then(|| plan.output()),
        prompt_logprobs: (),
        prompt_token_ids: return_token_ids.then(|| plan.prompt()),
        routed_experts: (),
    }
}

fn chat_choice<'a>(
    (index, result): (usize, &ChoiceResult<'a>),
    return_token_ids: bool,
) -> ChatChoice<'a> {
    let plan = result.plan;
    ChatChoice {
        index,
        message: AssistantMessage {
            role: "assistant",
            content: text_of(plan),
            refusal: (),
            annotations: (),
            audio: (),
            function_call: (),
            reasoning: (),
        },
        logprobs: (),
        finish_reason: plan.finish.name(),
        stop_reason: plan.finish.stop_reason(),
        token_ids: return_token_ids.then(|| plan.output()),
        routed_experts: (),
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<CompletionChoice<'a>>,
    service_tier: (),
    system_fingerprint: &'static str,
    usage: Usage,
    kv_transfer_params: (),
    ec_transfer_params: (),
    metrics: (),
}

#[derive(Serialize)]
struct CompletionChoice<'a> {
    index: usize,
    text: String,
    logprobs: (),
    finish_reason: &'static str,
    stop_reason: Option<&'a StopReason>,
    token_ids: Option<&'a [u32]>,
    prompt_logprobs: (),
    prompt_token_ids: Option<&'a [u32]>,
    routed_experts: (),
}

#[derive(Serialize)]
struct Chat<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChatChoice<'a>>,
    service_tier: (),
    system_fingerprint: &'static str,
    usage: Usage,
    prompt_logprobs: (),
    prompt_token_ids: Option<&'a [u32]>,
    prompt_text: (),
    kv_transfer_params: (),
    ec_transfer_params: (),
    metrics: (),
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: usize,
    message: AssistantMessage,
    logprobs: (),
    finish_reason: &'static str,
    stop_reason: Option<&'a StopReason>,
    token_ids: Option<&'a [u32]>,
    routed_experts: (),
}

#[derive(Serialize)]
struct AssistantMessage {
    role: &'static str,
    content: String,
    refusal: (),
    annotations: (),
    audio: (),
    function_call: (),
    reasoning: (),
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: (),
}

#[derive(Debug, Clone, Copy, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
    created_cache_tokens: (),
    multimodal_tokens: (),
}

impl Usage {
    fn of(tokens: Tokens) -> Self {
        Self {
            prompt_tokens: tokens.prompt,
            total_tokens: tokens.prompt + tokens.completion,
            completion_tokens: tokens.completion,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: tokens.cached,
                created_cache_tokens: (),
                multimodal_tokens: (),
            },
            completion_tokens_details: (),
        }
    }
}
