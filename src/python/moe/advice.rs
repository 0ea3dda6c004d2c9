//! Recorded loads; whether to balance, and with how many slots.

use super::{arrays, cannot_be, shape, step_model};
use crate::errors::ConfigError;
use crate::json;
use llmd_bodies::expert_load;
use llmd_brain::moe;
use numpy::{IntoPyArray, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use std::path::PathBuf;

#[doc = stub_doc!("read_expert_load")]
#[pyfunction]
pub fn read_expert_load(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyArray2<f64>>> {
    let read = expert_load::read_load(&path);
    let load = read.map_err(|error| ConfigError::new_err(error.to_string()))?;
    let tokens: Vec<f64> = load.iter().flatten().copied().collect();
    tokens.into_pyarray(py).reshape([load.layers(), load.experts()])
}

#[doc = stub_doc!("advise_experts")]
#[pyfunction]
#[pyo3(signature = (load, *, gpus, nodes=1, groups=1, extra_slots=3, model=None))]
pub fn advise_experts<'py>(
    py: Python<'py>,
    load: &Bound<'py, PyAny>,
    gpus: usize,
    nodes: usize,
    groups: usize,
    extra_slots: usize,
    model: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (load, model) = (arrays::load(load)?, step_model(model)?);
    // With room for all: how much there is to be is what is asked.
    let slots = load.experts().div_ceil(gpus.max(1)) * gpus;
    let shape = shape(load.experts(), slots, gpus, nodes, groups, &[])?;
    let advice = py.detach(|| moe::advise(&load, &shape, extra_slots, &model));
    json::document(py, &advice.map_err(|error| cannot_be(&error))?)
}

#[doc = stub_doc!("noise_floor")]
#[pyfunction]
#[pyo3(signature = (gpus, *, tokens_per_gpu=128.0, top_k=8))]
pub fn noise_floor(gpus: usize, tokens_per_gpu: f64, top_k: u32) -> PyResult<f64> {
    let shape = shape(1, gpus, gpus, 1, 1, &[])?;
    Ok(moe::noise_floor(&shape, tokens_per_gpu, top_k))
}
