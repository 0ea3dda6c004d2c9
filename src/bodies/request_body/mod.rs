//! What the body of an OpenAI request asks for: chat, completions or responses, read for routing alone.
//!
//! One pass over the bytes, which makes nothing of what routing does not ask for. A body that was cut off
//! (a proxy forwards so many bytes of it) is read as far as it goes: a prompt that is cut off begins as the
//! whole one does, and so do its blocks. A body that is no JSON says nothing, and is no error here: what it
//! is answered is for the engine to say.
//!
//! Not here: any check of what is asked for, and headers (see [`llmd_brain::schedule::RequestHeaders`]).

mod prompt;
mod scan;
#[cfg(test)]
mod tests;

pub use prompt::{BodyPrompt, PART, shown};

use llmd_brain::prompt::text::BYTES_PER_TOKEN;
use prompt::Reader;
use scan::{Raw, Scan, Stop};
use std::ops::Range;

/// What a body asks for; what it does not say, or not in time, is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestBody {
    /// The prompt, or what is there of it: of several the first.
    pub prompt: Option<BodyPrompt>,
    /// Tokens of the prompt that are likely to be in what was cut off.
    pub missing_tokens: u32,
    /// The model, or an adapter of one.
    pub model: Option<String>,
    /// Most tokens of the answer.
    pub max_output_tokens: Option<u32>,
    /// Tenants with different salts share no blocks.
    pub cache_salt: Option<String>,
    /// Higher is more important.
    pub priority: Option<i32>,
    /// Whether the answer is to come token by token.
    pub is_stream: bool,
    /// Whether the text of the body was read to its end.
    pub is_whole: bool,
    /// Where the value of `model` stands in the bytes, for whoever changes it.
    pub model_at: Option<Range<usize>>,
    /// The same of `cache_salt`.
    pub cache_salt_at: Option<Range<usize>>,
}

/// Fields with a prompt, the one that counts most first.
const PROMPTS: [(&str, Reader); 4] = [
    ("prompt_token_ids", prompt::tokens),
    ("messages", prompt::messages),
    ("prompt", prompt::any),
    ("input", prompt::any),
];

/// Fields with the most tokens of an answer, vLLM's order.
const LIMITS: [&str; 3] = ["max_completion_tokens", "max_tokens", "max_output_tokens"];

impl RequestBody {
    /// Reads a body, which had `whole_bytes` before it was cut off.
    ///
    /// ```
    /// use llmd_bodies::request_body::{BodyPrompt, RequestBody};
    ///
    /// let whole = br#"{"model": "m", "max_tokens": 8, "prompt": "Once upon a time"}"#;
    /// let cut = RequestBody::read(&whole[..51], whole.len());
    /// assert_eq!(cut.prompt, Some(BodyPrompt::Text("Once upo".to_owned())));
    /// assert_eq!((cut.model.as_deref(), cut.max_output_tokens), (Some("m"), Some(8)));
    /// ```
    #[must_use]
    pub fn read(bytes: &[u8], whole_bytes: usize) -> Self {
        // What is no UTF-8 ends the text, as the end of the bytes does.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        let mut body = Self::default();
        let mut scan = Scan::new(text);
        let (mut prompt_rank, mut limit_rank) = (PROMPTS.len(), LIMITS.len());
        let read = scan.fields(|scan, name| {
            if let Some(rank) = PROMPTS.iter().position(|(field, _)| name.is(field)) {
                if rank >= prompt_rank {
                    return scan.skip().map(drop);
                }
                let (prompt, read) = PROMPTS[rank].1(scan);
                if prompt.is_some() {
                    (body.prompt, prompt_rank) = (prompt, rank);
                }
                return read;
            }
            if let Some(rank) = LIMITS.iter().position(|field| name.is(field)) {
                let limit = scan.clone().integer();
                if let Ok(limit) = limit
                    && rank < limit_rank
                {
                    (body.max_output_tokens, limit_rank) = (Some(limit), rank);
                }
            } else if name.is("model") {
                body.model = text_of(scan);
                body.model_at = Some(scan.passed()?);
                return Ok(());
            } else if name.is("cache_salt") {
                body.cache_salt = text_of(scan);
                body.cache_salt_at = Some(scan.passed()?);
                return Ok(());
            } else if name.is("stream") {
                body.is_stream = scan.clone().skip().is_ok_and(|said| said == "true");
            } else if name.is("priority") {
                body.priority = scan.clone().skip().ok().and_then(|said| said.parse().ok());
            }
            scan.skip().map(drop)
        });
        body.is_whole = read.is_ok();
        if read == Err(Stop) {
            body.missing_tokens = body.missing(scan.read_bytes().min(text.len()), whole_bytes);
        }
        body
    }

    /// Estimated tokens of the prompt, with what was cut off.
    #[must_use]
    pub fn prompt_tokens(&self) -> u32 {
        let there = match &self.prompt {
            None => 0,
            Some(BodyPrompt::Tokens(ids)) => ids.len(),
            Some(BodyPrompt::Text(text)) => llmd_brain::prompt::text::estimated_tokens(text),
        };
        u32::try_from(there).unwrap_or(u32::MAX).saturating_add(self.missing_tokens)
    }

    /// Tokens in what was not read, at as many bytes each as those that were.
    fn missing(&self, read_bytes: usize, whole_bytes: usize) -> u32 {
        let unread = whole_bytes.saturating_sub(read_bytes);
        let bytes_per_token = match &self.prompt {
            Some(BodyPrompt::Tokens(ids)) => (read_bytes / ids.len().max(1)).max(2),
            _ => BYTES_PER_TOKEN,
        };
        u32::try_from(unread / bytes_per_token).unwrap_or(u32::MAX)
    }
}

/// The string that is next, if one is.
fn text_of(scan: &Scan<'_>) -> Option<String> {
    scan.clone().string().ok().map(Raw::to_text).filter(|text| !text.is_empty())
}
