//! `simulate`: a run, without the GIL.

use super::workload::Workload;
use super::{columns, world};
use crate::errors::ConfigError;
use crate::json;
use llmd_brain::sim::{self, SimError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[doc = stub_doc!("simulate")]
#[pyfunction]
pub fn simulate<'py>(
    py: Python<'py>,
    workload: &Bound<'py, Workload>,
    world: &Bound<'py, PyAny>,
    config: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let workload = workload.get();
    let mut world = world::read(world, workload)?;
    world.brain = world::policy(config)?;
    let outcome =
        py.detach(|| sim::run(&workload.inner, &world)).map_err(|error| cannot_be(&error))?;
    let found = PyDict::new(py);
    found.set_item("summary", json::document(py, &outcome.summary())?)?;
    found.set_item("rows", columns::of(py, &outcome.rows)?)?;
    found.set_item("engines", columns::engines(py, &outcome.engines)?)?;
    found.set_item("ended_ms", outcome.ended_ms)?;
    Ok(found)
}

#[doc = stub_doc!("builtin_policies")]
#[pyfunction]
pub fn builtin_policies() -> Vec<&'static str> {
    llmd_brain::schedule::builtin_profiles().collect()
}

#[doc = stub_doc!("capacity_requests_per_s")]
#[pyfunction]
pub fn capacity_requests_per_s(
    py: Python<'_>,
    workload: &Bound<'_, Workload>,
    world: &Bound<'_, PyAny>,
) -> PyResult<f64> {
    let workload = workload.get();
    let world = world::read(world, workload)?;
    if workload.is_closed_loop {
        let why = "a closed loop has no rate: capacity is of workloads with arrival times";
        return Err(ConfigError::new_err(why));
    }
    py.detach(|| sim::capacity_requests_per_s(&workload.inner, &world))
        .map_err(|error| cannot_be(&error))
}

fn cannot_be(error: &SimError) -> PyErr {
    ConfigError::new_err(error.to_string())
}
