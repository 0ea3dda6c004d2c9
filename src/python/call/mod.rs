//! What the call of a Ray Serve handle asks for: its prompt and options, wherever they stand.
//!
//! Handles pass whatever the application passes; `ray.serve.llm` passes parsed OpenAI requests, or
//! with direct streaming a namespace of the body and `request_token_ids`; the HTTP proxy passes only
//! the head of the request, whose headers still count.
//!
//! NOTE(perf): here and not in Python because half of what a pick costs was to find the prompt, to
//! put its options into a dict and to read that again.

mod fields;
mod openai;
mod payload;

pub use payload::Payload;

use crate::decision::Decision;
use crate::errors;
use crate::given::{Given, Prompt as GivenPrompt};
use crate::headers::request_options;
use crate::options::Options;
use crate::request::{resolve, with_scratch};
use crate::router::Router;
use fields::{Fields, attribute};
use llmd_bodies::router::{self, LiveRouter};
use openai::Prompt;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyMapping, PyString};

/// Takes what is said about a request.
trait Told {
    fn tell(&mut self, option: &str, value: &Bound<'_, PyAny>) -> PyResult<()>;
}

impl Told for Options {
    fn tell(&mut self, option: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(option, value)
    }
}

impl Told for Bound<'_, PyDict> {
    fn tell(&mut self, option: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set_item(option, value)
    }
}

/// Finds the prompt of a call, if it has one, and tells what else is said about the request: of its
/// model, that it is an alias of `aliases`, as otherwise every replica serves it.
fn read<'py>(
    args: &Bound<'py, PyAny>,
    kwargs: Option<&Bound<'py, PyDict>>,
    aliases: Option<&LiveRouter>,
    told: &mut impl Told,
) -> PyResult<Option<Prompt<'py>>> {
    let py = args.py();
    let mut tokens = None;
    if let Some(kwargs) = kwargs {
        tokens = kwargs.get_item(intern!(py, "request_token_ids"))?.filter(|it| !it.is_none());
    }
    let named = kwargs.filter(|it| !it.is_empty()).map(PyDictMethods::values);
    for payload in args.try_iter()?.chain(named.into_iter().flatten().map(Ok)) {
        let payload = payload?;
        if tokens.as_ref().is_some_and(|it| it.is(&payload)) {
            continue;
        }
        let Some(fields) = Fields::of(&payload) else { continue };
        if let Some(headers) = headers(&fields)? {
            for (option, value) in request_options(&headers)? {
                told.tell(option.cast::<PyString>()?.to_str()?, &value)?;
            }
            continue;
        }
        tell_options(&fields, py, told)?;
        if let Some(live) = aliases
            && let Some(model) = fields.get(intern!(py, "model"))?
            && let Ok(name) = model.cast::<PyString>()
            && live.is_alias(name.to_str()?)
        {
            told.tell("model", &model)?;
        }
        if tokens.is_some() {
            break;
        }
        if let Some(prompt) = Prompt::of(&fields, py)? {
            return Ok(Some(prompt));
        }
    }
    Ok(tokens.map(Prompt::Tokens))
}

/// The options that an OpenAI request has, vLLM's additions among them.
fn tell_options<'py>(
    request: &Fields<'_, 'py>,
    py: Python<'py>,
    told: &mut impl Told,
) -> PyResult<()> {
    // Of a field's names the first counts: vLLM's order.
    let options: [(&str, &[&Bound<'py, PyString>]); 3] = [
        (
            "max_output_tokens",
            &[
                intern!(py, "max_completion_tokens"),
                intern!(py, "max_tokens"),
                intern!(py, "max_output_tokens"),
            ],
        ),
        ("cache_salt", &[intern!(py, "cache_salt")]),
        ("priority", &[intern!(py, "priority")]),
    ];
    for (option, names) in options {
        for name in names {
            if let Some(value) = request.get(name)?
                && (value.is_instance_of::<PyInt>() || value.is_instance_of::<PyString>())
            {
                told.tell(option, &value)?;
                break;
            }
        }
    }
    Ok(())
}

/// The headers, where a payload is the head of an HTTP request.
fn headers<'py>(payload: &Fields<'_, 'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    // A body has none.
    let (Fields::Mapping(object) | Fields::Attributes(object)) = payload else { return Ok(None) };
    let py = object.py();
    let mut scope = attribute(object, intern!(py, "asgi_scope"))?;
    if !scope.is_truthy()? {
        scope = attribute(object, intern!(py, "scope"))?;
    }
    if scope.cast::<PyMapping>().is_err() {
        return Ok(None);
    }
    let headers = scope.call_method1(intern!(py, "get"), (intern!(py, "headers"),))?;
    Ok(if headers.is_truthy()? { Some(headers) } else { None })
}

#[doc = stub_doc!("_read_call")]
#[pyfunction]
pub fn _read_call<'py>(
    args: &Bound<'py, PyAny>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let py = args.py();
    let mut found = PyDict::new(py);
    match read(args, kwargs, None, &mut found)? {
        Some(Prompt::Tokens(tokens)) => found.set_item("tokens", tokens)?,
        Some(Prompt::Text(text)) => found.set_item("text", text)?,
        Some(Prompt::Conversation(text)) => found.set_item("text", text)?,
        None => {}
    }
    Ok(found)
}

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router._route_call")]
    #[pyo3(signature = (args, kwargs, options, allowed=None, tokens=None))]
    fn _route_call(
        &self,
        py: Python<'_>,
        args: &Bound<'_, PyAny>,
        kwargs: Option<&Bound<'_, PyDict>>,
        options: &Bound<'_, PyDict>,
        allowed: Option<&Bound<'_, PyAny>>,
        tokens: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Decision> {
        let live = self.live()?;
        let mut told = Options::read(Some(options))?;
        let aliases = live.has_aliases().then_some(&*live);
        let mut prompt = read(args, kwargs, aliases, &mut told)?;
        if let Some(tokens) = tokens {
            prompt = Some(Prompt::Tokens(tokens));
        }
        if let Some(allowed) = allowed {
            told.set("allowed", allowed)?;
        }
        resolve(&live, &mut told)?;
        let Options { scope, request, .. } = &mut told;
        with_scratch(|scratch| {
            let mut route =
                |given: Given<'_, GivenPrompt<'_>>| given.read(&live, scope, request, scratch);
            match &prompt {
                Some(Prompt::Tokens(tokens)) => route(Given::Prompt(&tokens.extract()?)),
                Some(Prompt::Text(text)) if !text.is_empty()? => route(Given::Text(text.to_str()?)),
                Some(Prompt::Conversation(text)) if !text.is_empty() => route(Given::Text(text)),
                _ => live
                    .prepare(router::Prompt::UNKNOWN, scope, request, scratch)
                    .map_err(|error| errors::prompt(&error)),
            }?;
            if let Some(prompt) = prompt {
                prompt.leave_buffer();
            }
            self.decide(py, live, request, scratch)
        })
    }
}
