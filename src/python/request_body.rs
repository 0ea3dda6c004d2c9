//! `RequestBody`: what the body of an OpenAI request asks for.

use crate::errors;
use llmd_bodies::request_body::{self, BodyPrompt};
use llmd_bodies::router::{LiveRouter, Scratch};
use llmd_brain::prompt::Scope;
use llmd_brain::schedule::Request;
use numpy::PyArray1;
use pyo3::prelude::*;

#[doc = stub_doc!("RequestBody")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct RequestBody(request_body::RequestBody);

impl RequestBody {
    /// Puts the keys into `scratch`, and what is asked for and how long it is into `request`, where
    /// the call has not said otherwise.
    pub fn prepare(
        &self,
        live: &LiveRouter,
        scope: &Scope,
        request: &mut Request,
        scratch: &mut Scratch,
    ) -> PyResult<()> {
        live.prepare_body(&self.0, scope, request, scratch).map_err(|error| errors::prompt(&error))
    }
}

#[pymethods]
impl RequestBody {
    #[new]
    #[pyo3(signature = (body, *, whole_bytes=None))]
    fn new(body: &[u8], whole_bytes: Option<usize>) -> Self {
        Self(request_body::RequestBody::read(body, whole_bytes.unwrap_or(body.len())))
    }

    #[doc = stub_doc!("RequestBody.text")]
    #[getter]
    fn text(&self) -> Option<&str> {
        match &self.0.prompt {
            Some(BodyPrompt::Text(text)) => Some(text),
            _ => None,
        }
    }

    #[doc = stub_doc!("RequestBody.tokens")]
    #[getter]
    fn tokens<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<u32>>> {
        match &self.0.prompt {
            Some(BodyPrompt::Tokens(ids)) => Some(PyArray1::from_slice(py, ids)),
            _ => None,
        }
    }

    #[doc = stub_doc!("RequestBody.prompt_kind")]
    #[getter]
    fn prompt_kind(&self) -> Option<&'static str> {
        self.0.prompt.as_ref().map(|prompt| match prompt {
            BodyPrompt::Text(_) => "text",
            BodyPrompt::Tokens(_) => "tokens",
        })
    }

    #[doc = stub_doc!("RequestBody.prompt_tokens")]
    #[getter]
    fn prompt_tokens(&self) -> u32 {
        self.0.prompt_tokens()
    }

    #[doc = stub_doc!("RequestBody.model")]
    #[getter]
    fn model(&self) -> Option<&str> {
        self.0.model.as_deref()
    }

    #[doc = stub_doc!("RequestBody.max_output_tokens")]
    #[getter]
    fn max_output_tokens(&self) -> Option<u32> {
        self.0.max_output_tokens
    }

    #[doc = stub_doc!("RequestBody.cache_salt")]
    #[getter]
    fn cache_salt(&self) -> Option<&str> {
        self.0.cache_salt.as_deref()
    }

    #[doc = stub_doc!("RequestBody.priority")]
    #[getter]
    fn priority(&self) -> Option<i32> {
        self.0.priority
    }

    #[doc = stub_doc!("RequestBody.is_whole")]
    #[getter]
    fn is_whole(&self) -> bool {
        self.0.is_whole
    }

    fn __repr__(&self) -> String {
        let kind = self.prompt_kind().unwrap_or("no prompt");
        let cut = if self.0.is_whole { "" } else { ", cut off" };
        format!("RequestBody({kind}, {} tokens{cut})", self.0.prompt_tokens())
    }
}
