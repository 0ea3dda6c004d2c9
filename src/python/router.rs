//! `Router`: making one, and its whole life. What it does with endpoints is in `fleet.rs`, with
//! requests in `request.rs`, with scorers in `scorers.rs`.

use crate::errors::{self, ConfigError};
use crate::json;
use crate::scorers::Scorers;
use llmd_bodies::router::{self, LiveRouter, RouterConfig, fork};
use parking_lot::RwLock;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

#[doc = stub_doc!("Router")]
#[pyclass(module = "llmd_sched", frozen, weakref)]
pub struct Router {
    /// Locked only with the GIL held, so a fork finds it free.
    live: RwLock<Live>,
    pub(crate) scorers: Scorers,
}

struct Live {
    router: Arc<LiveRouter>,
    /// Of the process that `router` was made in.
    epoch: u64,
}

impl Router {
    /// The router of this process.
    pub(crate) fn live(&self) -> PyResult<Arc<LiveRouter>> {
        let epoch = fork::epoch();
        {
            let live = self.live.read();
            if live.epoch == epoch {
                return Ok(Arc::clone(&live.router));
            }
        }
        let mut live = self.live.write();
        if live.epoch != epoch {
            let router = live.router.successor().map_err(errors::router)?;
            *live = Live { router, epoch };
        }
        Ok(Arc::clone(&live.router))
    }
}

#[pymethods]
impl Router {
    #[new]
    #[pyo3(signature = (config=None, *, block_size=None, profile=None, seed=None, record=None))]
    fn new(
        config: Option<&Bound<'_, PyAny>>,
        block_size: Option<&Bound<'_, PyAny>>,
        profile: Option<&Bound<'_, PyAny>>,
        seed: Option<&Bound<'_, PyAny>>,
        record: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut tree = match config {
            None => Value::Object(Map::new()),
            Some(config) => read(config)?,
        };
        let overrides: [(&[&str], Option<Value>); 4] = [
            (&["block_size"], block_size.map(value).transpose()?),
            (&["schedule", "profile"], profile.map(value).transpose()?),
            (&["seed"], seed.map(value).transpose()?),
            (&["record"], record.map(|path| Value::from(path.to_string_lossy()))),
        ];
        for (path, value) in overrides {
            if let Some(value) = value {
                router::overlay(&mut tree, path, value)
                    .map_err(|error| errors::router(error.into()))?;
            }
        }
        let config =
            RouterConfig::from_value(tree).map_err(|error| errors::router(error.into()))?;
        let epoch = fork::epoch();
        let router = LiveRouter::new(config).map_err(errors::router)?;
        Ok(Self { live: RwLock::new(Live { router, epoch }), scorers: Scorers::default() })
    }

    #[doc = stub_doc!("Router.block_size")]
    #[getter]
    fn block_size(&self) -> PyResult<u32> {
        Ok(self.live()?.config().block_size)
    }

    #[doc = stub_doc!("Router.config")]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, self.live()?.config())
    }

    #[doc = stub_doc!("Router.demand")]
    fn demand<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.live()?.demand())
    }

    #[doc = stub_doc!("Router.stats")]
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.live()?.stats())
    }

    #[doc = stub_doc!("Router.serve_admin")]
    #[pyo3(signature = (port=0, *, host="127.0.0.1"))]
    fn serve_admin(&self, py: Python<'_>, port: u16, host: &str) -> PyResult<String> {
        let live = self.live()?;
        let address = py.detach(|| live.serve_admin(host, port)).map_err(errors::router)?;
        Ok(format!("http://{address}"))
    }

    #[doc = stub_doc!("Router.close")]
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let live = self.live()?;
        py.detach(|| live.close());
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type, exc, traceback))]
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc, traceback);
        self.close(py)
    }

    fn __repr__(&self) -> PyResult<String> {
        let live = self.live()?;
        let closed = if live.is_closed() { ", closed" } else { "" };
        let endpoints = live.endpoints().len();
        Ok(format!(
            "Router({endpoints} endpoints, block_size={}{closed})",
            live.config().block_size
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.scorers.traverse(&visit)
    }

    fn __clear__(&self) {
        self.scorers.clear();
    }
}

/// The tree of values of a mapping, or in a file.
pub(crate) fn read(config: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(path) = config.extract::<PathBuf>() {
        return router::read_file(&path).map_err(|error| errors::router(error.into()));
    }
    value(config)
}

fn value(config: &Bound<'_, PyAny>) -> PyResult<Value> {
    json::from_python(config).map_err(|error| {
        ConfigError::new_err(format!("configuration: {}", error.value(config.py())))
    })
}
