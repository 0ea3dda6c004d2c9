//! The console script.

use pyo3::prelude::*;

#[doc = stub_doc!("run_cli")]
#[pyfunction]
pub fn run_cli(py: Python<'_>, arguments: Vec<String>) -> i32 {
    py.detach(|| llmd_bodies::cli::run(arguments))
}
