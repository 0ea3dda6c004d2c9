//! The console script.

use pyo3::prelude::*;
use std::ffi::OsString;

#[doc = stub_doc!("run_cli")]
#[pyfunction]
pub fn run_cli(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| llmd_bodies::cli::run(arguments.into_iter()))
}
