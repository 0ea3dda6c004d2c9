//! The simulator: workloads of traces and arrays, worlds of plain documents, rows as columns.

mod arrays;
mod columns;
mod run;
mod workload;
mod world;

pub use run::{builtin_policies, capacity_requests_per_s, simulate};
pub use workload::Workload;
