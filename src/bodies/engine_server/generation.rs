//! From a request to the sequences that it asks for. Because the output is known in advance, so
//! is where it stops.

use super::EngineServerConfig;
use super::chat;
use super::job::{Finish, Lora, Origin, Plan, StopReason};
use super::model_output::ModelOutput;
use super::openai::{ApiError, GenerationRequest, Kind, PromptInput, StopInput};
use super::tokenizer::{self, VOCABULARY};
use std::sync::Arc;

/// What vLLM generates for a completion that does not say.
const DEFAULT_COMPLETION_TOKENS: u32 = 16;
/// Choices of one prompt.
const MAX_CHOICES: i64 = 128;
/// Sequences of one request.
const MAX_SEQUENCES: usize = 1_024;

/// The sequences of a request: all choices of its first prompt, then of the second...
pub(super) fn plans(
    kind: Kind,
    request: &GenerationRequest,
    config: &EngineServerConfig,
) -> Result<Vec<Plan>, ApiError> {
    let model_number = model_number(request.model.as_deref(), config)?;
    let prompts = match kind {
        Kind::Completion => completion_prompts(request.prompt.as_ref())?,
        Kind::Chat => vec![chat_prompt(request)?],
    };
    let choices = choices(request.n)?;
    if prompts.len() * choices as usize > MAX_SEQUENCES {
        let message = format!("a request may have at most {MAX_SEQUENCES} prompts times choices");
        return Err(ApiError::bad_request(message));
    }
    let lora = (model_number > 0)
        .then(|| Lora { name: config.loras[model_number as usize - 1].clone(), id: model_number });
    let origin = Arc::new(Origin {
        lora,
        cache_salt: request.cache_salt.clone(),
        session_id: request.session_id.clone(),
    });
    let stops = Stops::of(request)?;
    let mut plans = Vec::with_capacity(prompts.len() * choices as usize);
    for prompt in prompts {
        let limit = limit(kind, request, prompt.len(), config.max_model_len)?;
        for choice in 0..choices {
            let variant = u64::from(choice) << 32 | u64::from(model_number);
            let (tokens, finish, text_bytes) = generate(&prompt, variant, &limit, &stops);
            plans.push(Plan {
                tokens: tokens.into(),
                prompt_tokens: prompt.len(),
                text_bytes,
                finish,
                max_tokens: limit.tokens as u32,
                choices,
                origin: Arc::clone(&origin),
            });
        }
    }
    Ok(plans)
}

/// 0 for the model itself, else the number of the adapter.
pub(super) fn model_number(
    name: Option<&str>,
    config: &EngineServerConfig,
) -> Result<u32, ApiError> {
    let Some(name) = name else { return Ok(0) };
    config.model_number(name).ok_or_else(|| {
        let known: Vec<&str> =
            std::iter::once(&config.model).chain(&config.loras).map(String::as_str).collect();
        ApiError::unknown_model(name, &known.join(", "))
    })
}

fn completion_prompts(prompt: Option<&PromptInput>) -> Result<Vec<Vec<u32>>, ApiError> {
    let encoded = |text: &String| {
        let mut tokens = Vec::new();
        tokenizer::encode(text, &mut tokens);
        tokens
    };
    let prompts = match prompt {
        None => return Err(ApiError::invalid("body.prompt".into(), "Field required")),
        Some(PromptInput::Nothing) => Vec::new(),
        Some(PromptInput::Text(text)) => vec![encoded(text)],
        Some(PromptInput::Texts(texts)) => texts.iter().map(encoded).collect(),
        Some(PromptInput::Tokens(tokens)) => vec![tokens.in_vocabulary(VOCABULARY)?],
        Some(PromptInput::TokenLists(lists)) => {
            lists.iter().map(|tokens| tokens.in_vocabulary(VOCABULARY)).collect::<Result<_, _>>()?
        }
    };
    if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        return Err(ApiError::bad_request("You must pass at least one prompt"));
    }
    Ok(prompts)
}

fn chat_prompt(request: &GenerationRequest) -> Result<Vec<u32>, ApiError> {
    let messages = request.messages()?;
    if messages.is_empty() {
        return Err(ApiError::bad_request("messages is empty: a chat has at least one"));
    }
    let mut tokens = Vec::new();
    chat::render(&messages, request.add_generation_prompt(), &mut tokens);
    Ok(tokens)
}

fn choices(n: Option<i64>) -> Result<u32, ApiError> {
    match n.unwrap_or(1) {
        n @ 1..=MAX_CHOICES => Ok(n as u32),
        n if n < 1 => Err(ApiError::bad_value(format!("n must be at least 1, got {n}."), "n", n)),
        n => Err(ApiError::bad_value(format!("n must be at most {MAX_CHOICES}, got {n}."), "n", n)),
    }
}

/// How long an output may get.
struct Limit {
    tokens: usize,
    /// Whether the model may end its turn before.
    may_end: bool,
}

fn limit(
    kind: Kind,
    request: &GenerationRequest,
    prompt_tokens: usize,
    max_model_len: u32,
) -> Result<Limit, ApiError> {
    let context = max_model_len as usize;
    let too_long = |what: String, remedy: &str| {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, {what}. Please \
             reduce the length of the input prompt{remedy}."
        );
        Err(ApiError::bad_value(message, "input_tokens", prompt_tokens))
    };
    if prompt_tokens > context {
        let what = format!(
            "your prompt contains {prompt_tokens} input tokens, which exceeds this limit even \
             without any output tokens"
        );
        return too_long(what, "");
    }
    let asked = match request.max_tokens() {
        Some(asked) if asked < 1 => {
            let message = format!("max_tokens must be at least 1, got {asked}.");
            return Err(ApiError::bad_value(message, "max_tokens", asked));
        }
        Some(asked) => usize::try_from(asked).unwrap_or(usize::MAX),
        // An output of unsaid length ends where the model's turn does, within the context.
        None if kind == Kind::Chat && prompt_tokens < context => {
            let may_end = request.ignore_eos != Some(true);
            return Ok(Limit { tokens: context - prompt_tokens, may_end });
        }
        None => (DEFAULT_COMPLETION_TOKENS as usize).min(context - prompt_tokens).max(1),
    };
    let total = prompt_tokens.saturating_add(asked);
    if total > context {
        let what = format!(
            "you requested {asked} output tokens and your prompt contains {prompt_tokens} input \
             tokens, for a total of {total} tokens"
        );
        return too_long(what, " or the number of requested output tokens");
    }
    Ok(Limit { tokens: asked, may_end: false })
}

/// The prompt with its output, why that ends, and how many of its bytes are shown.
fn generate(
    prompt: &[u32],
    variant: u64,
    limit: &Limit,
    stops: &Stops<'_>,
) -> (Vec<u32>, Finish, usize) {
    let mut tokens = prompt.to_vec();
    let mut output = ModelOutput::after(prompt, variant);
    let ended = if limit.may_end {
        output.generate_turn(limit.tokens, &mut tokens)
    } else {
        output.generate(limit.tokens, &mut tokens);
        false
    };
    let generated = &tokens[prompt.len()..];
    if let Some(stop) = stops.first_in(generated) {
        tokens.truncate(prompt.len() + stop.tokens);
        return (tokens, Finish::Stop(Some(stop.reason)), stop.text_bytes);
    }
    let text_bytes = tokenizer::decode_lossy(generated).len();
    let finish = if ended { Finish::Stop(None) } else { Finish::Length };
    (tokens, finish, text_bytes)
}

/// What ends an output early.
struct Stops<'a> {
    texts: &'a [String],
    tokens: &'a [u32],
}

struct Stop {
    /// Tokens generated until then, that of the stop included.
    tokens: usize,
    /// Bytes before it.
    text_bytes: usize,
    reason: StopReason,
}

impl<'a> Stops<'a> {
    fn of(request: &'a GenerationRequest) -> Result<Self, ApiError> {
        let texts = request.stop.as_ref().map(StopInput::as_slice).unwrap_or_default();
        if texts.iter().any(String::is_empty) {
            return Err(ApiError::bad_request("stop cannot contain an empty string."));
        }
        Ok(Self { texts, tokens: request.stop_token_ids.as_deref().unwrap_or_default() })
    }

    fn first_in(&self, output: &[u32]) -> Option<Stop> {
        if self.texts.is_empty() && self.tokens.is_empty() {
            return None;
        }
        let mut text = Vec::new();
        for (index, token) in output.iter().enumerate() {
            let before = text.len();
            tokenizer::decode(&[*token], &mut text);
            if self.tokens.contains(token) {
                let reason = StopReason::Token(*token);
                return Some(Stop { tokens: index + 1, text_bytes: before, reason });
            }
            for stop in self.texts {
                // Only an occurrence that ends in this token is new.
                let from = (before + 1).saturating_sub(stop.len());
                let found = text[from..].windows(stop.len()).position(|w| w == stop.as_bytes());
                if let Some(position) = found {
                    let text_bytes = from + position;
                    let reason = StopReason::Text(stop.clone());
                    return Some(Stop { tokens: index + 1, text_bytes, reason });
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_server::openai::parse;
    use llmd_brain::predict::EngineProfile;
    use serde_json::{Value, json};

    fn planned(kind: Kind, body: &Value) -> Result<Vec<Plan>, ApiError> {
        let profile = *EngineProfile::named("qwen3-32b_h100_tp2").unwrap();
        let config = EngineServerConfig {
            max_model_len: 1_024,
            loras: vec!["sql".into()],
            ..EngineServerConfig::new("tiny", profile)
        };
        plans(kind, &parse(body.to_string().as_bytes())?, &config)
    }

    fn text_of(plan: &Plan) -> String {
        tokenizer::decode_lossy(plan.output())[..plan.text_bytes].to_owned()
    }

    #[test]
    fn refusals_read_as_vllms() {
        let refused = [
            (json!({"prompt": []}), "You must pass at least one prompt"),
            (json!({"prompt": ""}), "You must pass at least one prompt"),
            (json!({"prompt": [5, 5_000_000]}), "Token id 5000000 is out of vocabulary"),
            (json!({"prompt": [-1]}), "Token id -1 is out of vocabulary"),
            (
                json!({"prompt": vec![5; 1_100], "max_tokens": 1}),
                "This model's maximum context length is 1024 tokens. However, your prompt \
                 contains 1100 input tokens, which exceeds this limit even without any output \
                 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, \
                 value=1100)",
            ),
            (
                json!({"prompt": vec![5; 1_000], "max_tokens": 25}),
                "This model's maximum context length is 1024 tokens. However, you requested 25 \
                 output tokens and your prompt contains 1000 input tokens, for a total of 1025 \
                 tokens. Please reduce the length of the input prompt or the number of requested \
                 output tokens. (parameter=input_tokens, value=1000)",
            ),
            (
                json!({"prompt": "a", "max_tokens": -1}),
                "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)",
            ),
            (
                json!({"prompt": "a", "model": "absent"}),
                "The model `absent` does not exist. Valid aliases: tiny, sql.",
            ),
            (json!({"prompt": "a", "n": 0}), "n must be at least 1, got 0. (parameter=n, value=0)"),
            (json!({"prompt": "a", "stop": ["", "b"]}), "stop cannot contain an empty string."),
        ];
        for (body, message) in refused {
            assert_eq!(planned(Kind::Completion, &body).unwrap_err().message, message);
        }
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        for (body, location) in [
            (json!({"prompt": "a", "temperature": "hot"}), "body.temperature"),
            (json!({"prompt": {"a": 1}}), "body.prompt"),
            (json!({"prompt": "a", "max_tokens": 1.5}), "body.max_tokens"),
            (json!([1]), "body"),
            (json!({}), "body.prompt"),
        ] {
            let error = planned(Kind::Completion, &body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(location), "{}", error.message);
            assert_eq!(error.kind, "Bad Request");
        }
        assert_eq!(parse::<GenerationRequest>(b"{").unwrap_err().param.as_deref(), Some("body"));
    }

    #[test]
    fn prompts_and_choices_become_sequences_in_order() {
        let body = json!({"prompt": ["a", "b"], "n": 2, "max_tokens": 3});
        let plans = planned(Kind::Completion, &body).unwrap();
        let prompts: Vec<String> =
            plans.iter().map(|plan| tokenizer::decode_lossy(plan.prompt())).collect();
        assert_eq!(prompts, ["a", "a", "b", "b"]);
        assert!(plans.iter().all(|plan| plan.output().len() == 3));
        assert_ne!(plans[0].output(), plans[1].output(), "choices differ");
    }

    #[test]
    fn an_output_of_unsaid_length_is_vllms_default_or_a_turn() {
        let completion = planned(Kind::Completion, &json!({"prompt": "a"})).unwrap();
        assert_eq!(completion[0].output().len(), 16);
        let chat = json!({"messages": [{"role": "user", "content": "hello"}]});
        let chat = planned(Kind::Chat, &chat).unwrap();
        assert_eq!(chat[0].finish, Finish::Stop(None));
        assert_eq!(chat[0].output().last(), Some(&tokenizer::END_OF_TURN));
    }

    #[test]
    fn a_stop_ends_the_output_with_the_token_that_completes_it() {
        let free = planned(Kind::Completion, &json!({"prompt": "a", "max_tokens": 20})).unwrap();
        let words: Vec<String> =
            free[0].output().iter().map(|token| tokenizer::decode_lossy(&[*token])).collect();
        // From within one word into the next.
        let stop = format!("{}{}", &words[4][3..], &words[5][..2]);
        let body = json!({"prompt": "a", "max_tokens": 20, "stop": ["QQ", stop]});

        let stopped = planned(Kind::Completion, &body).unwrap();

        assert_eq!(stopped[0].output(), &free[0].output()[..6]);
        assert_eq!(text_of(&stopped[0]), words[..5].concat()[..5 * 5 - 2]);
        let expected = Finish::Stop(Some(StopReason::Text(stop)));
        assert_eq!(stopped[0].finish, expected);

        let token = free[0].output()[2];
        let body = json!({"prompt": "a", "max_tokens": 20, "stop_token_ids": [token]});
        let stopped = planned(Kind::Completion, &body).unwrap();
        assert_eq!(stopped[0].output().len(), 3);
        assert_eq!(text_of(&stopped[0]), words[..2].concat());
    }

    #[test]
    fn what_the_engine_does_not_produce_is_refused() {
        for field in [
            json!({"logprobs": 3}),
            json!({"echo": true}),
            json!({"response_format": {"type": "json_object"}}),
            json!({"prompt_logprobs": 0}),
        ] {
            let mut body = json!({"prompt": "a"});
            body.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
            let request: GenerationRequest = parse(body.to_string().as_bytes()).unwrap();
            let message = request.check().unwrap_err().message;
            assert!(message.ends_with("leave it out"), "{message}");
        }
        let harmless = json!({"prompt": "a", "logprobs": null, "echo": false, "top_k": 5});
        let request: GenerationRequest = parse(harmless.to_string().as_bytes()).unwrap();
        assert_eq!(request.check(), Ok(()));
    }

    #[test]
    fn content_may_come_in_parts_but_only_as_text() {
        let chat = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
        let parts = json!([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]);
        let whole = planned(Kind::Chat, &chat(json!("hello"))).unwrap();
        let pieces = planned(Kind::Chat, &chat(parts)).unwrap();
        assert_eq!(whole[0].prompt(), pieces[0].prompt());
        let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
        assert!(planned(Kind::Chat, &chat(image)).is_err());
    }
}
