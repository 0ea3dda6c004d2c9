//! A chat's request as vLLM 0.32 hands it to a template: which variables it gets, and what becomes of the text.

use super::content_format::ContentFormat;
use super::error::NotExact;
use super::folder::Templates;
use super::json::{Json, Object};
use super::messages::{self, Reader};
use super::template::Template;
use minijinja::value::Value;

/// Fields of a request under which vLLM makes other tokens of the same chat.
const CHANGES: [&str; 4] =
    ["chat_template", "truncate_prompt_tokens", "media_io_kwargs", "mm_processor_kwargs"];
/// What `chat_template_kwargs` may not set: arguments of `apply_chat_template` besides variables.
const ARGUMENTS: [&str; 14] = [
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "documents",
    "max_length",
    "messages",
    "padding",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
];
/// Ends the last message of a chat whose end is to be found in the text.
const END_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Renders the chats of one model.
pub(super) struct Chats {
    default: Template,
    with_tools: Option<Template>,
    special_tokens: Vec<(String, Value)>,
    content_format: Option<ContentFormat>,
    defaults: Object,
}

/// A chat as the text whose tokens are its prompt.
pub(super) struct Rendered {
    pub text: String,
    pub add_special_tokens: bool,
}

impl Chats {
    /// The chats of a model, with what its engine is started with.
    pub(super) fn of(
        templates: &Templates,
        special_tokens: &[(String, String)],
        content_format: Option<ContentFormat>,
        defaults: Object,
    ) -> Result<Self, NotExact> {
        let compile = |source: &str| {
            Template::compile(source).map_err(|error| NotExact::Template(shown(&error)))
        };
        let (default, with_tools) = match templates {
            Templates::None(whose) => return Err(NotExact::NoTemplate(whose.clone())),
            Templates::Some { default, tools } => (default, tools),
        };
        Ok(Self {
            default: compile(default)?,
            with_tools: with_tools.as_deref().map(compile).transpose()?,
            special_tokens: special_tokens
                .iter()
                .map(|(name, content)| (name.clone(), Value::from(content.as_str())))
                .collect(),
            content_format,
            defaults,
        })
    }

    /// How contents are given to the template.
    pub(super) fn content_format(&self) -> ContentFormat {
        self.content_format.unwrap_or(self.default.content_format)
    }

    /// Renders the chat of a request's body.
    pub(super) fn render(&self, mut body: Object) -> Result<Rendered, NotExact> {
        if let Some(field) =
            CHANGES.iter().find(|it| body.get(**it).is_some_and(|it| !it.is_null()))
        {
            return Err(NotExact::Field((*field).to_owned()));
        }
        if let Some(Json::Object(transfer)) = body.get("kv_transfer_params")
            && transfer.contains_key("prompt_token_ids")
        {
            return Err(NotExact::Field("kv_transfer_params.prompt_token_ids".to_owned()));
        }
        let tools = match body.swap_remove("tools") {
            None | Some(Json::Null) => None,
            Some(tools) => Some(messages::tools(tools)?),
        };
        let template =
            self.with_tools.as_ref().filter(|_| tools.is_some()).unwrap_or(&self.default);
        let reader = Reader {
            format: self.content_format.unwrap_or(template.content_format),
            knows_developer: template.knows_developer,
        };
        let mut messages = reader.messages(body.swap_remove("messages").unwrap_or(Json::Null))?;
        let flag = |body: &Object, field: &str, usual: bool| match body.get(field) {
            None => Ok(usual),
            Some(Json::Bool(it)) => Ok(*it),
            Some(other) => Err(NotExact::shape(field, other.kind())),
        };
        let add_generation_prompt = flag(&body, "add_generation_prompt", true)?;
        let continue_final_message = flag(&body, "continue_final_message", false)?;
        let add_special_tokens = flag(&body, "add_special_tokens", false)?;
        let mut last = None;
        if continue_final_message {
            if add_generation_prompt || !template.names_content {
                return Err(NotExact::Field("continue_final_message".to_owned()));
            }
            last = messages.last_mut().map(tag_end).transpose()?;
        }
        let mut variables = self.variables(&mut body)?;
        variables.extend([
            ("messages".to_owned(), Json::Array(messages.into_iter().map(Json::Object).collect())),
            ("tools".to_owned(), tools.map_or(Json::Null, Json::Array)),
            ("add_generation_prompt".to_owned(), Json::Bool(add_generation_prompt)),
        ]);
        let variables = variables.into_iter().map(|(name, it)| (name, it.into_value()));
        let all = self.special_tokens.iter().cloned().chain(variables);
        let text = template
            .render(Value::from_pairs(all))
            .map_err(|error| NotExact::Template(shown(&error)))?;
        let text = match last {
            Some(last) => without_end(text, &last)?,
            None => text,
        };
        Ok(Rendered { text, add_special_tokens })
    }

    /// What the template may ask for besides the chat itself. What is `null` or `"auto"` counts as not said.
    fn variables(&self, body: &mut Object) -> Result<Object, NotExact> {
        let is_said = |it: &Json| !it.is_null() && it.as_str() != Some("auto");
        let mut variables = self.defaults.clone();
        let given = match body.swap_remove("chat_template_kwargs") {
            None | Some(Json::Null) => Object::new(),
            Some(Json::Object(given)) => given,
            Some(other) => return Err(NotExact::shape("chat_template_kwargs", other.kind())),
        };
        if let Some(name) = given.keys().find(|it| ARGUMENTS.contains(&it.as_str())) {
            return Err(NotExact::Field(format!("chat_template_kwargs.{name}")));
        }
        let effort = body.swap_remove("reasoning_effort").filter(is_said);
        let says_thinking = given.contains_key("enable_thinking");
        variables.extend(given.into_iter().filter(|(_, it)| is_said(it)));
        if let Some(effort) = effort {
            let Some(said) = effort.as_str() else {
                return Err(NotExact::shape("reasoning_effort", effort.kind()));
            };
            if !says_thinking {
                variables.insert("enable_thinking".to_owned(), Json::Bool(said != "none"));
            }
            variables.insert("reasoning_effort".to_owned(), effort);
        }
        let documents = match body.swap_remove("documents") {
            Some(documents @ Json::Array(_)) => documents,
            None | Some(Json::Null) => Json::Null,
            Some(other) => return Err(NotExact::shape("documents", other.kind())),
        };
        variables.insert("documents".to_owned(), documents);
        Ok(variables)
    }
}

/// Marks the end of the last message; returns the text that it had there.
fn tag_end(message: &mut Object) -> Result<String, NotExact> {
    let at = "messages: the last one's content";
    let said = match message.get_mut("content") {
        Some(Json::String(said)) => said,
        Some(Json::Array(parts)) => match parts.last_mut() {
            Some(Json::Object(part)) => match part.get_mut("text") {
                Some(Json::String(said)) => said,
                _ => return Err(NotExact::shape(at, "no text")),
            },
            _ => return Err(NotExact::shape(at, "empty")),
        },
        _ => return Err(NotExact::shape(at, "no text")),
    };
    let before = said.clone();
    said.push_str(END_TAG);
    Ok(before)
}

/// The text up to where the last message ends.
fn without_end(mut text: String, last: &str) -> Result<String, NotExact> {
    let tag = END_TAG.trim_end();
    match text.rfind(tag) {
        Some(at) if text.contains(python_strip(last)) => {
            let is_whole = text[at..].starts_with(END_TAG);
            text.truncate(at);
            if !is_whole {
                text.truncate(text.trim_end_matches(is_python_space).len());
            }
            Ok(text)
        }
        _ => Err(NotExact::Template("it leaves out the end of the last message".to_owned())),
    }
}

fn python_strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// What Python counts as a blank: Unicode's, and the four separators of ASCII.
fn is_python_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// An error with what caused it.
fn shown(error: &minijinja::Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(it) = cause {
        said.push_str(": ");
        said.push_str(&it.to_string());
        cause = it.source();
    }
    said
}
