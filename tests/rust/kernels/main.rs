//! The CUDA kernels, run on this CPU, against their twins in `llmd_data::ep`: the same bytes.
//!
//! `tests/fakes/cuda_host` runs the kernels' own source with a fiber for each thread, in an order
//! that each case draws anew. What it cannot show: races of single accesses, occupancy, speed.

#![allow(unsafe_code, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod blocks;
#[path = "../../fakes/built.rs"]
mod built;
mod guarded;
mod host;
mod moe;
