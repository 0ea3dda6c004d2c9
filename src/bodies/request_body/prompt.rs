//! The prompt of a body, in whatever form OpenAI's APIs have for one.

use super::scan::{Raw, Scan, Stop};
use serde_json::Value;

/// Between the parts of a conversation, whoever reads it. A text that has it can look like another
/// conversation, which makes an estimate of what an engine holds wrong, and nothing else.
pub const PART: char = '\u{1e}';

/// What a value that is no text says in a conversation, such as an image or a tool's call: its JSON without
/// spaces and with its names sorted, so that it is the same from bytes and from objects, however those were
/// written. Nothing where there is nothing in it.
#[must_use]
pub fn shown(value: &Value) -> Option<String> {
    let is_nothing = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    match value {
        _ if is_nothing => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The same of a value as it stands in a body; one that is no JSON is left as it is.
fn shown_text(said: &str) -> Option<String> {
    serde_json::from_str(said).map_or_else(|_| Some(said.to_owned()), |value| shown(&value))
}

/// A prompt as a body has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyPrompt {
    /// Token ids.
    Tokens(Vec<u32>),
    /// Text; of a conversation one that only grows at its end when the conversation does.
    Text(String),
}

/// What a field with a prompt said so far, and whether the text went on after it.
pub(super) type Read = (Option<BodyPrompt>, Result<(), Stop>);
/// Reads the value of such a field.
pub(super) type Reader = fn(&mut Scan<'_>) -> Read;

/// Token ids: of the first prompt, where there are several.
pub(super) fn tokens(scan: &mut Scan<'_>) -> Read {
    let mut ids = Vec::new();
    let read = scan.items(|scan| {
        ids.push(scan.integer()?);
        Ok(())
    });
    (Some(BodyPrompt::Tokens(ids)).filter(|it| !it.is_empty()), read)
}

/// The messages of a chat.
pub(super) fn messages(scan: &mut Scan<'_>) -> Read {
    let mut talk = Talk::default();
    let read = scan.items(|scan| talk.message(scan));
    (talk.prompt(), read)
}

/// `prompt` or `input`: text, token ids, a list of either, of which the first counts, or messages.
pub(super) fn any(scan: &mut Scan<'_>) -> Read {
    match scan.peek() {
        Ok(b'"') => text(scan),
        Ok(b'[') => {
            let mut ahead = scan.clone();
            // Past the bracket; an empty list says nothing.
            match ahead.take(b'[').and_then(|_| ahead.peek()) {
                Ok(b'0'..=b'9') => tokens(scan),
                Ok(b'{') => messages(scan),
                Ok(b'"') => first(scan, text),
                Ok(b'[') => first(scan, tokens),
                _ => (None, scan.skip().map(drop)),
            }
        }
        _ => (None, scan.skip().map(drop)),
    }
}

fn text(scan: &mut Scan<'_>) -> Read {
    match scan.string_so_far() {
        Ok(raw) => {
            let read = if raw.is_whole() { Ok(()) } else { Err(Stop) };
            (Some(BodyPrompt::Text(raw.to_text())).filter(|it| !it.is_empty()), read)
        }
        Err(stop) => (None, Err(stop)),
    }
}

/// The first item of a list; the others are passed over.
fn first(scan: &mut Scan<'_>, item: Reader) -> Read {
    let mut found = None;
    let mut is_first = true;
    let read = scan.items(|scan| {
        if std::mem::take(&mut is_first) {
            let (prompt, read) = item(scan);
            found = prompt;
            return read;
        }
        scan.skip().map(drop)
    });
    (found, read)
}

impl BodyPrompt {
    fn is_empty(&self) -> bool {
        match self {
            Self::Tokens(ids) => ids.is_empty(),
            Self::Text(text) => text.is_empty(),
        }
    }
}

/// A conversation as text: of each message its role, the parts of its content, its tool calls.
#[derive(Default)]
struct Talk {
    text: String,
    has_parts: bool,
}

impl Talk {
    fn prompt(self) -> Option<BodyPrompt> {
        Some(BodyPrompt::Text(self.text)).filter(|it| !it.is_empty())
    }

    fn part(&mut self) -> &mut String {
        if std::mem::replace(&mut self.has_parts, true) {
            self.text.push(PART);
        }
        &mut self.text
    }

    fn raw(&mut self, raw: Raw<'_>) -> Result<(), Stop> {
        raw.push_to(self.part());
        if raw.is_whole() { Ok(()) } else { Err(Stop) }
    }

    /// A message, whose fields may come in any order. What is cut off after its role is taken as far as
    /// it goes; before, not at all.
    fn message(&mut self, scan: &mut Scan<'_>) -> Result<(), Stop> {
        if scan.peek()? != b'{' {
            scan.skip()?;
            self.part();
            return Ok(());
        }
        let (mut role, mut content, mut calls) = (None, None, None);
        let read = scan.fields(|scan, name| {
            if name.is("role") {
                role = Some(scan.clone());
            } else if name.is("content") {
                content = Some(scan.clone());
            } else if name.is("tool_calls") {
                calls = Some(scan.clone());
            }
            scan.skip().map(drop)
        });
        let Some(mut role) = role.filter(|it| read.is_ok() || it.clone().skip().is_ok()) else {
            if read.is_ok() {
                self.part();
                return self.rest(content, calls);
            }
            return read;
        };
        match role.string() {
            Ok(raw) => self.raw(raw)?,
            // Its role is no text.
            Err(Stop) => {
                self.part();
            }
        }
        self.rest(content, calls)?;
        read
    }

    fn rest(&mut self, content: Option<Scan<'_>>, calls: Option<Scan<'_>>) -> Result<(), Stop> {
        if let Some(mut content) = content {
            self.content(&mut content)?;
        }
        if let Some(mut calls) = calls
            && let Some(said) = shown_text(calls.skip()?)
        {
            self.part().push_str(&said);
        }
        Ok(())
    }

    fn content(&mut self, scan: &mut Scan<'_>) -> Result<(), Stop> {
        match scan.peek()? {
            b'"' => {
                let raw = scan.string_so_far()?;
                self.raw(raw)
            }
            b'[' => scan.items(|scan| self.content_part(scan)),
            _ => Ok(()),
        }
    }

    /// A part of a message's content: its text, or what it refers to.
    fn content_part(&mut self, scan: &mut Scan<'_>) -> Result<(), Stop> {
        if scan.peek()? == b'"' {
            let raw = scan.string_so_far()?;
            return self.raw(raw);
        }
        let mut whole = scan.clone();
        if scan.peek()? != b'{' {
            let said = shown_text(scan.skip()?);
            self.part().push_str(said.as_deref().unwrap_or_default());
            return Ok(());
        }
        let mut text = None;
        let read = scan.fields(|scan, name| {
            if name.is("text") && scan.peek()? == b'"' {
                text = Some(scan.clone());
            }
            scan.skip().map(drop)
        });
        match text {
            Some(mut text) => {
                let raw = text.string_so_far()?;
                self.raw(raw)?;
            }
            None => {
                let said = shown_text(whole.skip()?);
                self.part().push_str(said.as_deref().unwrap_or_default());
            }
        }
        read
    }
}
