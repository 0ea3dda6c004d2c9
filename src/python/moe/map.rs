//! `ExpertMap`: which expert each slot holds.

use super::{arrays, cannot_be, step_model};
use crate::json;
use llmd_brain::moe::{EMPTY, LayerMap, MoeError, Shape};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::prelude::*;

#[doc = stub_doc!("ExpertMap")]
#[pyclass(module = "llmd_sched.moe", frozen)]
pub struct ExpertMap {
    pub shape: Shape,
    pub layers: Vec<LayerMap>,
}

#[pymethods]
impl ExpertMap {
    #[doc = stub_doc!("ExpertMap.physical_to_logical")]
    #[getter]
    fn physical_to_logical<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<i64>>> {
        let id = |expert: &u32| if *expert == EMPTY { -1 } else { i64::from(*expert) };
        let ids: Vec<i64> = self.layers.iter().flat_map(|it| it.experts.iter().map(id)).collect();
        ids.into_pyarray(py).reshape([self.layers.len(), self.shape.slots()])
    }

    #[doc = stub_doc!("ExpertMap.shares")]
    #[getter]
    fn shares<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f64>>> {
        let shares: Vec<f64> = self.layers.iter().flat_map(|it| &it.shares).copied().collect();
        shares.into_pyarray(py).reshape([self.layers.len(), self.shape.slots()])
    }

    #[doc = stub_doc!("ExpertMap.shares_from_node")]
    #[getter]
    fn shares_from_node<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<Bound<'py, PyArray3<f64>>>> {
        if self.layers.iter().all(|it| it.from_node.is_empty()) {
            return Ok(None);
        }
        let (nodes, slots) = (self.shape.nodes(), self.shape.slots());
        let mut shares = Vec::with_capacity(self.layers.len() * nodes * slots);
        for layer in &self.layers {
            if layer.from_node.is_empty() {
                (0..nodes).for_each(|_| shares.extend(&layer.shares));
            } else {
                shares.extend(&layer.from_node);
            }
        }
        shares.into_pyarray(py).reshape([self.layers.len(), nodes, slots]).map(Some)
    }

    #[doc = stub_doc!("ExpertMap.balance")]
    fn balance<'py>(
        &self,
        py: Python<'py>,
        load: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        self.by_layer(py, load, |map, tokens| map.balance(tokens, &self.shape))
    }

    #[doc = stub_doc!("ExpertMap.remote_share")]
    fn remote_share<'py>(
        &self,
        py: Python<'py>,
        load: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        self.by_layer(py, load, |map, tokens| map.remote_share(tokens, &self.shape))
    }

    #[doc = stub_doc!("ExpertMap.layer_times")]
    #[pyo3(signature = (load, *, model=None))]
    fn layer_times<'py>(
        &self,
        py: Python<'py>,
        load: &Bound<'py, PyAny>,
        model: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (load, model) = (arrays::load(load)?, step_model(model)?);
        let of = |(map, tokens): (&LayerMap, &[f64])| model.layer_time(map, tokens, &self.shape);
        self.fits(&load)?;
        let times: Vec<_> = self.layers.iter().zip(load.iter()).map(of).collect();
        json::document(py, &times)
    }

    fn __repr__(&self) -> String {
        let Self { shape, layers } = self;
        format!(
            "ExpertMap({} layers, {} experts in {} slots of {} GPUs on {} nodes)",
            layers.len(),
            shape.experts(),
            shape.slots(),
            shape.gpus(),
            shape.nodes()
        )
    }
}

impl ExpertMap {
    fn fits(&self, load: &llmd_brain::moe::ExpertLoad) -> PyResult<()> {
        let expected = self.layers.len() * self.shape.experts();
        let found = load.layers() * load.experts();
        if (load.layers(), load.experts()) == (self.layers.len(), self.shape.experts()) {
            return Ok(());
        }
        Err(cannot_be(&MoeError::Length { what: "load", found, expected, per_layer: "experts" }))
    }

    fn by_layer<'py>(
        &self,
        py: Python<'py>,
        load: &Bound<'py, PyAny>,
        of: impl Fn(&LayerMap, &[f64]) -> f64,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let load = arrays::load(load)?;
        self.fits(&load)?;
        let values = self.layers.iter().zip(load.iter()).map(|(map, tokens)| of(map, tokens));
        Ok(PyArray1::from_vec(py, values.collect()))
    }
}
