//! `Router`: what goes between routers in front of the same engines.

use crate::errors;
use crate::router::Router;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[pymethods]
impl Router {
    #[doc = stub_doc!("Router.tell_peers")]
    #[pyo3(signature = (listen, *, interval_ms=10.0))]
    fn tell_peers(&self, py: Python<'_>, listen: &str, interval_ms: f64) -> PyResult<String> {
        let live = self.live()?;
        py.detach(|| live.tell_peers(listen, interval_ms)).map_err(errors::router)
    }

    #[doc = stub_doc!("Router.hear_peers")]
    fn hear_peers(&self, addresses: Vec<String>) -> PyResult<()> {
        self.live()?.hear_peers(&addresses).map_err(errors::router)
    }

    #[doc = stub_doc!("Router.own_totals")]
    fn own_totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let message = self.live()?.own_totals().map_err(errors::router)?;
        Ok(PyBytes::new(py, &message))
    }

    #[doc = stub_doc!("Router.peer_totals")]
    fn peer_totals(&self, message: &[u8]) -> PyResult<()> {
        self.live()?.peer_totals(message).map_err(errors::router)
    }
}
