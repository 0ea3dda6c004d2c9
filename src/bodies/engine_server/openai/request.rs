//! Request bodies.

use super::prompt_input::TokenIds;
use super::{ApiError, PromptInput};
use crate::engine_server::chat::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::borrow::Cow;

/// Reads a body; the refusal says which field is at fault.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take a list for a struct, field by field.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(ApiError::invalid("body".into(), "Input should be a JSON object"));
    }
    // Tracking the path costs more than the parsing of a long list of tokens: only for a refusal.
    serde_json::from_slice(body).map_err(|_| {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Ok(_) => ApiError::invalid("body".into(), "there is more behind the JSON value"),
            Err(error) => {
                let path = error.path().to_string();
                let location = match &*path {
                    // Broken JSON is nowhere in particular.
                    "." | "?" => "body".to_owned(),
                    field => format!("body.{field}"),
                };
                ApiError::invalid(location, error.inner())
            }
        }
    })
}

/// `POST /v1/completions` and `POST /v1/chat/completions`: the union of their fields, of which each
/// reads its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GenerationRequest {
    pub(crate) model: Option<String>,
    /// Of a completion.
    pub(crate) prompt: Option<PromptInput>,
    /// Of a chat.
    messages: Option<Vec<ChatMessage>>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: Option<bool>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    pub(crate) n: Option<i64>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) stop: Option<StopInput>,
    pub(crate) stop_token_ids: Option<Vec<u32>>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) return_token_ids: Option<bool>,
    pub(crate) cache_salt: Option<String>,
    pub(crate) session_id: Option<String>,
    echo: Option<bool>,
    suffix: Option<String>,
    best_of: Option<i64>,
    /// A number for a completion, a truth value for a chat.
    logprobs: Option<Value>,
    prompt_logprobs: Option<i64>,
    response_format: Option<ResponseFormat>,
    /// Read so that a value of the wrong type is refused as vLLM refuses it; outputs are greedy.
    #[serde(rename = "temperature")]
    _temperature: Option<f64>,
    #[serde(rename = "top_p")]
    _top_p: Option<f64>,
    #[serde(rename = "seed")]
    _seed: Option<i64>,
    #[serde(rename = "priority")]
    _priority: Option<i64>,
}

/// What a stream says besides tokens.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
    pub(crate) continuous_usage_stats: Option<bool>,
}

/// One or several strings.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum StopInput {
    One(String),
    Several(Vec<String>),
}

impl StopInput {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    r#type: String,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Deserialize)]
struct ContentPart {
    r#type: String,
    text: Option<String>,
}

impl GenerationRequest {
    /// Refuses what this engine does not produce.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let logprobs = self.logprobs.as_ref();
        unsupported("logprobs", logprobs.is_some_and(|asked| *asked != Value::Bool(false)))?;
        unsupported("prompt_logprobs", self.prompt_logprobs.is_some())?;
        unsupported("echo", self.echo == Some(true))?;
        unsupported("suffix", self.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()))?;
        unsupported("best_of", self.best_of.is_some_and(|best| best > 1))?;
        let structured = self.response_format.as_ref().is_some_and(|f| f.r#type != "text");
        unsupported("response_format", structured)?;
        if self.stream_options.is_some() && self.stream != Some(true) {
            let message = "Stream options can only be defined when `stream=True`.";
            return Err(ApiError::invalid("body.stream_options".into(), message));
        }
        Ok(())
    }

    /// What may be generated; the newer name wins.
    pub(crate) fn max_tokens(&self) -> Option<i64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Whether the prompt of a chat ends with the opening of an answer.
    pub(crate) fn add_generation_prompt(&self) -> bool {
        self.add_generation_prompt.unwrap_or(true)
    }

    /// The conversation of a chat.
    pub(crate) fn messages(&self) -> Result<Vec<Message<'_>>, ApiError> {
        match &self.messages {
            Some(messages) => conversation(messages, self.tools.as_deref()),
            None => Err(ApiError::invalid("body.messages".into(), "Field required")),
        }
    }
}

fn unsupported(field: &str, asked_for: bool) -> Result<(), ApiError> {
    if asked_for {
        let message = format!("{field} is not produced by the embedded engine: leave it out");
        return Err(ApiError { param: Some(field.into()), ..ApiError::bad_request(message) });
    }
    Ok(())
}

/// `POST /tokenize`, of a text or of a conversation.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenizeRequest {
    pub(crate) model: Option<String>,
    pub(crate) prompt: Option<String>,
    messages: Option<Vec<ChatMessage>>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: Option<bool>,
    pub(crate) return_token_strs: Option<bool>,
}

impl TokenizeRequest {
    /// Whether the prompt ends with the opening of an answer.
    pub(crate) fn add_generation_prompt(&self) -> bool {
        self.add_generation_prompt.unwrap_or(true)
    }

    /// The conversation, if it is one.
    pub(crate) fn messages(&self) -> Result<Option<Vec<Message<'_>>>, ApiError> {
        let messages = self.messages.as_deref();
        messages.map(|messages| conversation(messages, self.tools.as_deref())).transpose()
    }
}

/// `POST /detokenize`.
#[derive(Debug, Deserialize)]
pub(crate) struct DetokenizeRequest {
    pub(crate) model: Option<String>,
    pub(crate) tokens: TokenIds,
}

fn conversation<'a>(
    messages: &'a [ChatMessage],
    tools: Option<&[Value]>,
) -> Result<Vec<Message<'a>>, ApiError> {
    let mut rendered = Vec::with_capacity(messages.len() + 1);
    if let Some(tools) = tools.filter(|tools| !tools.is_empty()) {
        let content = tools.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        rendered.push(Message { role: "system".into(), content: content.into() });
    }
    for message in messages {
        rendered.push(Message { role: (&*message.role).into(), content: message.text()? });
    }
    Ok(rendered)
}

impl ChatMessage {
    fn text(&self) -> Result<Cow<'_, str>, ApiError> {
        let text = match &self.content {
            None => Cow::Borrowed(""),
            Some(Content::Text(text)) => Cow::Borrowed(&**text),
            Some(Content::Parts(parts)) => {
                let mut text = String::new();
                for part in parts {
                    match &part.text {
                        Some(piece) => text.push_str(piece),
                        None => {
                            return Err(ApiError::bad_request(format!(
                                "a content part of type {:?}: the embedded engine reads text only",
                                part.r#type
                            )));
                        }
                    }
                }
                Cow::Owned(text)
            }
        };
        Ok(match &self.tool_calls {
            None | Some(Value::Null) => text,
            Some(calls) => Cow::Owned(format!("{text}{calls}")),
        })
    }
}
