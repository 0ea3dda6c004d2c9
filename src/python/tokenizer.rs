//! `Tokenizer`: the engine's own token ids of texts and chats.

use crate::call::Payload;
use crate::errors::{self, ConfigError, NotExactError};
use crate::ordered;
use llmd_bodies::tokenize::{
    ContentFormat, Encoded, Json, LoadError, Model, NotExact, Object, Options,
};
use numpy::PyArray1;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::path::PathBuf;

type Ids<'py> = Bound<'py, PyArray1<u32>>;

#[doc = stub_doc!("Tokenizer")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Tokenizer {
    model: Model,
    path: PathBuf,
}

#[pymethods]
impl Tokenizer {
    #[new]
    #[pyo3(signature = (path, *, chat_template=None, content_format=None, chat_template_kwargs=None,
                        cache_bytes=None))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        chat_template: Option<PathBuf>,
        content_format: Option<&str>,
        chat_template_kwargs: Option<&Bound<'_, PyDict>>,
        cache_bytes: Option<usize>,
    ) -> PyResult<Self> {
        let usual = Options::default();
        let options = Options {
            chat_template,
            content_format: match content_format {
                None | Some("auto") => None,
                Some("string") => Some(ContentFormat::String),
                Some("openai") => Some(ContentFormat::Openai),
                Some(other) => {
                    let said = format!(
                        "content_format: {other:?}; use \"auto\", \"string\" or \"openai\""
                    );
                    return Err(ConfigError::new_err(said));
                }
            },
            chat_template_kwargs: chat_template_kwargs
                .map(ordered::fields)
                .transpose()?
                .unwrap_or_default(),
            cache_bytes: cache_bytes.unwrap_or(usual.cache_bytes),
        };
        // A vocabulary takes a second to read.
        let model =
            py.detach(|| Model::load_with(&path, &options)).map_err(|error| load(&error))?;
        Ok(Self { model, path })
    }

    #[doc = stub_doc!("Tokenizer.encode")]
    #[pyo3(signature = (text, *, add_special_tokens=true))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
    ) -> PyResult<Ids<'py>> {
        ids(py, py.detach(|| self.model.encode_text(text, add_special_tokens)))
    }

    #[doc = stub_doc!("Tokenizer.encode_chat")]
    #[pyo3(signature = (messages, **request))]
    fn encode_chat<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
        request: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Ids<'py>> {
        let body = chat(messages, request)?;
        ids(py, py.detach(|| self.model.encode_chat(body)))
    }

    #[doc = stub_doc!("Tokenizer.encode_body")]
    fn encode_body<'py>(&self, py: Python<'py>, body: &[u8]) -> PyResult<Ids<'py>> {
        ids(py, py.detach(|| self.model.encode_body(body)))
    }

    #[doc = stub_doc!("Tokenizer.chat_text")]
    #[pyo3(signature = (messages, **request))]
    fn chat_text(
        &self,
        py: Python<'_>,
        messages: &Bound<'_, PyAny>,
        request: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let body = chat(messages, request)?;
        py.detach(|| self.model.chat_text(body)).map_err(|error| not_exact(&error))
    }

    #[doc = stub_doc!("Tokenizer.counters")]
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counters = self.model.counters();
        let shown = PyDict::new(py);
        shown.set_item("encoded", counters.encoded)?;
        shown.set_item("not_exact", counters.not_exact)?;
        shown.set_item("text_bytes", counters.text_bytes)?;
        shown.set_item("known_bytes", counters.known_bytes)?;
        shown.set_item("tokens", counters.tokens)?;
        shown.set_item("tokenize_us", counters.tokenize_ns as f64 / 1e3)?;
        shown.set_item("cache_bytes", counters.cache_bytes)?;
        Ok(shown)
    }

    #[doc = stub_doc!("Tokenizer._encode_call")]
    #[pyo3(signature = (args, kwargs, most_unknown_bytes=None))]
    fn _encode_call<'py>(
        &self,
        py: Python<'py>,
        args: &Bound<'py, PyAny>,
        kwargs: Option<&Bound<'py, PyDict>>,
        most_unknown_bytes: Option<usize>,
    ) -> PyResult<(Option<Ids<'py>>, usize)> {
        let Some(body) = Payload::text_of(args, kwargs)? else { return Ok((None, 0)) };
        let most = most_unknown_bytes.unwrap_or(usize::MAX);
        Ok(match py.detach(|| self.model.encode_quickly(body, most)) {
            Ok(Ok(encoded)) => (Some(PyArray1::from_vec(py, encoded.ids)), 0),
            Ok(Err(unknown_bytes)) => (None, unknown_bytes),
            Err(_) => (None, 0),
        })
    }

    fn __repr__(&self) -> String {
        format!("Tokenizer({:?})", self.path.display().to_string())
    }
}

fn ids(py: Python<'_>, encoded: Result<Encoded, NotExact>) -> PyResult<Ids<'_>> {
    let encoded = encoded.map_err(|error| not_exact(&error))?;
    Ok(PyArray1::from_vec(py, encoded.ids))
}

fn chat(messages: &Bound<'_, PyAny>, request: Option<&Bound<'_, PyDict>>) -> PyResult<Object> {
    let mut body = request.map(ordered::fields).transpose()?.unwrap_or_default();
    match ordered::from_python(messages)? {
        it @ Json::Array(_) => body.insert("messages".to_owned(), it),
        other => {
            let said = format!("messages is {}: pass a list of messages", other.kind());
            return Err(PyTypeError::new_err(said));
        }
    };
    Ok(body)
}

fn not_exact(error: &NotExact) -> PyErr {
    NotExactError::new_err(error.to_string())
}

fn load(error: &LoadError) -> PyErr {
    match error {
        LoadError::Read { source, .. } => errors::os(source, error.to_string()),
        LoadError::Damaged { .. } | LoadError::Unlike { .. } => {
            ConfigError::new_err(error.to_string())
        }
    }
}
