//! `TurnQueue`: the order of turns, for the queue of an engine's own scheduler.

use crate::errors::ConfigError;
use crate::json;
use llmd_brain::flow::{Asked, FlowConfig, TurnConfig, TurnQueue as Turns};
use llmd_brain::{Ticket, Time};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Settings of turns that are about the router's endpoints.
const OF_ROUTERS: [&str; 4] = ["wait", "contended_s", "queue_ms", "kv_share"];

#[doc = stub_doc!("TurnQueue")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct TurnQueue(Mutex<Turns>);

#[pymethods]
impl TurnQueue {
    #[new]
    #[pyo3(signature = (**settings))]
    fn new(settings: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let Some(settings) = settings else {
            return Ok(Self(Mutex::new(Turns::new(&TurnConfig::default()))));
        };
        for name in OF_ROUTERS {
            if settings.contains(name)? {
                return Err(ConfigError::new_err(format!(
                    "TurnQueue: {name} is about a router's endpoints: leave it out"
                )));
            }
        }
        let turns: TurnConfig = json::settings("TurnQueue", settings)?;
        let flow = FlowConfig { turns, ..FlowConfig::default() };
        flow.validate().map_err(|error| ConfigError::new_err(error.to_string()))?;
        Ok(Self(Mutex::new(Turns::new(&flow.turns))))
    }

    #[doc = stub_doc!("TurnQueue.push")]
    #[pyo3(signature = (ticket, since_s, *, priority=0, tenant=None, due_ms=None, uncached_tokens=0, output_tokens=0, has_paid=false))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    fn push(
        &self,
        ticket: u64,
        since_s: f64,
        priority: i32,
        tenant: Option<&str>,
        due_ms: Option<f64>,
        uncached_tokens: u32,
        output_tokens: u32,
        has_paid: bool,
    ) {
        let since = time(since_s);
        let asked =
            Asked { since, priority, tenant, due_ms, uncached_tokens, output_tokens, has_paid };
        self.0.lock().push(Ticket(ticket), &asked);
    }

    #[doc = stub_doc!("TurnQueue.next")]
    fn next(&self, now_s: f64) -> Option<u64> {
        self.0.lock().next(time(now_s)).map(|ticket| ticket.0)
    }

    #[doc = stub_doc!("TurnQueue.served")]
    fn served(&self, ticket: u64) -> bool {
        self.0.lock().served(Ticket(ticket))
    }

    #[doc = stub_doc!("TurnQueue.remove")]
    fn remove(&self, ticket: u64) -> bool {
        self.0.lock().remove(Ticket(ticket))
    }

    fn __len__(&self) -> usize {
        self.0.lock().len()
    }
}

fn time(seconds: f64) -> Time {
    Time::from_millis_f64(seconds * 1e3)
}
