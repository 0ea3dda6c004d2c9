//! `RankScorer`: which data-parallel rank gets a request.

use super::cannot_be;
use crate::json;
use llmd_brain::moe::{self, RankCosts, RankLoad, RankRequest};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[doc = stub_doc!("RankScorer")]
#[pyclass(module = "llmd_sched.moe", frozen)]
pub struct RankScorer(Mutex<moe::RankScorer>);

#[pymethods]
impl RankScorer {
    #[new]
    #[pyo3(signature = (ranks, **costs))]
    fn new(ranks: usize, costs: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let costs: RankCosts = match costs {
            Some(costs) => json::settings("RankScorer", costs)?,
            None => RankCosts::default(),
        };
        let scorer = moe::RankScorer::new(ranks, costs).map_err(|error| cannot_be(&error))?;
        Ok(Self(Mutex::new(scorer)))
    }

    #[doc = stub_doc!("RankScorer.report")]
    #[pyo3(signature = (rank, step, *, kv_tokens, prefill_tokens=0.0, sequences=0.0))]
    fn report(
        &self,
        rank: usize,
        step: u64,
        kv_tokens: f64,
        prefill_tokens: f64,
        sequences: f64,
    ) -> PyResult<()> {
        let load = RankLoad { kv_tokens, prefill_tokens, sequences };
        self.0.lock().report(rank, step, load).map_err(|error| cannot_be(&error))
    }

    #[doc = stub_doc!("RankScorer.choose")]
    #[pyo3(
        signature = (step, prompt_tokens, *, cached_tokens=vec![], is_prefilled=false),
        text_signature = "($self, step, prompt_tokens, *, cached_tokens=(), is_prefilled=False)"
    )]
    fn choose(
        &self,
        step: u64,
        prompt_tokens: f64,
        cached_tokens: Vec<f64>,
        is_prefilled: bool,
    ) -> usize {
        let request = RankRequest { prompt_tokens, is_prefilled };
        let cached = |rank: usize| cached_tokens.get(rank).copied().unwrap_or(0.0);
        self.0.lock().choose(step, request, cached)
    }
}
