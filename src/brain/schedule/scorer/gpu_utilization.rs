//! `gpu-utilization-scorer`: the idler the GPU, the better, whoever makes it busy.
//!
//! Formula: `1 - utilization`.
//!
//! Inputs: `gpu_utilization`, from an exporter (DCGM's `DCGM_FI_DEV_GPU_UTIL`). Parameters: none.
//! Limits: the one signal that shows a foreign process on the GPU, which no engine metric does; but
//! an engine of ours that decodes a single request may read as busy too, so weigh it below the
//! signals of load.

use super::{Degraded, NEUTRAL, Scorer, free_share};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "gpu-utilization-scorer",
    build: |params| Ok(Box::new(registry::read::<GpuUtilization>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GpuUtilization {}

impl Scorer for GpuUtilization {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        if cx.is_reported(Feature::GpuUtilization) {
            free_share(cx.column(Feature::GpuUtilization), out);
        } else {
            out.fill(NEUTRAL);
        }
        Ok(())
    }
}
