//! The messages and tools of a chat as vLLM 0.32 hands them to a template: after its checks of the request, its
//! reading of contents, and what it does to tool calls.
//!
//! Every shape that is not known to come through vLLM as is written here is refused; so is what vLLM would turn
//! away.

use super::content_format::ContentFormat;
use super::error::NotExact;
use super::json::{Json, Object};

/// Reads messages for a template.
pub(super) struct Reader {
    pub format: ContentFormat,
    pub knows_developer: bool,
}

impl Reader {
    pub(super) fn messages(&self, messages: Json) -> Result<Vec<Object>, NotExact> {
        let Json::Array(messages) = messages else {
            return Err(NotExact::shape("messages", messages.kind()));
        };
        if messages.is_empty() {
            return Err(NotExact::shape("messages", "an empty list"));
        }
        let numbered = messages.into_iter().enumerate();
        let mut read: Vec<Object> = numbered
            .map(|(position, it)| self.message(&format!("messages[{position}]"), it))
            .collect::<Result<_, _>>()?;
        if !self.knows_developer && read.iter().any(|it| is_from(it, "developer")) {
            for message in read.iter_mut().filter(|it| is_from(it, "developer")) {
                message.insert("role".to_owned(), Json::String("system".to_owned()));
                message.shift_remove("tools");
            }
            read = with_one_system_message(read);
        }
        Ok(read)
    }

    fn message(&self, at: &str, message: Json) -> Result<Object, NotExact> {
        let Json::Object(mut given) = message else {
            return Err(NotExact::shape(at, message.kind()));
        };
        let role = match given.swap_remove("role") {
            Some(Json::String(role)) => role,
            other => return Err(unknown(&format!("{at}.role"), other.as_ref())),
        };
        let content =
            self.content(&format!("{at}.content"), &role, given.swap_remove("content"))?;
        let mut read = Object::new();
        read.insert("role".to_owned(), Json::String(role.clone()));
        read.insert("content".to_owned(), content);
        match role.as_str() {
            "assistant" => {
                let calls = given.swap_remove("tool_calls").filter(|it| !it.is_null());
                if let Some(calls) = calls {
                    let calls = tool_calls(&format!("{at}.tool_calls"), calls)?;
                    if !calls.is_empty() {
                        read.insert("tool_calls".to_owned(), Json::Array(calls));
                    }
                }
                let mut reasoning = None;
                for field in ["reasoning_content", "reasoning"] {
                    let said = optional_text(at, field, given.swap_remove(field))?;
                    reasoning = said.or(reasoning);
                }
                if let Some(reasoning) = reasoning {
                    for field in ["reasoning", "reasoning_content"] {
                        read.insert(field.to_owned(), Json::String(reasoning.clone()));
                    }
                }
            }
            "tool" => {
                if let Some(id) = given.swap_remove("tool_call_id") {
                    if id.as_str().is_none() {
                        return Err(unknown(&format!("{at}.tool_call_id"), Some(&id)));
                    }
                    read.insert("tool_call_id".to_owned(), id);
                }
            }
            "developer" if given.get("tools").is_some_and(|it| !it.is_null()) => {
                return Err(NotExact::Field(format!("{at}.tools")));
            }
            _ => {}
        }
        for field in ["name", "task"] {
            if let Some(said) = optional_text(at, field, given.swap_remove(field))? {
                read.insert(field.to_owned(), Json::String(said));
            }
        }
        if role == "developer" {
            read.insert("tools".to_owned(), Json::Null);
        }
        Ok(read)
    }

    fn content(&self, at: &str, role: &str, content: Option<Json>) -> Result<Json, NotExact> {
        let mut parts = match content {
            None => Vec::new(),
            Some(Json::Null) if role == "assistant" => Vec::new(),
            Some(Json::String(said)) => vec![(said, Object::new())],
            Some(Json::Array(parts)) => parts
                .into_iter()
                .enumerate()
                .map(|(position, it)| part(&format!("{at}[{position}]"), it))
                .collect::<Result<_, _>>()?,
            other => return Err(unknown(at, other.as_ref())),
        };
        if role == "system" && parts.iter().any(|(said, _)| is_billing_header(said)) {
            let what = "a header of its client, a part of which engines leave out";
            return Err(NotExact::shape(at, what));
        }
        // Of a tool's answer vLLM joins the parts, whatever the template wants.
        if self.format == ContentFormat::String || role == "tool" {
            if parts.len() == 1 {
                return Ok(Json::String(parts.swap_remove(0).0));
            }
            let said: Vec<String> = parts.into_iter().map(|(said, _)| said).collect();
            return Ok(Json::String(said.join("\n")));
        }
        let wrapped = parts.into_iter().map(|(said, extra)| {
            let mut part = Object::new();
            part.insert("type".to_owned(), Json::String("text".to_owned()));
            part.insert("text".to_owned(), Json::String(said));
            part.extend(extra);
            Json::Object(part)
        });
        Ok(Json::Array(wrapped.collect()))
    }
}

/// A part of a content: its text, and what else a template may see of it.
fn part(at: &str, part: Json) -> Result<(String, Object), NotExact> {
    let mut fields = match part {
        Json::String(said) => return Ok((said, Object::new())),
        Json::Object(fields) => fields,
        other => return Err(NotExact::shape(at, other.kind())),
    };
    match fields.swap_remove("type") {
        Some(Json::String(kind)) if kind == "text" => {}
        Some(Json::String(kind)) => {
            return Err(NotExact::NotText(format!("{at}, of the type {kind:?},")));
        }
        other => return Err(unknown(&format!("{at}.type"), other.as_ref())),
    }
    let said = match fields.swap_remove("text") {
        Some(Json::String(said)) => said,
        other => return Err(unknown(&format!("{at}.text"), other.as_ref())),
    };
    // What clients mark for other engines; vLLM passes it on.
    match fields.keys().find(|it| *it != "cache_control") {
        Some(other) => Err(NotExact::Field(format!("{at}.{other}"))),
        None => Ok((said, fields)),
    }
}

/// The calls that a model made, with their arguments parsed.
fn tool_calls(at: &str, calls: Json) -> Result<Vec<Json>, NotExact> {
    let Json::Array(calls) = calls else { return Err(NotExact::shape(at, calls.kind())) };
    let numbered = calls.into_iter().enumerate();
    numbered.map(|(position, it)| tool_call(&format!("{at}[{position}]"), it)).collect()
}

fn tool_call(at: &str, call: Json) -> Result<Json, NotExact> {
    let Json::Object(mut given) = call else { return Err(NotExact::shape(at, call.kind())) };
    let required = |given: &mut Object, at: &str, field: &str| match given.shift_remove(field) {
        Some(it @ Json::String(_)) => Ok(it),
        other => Err(unknown(&format!("{at}.{field}"), other.as_ref())),
    };
    let id = required(&mut given, at, "id")?;
    let kind = required(&mut given, at, "type")?;
    if kind.as_str() != Some("function") {
        return Err(NotExact::shape(format!("{at}.type"), "no function"));
    }
    let mut function = match given.shift_remove("function") {
        Some(Json::Object(function)) => function,
        other => return Err(unknown(&format!("{at}.function"), other.as_ref())),
    };
    let within = format!("{at}.function");
    let written = required(&mut function, &within, "arguments")?;
    let name = required(&mut function, &within, "name")?;
    // The checked fields come first, in the order of vLLM's types.
    let mut checked = Object::new();
    checked
        .insert("arguments".to_owned(), arguments(&within, written.as_str().unwrap_or_default())?);
    checked.insert("name".to_owned(), name);
    checked.extend(function);
    let mut read = Object::new();
    read.insert("id".to_owned(), id);
    read.insert("function".to_owned(), Json::Object(checked));
    read.insert("type".to_owned(), kind);
    read.extend(given);
    Ok(Json::Object(read))
}

/// Templates want the arguments of a call as an object.
fn arguments(at: &str, written: &str) -> Result<Json, NotExact> {
    if written.is_empty() {
        return Ok(Json::Object(Object::new()));
    }
    match Json::read(written.as_bytes()) {
        Ok(it @ Json::Object(_)) => Ok(it),
        Ok(_) => Ok(Json::Object(Object::new())),
        // An engine takes none for them then, unless Python reads what Rust does not.
        Err(error) => Err(NotExact::shape(format!("{at}.arguments"), error.to_string())),
    }
}

/// Tools as vLLM shows them to templates.
pub(super) fn tools(tools: Json) -> Result<Vec<Json>, NotExact> {
    let Json::Array(tools) = tools else { return Err(NotExact::shape("tools", tools.kind())) };
    if tools.is_empty() {
        return Err(NotExact::shape("tools", "an empty list"));
    }
    tools
        .into_iter()
        .enumerate()
        .map(|(position, it)| tool(&format!("tools[{position}]"), it))
        .collect()
}

fn tool(at: &str, tool: Json) -> Result<Json, NotExact> {
    let Json::Object(mut given) = tool else { return Err(NotExact::shape(at, tool.kind())) };
    if given.get("type").is_some_and(|it| it.as_str() != Some("function")) {
        return Err(NotExact::shape(format!("{at}.type"), "no function"));
    }
    let mut function = match given.swap_remove("function") {
        Some(Json::Object(function)) => function,
        other => return Err(unknown(&format!("{at}.function"), other.as_ref())),
    };
    if given.contains_key("defer_loading") || function.contains_key("defer_loading") {
        return Err(NotExact::Field(format!("{at}.defer_loading")));
    }
    let mut read = Object::new();
    for field in ["name", "description", "parameters", "strict"] {
        let value = function.swap_remove(field).unwrap_or(Json::Null);
        let is_known = match (field, &value) {
            ("name", Json::String(_))
            | ("description", Json::String(_) | Json::Null)
            | ("parameters", Json::Object(_) | Json::Null)
            | ("strict", Json::Bool(_)) => true,
            ("strict", Json::Null) => continue,
            _ => false,
        };
        if !is_known {
            return Err(unknown(&format!("{at}.function.{field}"), Some(&value)));
        }
        read.insert(field.to_owned(), value);
    }
    let mut shown = Object::new();
    shown.insert("type".to_owned(), Json::String("function".to_owned()));
    shown.insert("function".to_owned(), Json::Object(read));
    Ok(Json::Object(shown))
}

/// All system messages as one at the front, where there is one that is not there.
fn with_one_system_message(messages: Vec<Object>) -> Vec<Object> {
    let systems = messages.iter().filter(|it| is_from(it, "system")).count();
    if systems == 1 && is_from(&messages[0], "system") {
        return messages;
    }
    let (systems, mut rest): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|it| is_from(it, "system"));
    let said: Vec<String> = systems.iter().map(said_by).filter(|said| !said.is_empty()).collect();
    let mut merged = Object::new();
    merged.insert("role".to_owned(), Json::String("system".to_owned()));
    merged.insert("content".to_owned(), Json::String(said.join("\n\n")));
    rest.insert(0, merged);
    rest
}

fn said_by(message: &Object) -> String {
    match message.get("content") {
        Some(Json::String(said)) => said.clone(),
        Some(Json::Array(parts)) => {
            let texts = parts.iter().filter_map(|it| match it {
                Json::Object(part) => part.get("text")?.as_str(),
                _ => None,
            });
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn is_from(message: &Object, role: &str) -> bool {
    message.get("role").and_then(Json::as_str) == Some(role)
}

/// A first line that changes with every request of some clients.
fn is_billing_header(said: &str) -> bool {
    said.starts_with("x-")
        && said.lines().next().is_some_and(|line| line.contains("-billing-header"))
}

fn optional_text(at: &str, field: &str, value: Option<Json>) -> Result<Option<String>, NotExact> {
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(said)) => Ok(Some(said)),
        other => Err(unknown(&format!("{at}.{field}"), other.as_ref())),
    }
}

fn unknown(at: &str, value: Option<&Json>) -> NotExact {
    NotExact::shape(at, value.map_or("missing", Json::kind))
}
