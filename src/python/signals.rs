//! What engines say of themselves, where a program brings it: `Router.report`, and the two functions
//! that ask an engine for it.

use crate::errors::{self, EndpointError};
use crate::fleet::duration;
use crate::json;
use crate::options;
use crate::router::Router;
use llmd_bodies::observe::metrics::{SeriesFilter, parse};
use llmd_bodies::router::{DescribedEndpoint, describe_engine as describe};
use llmd_brain::fleet::MetricsSample;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

const SIGNALS: [&str; 13] = [
    "waiting_requests",
    "running_requests",
    "kv_usage",
    "gpu_utilization",
    "kv_blocks",
    "block_size",
    "prefix_cache_queries_tokens",
    "prefix_cache_hits_tokens",
    "preemptions",
    "running_loras",
    "waiting_loras",
    "max_loras",
    "process_start_time_s",
];
/// Engines round shares: one above by less is one.
const MOST_SHARE: f64 = 1.01;

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.report")]
    #[pyo3(signature = (endpoint, **signals))]
    fn report(
        &self,
        endpoint: &Bound<'_, PyAny>,
        signals: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let name = options::member(endpoint)?;
        let mut sample = MetricsSample::default();
        for (key, value) in signals.into_iter().flatten() {
            let key = key.cast::<PyString>()?.to_str()?;
            if !value.is_none() {
                take(&mut sample, key, &Value { of: &name, name: key, value: &value })?;
            }
        }
        self.live()?.report(&name, sample).map_err(errors::router)
    }
}

fn take(sample: &mut MetricsSample, name: &str, value: &Value<'_, '_>) -> PyResult<()> {
    match name {
        "waiting_requests" => sample.waiting_requests = Some(value.count()?),
        "running_requests" => sample.running_requests = Some(value.count()?),
        "kv_usage" => sample.kv_usage = Some(value.share()?),
        "gpu_utilization" => sample.gpu_utilization = Some(value.share()?),
        "kv_blocks" => sample.kv_blocks = Some(value.size("an integer from 1 on")?),
        "block_size" => sample.block_size = Some(value.size("tokens, an integer from 1 on")?),
        "prefix_cache_queries_tokens" => {
            sample.prefix_cache_queries_tokens = Some(value.count()?);
        }
        "prefix_cache_hits_tokens" => sample.prefix_cache_hits_tokens = Some(value.count()?),
        "preemptions" => sample.preemptions = Some(value.count()?),
        "running_loras" => sample.running_loras = Some(value.read("a list of names")?),
        "waiting_loras" => sample.waiting_loras = Some(value.read("a list of names")?),
        "max_loras" => sample.max_loras = Some(value.read("an integer of 32 bits from 0 on")?),
        "process_start_time_s" => sample.process_start_time_s = Some(value.count()?),
        _ => {
            return Err(PyTypeError::new_err(format!(
                "unknown signal {name:?}: the signals are {}",
                SIGNALS.join(", ")
            )));
        }
    }
    Ok(())
}

/// One signal as it was given.
struct Value<'a, 'py> {
    of: &'a dyn std::fmt::Display,
    name: &'a str,
    value: &'a Bound<'py, PyAny>,
}

impl Value<'_, '_> {
    fn count(&self) -> PyResult<f64> {
        let expected = "a number from 0 on";
        let count: f64 = self.read(expected)?;
        if count.is_finite() && count >= 0.0 { Ok(count) } else { Err(self.bad(expected)) }
    }

    fn share(&self) -> PyResult<f64> {
        let expected = "a share, 0 to 1 (not a percentage)";
        let share: f64 = self.read(expected)?;
        if (0.0..=MOST_SHARE).contains(&share) { Ok(share) } else { Err(self.bad(expected)) }
    }

    fn size<T: for<'a, 'py> FromPyObject<'a, 'py> + From<u8> + PartialEq>(
        &self,
        expected: &str,
    ) -> PyResult<T> {
        let size = self.read(expected)?;
        if size == T::from(0) { Err(self.bad(expected)) } else { Ok(size) }
    }

    fn read<T: for<'a, 'py> FromPyObject<'a, 'py>>(&self, expected: &str) -> PyResult<T> {
        self.value.extract().map_err(|_| self.bad(expected))
    }

    fn bad(&self, expected: &str) -> PyErr {
        let shown = self.value.repr().map_or_else(|_| "?".to_owned(), |shown| shown.to_string());
        let shown: String = shown.chars().take(80).collect();
        let (of, name) = (self.of, self.name);
        EndpointError::new_err(format!("endpoint {of}: {name} is {shown}: give {expected}"))
    }
}

#[doc = stub_doc!("read_metrics")]
#[pyfunction]
#[pyo3(signature = (page, *, dp_rank=None))]
pub fn read_metrics<'py>(
    py: Python<'py>,
    page: &str,
    dp_rank: Option<u32>,
) -> PyResult<Bound<'py, PyDict>> {
    let filter = SeriesFilter { dp_rank, ..SeriesFilter::default() };
    let read = parse(page, &filter, &mut 0);
    let signals = json::document(py, &read)?.cast_into::<PyDict>()?;
    let said = PyDict::new(py);
    for (name, value) in signals {
        let name = name.cast_into::<PyString>()?;
        if !value.is_none() && SIGNALS.contains(&name.to_str()?) {
            said.set_item(name, value)?;
        }
    }
    Ok(said)
}

#[doc = stub_doc!("describe_engine")]
#[pyfunction]
#[pyo3(signature = (url, *, timeout_s=10.0))]
pub fn describe_engine<'py>(
    py: Python<'py>,
    url: &str,
    timeout_s: f64,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let timeout = duration(timeout_s);
    let ranks = py.detach(|| describe(url, timeout)).map_err(errors::router)?;
    ranks.iter().map(|rank| keywords(py, rank)).collect()
}

/// The keywords of `Router.add_endpoint`; what is not known is left out.
fn keywords<'py>(py: Python<'py>, it: &DescribedEndpoint) -> PyResult<Bound<'py, PyDict>> {
    let DescribedEndpoint { spec, observed } = it;
    let keywords = PyDict::new(py);
    keywords.set_item("address", &spec.address)?;
    keywords.set_item("model", &spec.model)?;
    keywords.set_item("dp_rank", spec.dp_rank)?;
    keywords.set_item("loras", &spec.loras)?;
    let capacity = json::document(py, &spec.capacity)?.cast_into::<PyDict>()?;
    let known = PyDict::new(py);
    for (name, value) in capacity {
        if value.is_truthy()? {
            known.set_item(name, value)?;
        }
    }
    keywords.set_item("capacity", known)?;
    if let Some(events) = &observed.kv_events {
        keywords.set_item("kv_events", &events.source.endpoint)?;
        keywords.set_item("kv_topic", &events.source.topic)?;
        if let Some(replay) = &events.source.replay_endpoint {
            keywords.set_item("kv_replay", replay)?;
        }
    }
    if let Some(page) = &observed.metrics {
        keywords.set_item("metrics", &page.url)?;
    }
    Ok(keywords)
}
