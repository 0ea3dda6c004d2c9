//! Wide expert parallelism: `llmd_sched.moe`, over numpy arrays.

mod advice;
mod arrays;
mod map;
mod migration;
mod place;
mod ranks;
mod sim;
mod watch;

pub use advice::{advise_experts, noise_floor, read_expert_load};
pub use map::ExpertMap;
pub use migration::plan_migration;
pub use place::{place_experts, rebalance_experts};
pub use ranks::RankScorer;
pub use sim::{simulate_expert_steps, simulate_ranks};
pub use watch::BalanceWatch;

use crate::errors::ConfigError;
use crate::json;
use llmd_brain::moe::{MoeError, Shape, StepModel};
use pyo3::prelude::*;

fn cannot_be(error: &MoeError) -> PyErr {
    ConfigError::new_err(error.to_string())
}

fn shape(
    experts: usize,
    slots: usize,
    gpus: usize,
    nodes: usize,
    groups: usize,
    dead: &[usize],
) -> PyResult<Shape> {
    let shape = Shape::new(experts, slots, gpus, nodes).and_then(|it| it.with_groups(groups));
    shape.and_then(|it| it.with_dead(dead)).map_err(|error| cannot_be(&error))
}

/// The sizes given as a mapping, or the defaults.
fn step_model(given: Option<&Bound<'_, PyAny>>) -> PyResult<StepModel> {
    let Some(given) = given else { return Ok(StepModel::default()) };
    let model: StepModel = json::settings("model", given)?;
    // Of a phase alone, its own usual size.
    if given.contains("phase")? && !given.contains("tokens_per_gpu")? {
        let tokens_per_gpu = StepModel::of(model.phase).tokens_per_gpu;
        return Ok(StepModel { tokens_per_gpu, ..model });
    }
    Ok(model)
}
