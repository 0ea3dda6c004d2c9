//! `Decision` and `Leg`: where a request goes.

use crate::endpoint::{self, Endpoint};
use crate::explanation::Explanation;
use crate::waiting;
use llmd_bodies::router::{EndpointDocument, LiveRouter, Placed};
use llmd_brain::schedule::{self, Phase};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

#[doc = stub_doc!("Decision")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Decision {
    router: Arc<LiveRouter>,
    placed: Placed,
    prompt_tokens: u32,
    output_tokens: AtomicU32,
    is_over: AtomicBool,
    endpoint: PyOnceLock<Py<Endpoint>>,
}

impl Decision {
    /// Wraps a placed request of `router`.
    pub fn new(router: Arc<LiveRouter>, placed: Placed, prompt_tokens: u32) -> Self {
        Self {
            router,
            placed,
            prompt_tokens,
            output_tokens: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
            endpoint: PyOnceLock::new(),
        }
    }

    fn inner(&self) -> &schedule::Decision {
        &self.placed.decision
    }

    /// The first token came. Returns whether the reservation still stood, as the others do.
    pub fn tell_first_token(&self) -> bool {
        !self.is_over.load(Relaxed) && self.router.first_token(self.inner().reservation)
    }

    /// The output has so many tokens in all.
    pub fn tell_progress(&self, output_tokens: u32) -> bool {
        self.output_tokens.fetch_max(output_tokens, Relaxed);
        !self.is_over.load(Relaxed) && self.router.progress(self.inner().reservation, output_tokens)
    }

    /// It finished.
    pub fn tell_finished(&self, output_tokens: Option<u32>) -> bool {
        let output_tokens = output_tokens.unwrap_or_else(|| self.output_tokens.load(Relaxed));
        !self.is_over.swap(true, Relaxed)
            && self.router.finish(self.inner().reservation, output_tokens)
    }

    /// It failed, or its client went away.
    pub fn tell_cancelled(&self) -> bool {
        !self.is_over.swap(true, Relaxed) && self.router.cancel(self.inner())
    }

    fn document(&self) -> EndpointDocument {
        self.router.document_of(self.inner().endpoint, &self.placed.spec)
    }
}

#[pymethods]
impl Decision {
    #[doc = stub_doc!("Decision.ticket")]
    #[getter]
    fn ticket(&self) -> u64 {
        self.inner().ticket.0
    }

    #[doc = stub_doc!("Decision.reservation")]
    #[getter]
    fn reservation(&self) -> u64 {
        self.inner().reservation.0
    }

    #[doc = stub_doc!("Decision.endpoint")]
    #[getter]
    fn endpoint<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Endpoint>> {
        let endpoint =
            self.endpoint.get_or_try_init(py, || Py::new(py, Endpoint::new(self.document())))?;
        Ok(endpoint.bind(py).clone())
    }

    #[doc = stub_doc!("Decision.endpoint_id")]
    #[getter]
    fn endpoint_id(&self) -> String {
        self.inner().endpoint.to_string()
    }

    #[doc = stub_doc!("Decision.address")]
    #[getter]
    fn address(&self) -> &str {
        &self.placed.spec.address
    }

    #[doc = stub_doc!("Decision.dp_rank")]
    #[getter]
    fn dp_rank(&self) -> u32 {
        self.placed.spec.dp_rank
    }

    #[doc = stub_doc!("Decision.headers")]
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let headers = PyDict::new(py);
        headers.set_item("X-data-parallel-rank", self.placed.spec.dp_rank.to_string())?;
        Ok(headers)
    }

    #[doc = stub_doc!("Decision.legs")]
    #[getter]
    fn legs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let legs: PyResult<Vec<_>> = self
            .inner()
            .legs
            .iter()
            .map(|leg| {
                let endpoints = leg
                    .endpoints
                    .iter()
                    .map(|&id| match id == self.inner().endpoint {
                        true => self.document(),
                        false => self.router.document(id),
                    })
                    .collect();
                Bound::new(py, Leg { phase: leg.phase, endpoints })
            })
            .collect();
        PyTuple::new(py, legs?)
    }

    #[doc = stub_doc!("Decision.prompt_tokens")]
    #[getter]
    fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens
    }

    #[doc = stub_doc!("Decision.matched_tokens")]
    #[getter]
    fn matched_tokens(&self) -> u32 {
        self.inner().matched_tokens
    }

    #[doc = stub_doc!("Decision.match_source")]
    #[getter]
    fn match_source(&self) -> &'static str {
        self.inner().match_source.as_str()
    }

    #[doc = stub_doc!("Decision.predicted_ttft_ms")]
    #[getter]
    fn predicted_ttft_ms(&self) -> Option<f64> {
        self.inner().predicted.ttft_ms
    }

    #[doc = stub_doc!("Decision.predicted_tpot_ms")]
    #[getter]
    fn predicted_tpot_ms(&self) -> Option<f64> {
        self.inner().predicted.tpot_ms
    }

    #[doc = stub_doc!("Decision.predicted_ttft_p90_ms")]
    #[getter]
    fn predicted_ttft_p90_ms(&self) -> Option<f64> {
        self.inner().predicted.ttft_p90_ms
    }

    #[doc = stub_doc!("Decision.predicted_tpot_p50_ms")]
    #[getter]
    fn predicted_tpot_p50_ms(&self) -> Option<f64> {
        self.inner().predicted.tpot_p50_ms
    }

    #[doc = stub_doc!("Decision.predicted_tpot_p90_ms")]
    #[getter]
    fn predicted_tpot_p90_ms(&self) -> Option<f64> {
        self.inner().predicted.tpot_p90_ms
    }

    #[doc = stub_doc!("Decision.explanation")]
    #[getter]
    fn explanation(&self) -> Explanation {
        Explanation::new(self.router.explanation_of(self.inner()))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __exit__(
        &self,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let _ = (exc, traceback);
        match exc_type {
            None => self.tell_finished(None),
            Some(_) => self.tell_cancelled(),
        };
    }

    fn __aenter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        done(py, slf)
    }

    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __aexit__<'py>(
        &self,
        py: Python<'py>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.__exit__(exc_type, exc, traceback);
        done(py, py.None())
    }

    fn __repr__(&self) -> String {
        format!(
            "Decision({:?}, dp_rank={}, matched_tokens={}/{}, match_source='{}', reservation={})",
            self.placed.spec.address,
            self.placed.spec.dp_rank,
            self.inner().matched_tokens,
            self.prompt_tokens,
            self.match_source(),
            self.inner().reservation.0,
        )
        .replace('"', "'")
    }
}

/// An awaitable that is done.
fn done<'py>(py: Python<'py>, value: impl IntoPyObject<'py>) -> PyResult<Bound<'py, PyAny>> {
    let future = waiting::future(py)?;
    future.call_method1("set_result", (value,))?;
    Ok(future)
}

#[doc = stub_doc!("Leg")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Leg {
    phase: Phase,
    endpoints: Vec<EndpointDocument>,
}

#[pymethods]
impl Leg {
    #[doc = stub_doc!("Leg.phase")]
    #[getter]
    fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Aggregated => "aggregated",
            Phase::Encode => "encode",
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }

    #[doc = stub_doc!("Leg.endpoints")]
    #[getter]
    fn endpoints<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        endpoint::tuple(py, self.endpoints.iter().cloned())
    }

    fn __repr__(&self) -> String {
        let addresses: Vec<&str> = self.endpoints.iter().map(|it| it.address.as_str()).collect();
        format!("Leg('{}', {addresses:?})", self.phase()).replace('"', "'")
    }
}
