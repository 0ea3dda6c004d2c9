//! `Matches`: how much of one prompt each endpoint holds.

use crate::endpoint;
use llmd_bodies::router::{EndpointDocument, LiveRouter};
use llmd_brain::Slot;
use llmd_brain::index::{self, MatchSource};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

#[doc = stub_doc!("Matches")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Matches {
    query_blocks: u32,
    block_size: u32,
    endpoints: Vec<EndpointDocument>,
    blocks: Vec<u32>,
    lower_tiers: Vec<[u32; 3]>,
    sources: Vec<MatchSource>,
}

impl Matches {
    /// The rows of `matches` that somebody of `router` has now.
    pub fn of(router: &LiveRouter, matches: &index::Matches) -> Self {
        let mut rows = Self {
            query_blocks: matches.query_blocks,
            block_size: router.config().block_size,
            endpoints: Vec::new(),
            blocks: Vec::new(),
            lower_tiers: Vec::new(),
            sources: Vec::new(),
        };
        for view in router.endpoints() {
            let (Slot(slot), row) = (view.id.slot, view.id.slot.index());
            // An endpoint that joined since, or whose slot had another tenant, holds nothing.
            let blocks = matches.depth_of(Slot(slot), view.id.generation);
            let lower = matches.lower_tier_blocks.get(row).filter(|_| blocks > 0);
            let source = matches.source.get(row).filter(|_| blocks > 0);
            rows.blocks.push(blocks);
            rows.lower_tiers.push(lower.copied().unwrap_or_default());
            rows.sources.push(source.copied().unwrap_or_default());
            rows.endpoints.push(view.into());
        }
        rows
    }
}

#[pymethods]
impl Matches {
    #[doc = stub_doc!("Matches.query_blocks")]
    #[getter]
    fn query_blocks(&self) -> u32 {
        self.query_blocks
    }

    #[doc = stub_doc!("Matches.endpoints")]
    #[getter]
    fn endpoints<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        endpoint::tuple(py, self.endpoints.iter().cloned())
    }

    #[doc = stub_doc!("Matches.matched_blocks")]
    #[getter]
    fn matched_blocks<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        PyArray1::from_slice(py, &self.blocks)
    }

    #[doc = stub_doc!("Matches.matched_tokens")]
    #[getter]
    fn matched_tokens<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u32>> {
        let tokens = self.blocks.iter().map(|blocks| blocks.saturating_mul(self.block_size));
        PyArray1::from_vec(py, tokens.collect())
    }

    #[doc = stub_doc!("Matches.lower_tier_blocks")]
    #[getter]
    fn lower_tier_blocks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u32>>> {
        PyArray1::from_slice(py, self.lower_tiers.as_flattened())
            .reshape([self.lower_tiers.len(), 3])
    }

    #[doc = stub_doc!("Matches.sources")]
    #[getter]
    fn sources<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.sources.iter().copied().map(MatchSource::as_str))
    }

    fn __len__(&self) -> usize {
        self.endpoints.len()
    }

    fn __repr__(&self) -> String {
        let rows: Vec<String> = self
            .endpoints
            .iter()
            .zip(&self.blocks)
            .map(|(endpoint, blocks)| format!("{}: {blocks}", endpoint.address))
            .collect();
        format!("Matches({} blocks, {{{}}})", self.query_blocks, rows.join(", "))
    }
}
