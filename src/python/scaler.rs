//! `SloScaler`: the rule that sizes a fleet, for whoever can start replicas.

use crate::errors::ConfigError;
use crate::json;
use llmd_brain::Time;
use llmd_brain::scale::{Demand, Replicas, ScaleConfig, ScaleError, Scaler};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[doc = stub_doc!("SloScaler")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct SloScaler(Mutex<Scaler>);

#[pymethods]
impl SloScaler {
    #[new]
    #[pyo3(signature = (**settings))]
    fn new(settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let config: ScaleConfig = match settings {
            Some(settings) => json::settings("SloScaler", settings)?,
            None => ScaleConfig::default(),
        };
        Ok(Self(Mutex::new(Scaler::new(config).map_err(|error| cannot_be(&error))?)))
    }

    #[doc = stub_doc!("SloScaler.read")]
    fn read(&self, now_s: f64, source: &str, demand: &Bound<'_, PyAny>) -> PyResult<()> {
        let demand: Demand = json::settings("demand", demand)?;
        let read = self.0.lock().read(time(now_s), source, &demand);
        read.map_err(|error| cannot_be(&error))
    }

    #[doc = stub_doc!("SloScaler.look")]
    fn look<'py>(
        &self,
        py: Python<'py>,
        now_s: f64,
        ready: u32,
        target: u32,
    ) -> PyResult<Bound<'py, PyDict>> {
        let verdict = self.0.lock().look(time(now_s), Replicas { ready, target });
        let said = PyDict::new(py);
        said.set_item("desired", verdict.desired)?;
        said.set_item("needed", verdict.needed)?;
        said.set_item("strain", verdict.strain)?;
        said.set_item("allowed", verdict.allowed)?;
        said.set_item("bound", verdict.bound.name())?;
        said.set_item("work", verdict.work)?;
        said.set_item("is_informed", verdict.is_informed)?;
        Ok(said)
    }

    #[doc = stub_doc!("SloScaler.set_bounds")]
    fn set_bounds(&self, min_replicas: u32, max_replicas: u32) -> PyResult<()> {
        let set = self.0.lock().set_bounds(min_replicas, max_replicas);
        set.map_err(|error| cannot_be(&error))
    }

    #[doc = stub_doc!("SloScaler.config")]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, self.0.lock().config())
    }
}

fn time(seconds: f64) -> Time {
    Time::from_millis_f64(seconds * 1e3)
}

fn cannot_be(error: &ScaleError) -> PyErr {
    ConfigError::new_err(error.to_string())
}
