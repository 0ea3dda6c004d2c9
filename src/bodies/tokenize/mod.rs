//! Text as the engine's own token ids: tokenizers, chat templates, and a cache of what was encoded before.
//!
//! A [`Model`] is a local folder as Hugging Face lays it out. From the body of a completion or of a chat it makes
//! the ids that vLLM 0.32 makes of it, so that a router's keys are the engine's block keys; or it says why they
//! are not known here ([`NotExact`]), and the caller goes by the text.
//!
//! Guarantees: ids are those of the whole text at once, with or without the cache, whose memory is bounded; a
//! template that cannot be rendered as the engine would is never guessed at. Everything may be called from many
//! threads at once.
//!
//! Not here: what a body says besides its prompt (see [`request_body`](crate::request_body)), prompts with images
//! or sounds, and downloads.

mod boundaries;
mod cache;
mod chat;
mod clock;
mod content_format;
mod error;
mod folder;
mod json;
mod messages;
mod pieces;
mod python_json;
mod template;
#[cfg(test)]
mod tests;

pub use content_format::ContentFormat;
pub use error::{LoadError, NotExact};
pub use json::{Json, Object};
pub use pieces::{Counters, Encoded};

use chat::Chats;
use folder::{Folder, Templates};
use pieces::Pieces;
use std::path::{Path, PathBuf};

/// What the engine is started with, where it is not as the folder says, and how much is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--chat-template`: a file.
    pub chat_template: Option<PathBuf>,
    /// `--chat-template-content-format`, unless it is `auto`.
    pub content_format: Option<ContentFormat>,
    /// `--default-chat-template-kwargs`.
    pub chat_template_kwargs: Object,
    /// Bytes of texts and tokens that are kept.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chat_template: None,
            content_format: None,
            chat_template_kwargs: Object::new(),
            cache_bytes: 128 << 20,
        }
    }
}

/// A tokenizer with its chat template and its cache.
pub struct Model {
    pieces: Pieces,
    chats: Result<Chats, NotExact>,
}

impl Model {
    /// Reads a folder, for an engine that is started without options.
    ///
    /// # Errors
    /// [`LoadError`] where there is no tokenizer, or none whose tokens would be the engine's. A folder whose
    /// chats cannot be rendered here is none: encoding one says why.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self, LoadError> {
        Self::load_with(folder, &Options::default())
    }

    /// Reads a folder.
    ///
    /// # Errors
    /// As [`load`](Self::load) says, and where the chat template of the options cannot be read.
    pub fn load_with(folder: impl AsRef<Path>, options: &Options) -> Result<Self, LoadError> {
        let mut folder = Folder::read(folder.as_ref())?;
        if let Some(path) = &options.chat_template {
            let read = std::fs::read_to_string(path);
            let default = read.map_err(|source| LoadError::Read { path: path.clone(), source })?;
            folder.templates = Templates::Some { default, tools: None };
        }
        let chats = Chats::of(
            &folder.templates,
            &folder.special_tokens,
            options.content_format,
            options.chat_template_kwargs.clone(),
        );
        let pieces = Pieces::new(folder, options.cache_bytes);
        Ok(Self { pieces, chats })
    }

    /// The ids of the prompt of a request's body: of `messages`, or of the text `prompt`.
    ///
    /// # Errors
    /// Why they are not known here; it is counted.
    pub fn encode_body(&self, body: &[u8]) -> Result<Encoded, NotExact> {
        match Json::read(body) {
            Ok(Json::Object(body)) => self.encode_request(body),
            Ok(other) => self.counted(Err(NotExact::Body(format!("it is {}", other.kind())))),
            Err(error) => self.counted(Err(NotExact::Body(error.to_string()))),
        }
    }

    /// The same of a body that was read.
    ///
    /// # Errors
    /// Why they are not known here; it is counted.
    pub fn encode_request(&self, body: Object) -> Result<Encoded, NotExact> {
        let text = self.text_of(body);
        self.counted(text.and_then(|(text, special)| self.pieces.encode(&text, special)))
    }

    /// The ids of a chat: a body with `messages` and, where they are used, `tools`, `add_generation_prompt`,
    /// `continue_final_message`, `chat_template_kwargs`, `documents`, `reasoning_effort` and
    /// `add_special_tokens`, as vLLM takes them.
    ///
    /// # Errors
    /// Why they are not known here; it is counted.
    pub fn encode_chat(&self, body: Object) -> Result<Encoded, NotExact> {
        let rendered = self.render(body);
        self.counted(rendered.and_then(|it| self.pieces.encode(&it.text, it.add_special_tokens)))
    }

    /// The ids of a text; those of a completion have special tokens, where the tokenizer has some.
    ///
    /// # Errors
    /// Why they are not known here; it is counted.
    pub fn encode_text(&self, text: &str, add_special_tokens: bool) -> Result<Encoded, NotExact> {
        self.counted(self.pieces.encode(text, add_special_tokens))
    }

    /// The text of a chat, whose ids its prompt is.
    ///
    /// # Errors
    /// Why it is not known here.
    pub fn chat_text(&self, body: Object) -> Result<String, NotExact> {
        self.render(body).map(|it| it.text)
    }

    /// The ids of a request's body, unless so many bytes of its text are unknown that it would take long: then
    /// how many those are, and nothing is done nor counted. A tokenizer takes some 0.2 us for each.
    ///
    /// # Errors
    /// Why they are not known here; it is counted.
    pub fn encode_quickly(
        &self,
        body: Object,
        most_unknown_bytes: usize,
    ) -> Result<Result<Encoded, usize>, NotExact> {
        let (text, special) = match self.text_of(body) {
            Ok(it) => it,
            Err(error) => return self.counted(Err(error)).map(Ok),
        };
        let unknown_bytes = self.pieces.unknown_bytes(&text);
        if unknown_bytes > most_unknown_bytes {
            return Ok(Err(unknown_bytes));
        }
        self.counted(self.pieces.encode(&text, special)).map(Ok)
    }

    /// How the template wants contents, where there is one.
    #[must_use]
    pub fn content_format(&self) -> Option<ContentFormat> {
        self.chats.as_ref().ok().map(Chats::content_format)
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.pieces.counters()
    }

    /// The text of a request's prompt, and whether it gets special tokens.
    fn text_of(&self, body: Object) -> Result<(String, bool), NotExact> {
        if body.contains_key("messages") {
            return self.render(body).map(|it| (it.text, it.add_special_tokens));
        }
        completion(body)
    }

    fn render(&self, body: Object) -> Result<chat::Rendered, NotExact> {
        self.chats.as_ref().map_err(Clone::clone)?.render(body)
    }

    fn counted(&self, encoded: Result<Encoded, NotExact>) -> Result<Encoded, NotExact> {
        if encoded.is_err() {
            self.pieces.count_not_exact();
        }
        encoded
    }
}

/// The text of a completion, and whether it gets special tokens.
fn completion(mut body: Object) -> Result<(String, bool), NotExact> {
    for field in ["suffix", "truncate_prompt_tokens", "prompt_embeds"] {
        if body.get(field).is_some_and(|it| !it.is_null()) {
            return Err(NotExact::Field(field.to_owned()));
        }
    }
    let special = match body.get("add_special_tokens") {
        None => true,
        Some(Json::Bool(it)) => *it,
        Some(other) => return Err(NotExact::shape("add_special_tokens", other.kind())),
    };
    let missing = |it: Option<Json>| it.as_ref().map_or("missing", Json::kind);
    match body.swap_remove("prompt") {
        Some(Json::String(text)) => Ok((text, special)),
        // Of several prompts the first: the others are requests of their own for the engine.
        Some(Json::Array(prompts)) => match prompts.into_iter().next() {
            Some(Json::String(text)) => Ok((text, special)),
            other => Err(NotExact::shape("prompt[0]", missing(other))),
        },
        other => Err(NotExact::shape("prompt", missing(other))),
    }
}
