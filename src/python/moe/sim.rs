//! Steps and ranks at virtual time.

use super::{arrays, cannot_be, shape};
use crate::json;
use llmd_brain::moe::sim::{self, RankRule, RankWorld, StepWorld};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

#[doc = stub_doc!("simulate_expert_steps")]
#[pyfunction]
#[pyo3(signature = (load, *, slots, gpus, nodes=1, groups=1, **world))]
pub fn simulate_expert_steps<'py>(
    py: Python<'py>,
    load: &Bound<'py, PyAny>,
    slots: usize,
    gpus: usize,
    nodes: usize,
    groups: usize,
    world: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let load = arrays::load(load)?;
    let shape = shape(load.experts(), slots, gpus, nodes, groups, &[])?;
    let world: StepWorld = match world {
        Some(world) => json::settings("simulate_expert_steps", world)?,
        None => StepWorld::default(),
    };
    let played = py.detach(|| sim::play_steps(&load, &shape, &world));
    json::document(py, &played.map_err(|error| cannot_be(&error))?)
}

#[doc = stub_doc!("simulate_ranks")]
#[pyfunction]
#[pyo3(signature = (rule, **world))]
pub fn simulate_ranks<'py>(
    py: Python<'py>,
    rule: &Bound<'py, PyString>,
    world: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let rule: RankRule = json::settings("rule", rule)?;
    let world: RankWorld = match world {
        Some(world) => json::settings("simulate_ranks", world)?,
        None => RankWorld::default(),
    };
    let played = py.detach(|| sim::play_ranks(&world, rule));
    json::document(py, &played.map_err(|error| cannot_be(&error))?)
}
