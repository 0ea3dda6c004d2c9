//! `Workload`: who asks for what, and when.

use super::arrays;
use crate::errors::{self, WorkloadError};
use crate::json;
use llmd_bodies::telemetry::decision_log;
use llmd_brain::sim::{self, LogGaps, TraceError};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use serde::Serialize;
use std::path::PathBuf;

#[doc = stub_doc!("Workload")]
#[pyclass(module = "llmd_sched.sim", frozen, eq)]
pub struct Workload {
    pub(super) inner: sim::Workload,
    /// Whether its times are pauses.
    pub(super) is_closed_loop: bool,
    log: Option<Log>,
}

/// By what is asked, wherever it was read.
impl PartialEq for Workload {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner && self.is_closed_loop == other.is_closed_loop
    }
}

/// How well the log that it was read from tells it.
#[derive(Serialize)]
struct Log {
    #[serde(flatten)]
    gaps: LogGaps,
    complete: bool,
}

/// Reads the text of a trace.
type Reader = fn(&str) -> Result<sim::Workload, TraceError>;

impl Workload {
    fn of_trace(source: &Bound<'_, PyAny>, is_closed_loop: bool, read: Reader) -> PyResult<Self> {
        let py = source.py();
        let (name, bytes) = match source.cast::<PyBytes>() {
            Ok(bytes) => ("the trace".to_owned(), bytes.as_bytes().to_vec()),
            Err(_) => {
                let path: PathBuf = source.extract()?;
                let name = path.display().to_string();
                let bytes = py
                    .detach(|| std::fs::read(&path))
                    .map_err(|error| errors::os(&error, format!("{name}: {error}")))?;
                (name, bytes)
            }
        };
        let read = py.detach(|| {
            let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
            read(text).map_err(|error| error.to_string())
        });
        let inner = read.map_err(|error| WorkloadError::new_err(format!("{name}: {error}")))?;
        Ok(Self { inner, is_closed_loop, log: None })
    }

    fn column<'py, T: numpy::Element>(
        &self,
        py: Python<'py>,
        of: impl Fn(&sim::Prompt) -> T,
    ) -> Bound<'py, PyArray1<T>> {
        self.inner.prompts().iter().map(of).collect::<Vec<T>>().into_pyarray(py)
    }
}

/// The keys of all requests, and where each one's begin.
fn read_keys(
    keys: &Bound<'_, PyAny>,
    key_offsets: Option<&Bound<'_, PyAny>>,
    requests: usize,
) -> PyResult<(Vec<llmd_brain::BlockKey>, Vec<usize>)> {
    if let Some(offsets) = key_offsets {
        let keys = arrays::keys("keys", keys)?;
        let offsets = arrays::offsets("key_offsets", offsets, keys.len())?;
        return Ok((keys, offsets));
    }
    let (mut all, mut offsets) = (Vec::new(), Vec::with_capacity(requests + 1));
    offsets.push(0);
    for (row, keys) in keys.try_iter()?.enumerate() {
        all.extend(arrays::keys(&format!("keys[{row}]"), &keys?)?);
        offsets.push(all.len());
    }
    Ok((all, offsets))
}

#[pymethods]
impl Workload {
    #[new]
    #[pyo3(signature = (
        at_ms, prompt_tokens, output_tokens, keys, key_offsets=None, *,
        session_offsets=None, block_size=16, closed_loop=false,
    ))]
    #[expect(clippy::too_many_arguments, reason = "columns")]
    fn new(
        at_ms: &Bound<'_, PyAny>,
        prompt_tokens: &Bound<'_, PyAny>,
        output_tokens: &Bound<'_, PyAny>,
        keys: &Bound<'_, PyAny>,
        key_offsets: Option<&Bound<'_, PyAny>>,
        session_offsets: Option<&Bound<'_, PyAny>>,
        block_size: u32,
        closed_loop: bool,
    ) -> PyResult<Self> {
        let at_ms = arrays::milliseconds("at_ms", at_ms)?;
        let prompt_tokens = arrays::lengths("prompt_tokens", prompt_tokens)?;
        let output_tokens = arrays::lengths("output_tokens", output_tokens)?;
        let requests = at_ms.len();
        let (keys, offsets) = read_keys(keys, key_offsets, requests)?;
        for (name, rows) in [
            ("prompt_tokens", prompt_tokens.len()),
            ("output_tokens", output_tokens.len()),
            ("keys", offsets.len() - 1),
        ] {
            if rows != requests {
                return Err(WorkloadError::new_err(format!(
                    "{name} is of {rows} requests, at_ms of {requests}: give as many"
                )));
            }
        }
        if requests == 0 || block_size == 0 {
            let what = if requests == 0 { "no request" } else { "blocks of 0 tokens" };
            return Err(WorkloadError::new_err(format!("{what}: give at least one")));
        }
        let sessions = match session_offsets {
            Some(offsets) => arrays::offsets("session_offsets", offsets, requests)?,
            None => (0..=requests).collect(),
        };
        let mut inner = sim::Workload::new(block_size);
        for session in sessions.windows(2) {
            inner.begin_session();
            for row in session[0]..session[1] {
                let own = keys[offsets[row]..offsets[row + 1]].iter().copied();
                inner.push(at_ms[row], prompt_tokens[row], output_tokens[row], own);
            }
        }
        Ok(Self { inner, is_closed_loop: closed_loop, log: None })
    }

    #[doc = stub_doc!("Workload.from_mooncake")]
    #[staticmethod]
    fn from_mooncake(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of_trace(source, false, sim::mooncake)
    }

    #[doc = stub_doc!("Workload.from_agent_sessions")]
    #[staticmethod]
    fn from_agent_sessions(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of_trace(source, true, sim::agent_sessions)
    }

    #[doc = stub_doc!("Workload.from_prompt_sessions")]
    #[staticmethod]
    fn from_prompt_sessions(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of_trace(source, true, sim::prompt_sessions)
    }

    #[doc = stub_doc!("Workload.from_decision_log")]
    #[staticmethod]
    #[pyo3(signature = (path, *, assumed_output_tokens=None))]
    fn from_decision_log(
        py: Python<'_>,
        path: PathBuf,
        assumed_output_tokens: Option<u32>,
    ) -> PyResult<Self> {
        let read = py.detach(|| decision_log::workload(&path, assumed_output_tokens));
        let read = read.map_err(|error| errors::log(&path, error))?;
        let log = Log { gaps: read.gaps, complete: read.complete };
        Ok(Self { inner: read.workload, is_closed_loop: false, log: Some(log) })
    }

    #[doc = stub_doc!("Workload.with_tool_calls")]
    #[pyo3(signature = (*, seed=1))]
    fn with_tool_calls(&self, seed: u64) -> PyResult<Self> {
        if self.is_closed_loop {
            let why =
                "a closed loop takes no tool calls between: give a workload with arrival times";
            return Err(WorkloadError::new_err(why));
        }
        Ok(Self { inner: sim::toolmix(&self.inner, seed), is_closed_loop: false, log: None })
    }

    #[doc = stub_doc!("Workload.block_size")]
    #[getter]
    fn block_size(&self) -> u32 {
        self.inner.block_size()
    }

    #[doc = stub_doc!("Workload.closed_loop")]
    #[getter]
    fn closed_loop(&self) -> bool {
        self.is_closed_loop
    }

    #[doc = stub_doc!("Workload.sessions")]
    #[getter]
    fn sessions(&self) -> usize {
        self.inner.sessions().len()
    }

    #[doc = stub_doc!("Workload.log_gaps")]
    #[getter]
    fn log_gaps<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.log)
    }

    #[doc = stub_doc!("Workload.at_ms")]
    #[getter]
    fn at_ms<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        self.column(py, |it| it.at_ms)
    }

    #[doc = stub_doc!("Workload.prompt_tokens")]
    #[getter]
    fn prompt_tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        self.column(py, |it| it.prompt_tokens)
    }

    #[doc = stub_doc!("Workload.output_tokens")]
    #[getter]
    fn output_tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        self.column(py, |it| it.output_tokens)
    }

    #[doc = stub_doc!("Workload.keys")]
    #[getter]
    fn keys<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        let prompts = self.inner.prompts().iter();
        let keys: Vec<u64> =
            prompts.flat_map(|it| self.inner.keys(it).iter().map(|key| key.0)).collect();
        keys.into_pyarray(py)
    }

    #[doc = stub_doc!("Workload.key_offsets")]
    #[getter]
    fn key_offsets<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        let mut end = 0;
        let ends = self.inner.prompts().iter().map(|it| {
            end += self.inner.keys(it).len() as u64;
            end
        });
        std::iter::once(0).chain(ends).collect::<Vec<u64>>().into_pyarray(py)
    }

    #[doc = stub_doc!("Workload.session_offsets")]
    #[getter]
    fn session_offsets<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        let ends = self.inner.sessions().iter().map(|session| u64::from(session.end));
        std::iter::once(0).chain(ends).collect::<Vec<u64>>().into_pyarray(py)
    }

    #[doc = stub_doc!("Workload.infinite_cache_hit_ratio")]
    fn infinite_cache_hit_ratio(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.inner.infinite_cache_hit_ratio())
    }

    fn __len__(&self) -> usize {
        self.inner.prompts().len()
    }

    /// Pickled as its arrays, out of band where the pickler can (protocol 5); unpickling copies them.
    fn __getnewargs_ex__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let columns = (
            self.at_ms(py),
            self.prompt_tokens(py),
            self.output_tokens(py),
            self.keys(py),
            self.key_offsets(py),
        );
        let named = PyDict::new(py);
        named.set_item("session_offsets", self.session_offsets(py))?;
        named.set_item("block_size", self.block_size())?;
        named.set_item("closed_loop", self.is_closed_loop)?;
        Ok((columns.into_pyobject(py)?, named))
    }

    fn __repr__(&self) -> String {
        format!(
            "Workload({} requests in {} sessions, block_size={}{})",
            self.__len__(),
            self.sessions(),
            self.block_size(),
            if self.is_closed_loop { ", closed loop" } else { "" }
        )
    }
}
