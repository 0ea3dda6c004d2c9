//! `replay` and `ReplayReport`: a decision log run again.

use crate::errors;
use llmd_bodies::telemetry::decision_log::{self, FileReplay};
use pyo3::prelude::*;
use std::path::PathBuf;

#[doc = stub_doc!("ReplayReport")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct ReplayReport(FileReplay);

#[pymethods]
impl ReplayReport {
    #[doc = stub_doc!("ReplayReport.inputs")]
    #[getter]
    fn inputs(&self) -> u64 {
        self.0.report.entries
    }

    #[doc = stub_doc!("ReplayReport.decisions")]
    #[getter]
    fn decisions(&self) -> u64 {
        self.0.report.decisions
    }

    #[doc = stub_doc!("ReplayReport.mismatches")]
    #[getter]
    fn mismatches(&self) -> u64 {
        self.0.report.different_decisions + self.0.report.different_entries
    }

    #[doc = stub_doc!("ReplayReport.lost")]
    #[getter]
    fn lost(&self) -> u64 {
        self.0.lost
    }

    #[doc = stub_doc!("ReplayReport.complete")]
    #[getter]
    fn complete(&self) -> bool {
        self.0.complete
    }

    #[doc = stub_doc!("ReplayReport.identical")]
    #[getter]
    fn identical(&self) -> bool {
        self.0.report.is_identical() && self.0.report.decisions > 0 && self.0.lost == 0
    }

    #[doc = stub_doc!("ReplayReport.first_mismatch")]
    #[getter]
    fn first_mismatch(&self) -> Option<u64> {
        self.0.report.first_difference
    }

    fn __repr__(&self) -> String {
        format!(
            "ReplayReport(inputs={}, decisions={}, mismatches={}, lost={})",
            self.inputs(),
            self.decisions(),
            self.mismatches(),
            self.lost()
        )
    }
}

#[doc = stub_doc!("replay")]
#[pyfunction]
pub fn replay(py: Python<'_>, path: PathBuf) -> PyResult<ReplayReport> {
    py.detach(|| decision_log::replay(&path))
        .map(ReplayReport)
        .map_err(|error| errors::log(&path, error))
}
