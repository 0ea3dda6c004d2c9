//! `Features`: what scorers see.

use crate::endpoint;
use llmd_bodies::router::{EndpointDocument, LiveRouter};
use llmd_brain::schedule::{self, Feature, Request};
use llmd_brain::{BlockKey, EndpointId};
use numpy::PyArray1;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use std::sync::Arc;

#[doc = stub_doc!("Features")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Features {
    router: Arc<LiveRouter>,
    version: u64,
    features: schedule::Features,
    request: Request,
    keys: Vec<BlockKey>,
    candidates: PyOnceLock<Py<PyTuple>>,
}

impl Features {
    /// Wraps what the brain of `router` said for `request`; `keys` are those of its prompt.
    pub fn new(
        router: Arc<LiveRouter>,
        (version, features): (u64, schedule::Features),
        request: Request,
        keys: Vec<BlockKey>,
    ) -> Self {
        Self { router, version, features, request, keys, candidates: PyOnceLock::new() }
    }

    /// Whom to score.
    pub fn ids(&self) -> &[EndpointId] {
        self.features.ids()
    }

    /// The request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Keys of its prompt.
    pub fn keys(&self) -> &[BlockKey] {
        &self.keys
    }
}

#[pymethods]
impl Features {
    #[doc = stub_doc!("Features.version")]
    #[getter]
    fn version(&self) -> u64 {
        self.version
    }

    #[doc = stub_doc!("Features.candidates")]
    #[getter]
    fn candidates<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let candidates = self.candidates.get_or_try_init(py, || {
            let documents: Vec<EndpointDocument> =
                self.ids().iter().map(|&id| self.router.document(id)).collect();
            endpoint::tuple(py, documents.into_iter()).map(Bound::unbind)
        })?;
        Ok(candidates.bind(py).clone())
    }

    #[doc = stub_doc!("Features.columns")]
    #[getter]
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, Feature::ALL.map(Feature::name))
    }

    #[doc = stub_doc!("Features.prompt_tokens")]
    #[getter]
    fn prompt_tokens(&self) -> u32 {
        self.request.prompt_tokens
    }

    #[doc = stub_doc!("Features.model")]
    #[getter]
    fn model(&self) -> &str {
        &self.request.model
    }

    #[doc = stub_doc!("Features.lora")]
    #[getter]
    fn lora(&self) -> Option<&str> {
        self.request.lora.as_deref()
    }

    #[doc = stub_doc!("Features.session_id")]
    #[getter]
    fn session_id(&self) -> Option<&str> {
        self.request.session_id.as_deref()
    }

    #[doc = stub_doc!("Features.priority")]
    #[getter]
    fn priority(&self) -> i32 {
        self.request.priority
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        column: &str,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let Some(feature) = Feature::ALL.into_iter().find(|feature| feature.name() == column)
        else {
            let known = Feature::ALL.map(Feature::name).join(", ");
            return Err(PyKeyError::new_err(format!("no column {column:?}: use one of {known}")));
        };
        Ok(PyArray1::from_slice(py, self.features.column(feature)))
    }

    fn __len__(&self) -> usize {
        self.features.len()
    }

    fn __repr__(&self) -> String {
        format!("Features({} candidates, version={})", self.features.len(), self.version)
    }
}
