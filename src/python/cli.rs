//! The console script, and Ray behind it.

use crate::errors::ConfigError;
use llmd_bodies::cli::{self, Cluster};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::ffi::OsString;

#[doc = stub_doc!("run_cli")]
#[pyfunction]
pub fn run_cli(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| cli::run(arguments.into_iter(), Some(&Ray)))
}

#[doc = stub_doc!("errand_run")]
#[pyfunction]
pub fn errand_run<'py>(
    py: Python<'py>,
    errand: &[u8],
    number: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let ran = py.detach(|| cli::errand_run(errand, number)).map_err(ConfigError::new_err)?;
    Ok(PyBytes::new(py, &ran))
}

/// Ray, which Python speaks to.
struct Ray;

impl Cluster for Ray {
    fn play(&self, address: &str, errand: &[u8], runs: usize) -> Result<Vec<Vec<u8>>, String> {
        let asked = (address, errand, runs);
        Python::attach(|py| -> PyResult<Vec<Vec<u8>>> {
            py.import("llmd_sched.sim._ray")?.call_method1("play_errand", asked)?.extract()
        })
        .map_err(|why| Python::attach(|py| why.value(py).to_string()))
    }
}
