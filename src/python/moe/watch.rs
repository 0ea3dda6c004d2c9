//! `BalanceWatch`: whether balancing still does what it should.

use super::cannot_be;
use crate::json;
use llmd_brain::moe::{Watch, WatchConfig};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[doc = stub_doc!("BalanceWatch")]
#[pyclass(module = "llmd_sched.moe", frozen)]
pub struct BalanceWatch(Mutex<Watch>);

#[pymethods]
impl BalanceWatch {
    #[new]
    #[pyo3(signature = (**settings))]
    fn new(settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let config: WatchConfig = match settings {
            Some(settings) => json::settings("BalanceWatch", settings)?,
            None => WatchConfig::default(),
        };
        let watch = Watch::new(config).map_err(|error| cannot_be(&error))?;
        Ok(Self(Mutex::new(watch)))
    }

    #[doc = stub_doc!("BalanceWatch.planned")]
    fn planned(&self, step: u64, balance: f64) {
        self.0.lock().planned(step, balance);
    }

    #[doc = stub_doc!("BalanceWatch.read")]
    #[pyo3(signature = (step, balance, *, noise_floor=1.0))]
    fn read(&self, step: u64, balance: f64, noise_floor: f64) {
        self.0.lock().read(step, balance, noise_floor);
    }

    #[doc = stub_doc!("BalanceWatch.health")]
    fn health<'py>(&self, py: Python<'py>, step: u64) -> PyResult<Bound<'py, PyAny>> {
        json::document(py, &self.0.lock().health(step))
    }
}
