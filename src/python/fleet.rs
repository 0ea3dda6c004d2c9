//! What a `Router` does with endpoints.

use crate::endpoint::Endpoint;
use crate::errors::{self, EndpointError, KvTimeoutError};
use crate::json;
use crate::kv::KvPosition;
use crate::options;
use crate::router::Router;
use llmd_bodies::observe::EventFormat;
use llmd_bodies::observe::discovery::KvEventSource;
use llmd_bodies::router::{EndpointDocument, KvEvents, Observed, Page, SnapshotSummary};
use llmd_brain::brain::EndpointChange;
use llmd_brain::fleet::{Capacity, EndpointSpec, KvSource, Role};
use pyo3::prelude::*;
use pyo3::types::PyBool;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a wait looks for a signal of Python's, such as Ctrl-C.
pub const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// What several calls say alike about an endpoint.
fn describe(
    address: &str,
    role: &str,
    topology: Option<&Bound<'_, PyAny>>,
    capacity: Option<&Bound<'_, PyAny>>,
    labels: Option<&Bound<'_, PyAny>>,
) -> PyResult<EndpointSpec> {
    let mut spec = EndpointSpec::new(address, "");
    spec.role = match role {
        "both" => Role::Both,
        "prefill" => Role::Prefill,
        "decode" => Role::Decode,
        "encode" => Role::Encode,
        _ => {
            return Err(EndpointError::new_err(format!(
                "endpoint {address:?}: role is {role:?}: use both, prefill, decode or encode"
            )));
        }
    };
    let invalid =
        |error: PyErr| EndpointError::new_err(format!("endpoint {address:?}: {}", Shown(&error)));
    if let Some(topology) = topology {
        spec.topology = options::topology("topology", topology).map_err(invalid)?;
    }
    if let Some(capacity) = capacity {
        let value = json::from_python(capacity).map_err(invalid)?;
        spec.capacity = serde_json::from_value::<Capacity>(value).map_err(|error| {
            EndpointError::new_err(format!("endpoint {address:?}: capacity: {error}"))
        })?;
    }
    if let Some(labels) = labels {
        spec.labels = options::labels("labels", labels).map_err(invalid)?;
    }
    Ok(spec)
}

/// An exception's message.
struct Shown<'a>(&'a PyErr);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Python::attach(|py| self.0.value(py).fmt(f))
    }
}

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.add_endpoint")]
    #[pyo3(signature = (
        address, *, model="", dp_rank=0, role="both", loras=Vec::new(), topology=None,
        capacity=None, labels=None, kv_events=None, kv_replay=None, kv_topic="",
        kv_format="vllm", metrics=None, gpu_metrics=None, gpu_labels=None
    ), text_signature = "($self, address, *, model='', dp_rank=0, role='both', loras=(), \
        topology=None, capacity=None, labels=None, kv_events=None, kv_replay=None, kv_topic='', \
        kv_format='vllm', metrics=None, gpu_metrics=None, gpu_labels=None)")]
    #[expect(clippy::too_many_arguments, reason = "one a keyword of the Python method")]
    fn add_endpoint(
        &self,
        address: &str,
        model: &str,
        dp_rank: u32,
        role: &str,
        loras: Vec<String>,
        topology: Option<&Bound<'_, PyAny>>,
        capacity: Option<&Bound<'_, PyAny>>,
        labels: Option<&Bound<'_, PyAny>>,
        kv_events: Option<String>,
        kv_replay: Option<String>,
        kv_topic: &str,
        kv_format: &str,
        metrics: Option<&Bound<'_, PyAny>>,
        gpu_metrics: Option<String>,
        gpu_labels: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Endpoint> {
        let mut spec = describe(address, role, topology, capacity, labels)?;
        spec.model = model.to_owned();
        spec.dp_rank = dp_rank;
        spec.loras = loras;
        spec.kv_source = if kv_events.is_some() { KvSource::Events } else { KvSource::Approximate };
        let metrics = match metrics {
            None => None,
            Some(asked) if asked.is_instance_of::<PyBool>() => asked
                .extract::<bool>()?
                .then(|| format!("{}/metrics", address.trim_end_matches('/'))),
            Some(url) => Some(url.extract()?),
        };
        let format = match kv_format {
            "vllm" => EventFormat::Vllm,
            "sglang" => EventFormat::Sglang,
            _ => {
                return Err(EndpointError::new_err(format!(
                    "endpoint {address:?}: kv_format is {kv_format:?}: use vllm or sglang"
                )));
            }
        };
        let gpu_labels = match gpu_labels {
            None => Vec::new(),
            Some(labels) => options::labels("gpu_labels", labels)?.into_iter().collect(),
        };
        let observed = Observed {
            kv_events: kv_events.map(|endpoint| KvEvents {
                source: KvEventSource {
                    endpoint,
                    replay_endpoint: kv_replay,
                    topic: kv_topic.to_owned(),
                },
                format,
            }),
            metrics: metrics.map(|url| Page::of_engine(url, Some(dp_rank))),
            gpu_metrics: gpu_metrics.map(|url| Page::of_gpus(url, gpu_labels)),
        };
        let live = self.live()?;
        let id = live.add_endpoint(spec, observed).map_err(errors::router)?;
        Ok(Endpoint::new(live.document(id)))
    }

    #[doc = stub_doc!("Router.discover")]
    #[pyo3(signature = (
        url, *, role="both", topology=None, capacity=None, labels=None, timeout_s=10.0
    ))]
    #[expect(clippy::too_many_arguments, reason = "one a keyword of the Python method")]
    fn discover(
        &self,
        py: Python<'_>,
        url: &str,
        role: &str,
        topology: Option<&Bound<'_, PyAny>>,
        capacity: Option<&Bound<'_, PyAny>>,
        labels: Option<&Bound<'_, PyAny>>,
        timeout_s: f64,
    ) -> PyResult<Vec<Endpoint>> {
        let given = describe(url, role, topology, capacity, labels)?;
        let live = self.live()?;
        let timeout = duration(timeout_s);
        let added = py.detach(|| live.discover(url, &given, timeout)).map_err(errors::router)?;
        Ok(added.into_iter().map(|id| Endpoint::new(live.document(id))).collect())
    }

    #[doc = stub_doc!("Router.remove_endpoint")]
    fn remove_endpoint(&self, endpoint: &Bound<'_, PyAny>) -> PyResult<()> {
        let name = options::member(endpoint)?;
        self.live()?.remove_endpoint(&name).map_err(errors::router)
    }

    #[doc = stub_doc!("Router.cordon")]
    fn cordon(&self, endpoint: &Bound<'_, PyAny>) -> PyResult<()> {
        self.change(endpoint, EndpointChange::Cordon)
    }

    #[doc = stub_doc!("Router.uncordon")]
    fn uncordon(&self, endpoint: &Bound<'_, PyAny>) -> PyResult<()> {
        self.change(endpoint, EndpointChange::Uncordon)
    }

    #[doc = stub_doc!("Router.drain")]
    fn drain(&self, endpoint: &Bound<'_, PyAny>) -> PyResult<()> {
        self.change(endpoint, EndpointChange::Drain)
    }

    #[doc = stub_doc!("Router.set_reachable")]
    fn set_reachable(&self, endpoint: &Bound<'_, PyAny>, reachable: bool) -> PyResult<()> {
        let change =
            if reachable { EndpointChange::Reachable } else { EndpointChange::Unreachable };
        self.change(endpoint, change)
    }

    #[doc = stub_doc!("Router.endpoints")]
    fn endpoints(&self) -> PyResult<Vec<Endpoint>> {
        let views = self.live()?.endpoints();
        Ok(views.into_iter().map(|view| Endpoint::new(EndpointDocument::from(view))).collect())
    }

    #[doc = stub_doc!("Router.endpoint")]
    fn endpoint(&self, endpoint: &Bound<'_, PyAny>) -> PyResult<Endpoint> {
        let name = options::member(endpoint)?;
        let live = self.live()?;
        let id = live.find(&name).map_err(errors::router)?;
        Ok(Endpoint::new(live.document(id)))
    }

    #[doc = stub_doc!("Router.kv_position")]
    fn kv_position(&self, endpoint: &Bound<'_, PyAny>) -> PyResult<KvPosition> {
        let name = options::member(endpoint)?;
        self.live()?.kv_position(&name).map(KvPosition::new).map_err(errors::router)
    }

    #[doc = stub_doc!("Router.wait_kv")]
    #[pyo3(signature = (endpoint, sequence, *, timeout_s=10.0))]
    fn wait_kv(
        &self,
        py: Python<'_>,
        endpoint: &Bound<'_, PyAny>,
        sequence: u64,
        timeout_s: f64,
    ) -> PyResult<KvPosition> {
        self.wait_position(
            py,
            endpoint,
            timeout_s,
            &format!("sequence {sequence}"),
            move |position| position.sequence.is_some_and(|reached| reached >= sequence),
        )
    }

    #[doc = stub_doc!("Router.wait_kv_connected")]
    #[pyo3(signature = (endpoint, *, timeout_s=10.0))]
    fn wait_kv_connected(
        &self,
        py: Python<'_>,
        endpoint: &Bound<'_, PyAny>,
        timeout_s: f64,
    ) -> PyResult<KvPosition> {
        self.wait_position(py, endpoint, timeout_s, "a connection", |position| position.connected)
    }
}

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.save_index")]
    #[allow(clippy::needless_pass_by_value)] // How Python's argument comes.
    fn save_index(&self, py: Python<'_>, path: PathBuf) -> PyResult<BTreeMap<&str, u64>> {
        let live = self.live()?;
        py.detach(|| live.save_index(&path)).map(counts).map_err(errors::router)
    }

    #[doc = stub_doc!("Router.load_index")]
    #[allow(clippy::needless_pass_by_value)]
    fn load_index(&self, py: Python<'_>, path: PathBuf) -> PyResult<BTreeMap<&str, u64>> {
        let live = self.live()?;
        py.detach(|| live.load_index(&path)).map(counts).map_err(errors::router)
    }
}

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.save_predictor")]
    #[allow(clippy::needless_pass_by_value)]
    fn save_predictor(&self, py: Python<'_>, path: PathBuf) -> PyResult<usize> {
        let live = self.live()?;
        py.detach(|| live.save_predictor(&path)).map_err(errors::router)
    }
}

fn counts(summary: SnapshotSummary) -> BTreeMap<&'static str, u64> {
    let SnapshotSummary { endpoints, blocks, left_out } = summary;
    [("endpoints", endpoints), ("blocks", blocks), ("left_out", left_out)].into()
}

impl Router {
    fn change(&self, endpoint: &Bound<'_, PyAny>, change: EndpointChange) -> PyResult<()> {
        let name = options::member(endpoint)?;
        self.live()?.change_endpoint(&name, change).map_err(errors::router)
    }

    /// Waits without the GIL until the endpoint's position is what is `wanted`.
    fn wait_position(
        &self,
        py: Python<'_>,
        endpoint: &Bound<'_, PyAny>,
        timeout_s: f64,
        wanted: &str,
        reached: impl Fn(&llmd_bodies::router::KvPosition) -> bool + Clone + Send + 'static,
    ) -> PyResult<KvPosition> {
        let name = options::member(endpoint)?;
        let live = self.live()?;
        let deadline = Instant::now() + duration(timeout_s);
        loop {
            let slice = deadline.min(Instant::now() + SIGNAL_CHECK);
            let until = reached.clone();
            let position =
                py.detach(|| live.wait_kv(&name, slice, until)).map_err(errors::router)?;
            if reached(&position) {
                return Ok(KvPosition::new(position));
            }
            py.check_signals()?;
            if Instant::now() >= deadline {
                return Err(KvTimeoutError::new_err(format!(
                    "endpoint {name}: no {wanted} within {timeout_s} s, but {}; is it publishing, \
                     and at the address that was given?",
                    KvPosition::new(position).__repr__()
                )));
            }
        }
    }
}

/// A timeout; a century for what is longer or not a number.
pub(crate) fn duration(timeout_s: f64) -> Duration {
    const CENTURY_S: f64 = 3.2e9;
    let timeout_s = if timeout_s.is_nan() { CENTURY_S } else { timeout_s.clamp(0.0, CENTURY_S) };
    Duration::from_secs_f64(timeout_s)
}
