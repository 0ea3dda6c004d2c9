//! What a caller says about a request besides its prompt: `PromptOptions`, `RequestOptions`.

use crate::endpoint::Endpoint;
use crate::errors::PromptError;
use llmd_bodies::router::MemberRef;
use llmd_brain::fleet::Topology;
use llmd_brain::prompt::{MultimodalItem, Scope};
use llmd_brain::schedule::Request;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::collections::BTreeMap;

const PROMPT_OPTIONS: [&str; 4] = ["model", "lora", "cache_salt", "multimodal"];
const REQUEST_OPTIONS: [&str; 14] = [
    "session_id",
    "priority",
    "ttft_slo_ms",
    "tpot_slo_ms",
    "max_output_tokens",
    "allowed",
    "required_labels",
    "origin",
    "hold_ms",
    "tenant",
    "deadline_ms",
    "expected_output_tokens",
    "end_is_untold",
    "first_token_is_untold",
];

/// Options of a prompt, read.
pub fn scope(options: Option<&Bound<'_, PyDict>>) -> PyResult<Scope> {
    let mut scope = Scope::default();
    for (key, value) in options.into_iter().flatten() {
        let name = key.cast::<PyString>()?.to_str()?;
        if !prompt_option(&mut scope, name, &value)? {
            return Err(unknown(name, &PROMPT_OPTIONS, &[]));
        }
    }
    Ok(scope)
}

/// Options of a request, read; who is `allowed` is still to be found, and the prompt's part (its
/// length, model and adapter) comes with the prompt.
#[derive(Debug, Default)]
pub struct Options {
    /// What its keys are bound to.
    pub scope: Scope,
    /// Everything else, without the prompt's length.
    pub request: Request,
    /// Only these endpoints.
    pub allowed: Option<Vec<MemberRef>>,
}

impl Options {
    /// Reads the keyword arguments of a call.
    pub fn read(options: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut read = Self::default();
        for (key, value) in options.into_iter().flatten() {
            read.set(key.cast::<PyString>()?.to_str()?, &value)?;
        }
        Ok(read)
    }

    /// Takes one of them.
    pub fn set(&mut self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        if prompt_option(&mut self.scope, name, value)? || self.request_option(name, value)? {
            return Ok(());
        }
        Err(unknown(name, &PROMPT_OPTIONS, &REQUEST_OPTIONS))
    }

    fn request_option(&mut self, name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let request = &mut self.request;
        match name {
            "session_id" => request.session_id = text_or_none(name, value)?,
            "priority" => request.priority = read(name, value, "an integer of 32 bits")?,
            "ttft_slo_ms" => request.slo.ttft_ms = objective(name, value)?,
            "tpot_slo_ms" => request.slo.tpot_ms = objective(name, value)?,
            "max_output_tokens" => {
                request.max_output_tokens = read(name, value, "0 to 4294967295, or None")?;
            }
            "allowed" => self.allowed = members(name, value)?,
            "required_labels" => request.required_labels = labels(name, value)?,
            "origin" => request.origin = topology(name, value)?,
            "hold_ms" => request.hold_ms = read(name, value, "milliseconds, an integer from 0 on")?,
            "tenant" => request.tenant = text_or_none(name, value)?,
            "deadline_ms" => {
                let expected = "milliseconds, an integer from 1 on, or None";
                request.deadline_ms = read(name, value, expected)?;
                if request.deadline_ms == Some(0) {
                    return Err(bad(name, value, expected));
                }
            }
            "expected_output_tokens" => {
                let expected = "1 to 4294967295, or None";
                request.expected_output_tokens = read(name, value, expected)?;
                if request.expected_output_tokens == Some(0) {
                    return Err(bad(name, value, expected));
                }
            }
            "end_is_untold" => request.end_is_untold = read(name, value, "True or False")?,
            "first_token_is_untold" => {
                request.first_token_is_untold = read(name, value, "True or False")?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn prompt_option(scope: &mut Scope, name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match name {
        "model" => scope.model = read(name, value, "a string")?,
        "lora" => scope.lora = text_or_none(name, value)?,
        "cache_salt" => scope.cache_salt = text_or_none(name, value)?,
        "multimodal" => scope.multimodal = multimodal(name, value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// A list of `(identifier, offset_tokens, length_tokens)`.
pub fn multimodal(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<MultimodalItem>> {
    let items: Vec<(String, u32, u32)> =
        read(name, value, "a list of (identifier, offset_tokens, length_tokens)")?;
    Ok(items
        .into_iter()
        .map(|(identifier, offset_tokens, length_tokens)| MultimodalItem {
            identifier,
            offset_tokens,
            length_tokens,
        })
        .collect())
}

/// `{"host": ..., "rack": ..., "zone": ..., "region": ...}`, any of them.
pub fn topology(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Topology> {
    let mut topology = Topology::default();
    for (key, text) in labels(name, value)? {
        let field = match key.as_str() {
            "host" => &mut topology.host,
            "rack" => &mut topology.rack,
            "zone" => &mut topology.zone,
            "region" => &mut topology.region,
            _ => {
                return Err(PromptError::new_err(format!(
                    "{name} has the key {key:?}: use host, rack, zone, region"
                )));
            }
        };
        *field = text;
    }
    Ok(topology)
}

/// A mapping of strings to strings.
pub fn labels(name: &str, value: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, String>> {
    if value.is_none() {
        return Ok(BTreeMap::new());
    }
    let expected = "a mapping of strings to strings";
    let dict = PyDict::new(value.py());
    dict.call_method1("update", (value,)).map_err(|_| bad(name, value, expected))?;
    read(name, &dict, expected)
}

fn members(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<MemberRef>>> {
    if value.is_none() {
        return Ok(None);
    }
    let expected = "a list of endpoints, ids or addresses";
    if value.is_instance_of::<PyString>() {
        return Err(bad(name, value, expected));
    }
    let items = value.try_iter().map_err(|_| bad(name, value, expected))?;
    items.map(|item| member(&item?)).collect::<PyResult<_>>().map(Some)
}

/// An endpoint, its id or its address.
pub fn member(value: &Bound<'_, PyAny>) -> PyResult<MemberRef> {
    if let Ok(endpoint) = value.cast::<Endpoint>() {
        return Ok(MemberRef::Name(endpoint.get().id().to_owned()));
    }
    read("endpoint", value, "an Endpoint, its id or its address").map(MemberRef::Name)
}

fn objective(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    let expected = "milliseconds above 0, or None";
    let milliseconds: Option<f64> = read(name, value, expected)?;
    match milliseconds {
        Some(given) if !(given.is_finite() && given > 0.0) => Err(bad(name, value, expected)),
        _ => Ok(milliseconds),
    }
}

fn text_or_none(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    read(name, value, "a string or None")
}

/// A value, or an error that names the option, what it was and what it may be.
fn read<T: for<'a, 'py> FromPyObject<'a, 'py>>(
    name: &str,
    value: &Bound<'_, PyAny>,
    expected: &str,
) -> PyResult<T> {
    value.extract().map_err(|_| bad(name, value, expected))
}

fn bad(name: &str, value: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let shown = value.repr().map_or_else(|_| "?".to_owned(), |shown| shown.to_string());
    let shown: String = shown.chars().take(80).collect();
    PromptError::new_err(format!("{name} is {shown}: give {expected}"))
}

fn unknown(name: &str, known: &[&str], more: &[&str]) -> PyErr {
    let known: Vec<&str> = known.iter().chain(more).copied().collect();
    PyTypeError::new_err(format!("unknown option {name:?}: the options are {}", known.join(", ")))
}
