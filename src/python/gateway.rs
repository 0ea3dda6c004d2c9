//! `Gateway`: OpenAI's API in front of engines, served by threads of its own.

use crate::errors::{self, ConfigError};
use crate::json;
use crate::router::read;
use llmd_bodies::gateway::{
    self, ConfigSource, FleetError, GatewayConfig, GatewayError, GatewayServer, ReloadError,
};
use llmd_bodies::router::{ConfigError as BadConfig, read_file};
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use std::path::PathBuf;

#[doc = stub_doc!("Gateway")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Gateway {
    /// Gone once it is closed.
    server: Mutex<Option<GatewayServer>>,
    url: String,
    admin_url: Option<String>,
}

impl Gateway {
    fn with<T>(&self, work: impl FnOnce(&GatewayServer) -> PyResult<T>) -> PyResult<T> {
        match &*self.server.lock() {
            Some(server) => work(server),
            None => Err(closed()),
        }
    }
}

#[pymethods]
impl Gateway {
    #[new]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (parsed, source) = settings(config)?;
        let server = py.detach(|| GatewayServer::start_from(parsed, source)).map_err(refused)?;
        let (url, admin_url) = (server.url(), server.admin_url());
        Ok(Self { server: Mutex::new(Some(server)), url, admin_url })
    }

    #[doc = stub_doc!("Gateway.url")]
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    #[doc = stub_doc!("Gateway.admin_url")]
    #[getter]
    fn admin_url(&self) -> Option<&str> {
        self.admin_url.as_deref()
    }

    #[doc = stub_doc!("Gateway.endpoints")]
    fn endpoints<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let documents = self.with(|server| Ok(server.gateway().router().documents()))?;
        json::document(py, &documents)
    }

    #[doc = stub_doc!("Gateway.reload")]
    #[pyo3(signature = (config=None))]
    fn reload(&self, py: Python<'_>, config: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let gateway = self.with(|server| Ok(server.gateway().clone()))?;
        reload(py, &gateway, config)
    }

    #[doc = stub_doc!("Gateway.drain")]
    fn drain(&self, py: Python<'_>) {
        let server = self.server.lock().take();
        py.detach(|| server.map(GatewayServer::drain));
    }

    #[doc = stub_doc!("Gateway.close")]
    fn close(&self, py: Python<'_>) {
        let server = self.server.lock().take();
        py.detach(|| drop(server));
    }

    #[doc = stub_doc!("Gateway.__enter__")]
    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[doc = stub_doc!("Gateway.__exit__")]
    fn __exit__(
        &self,
        py: Python<'_>,
        _exc_type: &Bound<'_, PyAny>,
        _exc_value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.drain(py);
    }

    fn __repr__(&self) -> String {
        format!("Gateway({:?})", self.url)
    }
}

/// What a configuration says, and where it is read again if it is a file.
pub fn settings(config: &Bound<'_, PyAny>) -> PyResult<(GatewayConfig, Option<ConfigSource>)> {
    let parsed = GatewayConfig::from_value(read(config)?).map_err(|error| bad_config(&error))?;
    let source = config.extract::<PathBuf>().ok().map(|path| {
        let read = move || {
            let tree = read_file(&path).map_err(|error| error.to_string())?;
            GatewayConfig::from_value(tree).map_err(|error| error.to_string())
        };
        Box::new(read) as ConfigSource
    });
    Ok((parsed, source))
}

/// Has a gateway serve by other settings.
pub fn reload(
    py: Python<'_>,
    gateway: &gateway::Gateway,
    config: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let config = config.map(settings).transpose()?;
    let outcome = py.detach(|| match config {
        None => gateway.reload(),
        Some((config, _)) => gateway.apply(config),
    });
    outcome.map_err(|error| match error {
        ReloadError::Router(error) => errors::router(error),
        ReloadError::Fleet(error) => of_fleet(error),
        other => ConfigError::new_err(other.to_string()),
    })
}

pub fn closed() -> PyErr {
    errors::RouterClosedError::new_err("the gateway is closed: start a new one")
}

fn bad_config(error: &BadConfig) -> PyErr {
    ConfigError::new_err(error.to_string())
}

fn of_fleet(error: FleetError) -> PyErr {
    match error {
        FleetError::Router(error) => errors::router(error),
        FleetError::Address(error) => errors::EndpointError::new_err(error.to_string()),
    }
}

pub fn refused(error: GatewayError) -> PyErr {
    let message = error.to_string();
    match error {
        GatewayError::Router(error) => errors::router(error),
        GatewayError::Fleet(error) => of_fleet(error),
        GatewayError::Listen { .. } | GatewayError::Threads(_) => PyOSError::new_err(message),
        GatewayError::Admin(_)
        | GatewayError::Key(_)
        | GatewayError::MountedTls
        | GatewayError::Tls(_)
        | GatewayError::Tokenizer { .. } => ConfigError::new_err(message),
    }
}
