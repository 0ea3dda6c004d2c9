//! Placing experts, anew and in few moves.

use super::{ExpertMap, arrays, cannot_be, shape, step_model};
use crate::errors::ConfigError;
use llmd_brain::moe::{self, PlaceConfig, Policy, RebalanceConfig, Sharing};
use pyo3::prelude::*;

#[doc = stub_doc!("place_experts")]
#[pyfunction]
#[pyo3(
    signature = (
        load, *, slots, gpus, nodes=1, groups=1, dead=vec![], old=None, policy="balanced",
        sharing="equal", tolerance=0.003, model=None
    ),
    text_signature = "(load, *, slots, gpus, nodes=1, groups=1, dead=(), old=None, \
        policy='balanced', sharing='equal', tolerance=0.003, model=None)"
)]
#[expect(clippy::too_many_arguments, reason = "one a keyword of the Python function")]
pub fn place_experts(
    py: Python<'_>,
    load: &Bound<'_, PyAny>,
    slots: usize,
    gpus: usize,
    nodes: usize,
    groups: usize,
    dead: Vec<usize>,
    old: Option<&Bound<'_, PyAny>>,
    policy: &str,
    sharing: &str,
    tolerance: f64,
    model: Option<&Bound<'_, PyAny>>,
) -> PyResult<ExpertMap> {
    let load = arrays::load(load)?;
    let shape = shape(load.experts(), slots, gpus, nodes, groups, &dead)?;
    let old = old.map(|it| arrays::slots("old", it)).transpose()?;
    let policy = match policy {
        "balanced" => Policy::Balanced,
        "grouped" => Policy::Grouped,
        "near" => Policy::Near,
        "fastest" => Policy::Fastest,
        _ => return Err(unknown("policy", policy, "balanced, grouped, near or fastest")),
    };
    let sharing = sharing_of(sharing)?;
    let config = PlaceConfig { policy, sharing, tolerance, model: step_model(model)? };
    let placed = py.detach(|| moe::place(&load, &shape, &config, old.as_deref()));
    let layers = placed.map_err(|error| cannot_be(&error))?;
    Ok(ExpertMap { shape, layers })
}

#[doc = stub_doc!("rebalance_experts")]
#[pyfunction]
#[pyo3(
    signature = (
        load, old, *, gpus, nodes=1, dead=vec![], max_moves_per_layer=16, target=1.01,
        sharing="equal", anew_gap=None
    ),
    text_signature = "(load, old, *, gpus, nodes=1, dead=(), max_moves_per_layer=16, \
        target=1.01, sharing='equal', anew_gap=None)"
)]
#[expect(clippy::too_many_arguments, reason = "one a keyword of the Python function")]
pub fn rebalance_experts(
    py: Python<'_>,
    load: &Bound<'_, PyAny>,
    old: &Bound<'_, PyAny>,
    gpus: usize,
    nodes: usize,
    dead: Vec<usize>,
    max_moves_per_layer: usize,
    target: f64,
    sharing: &str,
    anew_gap: Option<f64>,
) -> PyResult<ExpertMap> {
    let load = arrays::load(load)?;
    let old = arrays::slots("old", old)?;
    let slots = old.first().map_or(0, Vec::len);
    let shape = shape(load.experts(), slots, gpus, nodes, 1, &dead)?;
    let sharing = sharing_of(sharing)?;
    let config = RebalanceConfig { max_moves_per_layer, target, sharing, anew_gap };
    let mended = py.detach(|| moe::rebalance(&load, &shape, &old, &config));
    let layers = mended.map_err(|error| cannot_be(&error))?;
    Ok(ExpertMap { shape, layers })
}

fn sharing_of(name: &str) -> PyResult<Sharing> {
    match name {
        "equal" => Ok(Sharing::Equal),
        "weighted" => Ok(Sharing::Weighted),
        _ => Err(unknown("sharing", name, "equal or weighted")),
    }
}

fn unknown(what: &str, name: &str, known: &str) -> PyErr {
    ConfigError::new_err(format!("{what} is {name:?}: give {known}"))
}
