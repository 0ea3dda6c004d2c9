//! `Endpoint`: an endpoint at one moment.

use crate::json;
use llmd_bodies::router::EndpointDocument;
use llmd_brain::fleet::{KvSource, Role};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

#[doc = stub_doc!("Endpoint")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Endpoint(EndpointDocument);

impl Endpoint {
    /// Wraps what is known of an endpoint.
    pub fn new(document: EndpointDocument) -> Self {
        Self(document)
    }

    /// What tells endpoints apart.
    fn identity(&self) -> (&str, &str, u32) {
        (&self.0.id, &self.0.address, self.0.dp_rank)
    }
}

/// Many of them, as a tuple.
pub fn tuple(
    py: Python<'_>,
    documents: impl ExactSizeIterator<Item = EndpointDocument>,
) -> PyResult<Bound<'_, PyTuple>> {
    let endpoints: PyResult<Vec<_>> =
        documents.map(|document| Bound::new(py, Endpoint(document))).collect();
    PyTuple::new(py, endpoints?)
}

#[pymethods]
impl Endpoint {
    #[doc = stub_doc!("Endpoint.id")]
    #[getter]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    #[doc = stub_doc!("Endpoint.address")]
    #[getter]
    fn address(&self) -> &str {
        &self.0.address
    }

    #[doc = stub_doc!("Endpoint.dp_rank")]
    #[getter]
    fn dp_rank(&self) -> u32 {
        self.0.dp_rank
    }

    #[doc = stub_doc!("Endpoint.model")]
    #[getter]
    fn model(&self) -> &str {
        &self.0.model
    }

    #[doc = stub_doc!("Endpoint.role")]
    #[getter]
    fn role(&self) -> &'static str {
        match self.0.role {
            Role::Both => "both",
            Role::Prefill => "prefill",
            Role::Decode => "decode",
            Role::Encode => "encode",
        }
    }

    #[doc = stub_doc!("Endpoint.loras")]
    #[getter]
    fn loras<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.loras)
    }

    #[doc = stub_doc!("Endpoint.topology")]
    #[getter]
    fn topology<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.0.topology)
    }

    #[doc = stub_doc!("Endpoint.capacity")]
    #[getter]
    fn capacity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.0.capacity)
    }

    #[doc = stub_doc!("Endpoint.labels")]
    #[getter]
    fn labels(&self) -> BTreeMap<String, String> {
        self.0.labels.clone()
    }

    #[doc = stub_doc!("Endpoint.kv_source")]
    #[getter]
    fn kv_source(&self) -> &'static str {
        match self.0.kv_source {
            KvSource::Events => "events",
            KvSource::Approximate => "approximate",
        }
    }

    #[doc = stub_doc!("Endpoint.health")]
    #[getter]
    fn health(&self) -> &'static str {
        self.0.health.as_str()
    }

    #[doc = stub_doc!("Endpoint.inflight_requests")]
    #[getter]
    fn inflight_requests(&self) -> u32 {
        self.0.load.inflight_requests
    }

    #[doc = stub_doc!("Endpoint.pending_prefill_tokens")]
    #[getter]
    fn pending_prefill_tokens(&self) -> u64 {
        self.0.load.pending_prefill_tokens
    }

    #[doc = stub_doc!("Endpoint.active_decode_tokens")]
    #[getter]
    fn active_decode_tokens(&self) -> u64 {
        self.0.load.active_decode_tokens
    }

    #[doc = stub_doc!("Endpoint.waiting_requests")]
    #[getter]
    fn waiting_requests(&self) -> Option<f64> {
        self.0.load.waiting_requests
    }

    #[doc = stub_doc!("Endpoint.running_requests")]
    #[getter]
    fn running_requests(&self) -> Option<f64> {
        self.0.running_requests
    }

    #[doc = stub_doc!("Endpoint.kv_usage")]
    #[getter]
    fn kv_usage(&self) -> Option<f64> {
        self.0.load.kv_usage
    }

    #[doc = stub_doc!("Endpoint.gpu_utilization")]
    #[getter]
    fn gpu_utilization(&self) -> Option<f64> {
        self.0.gpu_utilization
    }

    #[doc = stub_doc!("Endpoint.latency_drift")]
    #[getter]
    fn latency_drift(&self) -> Option<f64> {
        self.0.load.latency_drift
    }

    #[doc = stub_doc!("Endpoint.held_blocks")]
    #[getter]
    fn held_blocks(&self) -> u64 {
        self.0.held_blocks
    }

    #[doc = stub_doc!("Endpoint.to_dict")]
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.0)
    }

    #[doc = stub_doc!("Endpoint.from_json")]
    #[staticmethod]
    fn from_json(row: &Bound<'_, PyAny>) -> PyResult<Self> {
        serde_json::from_value(json::from_python(row)?)
            .map(Self)
            .map_err(|error| PyValueError::new_err(format!("not an endpoint: {error}")))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().identity() == self.identity())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.identity().hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        let Self(it) = self;
        format!(
            "Endpoint({:?}, dp_rank={}, id={:?}, health={:?})",
            it.address,
            it.dp_rank,
            it.id,
            it.health.as_str()
        )
        .replace('"', "'")
    }
}
