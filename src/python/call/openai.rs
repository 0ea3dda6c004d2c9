//! The prompt of an OpenAI request: of chat, completions or responses.

use super::fields::Fields;
use crate::json;
use llmd_bodies::request_body::{self, PART};
use numpy::PyUntypedArray;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyMapping, PySequence, PyString};
use std::cell::RefCell;

/// What a thread's buffer may keep between calls, bytes.
const KEPT: usize = 1 << 20;

thread_local! {
    /// For the next conversation, which grows nothing then.
    static BUFFER: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A prompt, as it was found.
pub enum Prompt<'py> {
    /// Token ids, not read yet.
    Tokens(Bound<'py, PyAny>),
    /// A text of the payload.
    Text(Bound<'py, PyString>),
    /// A conversation as text.
    Conversation(String),
}

impl<'py> Prompt<'py> {
    /// The prompt of a request, if it has one.
    pub fn of(request: &Fields<'_, 'py>, py: Python<'py>) -> PyResult<Option<Self>> {
        if let Some(tokens) = request.get(intern!(py, "prompt_token_ids"))? {
            return Ok(Some(Self::Tokens(tokens)));
        }
        if let Some(messages) = request.get(intern!(py, "messages"))? {
            return conversation(&messages);
        }
        for name in [intern!(py, "prompt"), intern!(py, "input")] {
            if let Some(prompt) = request.get(name)?
                && let Some(found) = Self::within(prompt)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Leaves the buffer of a conversation to the next one.
    pub fn leave_buffer(self) {
        if let Self::Conversation(text) = self
            && text.capacity() <= KEPT
        {
            BUFFER.set(text);
        }
    }

    /// What a field has that may be text, token ids, several of either, or a conversation. Of
    /// several prompts the first counts.
    fn within(prompt: Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        if let Ok(text) = prompt.cast::<PyString>() {
            return Ok(Some(Self::Text(text.clone())));
        }
        if prompt.cast::<PyUntypedArray>().is_ok() {
            return Ok(Some(Self::Tokens(prompt)));
        }
        let Ok(several) = prompt.cast::<PySequence>() else { return Ok(None) };
        if several.is_empty()? {
            return Ok(None);
        }
        let first = several.get_item(0)?;
        if first.is_instance_of::<PyInt>() {
            return Ok(Some(Self::Tokens(prompt)));
        }
        if let Ok(text) = first.cast::<PyString>() {
            return Ok(Some(Self::Text(text.clone())));
        }
        if first.cast::<PySequence>().is_ok() {
            return Ok(Some(Self::Tokens(first)));
        }
        conversation(&prompt)
    }
}

/// A conversation as text that only grows at its end when the conversation does. `None` where it
/// can be read only once: that is for the engine.
fn conversation<'py>(messages: &Bound<'py, PyAny>) -> PyResult<Option<Prompt<'py>>> {
    let py = messages.py();
    let mut parts = Parts::new();
    let items = messages.try_iter()?;
    if items.is(messages) {
        return Ok(None);
    }
    for message in items {
        let message = message?;
        let Some(message) = Fields::of(&message) else {
            parts.push("");
            continue;
        };
        match message.get(intern!(py, "role"))?.as_ref().map(|role| role.cast::<PyString>()) {
            Some(Ok(role)) => parts.push(role.to_str()?),
            _ => parts.push(""),
        }
        if let Some(content) = message.get(intern!(py, "content"))? {
            parts.push_content(&content)?;
        }
        if let Some(calls) = message.get(intern!(py, "tool_calls"))?
            && let Some(said) = shown(&calls)?
        {
            parts.push(&said);
        }
    }
    Ok(Some(Prompt::Conversation(parts.text)))
}

/// The parts of a conversation, joined.
///
/// NOTE(perf): to hash the parts where they lie would save the copy, at most 1 us of the 6 that a
/// call with 32 KB takes, and would need a second walk of blocks, over pieces.
struct Parts {
    text: String,
    has_one: bool,
}

impl Parts {
    fn new() -> Self {
        let mut text = BUFFER.take();
        text.clear();
        Self { text, has_one: false }
    }

    fn push(&mut self, part: &str) {
        if self.has_one {
            self.text.push(PART);
        }
        self.has_one = true;
        self.text.push_str(part);
    }

    /// A message's content: a text, or parts that have one or refer to something. What can be read
    /// only once is left to the engine.
    fn push_content(&mut self, content: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(text) = content.cast::<PyString>() {
            self.push(text.to_str()?);
            return Ok(());
        }
        if content.cast::<PyMapping>().is_ok() {
            return Ok(());
        }
        let items = match content.try_iter() {
            Ok(items) => items,
            Err(error) if error.is_instance_of::<PyTypeError>(content.py()) => return Ok(()),
            Err(error) => return Err(error),
        };
        if items.is(content) {
            return Ok(());
        }
        for item in items {
            self.push_item(&item?)?;
        }
        Ok(())
    }

    fn push_item(&mut self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let text = match Fields::of(item) {
            Some(fields) => fields.get(intern!(item.py(), "text"))?,
            None => None,
        };
        match text.as_ref().map(|text| text.cast::<PyString>()) {
            Some(Ok(text)) => {
                self.push(text.to_str()?);
                Ok(())
            }
            _ => {
                self.push(shown(item)?.as_deref().unwrap_or_default());
                Ok(())
            }
        }
    }
}

/// What something that is no text says, as [`request_body::shown`] has it of a body's; what JSON has no
/// form of, as Python shows it, and what can be read only once, not at all.
fn shown(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    if let Ok(read) = json::from_python(value) {
        return Ok(request_body::shown(&read));
    }
    if value.try_iter().is_ok_and(|items| items.is(value)) {
        return Ok(None);
    }
    Ok(Some(value.str()?.to_str()?.to_owned()))
}
