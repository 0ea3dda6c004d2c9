//! A chat template: Jinja as `transformers` renders it, so that the text is the engine's own.
//!
//! What differs from Jinja is what engines add: blocks are trimmed, `tojson` is Python's, templates may turn
//! requests away (`raise_exception`), ask for the date (`strftime_now`) and mark what the model said
//! (`generation`). A template that cannot be rendered here is an error, never an approximation.

use super::clock::strftime;
use super::content_format::{self, ContentFormat};
use super::python_json;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::time::SystemTime;

/// Steps that rendering may take: 32,768 messages with ten steps each for every one of them stay below.
const FUEL: u64 = 50_000_000;
const NAME: &str = "chat";

/// One template, compiled.
pub(super) struct Template {
    environment: Environment<'static>,
    /// How it wants the content of messages.
    pub content_format: ContentFormat,
    /// Whether it knows the role `developer`.
    pub knows_developer: bool,
    /// Whether it looks at the content of messages.
    pub names_content: bool,
}

impl Template {
    pub(super) fn compile(source: &str) -> Result<Self, Error> {
        // Jinja knows one kind of line break.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        let source = without_generation_tags(&source);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        let content_format = content_format::detect(&source, syntax.clone())?;
        let knows_developer = ["\"developer\"", "'developer'"].iter().any(|it| source.contains(it));
        let names_content = source.contains("content");
        let mut environment = Environment::new();
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(method);
        environment.set_fuel(Some(FUEL));
        // What is printed as it is: of floats inside lists and of those that are joined to a text, Rust's form
        // stays, which differs from Python's below 1e-4 and from 1e16 on.
        environment.set_formatter(|out, state, value| {
            if value.is_number() && !value.is_integer() {
                let printed = python_json::float(f64::try_from(value.clone())?);
                return out.write_str(&printed).map_err(Error::from);
            }
            minijinja::escape_formatter(out, state, value)
        });
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", |said: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, said))
        });
        environment.add_function("strftime_now", |format: String| {
            strftime(&format, SystemTime::now())
                .map_err(|said| Error::new(ErrorKind::InvalidOperation, said))
        });
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, content_format, knows_developer, names_content })
    }

    pub(super) fn render(&self, variables: Value) -> Result<String, Error> {
        self.environment.get_template(NAME)?.render(variables)
    }
}

/// Python's methods of values, as far as they are known.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match (name, value.as_str()) {
        ("title", Some(text)) if arguments.is_empty() => Ok(Value::from(title(text))),
        _ => unknown_method_callback(state, value, name, arguments),
    }
}

/// Letters after none in upper case, all others in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_within = false;
    for letter in text.chars() {
        if is_within {
            out.extend(letter.to_lowercase());
        } else {
            out.extend(letter.to_uppercase());
        }
        is_within = letter.is_lowercase() || letter.is_uppercase();
    }
    out
}

/// `{% generation %}` marks for training what the model said: here it is a scope, as there.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let Some(end) = tag.find("%}") else { break };
        let inner = &tag[2..end];
        let name = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let instead = match name {
            "generation" => Some(inner.replace("generation", " with ")),
            "endgeneration" => Some(inner.replace("endgeneration", " endwith ")),
            _ => None,
        };
        out.push_str("{%");
        out.push_str(instead.as_deref().unwrap_or(inner));
        out.push_str("%}");
        rest = &tag[end + 2..];
    }
    out.push_str(rest);
    out
}
