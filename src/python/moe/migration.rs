//! What a change of maps moves.

use super::{arrays, cannot_be, shape, step_model};
use crate::json;
use llmd_brain::moe::Migration;
use pyo3::prelude::*;

#[doc = stub_doc!("plan_migration")]
#[pyfunction]
#[pyo3(
    signature = (
        old, new, *, gpus, nodes=1, dead=vec![], model=None, gain_us_per_step=0.0, steps=3000.0,
        stall=1.0
    ),
    text_signature = "(old, new, *, gpus, nodes=1, dead=(), model=None, gain_us_per_step=0.0, \
        steps=3000.0, stall=1.0)"
)]
#[expect(clippy::too_many_arguments, reason = "one a keyword of the Python function")]
pub fn plan_migration<'py>(
    py: Python<'py>,
    old: &Bound<'py, PyAny>,
    new: &Bound<'py, PyAny>,
    gpus: usize,
    nodes: usize,
    dead: Vec<usize>,
    model: Option<&Bound<'py, PyAny>>,
    gain_us_per_step: f64,
    steps: f64,
    stall: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let (old, new) = (arrays::slots("old", old)?, arrays::slots("new", new)?);
    let ids = old.iter().chain(&new).flatten().filter(|it| **it != llmd_brain::moe::EMPTY);
    let experts = ids.max().map_or(1, |most| *most as usize + 1);
    let slots = old.first().map_or(0, Vec::len);
    let shape = shape(experts, slots, gpus, nodes, 1, &dead)?;
    let plan = Migration::plan(&shape, &old, &new, &step_model(model)?);
    let plan = plan.map_err(|error| cannot_be(&error))?;
    let said = json::document(py, &plan)?;
    said.set_item("moves", plan.moves())?;
    let verdict = plan.pays(gain_us_per_step, steps, stall);
    said.set_item("break_even_steps", verdict.break_even_steps)?;
    said.set_item("pays", verdict.pays)?;
    Ok(said)
}
